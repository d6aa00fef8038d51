"""This is where it is heard when somebody speaks, and how loud they are.

Voice activity is Silero VAD 6.2.3 (MIT), from its package, with its own defaults. Loudness is that
of EBU R 128 / ITU-R BS.1770-4 (pyloudnorm 0.2.0, MIT).
"""

from __future__ import annotations

import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyloudnorm

from training.corpus.prepare.source import Dropped
from visavis.config import FRAME_RATE_HZ, SAMPLE_RATE_HZ

PEAK = 0.98  # that no gain may exceed
MAX_GAIN_DB = 20.0  # more would bring up the room, not the voice
_MIN_SPEECH_S = 1.0  # whose loudness is worth measuring

Spans = list[tuple[float, float]]  # (start_s, end_s)


@cache
def _silero() -> Any:
    from silero_vad import load_silero_vad

    return load_silero_vad(onnx=True)


def voice_activity(voice: np.ndarray) -> Spans:
    """When a voice of (n,) float32 at 16 kHz is active."""
    import torch
    from silero_vad import get_speech_timestamps

    found = get_speech_timestamps(torch.from_numpy(voice), _silero())
    return [(span["start"] / SAMPLE_RATE_HZ, span["end"] / SAMPLE_RATE_HZ) for span in found]


def read_activity(path: Path) -> Spans | None:
    """The voice activity that a json of Seamless Interaction has; None when it has none."""
    try:
        spans = json.loads(path.read_text(encoding="utf-8")).get("metadata:vad")
        return None if spans is None else [(float(s["start"]), float(s["end"])) for s in spans]
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise Dropped(
            f'{path.name}: cannot be read ({error!r}), expected "metadata:vad" with a list of '
            '{"start", "end"}'
        ) from error


def active_frames(spans: Spans, frames: int) -> np.ndarray:
    """(T,) float32, 1 where a frame's middle lies in a span."""
    middles = (np.arange(frames) + 0.5) / FRAME_RATE_HZ
    active = np.zeros(frames, np.float32)
    for start_s, end_s in spans:
        active[(middles >= start_s) & (middles < end_s)] = 1
    return active


def loudness(voice: np.ndarray, spans: Spans) -> float | None:
    """Integrated loudness in LUFS of what is spoken; None when that is less than a second."""
    spoken = [
        voice[round(start_s * SAMPLE_RATE_HZ) : round(end_s * SAMPLE_RATE_HZ)]
        for start_s, end_s in spans
    ]
    speech = np.concatenate([*spoken, np.zeros(0, np.float32)])
    if len(speech) < _MIN_SPEECH_S * SAMPLE_RATE_HZ:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of speech below -70 LUFS, which comes out as -inf
        level = float(pyloudnorm.Meter(SAMPLE_RATE_HZ).integrated_loudness(speech))
    return level if np.isfinite(level) else None


def gain_db(voice: np.ndarray, level: float | None, target: float) -> float:
    """The gain that brings a voice of loudness `level` to `target` LUFS without clipping."""
    if level is None:
        return 0.0
    headroom = 20 * np.log10(PEAK / max(float(np.abs(voice).max(initial=0.0)), 1e-9))
    return float(min(np.clip(target - level, -MAX_GAIN_DB, MAX_GAIN_DB), headroom))
