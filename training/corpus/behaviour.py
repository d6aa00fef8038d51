"""How the rendered people move: phonemes to lips, moods, nods, gaze and blinks.

Rules, for two people A and B who take turns:

Speaking
- Every phoneme asks for a mouth shape (viseme).  Neighbouring shapes overlap by about 50 ms on
  either side and are averaged, so the mouth glides (co-articulation).  Stressed vowels open wider.
- P, B and M close the lips fully in at least one frame, F and V bring the lower lip to the teeth:
  these shapes override the average.  In silence the lips rest closed.
- On stressed syllables, about every 1.2 s, the head dips a little and the brows rise.
- At the beginning of a turn the gaze wanders off for a moment, then returns to the partner.

Listening
- Within 0.1-0.3 s of the partner's phrase ends the head nods (most of the time).
- The partner's mood is mirrored with a delay of 0.4-0.8 s and less strength: smiles at happy
  turns, inner brows up and a slight frown at sad turns, raised brows at surprised ones.
- Gaze stays on the partner (the camera), with short saccades.

Always
- Slow random head drift, blinks every 2-5 s (one more at many turn ends), eyes turned against the
  head so that they keep looking at the camera.
- The mood's curves fade in and out over about 0.4 s; those that move the lips are held back while
  the lips must close.

Units: 25 frames a second, curves in [0, 1], angles in rad (yaw left, pitch down, roll).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from training.corpus.dialogues import EMOTIONS
from training.corpus.voice import Phoneme

FloatArray = NDArray[np.float32]
FRAME_RATE = 25
POSE_LIMITS = np.array([0.15, 0.10, 0.06])  # yaw, pitch, roll: soft limits

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
PAUSES = frozenset(".,!?;:—…<>")

SPEAKER_MOOD: dict[str, dict[str, float]] = {
    "neutral": {},
    "happy": {"mouthSmile": 0.50, "cheekSquint": 0.55, "eyeSquint": 0.25, "browOuterUp": 0.15},
    "sad": {"mouthFrown": 0.55, "browInnerUp": 0.85, "eyeSquint": 0.10, "mouthShrugLower": 0.15},
    "surprised": {"browInnerUp": 0.70, "browOuterUp": 0.75, "eyeWide": 0.65},
}
LISTENER_MOOD: dict[str, dict[str, float]] = {
    "neutral": {"mouthSmile": 0.06},
    "happy": {"mouthSmile": 0.55, "cheekSquint": 0.45, "eyeSquint": 0.15},
    "sad": {"mouthFrown": 0.35, "browInnerUp": 0.75, "browDown": 0.10},
    "surprised": {"browInnerUp": 0.45, "browOuterUp": 0.55, "eyeWide": 0.40},
}
LIP_CURVES = ("mouthSmile", "mouthFrown", "mouthShrugLower")


@dataclass(frozen=True)
class Turn:
    """One turn placed in time; all times in s from the start of the conversation."""

    speaker: str
    text: str
    emotion: str
    start: float
    end: float
    phonemes: list[Phoneme]

    @property
    def phrase_ends(self) -> list[float]:
        """Times at which a phrase ends: the pauses in the turn, and its end."""
        pauses = [p.start for p in self.phonemes if p.symbol in PAUSES]
        pauses = [time for time in pauses if time > self.start + 0.5]
        # Pauses that follow each other closely are one.
        ends: list[float] = []
        for time in [*pauses, self.end]:
            if not ends or time - ends[-1] > 0.5:
                ends.append(time)
        return ends


@dataclass(frozen=True)
class Mouthing:
    """Mouth shape wanted during [start, end] s, `strength` scales its curves."""

    viseme: str
    start: float
    end: float
    strength: float


@dataclass
class Motion:
    """What one person does: curves (T,52), pose (T,3), viseme (T,), emotion (T,), speaking (T,)."""

    curves: FloatArray
    pose: FloatArray
    viseme: NDArray[np.int64]
    emotion: NDArray[np.int64]
    speaking: NDArray[np.bool_]


@dataclass(frozen=True)
class CurveSet:
    """Turns named curve values into vectors over a fixed list of curve names."""

    names: tuple[str, ...]
    index: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", {name: i for i, name in enumerate(self.names)})

    def columns(self, name: str) -> list[int]:
        """Column numbers of a curve, both sides if the name has none."""
        sided = (name, f"{name}Left", f"{name}Right")
        found = [self.index[candidate] for candidate in sided if candidate in self.index]
        if not found:
            raise KeyError(f"no curve named {name}")
        return found

    def vector(self, values: dict[str, float]) -> FloatArray:
        """Curve vector (52,) with the named values and zeros elsewhere."""
        vector = np.zeros(len(self.names), np.float32)
        for name, value in values.items():
            vector[self.columns(name)] = value
        return vector


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


def frame_times(frames: int) -> NDArray[np.float64]:
    """Time of the middle of every frame, in s."""
    return (np.arange(frames) + 0.5) / FRAME_RATE


def _bump(times: NDArray[np.float64], start: float, end: float, margin: float) -> FloatArray:
    """1 in the middle of [start, end], falling smoothly to 0 at `margin` s outside of it."""
    half = max((end - start) / 2, 0.02) + margin
    ramp = np.clip(1.15 - np.abs(times - (start + end) / 2) / half, 0, 1)
    return (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)


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
        weight = _bump(times[near], shape.start, shape.end, 0.05)
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
        contact = np.maximum(contact, _bump(times, shape.start, shape.end, 0.015))
        middle = (shape.start + shape.end) / 2
        contact[min(int(middle * FRAME_RATE), len(times) - 1)] = 1
    return contact


def _smooth_noise(rng: np.random.Generator, frames: int, seconds: float) -> FloatArray:
    """Unit-variance noise (T,) that changes over about `seconds`."""
    sigma = seconds * FRAME_RATE / 2
    noise = gaussian_filter1d(rng.standard_normal(frames + 200), sigma)[100 : 100 + frames]
    return (noise * np.sqrt(2 * np.sqrt(np.pi) * sigma)).astype(np.float32)


def _mood_envelope(frames: int, start: float, end: float) -> FloatArray:
    times = frame_times(frames)
    active = ((times >= start) & (times < end)).astype(np.float32)
    return np.asarray(gaussian_filter1d(active, 0.16 * FRAME_RATE), np.float32)


def _moods(
    person: str, turns: list[Turn], closing: FloatArray, curve_set: CurveSet,
    rng: np.random.Generator,
) -> FloatArray:  # fmt: skip
    """Expression curves (T,52) of the own moods and of the partner's mirrored ones."""
    frames = len(closing)
    curves = np.zeros((frames, len(curve_set.names)), np.float32)
    for turn in turns:
        own = turn.speaker == person
        delay = 0.0 if own else rng.uniform(0.4, 0.8)
        mood = (SPEAKER_MOOD if own else LISTENER_MOOD)[turn.emotion]
        strength = rng.uniform(0.85, 1.1)
        envelope = _mood_envelope(frames, turn.start - 0.1 + delay, turn.end + 0.25 + delay)
        curves += strength * envelope[:, None] * curve_set.vector(mood)
    # A held expression varies a little.
    curves *= 1 + 0.12 * _smooth_noise(rng, frames, 1.0)[:, None]
    for name in LIP_CURVES:
        curves[:, curve_set.columns(name)] *= (1 - 0.75 * closing)[:, None]
    return np.clip(curves, 0, 1)


