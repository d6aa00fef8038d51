"""This is where a trained size becomes a repository: `python -m export --help`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from export import repository as repositories
from export.networks import total_parameters, trained_networks
from export.onnx import export_network
from export.parity import Parity, compare
from visavis import checkpoint
from visavis.contract import contracts

# What a network's weights must be accompanied by, where they are not of our own training.
LICENCES = Path(__file__).parent / "licences"


def export(vae: Path, echo: Path, repository: Path) -> list[Parity]:
    """Write all networks of two checkpoints into `repository` and hold each against its network."""
    config, networks = trained_networks(vae, echo)
    facts = {
        "vae": dict(checkpoint.load(vae, "vae").manifest),
        "echo": dict(checkpoint.load(echo, "echo").manifest),
    }
    repositories.write(repository, config)
    parities = []
    for name, network in track(networks.items(), description="exporting"):
        version, licence = repository / name / "1", LICENCES / f"{name}.txt"
        if licence.exists():
            path = export_network(name, network, config, version, licence="see LICENSE")
            shutil.copyfile(licence, version / "LICENSE")
        else:
            trained = facts["vae" if name.startswith("vae") else "echo"]
            path = export_network(name, network, config, version, trained=trained)
        parities.append(compare(network, path, contracts(config)[name]))
    Console().print(f"{total_parameters(networks) / 1e6:.1f} million parameters")
    return parities


def table(parities: list[Parity]) -> Table:
    """The parities as a table."""
    columns = Table(title="torch against ONNX Runtime")
    for heading in ("model", "max abs error", "tolerance", "passed"):
        columns.add_column(heading)
    for parity in parities:
        columns.add_row(
            parity.model,
            f"{parity.max_abs_error:.2e}",
            f"{parity.tolerance:g}",
            "yes" if parity.passed else "NO",
        )
    return columns


def main(
    vae: Annotated[Path, typer.Option(help="checkpoint folder of the VAE")],
    echo: Annotated[Path, typer.Option(help="checkpoint folder of ECHO (stage 2, or stage 1)")],
    repository: Annotated[Path, typer.Option(help="where to write")] = Path("model_repository"),
) -> None:
    """Export, check parity, and check the repository against the contract."""
    parities = export(vae, echo, repository)
    Console().print(table(parities))
    problems = repositories.check(repository)
    for problem in problems:
        Console(stderr=True).print(problem, style="red")
    if problems or not all(parity.passed for parity in parities):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
