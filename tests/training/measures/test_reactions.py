"""Reactions are timed, and emotions read, on motion made for it."""

import numpy as np
import pytest

from training.measures.emotion import EmotionReader, listening_windows
from training.measures.reactions import onsets, reaction_figures

ONSETS = (40, 120, 190)
T = 300


def reactions(delay, strength=1.0, channels=2):
    """A smooth rise and fall after every onset, later by `delay` frames."""
    motion = np.zeros((T, channels))
    bump = np.sin(np.linspace(0, np.pi, 30))
    for onset in ONSETS:
        motion[onset + 5 + delay :][:30, 0] += strength * bump
    return motion


def causes():
    names = np.full(T, "", dtype="<U16")
    for onset in ONSETS:
        names[onset : onset + 35] = "phrase end"
    return names


def test_onsets_are_beginnings():
    assert list(onsets(np.array(["", "a", "a", "b", "", "b"]))) == [1, 3, 5]
    assert list(onsets(np.array([2, 2, 0, 1]))) == [0, 3]


@pytest.mark.parametrize("delay", [-6, 0, 4, 15])
def test_the_delay_is_found_in_milliseconds(delay):
    figures = reaction_figures([reactions(delay)], [reactions(0)], [causes()])
    assert figures["reaction_delay_ms"] == 40 * delay
    assert figures["reaction_r"] == pytest.approx(1)
    assert figures["reaction_gain"] == pytest.approx(1)


def test_weak_reactions_have_a_small_gain_and_no_less_correlation():
    figures = reaction_figures([reactions(5, 0.25)], [reactions(0)], [causes()])
    assert figures["reaction_gain"] == pytest.approx(0.25)
    assert figures["reaction_r"] == pytest.approx(1)


def test_who_does_not_react_has_no_delay():
    still = reaction_figures([np.zeros((T, 2))], [reactions(0)], [causes()])
    assert still == {"reaction_r": 0, "reaction_gain": 0}
    elsewhere = np.zeros((T, 2))
    elsewhere[:, 1] = np.sin(np.arange(T))
    other = reaction_figures([elsewhere], [reactions(0)], [causes()])
    assert "reaction_delay_ms" not in other


def test_no_cause_no_figures():
    assert reaction_figures([reactions(0)], [reactions(0)], [np.full(T, "")]) == {}


def test_windows_are_whole_seconds_of_listening_with_one_emotion():
    motion = np.arange(100.0)[:, None]
    speaking = np.zeros(100, bool)
    speaking[30] = True
    emotions = np.array(["calm"] * 80 + ["sad"] * 20)
    windows, due = listening_windows(motion, emotions, speaking, 25)
    # the second window has speech and the last two emotions
    np.testing.assert_allclose(windows[:, 0], [12, 62])
    assert list(due) == ["calm", "calm"]


def test_the_reader_reads_what_it_was_shown_and_a_still_face_is_at_chance():
    generator = np.random.default_rng(0)

    def seconds(smile, emotion, count):
        return generator.normal((smile, 0), 0.3, (count, 2)), np.array([emotion] * count)

    train = [seconds(2, "happy", 30), seconds(-2, "sad", 10), seconds(0, "calm", 20)]
    test = [seconds(2, "happy", 5), seconds(-2, "sad", 50), seconds(0, "calm", 5)]
    reader = EmotionReader(train)
    agreement = reader.agreement(test)
    assert agreement is not None and agreement > 0.9
    still = [(np.zeros_like(windows), due) for windows, due in test]
    assert reader.agreement(still) == pytest.approx(1 / 3)
    assert reader.agreement([(np.zeros((0, 2)), np.array([], str))]) is None
    with pytest.raises(ValueError, match="expected two or more"):
        EmotionReader(train[:1])
