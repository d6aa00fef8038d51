"""Geometry, framing and pictures of the heads."""

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the corpus extra (scipy) is not installed")

from training.corpus.head import HeadGeometry, Identity, curve_names, random_identity


def person(seed: int, gender: str = "female") -> Identity:
    return random_identity(f"person-{seed}", gender, np.random.default_rng(seed))


@pytest.mark.usefixtures("head_assets")
def test_there_are_52_curves() -> None:
    assert len(curve_names()) == 52
    assert {"jawOpen", "eyeBlinkLeft", "tongueOut"} <= set(curve_names())


@pytest.mark.usefixtures("head_assets")
@pytest.mark.parametrize("seed", range(4))
def test_aperture_follows_the_mouth_shapes(seed: int) -> None:
    from training.corpus.behaviour import VISEME_CURVES, CurveSet

    curve_set = CurveSet(curve_names())
    geometry = HeadGeometry(person(seed, ("female", "male")[seed % 2]))
    names = ("sil", "PP", "ih", "aa")
    curves = np.stack([curve_set.vector(VISEME_CURVES[name]) for name in names])
    silent, closed, narrow, wide = geometry.aperture(curves)
    assert silent < 0.01
    assert closed < 0.01
    assert closed < narrow < wide
    assert wide > 0.1


@pytest.mark.usefixtures("off_screen_graphics")
@pytest.mark.parametrize("seed", range(3))
def test_eyes_and_mouth_land_on_their_places(seed: int) -> None:
    from training.corpus.renderer import framed_projection, picture_position

    geometry = HeadGeometry(person(seed))
    matrix, _ = framed_projection(geometry)
    assert picture_position(matrix, geometry.eye_middle) == pytest.approx((0.5, 0.42), abs=1e-5)
    assert picture_position(matrix, geometry.mouth_centre()) == pytest.approx((0.5, 0.68), abs=1e-5)


@pytest.mark.usefixtures("off_screen_graphics")
def test_pictures_are_framed_and_the_mouth_opens_at_its_place() -> None:
    from training.corpus.renderer import HeadRenderer

    renderer = HeadRenderer(person(2), size=128, supersampling=1)
    curves = np.zeros(52, np.float32)
    neutral = renderer.render(curves, np.zeros(3, np.float32)).astype(int)
    curves[curve_names().index("jawOpen")] = 0.5
    opened = renderer.render(curves, np.zeros(3, np.float32)).astype(int)
    renderer.release()
    assert neutral.shape == (128, 128, 3)
    rows, columns = np.nonzero(np.abs(opened - neutral).sum(-1) > 60)
    assert columns.mean() == pytest.approx(64, abs=6)
    assert 0.65 * 128 < np.median(rows) < 0.9 * 128
