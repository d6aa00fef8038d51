"""Phonemes to mouth shapes, and the listener's manners; needs no head assets."""

from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the corpus extra (scipy) is not installed")

from training.corpus.behaviour import (
    FRAME_RATE,
    PHONEME_VISEMES,
    POSE_LIMITS,
    SPEAKER_MOOD,
    VISEME_CURVES,
    VISEMES,
    CurveSet,
    Turn,
    lip_motion,
    mouthings,
    person_motion,
)
from training.corpus.dialogues import EMOTIONS
from training.corpus.voice import Phoneme

SIDED = (
    "mouthPress", "mouthUpperUp", "mouthLowerDown", "mouthStretch", "mouthSmile", "mouthFrown",
    "cheekSquint", "eyeSquint", "eyeWide", "eyeBlink", "eyeLookIn", "eyeLookOut", "eyeLookUp",
    "eyeLookDown", "browOuterUp", "browDown",
)  # fmt: skip
SINGLE = (
    "jawOpen", "mouthRollUpper", "mouthRollLower", "mouthFunnel", "mouthPucker", "tongueOut",
    "mouthShrugLower", "browInnerUp",
)  # fmt: skip
CURVES = CurveSet(tuple(f"{name}{side}" for name in SIDED for side in ("Left", "Right")) + SINGLE)
JAW = CURVES.index["jawOpen"]


def spoken(symbols: str, start: float = 0.2, length: float = 0.08) -> list[Phoneme]:
    """Phonemes of equal length."""
    edges = start + length * np.arange(len(symbols) + 1)
    pairs = pairwise(edges)
    return [Phoneme(s, float(a), float(b)) for s, (a, b) in zip(symbols, pairs, strict=True)]


def conversation(emotion: str = "happy") -> list[Turn]:
    """One turn of person a, from 1 s to 3 s."""
    phonemes = spoken("mˈɑmə wˈɛnt hˈOm.", start=1.0, length=2.0 / 17)
    return [Turn("a", "Mamma went home.", emotion, 1.0, 3.0, phonemes)]


@pytest.mark.parametrize("closing", ["p", "b", "m"])
@pytest.mark.parametrize("offset", [0.0, 0.013, 0.031])
def test_lips_close_in_p_b_m(closing: str, offset: float) -> None:
    phonemes = spoken(f"ɑ{closing}ɑ", start=0.2 + offset)
    curves, viseme, contact = lip_motion(phonemes, 20, CURVES)
    frame = int((phonemes[1].start + phonemes[1].end) / 2 * FRAME_RATE)
    assert contact[frame] == 1
    np.testing.assert_allclose(curves[frame], CURVES.vector(VISEME_CURVES["PP"]), atol=1e-6)
    assert curves[:, JAW].max() > 0.3
    assert VISEMES[viseme[frame]] == "PP"


def test_mouth_rests_closed_in_silence() -> None:
    curves, viseme, _ = lip_motion(spoken("ɑ", start=1.0), 100, CURVES)
    assert not curves[:15].any()
    assert not curves[40:].any()
    assert not viseme[:15].any()


def test_stress_widens_the_vowel() -> None:
    stressed = mouthings(spoken("ˈɑ"))[0]
    plain = mouthings(spoken("ɑ"))[0]
    assert stressed.strength > plain.strength
    assert stressed.start == pytest.approx(0.2)  # the mark's time belongs to the vowel


def test_diphthong_passes_through_two_shapes() -> None:
    assert [shape.viseme for shape in mouthings(spoken("I"))] == ["aa", "ih"]


def test_all_names_exist() -> None:
    assert set(VISEME_CURVES) == set(VISEMES)
    assert {name for names in PHONEME_VISEMES.values() for name in names} <= set(VISEMES)
    for values in [*VISEME_CURVES.values(), *SPEAKER_MOOD.values()]:
        CURVES.vector(values)


def test_listener_keeps_lips_closed_and_mirrors_the_smile_later() -> None:
    turns, frames = conversation("happy"), 125
    speaker = person_motion("a", turns, frames, CURVES, np.random.default_rng(0))
    listener = person_motion("b", turns, frames, CURVES, np.random.default_rng(1))
    smile = CURVES.index["mouthSmileLeft"]
    starts = [int(np.argmax(m.curves[:, smile] > 0.2)) for m in (speaker, listener)]
    assert 5 <= starts[1] - starts[0] <= 27  # 0.4-0.8 s plus the variation of strength
    assert not listener.curves[:, JAW].any()
    assert speaker.speaking[30:70].all()
    assert not listener.speaking.any()
    assert (listener.emotion[25:] == EMOTIONS.index("happy")).all()


def test_listener_nods_after_the_phrase_end() -> None:
    turns, frames = conversation("neutral"), 125
    extra = np.zeros(frames)
    for seed in range(20):
        pitch = person_motion("b", turns, frames, CURVES, np.random.default_rng(seed)).pose[:, 1]
        extra += pitch / 20
    after = extra[3 * FRAME_RATE + 5 : 3 * FRAME_RATE + 20].max()
    assert after > extra[: 2 * FRAME_RATE].max() + 0.02


def test_poses_stay_moderate_and_curves_in_range() -> None:
    for seed in range(5):
        motion = person_motion("a", conversation(), 125, CURVES, np.random.default_rng(seed))
        assert (np.abs(motion.pose) <= POSE_LIMITS + 1e-6).all()
        assert motion.curves.min() >= 0
        assert motion.curves.max() <= 1


def test_blinks_come_every_few_seconds() -> None:
    motion = person_motion("b", [], 60 * FRAME_RATE, CURVES, np.random.default_rng(0))
    closed = motion.curves[:, CURVES.index["eyeBlinkLeft"]] > 0.9
    blinks = np.count_nonzero(np.diff(closed.astype(int)) == 1)
    assert 12 <= blinks <= 30