def _blinks(turns: list[Turn], frames: int, rng: np.random.Generator) -> FloatArray:
    closed = np.zeros(frames + 8, np.float32)
    starts = list(np.cumsum(rng.uniform(2.0, 5.0, size=frames // 50 + 2)) - 1.0)
    starts += [turn.end + rng.uniform(0, 0.2) for turn in turns if rng.random() < 0.4]
    for start in starts:
        frame = int(start * FRAME_RATE)
        if frame < frames:
            shape = np.array([0.35, 0.95, 1.0, 0.6, 0.2])
            closed[frame : frame + 5] = np.maximum(closed[frame : frame + 5], shape)
    return closed[:frames]


def _emphasis(
    person: str, turns: list[Turn], frames: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Head dips (T,) in rad and brow raises (T,) on stressed syllables of the own speech."""
    times = frame_times(frames)
    dips, brows = np.zeros(frames, np.float32), np.zeros(frames, np.float32)
    for turn in turns:
        if turn.speaker != person:
            continue
        last = -np.inf
        for phoneme in turn.phonemes:
            if phoneme.symbol != "ˈ" or phoneme.start - last < rng.uniform(0.8, 1.6):
                continue
            last = phoneme.start
            dips += rng.uniform(0.02, 0.05) * _bump(times, last, last + 0.2, 0.15)
            brows += rng.uniform(0.15, 0.4) * _bump(times, last - 0.05, last + 0.25, 0.15)
    return dips, np.clip(brows, 0, 0.5)


def _nods(person: str, turns: list[Turn], frames: int, rng: np.random.Generator) -> FloatArray:
    """Nodding pitch (T,) in rad at the partner's phrase ends."""
    times = frame_times(frames)
    pitch = np.zeros(frames, np.float32)
    for turn in turns:
        if turn.speaker == person:
            continue
        for phrase_end in turn.phrase_ends:
            if rng.random() > 0.8:
                continue
            start, cycles = phrase_end + rng.uniform(0.1, 0.3), rng.integers(1, 3)
            seconds = cycles / rng.uniform(1.7, 2.3)
            phase = np.clip((times - start) / seconds, 0, 1)
            # Down first; the second nod of a pair is weaker.
            wave = (1 - np.cos(2 * np.pi * cycles * phase)) / 2 * (1 - 0.4 * phase)
            pitch += (rng.uniform(0.06, 0.10) * wave).astype(np.float32)
    return pitch


def _pose(
    person: str, turns: list[Turn], speaking: NDArray[np.bool_], dips: FloatArray,
    rng: np.random.Generator,
) -> FloatArray:  # fmt: skip
    frames = len(speaking)
    energy = gaussian_filter1d(np.where(speaking, 1.0, 0.6), 8)
    drift = np.stack([_smooth_noise(rng, frames, seconds) for seconds in (1.4, 1.1, 1.6)], 1)
    pose = drift * np.array([0.055, 0.022, 0.024]) * energy[:, None]
    pose[:, 1] += dips + _nods(person, turns, frames, rng)
    for turn in turns:
        envelope = _mood_envelope(frames, turn.start, turn.end)
        if turn.emotion == "sad":
            pose[:, 1] += 0.03 * envelope
        elif turn.emotion == "surprised":
            pose[:, 1] -= 0.03 * envelope
    return (POSE_LIMITS * np.tanh(pose / POSE_LIMITS)).astype(np.float32)


def _gaze(person: str, turns: list[Turn], pose: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Gaze relative to the head (T,2): left and up, in units of the eyeLook curves."""
    frames = len(pose)
    gaze = np.zeros((frames, 2), np.float32)
    position = 0
    while position < frames:  # saccades about the partner's face
        length = int(rng.uniform(0.6, 2.0) * FRAME_RATE)
        gaze[position : position + length] = rng.normal(0, [0.05, 0.03])
        position += length
    times = frame_times(frames)
    for turn in turns:
        if turn.speaker == person and rng.random() < 0.65:
            away = (times > turn.start - 0.1) & (times < turn.start + rng.uniform(0.5, 1.2))
            gaze[away] = rng.choice([-1, 1]) * rng.uniform(0.25, 0.5), rng.uniform(-0.3, 0.25)
    # The eyes turn about 0.37 rad at full eyeLook weight: they undo two thirds of the head's turn.
    gaze[:, 0] -= pose[:, 0] / 0.6
    gaze[:, 1] += pose[:, 1] / 0.6
    return gaze


def _add_gaze(curves: FloatArray, gaze: FloatArray, curve_set: CurveSet) -> None:
    left, up = gaze[:, 0], gaze[:, 1]
    for name, value in {
        "eyeLookOutLeft": left, "eyeLookInRight": left, "eyeLookInLeft": -left,
        "eyeLookOutRight": -left, "eyeLookUp": up, "eyeLookDown": -up,
    }.items():  # fmt: skip
        for column in curve_set.columns(name):
            curves[:, column] = np.clip(value, 0, 0.7)


def person_motion(
    person: str, turns: list[Turn], frames: int, curve_set: CurveSet, rng: np.random.Generator
) -> Motion:
    """All motion of person "a" or "b" in a conversation of `frames` frames."""
    own_phonemes = [p for turn in turns if turn.speaker == person for p in turn.phonemes]
    lips, viseme, closing = lip_motion(own_phonemes, frames, curve_set)
    times = frame_times(frames)
    speaking, emotion = np.zeros(frames, bool), np.zeros(frames, np.int64)
    for turn in turns:
        speaking |= (times >= turn.start) & (times < turn.end) & (turn.speaker == person)
        emotion[times >= turn.start] = EMOTIONS.index(turn.emotion)
    dips, brows = _emphasis(person, turns, frames, rng)
    pose = _pose(person, turns, speaking, dips, rng)
    curves = lips + _moods(person, turns, closing, curve_set, rng)
    for name in ("browInnerUp", "browOuterUp"):
        curves[:, curve_set.columns(name)] += brows[:, None]
    blinks = _blinks(turns, frames, rng)[:, None]
    _add_gaze(curves, _gaze(person, turns, pose, rng), curve_set)
    # A blinking lid would be held open by the wide-eyed and doubled by the squinting shape.
    for name in ("eyeWide", "eyeSquint"):
        curves[:, curve_set.columns(name)] *= 1 - blinks
    curves[:, curve_set.columns("eyeBlink")] = blinks
    return Motion(np.clip(curves, 0, 1), pose, viseme, emotion, speaking)
