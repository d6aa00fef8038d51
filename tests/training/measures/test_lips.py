"""Lips: closures, rest and correlation on apertures written out by hand."""

import numpy as np
import pytest

from training.measures import lips

OPEN, SHUT = 0.10, 0.01


def test_bilabials_are_found_whatever_their_case_and_stress():
    phonemes = np.array(["", "P", "P", "ə", "b", "m", "ˈm", "s", "B", ""])
    assert lips.bilabials(phonemes) == [slice(1, 3), slice(4, 5), slice(5, 7), slice(8, 9)]
    assert lips.bilabials(np.array(["p", "p"])) == [slice(0, 2)]


def test_closure_is_a_shut_frame_within_or_next_to_the_phoneme():
    measured = np.array([SHUT, OPEN, OPEN, OPEN, OPEN, OPEN, SHUT, OPEN, np.nan, OPEN])
    places = [slice(1, 2), slice(3, 4), slice(5, 6), slice(8, 9)]
    assert list(lips.closures(measured, places, 0.02)) == [True, False, True, False]


def test_the_limit_lies_between_the_resting_and_the_speaking_mouth():
    speaking = np.repeat([False, True], [30, 20])
    reference = np.where(speaking, OPEN, SHUT)
    assert lips.closed_limit(reference, speaking) == pytest.approx(0.01 + 0.15 * 0.09)
    assert lips.closed_limit(reference, np.zeros(50, bool)) is None
    assert lips.closed_limit(np.full(50, np.nan), speaking) is None


def test_silence_keeps_its_distance_from_speech():
    speaking = np.zeros(20, bool)
    speaking[10] = True
    assert list(np.flatnonzero(~lips.silent(speaking))) == list(range(5, 16))


def test_rest_is_what_the_true_video_rests_at():
    quiet = np.array([True] * 4 + [False])
    reference = np.array([0.01, 0.01, 0.01, 0.01, 0.2])
    measured = np.array([0.0, 0.029, 0.04, np.nan, 0.01])
    assert lips.rest_share(measured, reference, quiet) == pytest.approx(2 / 4)
    assert lips.rest_share(measured, reference, np.zeros(5, bool)) is None


def test_correlation_is_over_frames_with_a_face():
    measured = np.array([1.0, np.nan, 2.0, 3.0])
    assert lips.aperture_correlation(measured, np.array([2, 9, 4, 6])) == pytest.approx(1)
    assert lips.aperture_correlation(np.full(4, np.nan), np.arange(4)) == 0


def test_a_mouth_that_moves_half_as_far_has_half_the_amplitude():
    reference = np.array([0.0, 0.1, 0.05, 0.0, 0.1, np.nan])
    measured = np.array([0.02, 0.07, 0.045, 0.02, 0.07, 0.9])
    assert lips.amplitude(measured, reference) == pytest.approx(0.5)
    assert lips.amplitude(reference, reference) == 1
    assert lips.amplitude(measured, np.full(6, 0.03)) is None
    assert lips.amplitude(np.full(6, np.nan), reference) is None
