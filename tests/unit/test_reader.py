"""The built-in reader tells plain cases apart, and bears whatever is said."""

import numpy as np
import pytest

from visavis.affect import EMOTIONS
from visavis.reader import WordVectors, built_in, marks


def likeliest(text):
    found = built_in()(text)
    return max(found, key=lambda emotion: found[emotion])


@pytest.mark.parametrize(
    ("text", "emotion"),
    [
        ("The train leaves at nine from platform two.", "neutral"),
        ("I am so happy for you, that is wonderful.", "happy"),
        ("My grandmother died last night.", "sad"),
        ("Is your father all right? I am worried about him.", "concerned"),
        ("What? You sold the house? I had no idea!", "surprised"),
        ("They charged me twice, and nobody answers. It makes me furious!", "angry"),
    ],
)
def test_plain_cases_are_read(text, emotion):
    assert likeliest(text) == emotion


@pytest.mark.parametrize("text", ["", "   ", "…", "42!", "Zxqvy wprrt?", "DON’T " * 500, "日本語"])
def test_whatever_is_said_has_probabilities(text):
    found = built_in()(text)
    assert set(found) == set(EMOTIONS)
    assert sum(found.values()) == pytest.approx(1) and min(found.values()) >= 0


def test_where_nothing_is_said_nothing_is_shown():
    assert built_in()("…") == {emotion: float(emotion == "neutral") for emotion in built_in()("")}


def test_features_are_a_direction_and_marks():
    words = WordVectors({"up": 0, "right": 1}, np.array([[0.0, 3.0], [4.0, 0.0]], np.float32))
    assert words.features("Up right")[:2] == pytest.approx([0.8, 0.6])
    assert words.features("up")[:2] == pytest.approx(words.features("UP up")[:2])
    assert not words.features("down")[:2].any()
    assert marks("Don't you go?")[:3].tolist() == [1, 0, 1]
    assert marks("Go!")[:3].tolist() == [0, 1, 0]
