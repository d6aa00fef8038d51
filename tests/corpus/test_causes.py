"""Reactions and what sways them: hand-computed weights, and the rules' directions."""

import numpy as np
import pytest

from training.corpus.causes import (
    AUDIBLE_LAUGH,
    CAUSES,
    CONTEXTS,
    REACTIONS,
    RELIEF,
    SHARE_OF_LISTENER,
    SWAY,
    TIME_CONSTANT_S,
    TURN_REACTIONS,
    Memory,
    Reaction,
    sway,
    to_phrase_end,
    to_punchline,
    to_turn,
)


def test_all_names_are_known() -> None:
    assert set(SWAY) <= set(REACTIONS)
    assert set(TIME_CONSTANT_S) == set(CONTEXTS) - {"none"}
    assert all(set(gains) <= set(CONTEXTS) for gains in SWAY.values())
    assert set(TURN_REACTIONS.values()) <= set(REACTIONS)
    assert {f"{emotion}_turn" for emotion in TURN_REACTIONS} <= set(CAUSES)


def test_news_fades_and_weighs_more_on_who_tells_it() -> None:
    memory = Memory()
    memory.news("bad_news", 10.0, teller="a")
    assert memory.weight("bad_news", "a", 9.9) == 0
    assert memory.weight("bad_news", "a", 10.0) == 1
    later = 10.0 + TIME_CONSTANT_S["bad_news"]
    assert memory.weight("bad_news", "a", later) == pytest.approx(np.exp(-1))
    assert memory.weight("bad_news", "b", later) == pytest.approx(SHARE_OF_LISTENER * np.exp(-1))
    assert memory.weight("good_news", "a", later) == 0


def test_relief_takes_weight_away_from_then_on_only() -> None:
    memory = Memory()
    memory.news("bad_news", 0.0, teller="a")
    before = memory.weight("bad_news", "a", 20.0)
    memory.relieve(30.0)
    assert memory.weight("bad_news", "a", 20.0) == before
    assert memory.weight("bad_news", "a", 30.0) == pytest.approx(RELIEF * np.exp(-30 / 50))


def test_sway_multiplies_and_names_the_context() -> None:
    memory = Memory()
    memory.news("bad_news", 5.0, teller="b")
    laugh = Reaction("b", "laugh", "joke", 30.0, 30.0, 31.0, 1.0)
    weight = memory.weight("bad_news", "b", 30.0)
    swayed = sway(laugh, memory)
    assert swayed.strength == pytest.approx(1 + SWAY["laugh"]["bad_news"] * weight)
    assert (swayed.context, swayed.context_time) == ("bad_news", 5.0)
    assert sway(laugh, Memory()) == laugh


def test_bad_news_sobers_a_later_joke() -> None:
    """The same joke, the same dice, another past."""
    sober, merry = Memory(), Memory()
    sober.news("bad_news", 10.0, teller="a")
    for seed in range(20):
        after_bad = to_punchline("b", 25.0, sober, np.random.default_rng(seed))
        plain = to_punchline("b", 25.0, merry, np.random.default_rng(seed))
        assert plain.kind == "laugh"
        assert plain.strength > AUDIBLE_LAUGH
        assert after_bad.strength < 0.6 * plain.strength
        assert after_bad.start == plain.start
        assert after_bad.context == "bad_news"


def test_interrupted_people_nod_less() -> None:
    offended = Memory()
    offended.interruption(0.0, victim="a")
    generator = np.random.default_rng(0)
    nods = [
        sum(to_phrase_end("a", 1.0, memory, generator) is not None for _ in range(400))
        for memory in (Memory(), offended)
    ]
    assert 270 < nods[0] < 330
    assert nods[1] < 0.7 * nods[0]


def test_news_is_named_as_cause() -> None:
    generator = np.random.default_rng(1)
    (concern,) = to_turn("b", "sad", "bad_news", 2.0, 4.0, Memory(), generator)
    assert (concern.kind, concern.cause) == ("concern", "bad_news")
    assert 2.3 <= concern.start <= 2.7
    assert concern.end > 4.0
