"""This is where phonemes become lip motion.

- Every phoneme asks for a mouth shape (viseme). Neighbouring shapes overlap by about 50 ms on
  either side and are averaged, so the mouth glides (co-articulation). Stressed vowels open wider.
- P, B and M close the lips fully in at least one frame, F and V bring the lower lip to the teeth:
  these shapes override the average. In silence the lips rest closed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.corpus.curves import CurveSet, FloatArray, bump, frame_times
from training.corpus.voice import Phoneme
from visavis.config import FRAME_RATE_HZ

VISEMES = (
    "sil", "PP", "FF", "TH", "DD", "kk", "CH", "SS", "nn", "RR", "aa", "E", "ih", "oh", "ou",
)  # fmt: skip
# Curve names without Left/Right stand for both sides.
VISEME_CURVES: dict[str, dict[str, float]] = {
    "sil": {},
    "PP": {"mouthPress": 0.35, "mouthRollUpper": 0.40, "mouthRollLower": 0.45},
    "FF": {"jawOpen": 0.05, "mouthRollLower": 0.60, "mouthUpperUp": 0.30},
    "TH": {"jawOpen": 0.16, "tongueOut": 0.40, "mouthLowerDown": 0.20},
    "DD": {"jawOpen": 0.14, "mouthLowerDown": 0.20, "mouthUpperUp": 0.05},
    "kk": {"jawOpen": 0.20, "mouthLowerDown": 0.10, "mouthUpperUp": 0.05},
    "CH": {"jawOpen": 0.10, "mouthFunnel": 0.55, "mouthPucker": 0.20},
    "SS": {"jawOpen": 0.06, "mouthStretch": 0.25, "mouthLowerDown": 0.30, "mouthUpperUp": 0.12},
    "nn": {"jawOpen": 0.13, "mouthLowerDown": 0.16},
    "RR": {"jawOpen": 0.14, "mouthPucker": 0.35, "mouthFunnel": 0.30},
    "aa": {"jawOpen": 0.52, "mouthLowerDown": 0.25, "mouthUpperUp": 0.15},
    "E": {"jawOpen": 0.30, "mouthStretch": 0.32, "mouthLowerDown": 0.28, "mouthUpperUp": 0.18},
    "ih": {"jawOpen": 0.16, "mouthStretch": 0.40, "mouthLowerDown": 0.26, "mouthUpperUp": 0.14},
    "oh": {"jawOpen": 0.36, "mouthFunnel": 0.65, "mouthLowerDown": 0.10},
    "ou": {"jawOpen": 0.13, "mouthPucker": 0.75, "mouthFunnel": 0.25},
}
VOWELS = frozenset({"aa", "E", "ih", "oh", "ou"})
# Kokoro's alphabet is IPA plus capitals for diphthongs, which pass through two shapes.
_VISEME_SYMBOLS = {
    "PP": "pbm", "FF": "fv", "TH": "θð", "DD": "tdTɾ", "kk": "kɡgŋh", "CH": "ʃʒʧʤ",
    "SS": "sz", "nn": "nl", "RR": "ɹr", "aa": "ɑaæʌɐ", "E": "ɛəɜᵊ", "ih": "iɪᵻj",
    "oh": "ɔɒ", "ou": "uʊwo",
}  # fmt: skip
PHONEME_VISEMES: dict[str, tuple[str, ...]] = {
    **{symbol: (name,) for name, symbols in _VISEME_SYMBOLS.items() for symbol in symbols},
    "A": ("E", "ih"),
    "I": ("aa", "ih"),
    "O": ("oh", "ou"),
    "W": ("aa", "ou"),
    "Y": ("oh", "ih"),
}
WEAK_VOWELS = frozenset("əᵊᵻɐ")
STRESS_MARKS = frozenset("ˈˌ")


@dataclass(frozen=True)
class Mouthing:
    """Mouth shape wanted during [start, end] s, `strength` scales its curves."""

    viseme: str
    start: float
    end: float
    strength: float


def mouthings(phonemes: list[Phoneme]) -> list[Mouthing]:
    """Mouth shapes of a phoneme sequence; stress marks widen the next vowel."""
    shapes: list[Mouthing] = []
    stress, pending_start = "", None
    for phoneme in phonemes:
        if phoneme.symbol in STRESS_MARKS:
            stress, pending_start = phoneme.symbol, phoneme.start
            continue
        names = PHONEME_VISEMES.get(phoneme.symbol)
        if names is None:
            continue
        start = phoneme.start if pending_start is None else pending_start
        pending_start = None
        strength = 1.0
        if names[0] in VOWELS:
            strength = {"ˈ": 1.15, "ˌ": 1.05}.get(stress, 0.9)
            strength = 0.75 if phoneme.symbol in WEAK_VOWELS and not stress else strength
            stress = ""
        edges = np.linspace(start, phoneme.end, len(names) + 1)
        for name, left, right in zip(names, edges[:-1], edges[1:], strict=True):
            shapes.append(Mouthing(name, float(left), float(right), strength))
    return shapes


def lip_motion(
    phonemes: list[Phoneme], frames: int, curve_set: CurveSet
) -> tuple[FloatArray, NDArray[np.int64], FloatArray]:
    """Curves (T,52), viseme index (T,) and how much the lips must close (T,) in [0,1]."""
    times = frame_times(frames)
    curves = np.zeros((frames, len(curve_set.names)), np.float32)
    total = np.zeros(frames, np.float32)
    viseme = np.zeros(frames, np.int64)
    shapes = mouthings(phonemes)
    for shape in shapes:
        near = slice(*np.searchsorted(times, (shape.start - 0.15, shape.end + 0.15)))
        weight = bump(times[near], shape.start, shape.end, 0.05)
        target = curve_set.vector(VISEME_CURVES[shape.viseme]) * shape.strength
        curves[near] += weight[:, None] * target
        total[near] += weight
        viseme[(times >= shape.start) & (times < shape.end)] = VISEMES.index(shape.viseme)
    curves /= np.maximum(total, 1)[:, None]
    closing = np.zeros(frames, np.float32)
    for name in ("FF", "PP"):  # PP last: a closed mouth wins
        contact = _contact(shapes, name, times)
        target = curve_set.vector(VISEME_CURVES[name])
        curves += (target - curves) * contact[:, None]
        closing = np.maximum(closing, contact)
    return curves, viseme, closing


def _contact(shapes: list[Mouthing], name: str, times: NDArray[np.float64]) -> FloatArray:
    """How much a lip contact overrides other shapes (T,): exactly 1 in one frame per phoneme."""
    contact = np.zeros(len(times), np.float32)
    for shape in shapes:
        if shape.viseme != name or not len(times):
            continue
        contact = np.maximum(contact, bump(times, shape.start, shape.end, 0.015))
        middle = (shape.start + shape.end) / 2
        contact[min(int(middle * FRAME_RATE_HZ), len(times) - 1)] = 1
    return contact
