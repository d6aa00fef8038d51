"""Baselines show whom they say, swaps reach where they reach, and panes stand side by side."""

import numpy as np
import pytest

from training.data import Track
from training.measures import baselines, report
from training.measures.figures import GROUPS
from training.measures.montage import CAPTION, PANE, side_by_side
from training.measures.swap import regions, swap_figures

FRAMES = 6


@pytest.fixture
def people(tmp_path):
    """Two conversations; the left half of person n's frame t is 10 n + t."""
    folders = [tmp_path / f"conversation_{c:04d}" / p for c in (0, 1) for p in "ab"]
    for n, folder in enumerate(folders):
        folder.mkdir(parents=True)
        frames = np.zeros((FRAMES + 2, 8, 8, 3), np.uint8)
        frames[:, :, :4] = (10 * n + np.arange(FRAMES + 2))[:, None, None, None]
        np.save(folder / "frames.npy", frames)
    partners = [folders[n ^ 1] for n in range(4)]
    return [Track(*pair) for pair in zip(folders, partners, strict=True)]


def left(video):
    return [int(value) for value in video[:, 0, 0, 0]]


def test_every_baseline_shows_whom_it_says(people):
    systems = {s.name: s for s in baselines.baselines(people, people[:2], FRAMES)}
    assert left(systems["ground_truth"].video(1)) == [10, 11, 12, 13, 14, 15]
    assert left(systems["static_face"].video(1)) == [10] * FRAMES
    assert left(systems["shuffled"].video(1)) == [30, 31, 32, 33, 34, 35]
    assert left(systems["shuffled"].portrait(1)[None]) == [30]
    mirrored = systems["partner_mirrored"].video(1)
    assert left(mirrored) == [0] * FRAMES and left(mirrored[:, :, ::-1]) == [0, 1, 2, 3, 4, 5]
    assert left(systems["training_mean"].video(3)) == [5] * FRAMES  # of 0 and 10, one in 50
    assert {s.video(0).shape for s in systems.values()} == {(FRAMES, 8, 8, 3)}
    assert {s.kind for s in systems.values()} == {"baseline"}


def test_without_training_people_there_is_no_mean(people):
    assert "training_mean" not in [s.name for s in baselines.baselines(people, [], FRAMES)]


def test_one_conversation_cannot_be_shuffled(people):
    with pytest.raises(ValueError, match="at least two conversations"):
        baselines.others(people[:2])


def test_swaps_are_measured_where_they_are(people):
    place = regions(64)
    own = np.zeros((4, 64, 64, 3), np.uint8)
    voice, user = own.copy(), own.copy()
    voice[:, place["lower"]] = 30
    voice[:, place["upper"]] = 10
    user[:2, place["upper"]] = 12
    user[:2, place["mouth"]] = 4
    user[2:, place["upper"]] = user[2:, place["mouth"]] = 7
    speaking = np.array([True, True, False, False])
    figures = swap_figures(own, voice, user, speaking)
    assert figures["voice_swap_lower_over_upper"] == pytest.approx(3)
    assert figures["user_swap_upper_over_mouth_speaking"] == pytest.approx(3)
    assert figures["user_swap_upper_over_mouth_listening"] == pytest.approx(1)
    assert len(swap_figures(own, voice, user, speaking | True)) == 2


def test_panes_stand_side_by_side_under_their_names():
    videos = {f"system {n}": np.full((3 + n, 16, 16, 3), 50 * n, np.uint8) for n in range(5)}
    film = side_by_side(videos)
    assert film.shape == (3, 2 * (PANE + CAPTION), 4 * PANE, 3)
    assert film[2, CAPTION + 9, 2 * PANE + 9, 0] == 100  # the third
    assert film[2, PANE + 2 * CAPTION + 9, 9, 0] == 200  # the fifth, in the second row
    assert film[0, :CAPTION, :PANE].max() > 200  # its caption


def test_tables_have_a_row_a_system_and_say_what_is_absent():
    rows = {"one": {"mouth_r": 0.5, "fd_exp": -1e-9}, "two": {"mouth_r": 0.25}}
    text = report.markdown(rows, {"closure_pbm": "no `phoneme`"}, {"tracks": 2})
    lines = text.splitlines()
    assert "| system | mouth_r ↑ |" in lines and "| two | 0.250 |" in lines
    assert "| one | 0.000 |" in lines and "| two | – |" in lines
    assert "- `closure_pbm`: no `phoneme`" in lines and "tracks: 2" in lines
    assert "mouth_r_worst" not in text


def test_every_figure_is_named_once():
    names = [figure.name for figures in GROUPS.values() for figure in figures]
    assert len(names) == len(set(names)) and set(report.OVERVIEW) <= set(names)
