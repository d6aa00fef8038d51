"""This is where a finished conversation becomes a film: two pictures side by side, two voices.

The user is on the left and the avatar on the right. Both voices are heard in both ears, each a
little stronger on its own side: a voice on one channel only is lost on a mono loudspeaker and
unpleasant in headphones.
"""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from visavis.config import FRAME_RATE_HZ, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from visavis_client._errors import MediaError

_NEAR, _FAR = 0.85, 0.45  # gains of a voice on its own side and on the other
_FILM_RATE_HZ = 48_000  # every player takes AAC at this rate
_WAVE_FRAMES = 50  # 2 s on show
_BACKGROUND, _WAVE, _TEXT = (24, 27, 34), (96, 160, 220), (230, 232, 236)


def mix_voices(user_audio: np.ndarray | None, avatar_audio: np.ndarray) -> np.ndarray:
    """(n, 2) float32 of both voices, as long as the avatar's. Alone, it is in the middle."""
    if user_audio is None:
        return np.stack([avatar_audio, avatar_audio], axis=1)
    user = np.zeros_like(avatar_audio)
    n = min(len(user), len(user_audio))
    user[:n] = user_audio[:n]
    left = _NEAR * user + _FAR * avatar_audio
    right = _FAR * user + _NEAR * avatar_audio
    return np.clip(np.stack([left, right], axis=1), -1.0, 1.0)


class VoicePanel:
    """The picture of a person who is heard and not seen: a name over the last 2 s of the voice."""

    def __init__(self, name: str, audio: np.ndarray | None, size: int) -> None:
        self._size = size
        frames = 0 if audio is None else len(audio) // SAMPLES_PER_FRAME
        voiced = np.zeros(0) if audio is None else audio[: frames * SAMPLES_PER_FRAME]
        self._peaks = np.abs(voiced.reshape(frames, SAMPLES_PER_FRAME)).max(axis=1, initial=0.0)
        self._card = self._named_card(name)

    def frame(self, index: int) -> np.ndarray:
        """(S, S, 3) uint8 at video frame `index`."""
        card = self._card.copy()
        draw = ImageDraw.Draw(card)
        middle, step = 0.55 * self._size, self._size / _WAVE_FRAMES
        for i in range(_WAVE_FRAMES):
            at = index - _WAVE_FRAMES + 1 + i
            peak = self._peaks[at] if 0 <= at < len(self._peaks) else 0.0
            half = max(0.5, 0.3 * self._size * float(peak))
            x = (i + 0.5) * step
            draw.line([(x, middle - half), (x, middle + half)], _WAVE, max(1, round(step / 2)))
        return np.asarray(card)

    def _named_card(self, name: str) -> Image.Image:
        card = Image.new("RGB", (self._size, self._size), _BACKGROUND)
        font = ImageFont.load_default(size=max(10, self._size // 12))
        place = (self._size / 2, 0.16 * self._size)
        ImageDraw.Draw(card).text(place, name, _TEXT, font, anchor="mm")
        return card


class FilmWriter:
    """Writes an MP4 of H.264 and AAC, 25 frames a second, with the sound in step.

    audio: (n,) or (n, 2) float32 at 16 kHz. size: (width, height) of every frame. The sound is
    written along with the frames and ends with the last of them. MediaError when the file cannot be
    written.
    """

    def __init__(self, path: str | os.PathLike[str], size: tuple[int, int], audio: np.ndarray):
        self._stereo = np.stack([audio, audio], axis=1) if audio.ndim == 1 else audio
        self._frames = 0
        try:
            Path(path).open("wb").close()  # FFmpeg would complain at the first frame only
        except OSError as error:
            raise MediaError(
                f"{path}: cannot be written ({error.strerror}); check that the folder exists and "
                "is yours"
            ) from error
        self._container = av.open(str(path), "w", format="mp4")
        self._video = self._container.add_stream(
            "libx264", rate=FRAME_RATE_HZ, options={"crf": "18", "preset": "veryfast"}
        )
        self._video.width, self._video.height = (side + side % 2 for side in size)
        self._video.pix_fmt = "yuv420p"
        self._audio = self._container.add_stream("aac", rate=_FILM_RATE_HZ, layout="stereo")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def write(self, image: np.ndarray) -> None:
        """The next (H, W, 3) uint8 frame, and the sound that belongs to it."""
        height, width = image.shape[:2]
        even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        picture.pts, picture.time_base = self._frames, Fraction(1, FRAME_RATE_HZ)
        self._container.mux(self._video.encode(picture))
        self._container.mux(self._audio.encode(self._sound(self._frames)))
        self._frames += 1

    def close(self) -> None:
        """Finish the file; what was written so far can be played."""
        if self._frames:
            self._container.mux(self._video.encode(None))
            self._container.mux(self._audio.encode(None))
        self._container.close()

    def _sound(self, frame: int) -> av.AudioFrame:
        start = frame * SAMPLES_PER_FRAME
        part = np.zeros((2, SAMPLES_PER_FRAME), np.float32)
        samples = self._stereo[start : start + SAMPLES_PER_FRAME].T
        part[:, : samples.shape[1]] = samples
        sound = av.AudioFrame.from_ndarray(part, format="fltp", layout="stereo")
        sound.sample_rate = SAMPLE_RATE_HZ
        sound.pts, sound.time_base = start, Fraction(1, SAMPLE_RATE_HZ)
        return sound
