"""Phonemes to mouth shapes; needs no head assets."""

from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the corpus extra (scipy) is not installed")

from tests.corpus.curve_names import CURVES
from training.corpus.lips import (
    PHONEME_VISEMES,
    VISEME_CURVES,
    VISEMES,
    lip_motion,
    mouthings,
)
from training.corpus.voice import Phoneme
from visavis.config import FRAME_RATE_HZ

JAW = CURVES.index["jawOpen"]


def spoken(symbols: str, start: float = 0.2, length: float = 0.08) -> list[Phoneme]:
    """Phonemes of equal length."""
    pairs = pairwise(start + length * np.arange(len(symbols) + 1))
    return [Phoneme(s, float(a), float(b)) for s, (a, b) in zip(symbols, pairs, strict=True)]


@pytest.mark.parametrize("closing", ["p", "b", "m"])
@pytest.mark.parametrize("offset", [0.0, 0.013, 0.031])
def test_lips_close_in_p_b_m(closing: str, offset: float) -> None:
    phonemes = spoken(f"ɑ{closing}ɑ", start=0.2 + offset)
    curves, viseme, contact = lip_motion(phonemes, 20, CURVES)
    frame = int((phonemes[1].start + phonemes[1].end) / 2 * FRAME_RATE_HZ)
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
    for values in VISEME_CURVES.values():
        CURVES.vector(values)
