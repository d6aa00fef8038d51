"""A listening face is compared with the true one by how long ago the latest news were."""

import numpy as np
import pytest

from training.measures.reach import news_age_s, reach_figures

T = 1000  # 40 s
NEWS = 250  # when they are told


def causes(**told):
    """Who reacts to what for a second, from a frame on."""
    names = np.full(T, "", dtype="<U16")
    for cause, frame in told.items():
        names[frame : frame + 25] = cause
    return names


def worry(known_s=np.inf):
    """Brows (T, 2) that stay raised after the news for as long as they are known."""
    motion = np.zeros((T, 2))
    motion[NEWS : int(min(NEWS + known_s * 25, T)), 0] = 1.0
    motion[:, 1] = np.sin(np.arange(T) / 40)
    return motion


def test_news_age_from_the_first_reaction_of_either():
    age = news_age_s(causes(phrase_end=100, bad_news=NEWS), causes(good_news=500))
    assert np.isinf(age[: NEWS - 1]).all()
    assert list(age[[NEWS, NEWS + 25, 499, 500, 525]]) == [0, 1, 9.96, 0, 1]
    assert np.isinf(news_age_s(causes(phrase_end=100))).all()


def test_who_forgets_is_less_like_the_truth_from_then_on():
    silent, age = np.zeros(T, bool), news_age_s(causes(bad_news=NEWS))
    knows = reach_figures([3 * worry()], [worry()], [silent], [age])
    counts = {name: reach.count for name, reach in knows.items()}
    assert counts == {"before": 10, "0-10": 10, "10-20": 10, "20+": 10}
    assert [reach.r for reach in knows.values()] == [pytest.approx(1)] * 4
    forgets = reach_figures([worry(known_s=10)], [worry()], [silent], [age])
    assert forgets["0-10"].r > 0.8
    assert all(forgets[late].r < knows[late].r - 0.2 for late in ("10-20", "20+"))


def test_what_is_spoken_does_not_count():
    speaking = np.zeros(T, bool)
    speaking[NEWS + 60] = True  # of the third second after the news
    age = news_age_s(causes(bad_news=NEWS))
    assert reach_figures([worry()], [worry()], [speaking], [age])["0-10"].count == 9
    assert reach_figures([worry()], [worry()], [~np.zeros(T, bool)], [age]) == {}
