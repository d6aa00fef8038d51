"""Geometry, framing and pictures of the heads."""

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the corpus extra (scipy) is not installed")

from scipy.spatial import KDTree

from training.corpus.head import (
    SKIN_END,
    HeadGeometry,
    Identity,
    curve_names,
    dressed,
    load_base_mesh,
    random_identity,
)


def person(seed: int, gender: str = "female") -> Identity:
    return random_identity(f"person-{seed}", gender, np.random.default_rng(seed))


@pytest.mark.usefixtures("head_assets")
def test_there_are_52_curves() -> None:
    assert len(curve_names()) == 52
    assert {"jawOpen", "eyeBlinkLeft", "tongueOut"} <= set(curve_names())


@pytest.mark.usefixtures("head_assets")
def test_faces_are_cut_alike_on_both_sides() -> None:
    mesh = load_base_mesh()
    mirrored = np.asarray(KDTree(mesh.vertices).query(mesh.vertices * [-1, 1, 1])[1])
    skin = mesh.faces[(mesh.faces < SKIN_END).all(1)]
    edges = {frozenset(pair) for face in skin for pair in zip(face, np.roll(face, 1), strict=True)}
    other = {frozenset(mirrored[list(edge)]) for edge in edges}
    assert len(edges & other) > 0.995 * len(edges)


@pytest.mark.usefixtures("head_assets")
@pytest.mark.parametrize("seed", range(4))
def test_aperture_follows_the_mouth_shapes(seed: int) -> None:
    from training.corpus.curves import CurveSet
    from training.corpus.lips import VISEME_CURVES

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
    from training.corpus.renderer import PART_MAP_SIZE, PARTS, HeadRenderer

    renderer = HeadRenderer(person(2), size=128, supersampling=1)
    curves = np.zeros(52, np.float32)
    neutral, closed_parts = renderer.render(curves, np.zeros(3, np.float32))
    curves[curve_names().index("jawOpen")] = 0.5
    opened, open_parts = renderer.render(curves, np.zeros(3, np.float32))
    renderer.release()
    assert neutral.shape == (128, 128, 3)
    difference = np.abs(opened.astype(int) - neutral.astype(int)).sum(-1)
    rows, columns = np.nonzero(difference > 60)
    assert columns.mean() == pytest.approx(64, abs=6)
    assert 0.65 * 128 < np.median(rows) < 0.9 * 128

    assert open_parts.shape == (PART_MAP_SIZE, PART_MAP_SIZE)
    lips, mouth = PARTS.index("lips"), PARTS.index("mouth")
    rows, columns = np.nonzero(closed_parts == lips)
    assert rows.mean() / PART_MAP_SIZE == pytest.approx(0.68, abs=0.04)
    assert columns.mean() / PART_MAP_SIZE == pytest.approx(0.5, abs=0.04)
    assert (open_parts == mouth).sum() > (closed_parts == mouth).sum() + 10
    assert {PARTS.index("skin"), PARTS.index("clothes")} <= set(np.unique(open_parts))


@pytest.mark.usefixtures("off_screen_graphics")
@pytest.mark.parametrize("seed", range(2))
def test_nobody_has_bare_shoulders(seed: int) -> None:
    from training.corpus.renderer import PARTS, HeadRenderer

    renderer = HeadRenderer(person(seed), size=128, supersampling=1)
    _, parts = renderer.render(np.zeros(52, np.float32), np.zeros(3, np.float32))
    renderer.release()
    sides = np.concatenate([parts[-3:, :12], parts[-3:, -12:]], 1)
    assert (sides != PARTS.index("skin")).all()
    assert (sides == PARTS.index("clothes")).any()


@pytest.mark.usefixtures("head_assets")
@pytest.mark.parametrize("name", ["crop", "curly", "long"])
def test_hair_grows_on_the_scalp_and_stays_out_of_the_face(name: str) -> None:
    from training.corpus.hair import LONGEST_STEP, STEPS, STRIPS, STYLES, grow
    from training.corpus.skin import paint

    identity = person(1)
    geometry = HeadGeometry(identity)
    rng = np.random.default_rng(0)
    grows = paint(identity).grows
    mesh = grow(STYLES[name], geometry.neutral, geometry.eye_middle, grows, 0.2, rng)
    strips = len(mesh.positions) // ((STEPS + 1) * 2)
    assert 0.9 * STRIPS < strips <= STRIPS  # those that would cross the face are left out
    assert mesh.positions.shape == (strips * (STEPS + 1) * 2, 3)
    assert mesh.faces.shape == (strips * STEPS * 2, 3)
    assert mesh.faces.max() == len(mesh.positions) - 1
    ends = mesh.positions.reshape(strips, STEPS + 1, 2, 3).mean(2)
    assert np.linalg.norm(np.diff(ends, axis=1), axis=2).max() < LONGEST_STEP
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-4)
    np.testing.assert_allclose((mesh.normals * mesh.tangents).sum(1), 0, atol=1e-4)
    local = mesh.positions - geometry.eye_middle
    before_eyes = (np.abs(local[:, 0]) < 0.5) & (np.abs(local[:, 1]) < 0.05) & (local[:, 2] > -0.5)
    assert not before_eyes.any()


def test_another_day_brings_other_clothes_but_the_same_face() -> None:
    today = person(4)
    tomorrow = dressed(today, np.random.default_rng(9))
    assert tomorrow.clothes != today.clothes
    same = ("name", "local", "race", "skin", "hair", "hair_style", "iris", "texture_seed")
    assert all(getattr(today, field) == getattr(tomorrow, field) for field in same)
