"""This is where weights and assets are found that come inside Python packages, not from a hub."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def package_folder(what: str, package: str, requirement: str, extra: str) -> Path:
    """The folder of an installed package, found without importing it.

    FileNotFoundError says that `what` needs `requirement`, which our `extra` installs.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            f"{what}: got no package {package!r}, expected {requirement}; "
            f"install the extra: pip install 'visavis[{extra}]'"
        )
    return Path(spec.origin).parent
