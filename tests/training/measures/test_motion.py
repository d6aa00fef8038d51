"""Motion vectors: a known face, moved in known ways, and a real one."""

import numpy as np
import pytest
from skimage import data
from visavis_client.face import Alignment, FaceFinder

from training.measures import motion


@pytest.fixture(scope="module")
def points():
    """(1, 468, 2): the places that are read, 200 pixels between the outer eye corners."""
    found = np.zeros((1, motion.POINTS, 2))
    for number, place in {
        motion.EYES_OUTER[0]: (100, 100),
        motion.EYES_OUTER[1]: (300, 100),
        motion.EYES_INNER[0]: (160, 100),
        motion.EYES_INNER[1]: (240, 100),
        motion.EYE_TOPS[0]: (130, 90),
        motion.EYE_TOPS[1]: (270, 90),
        motion.EYE_BOTTOMS[0]: (130, 110),
        motion.EYE_BOTTOMS[1]: (270, 110),
        motion.BROWS_INNER[0]: (160, 70),
        motion.BROWS_INNER[1]: (240, 70),
        motion.BROWS_OUTER[0]: (100, 75),
        motion.BROWS_OUTER[1]: (300, 75),
        motion.TEMPLES[0]: (60, 110),
        motion.TEMPLES[1]: (340, 110),
        motion.NOSE_TIP: (200, 180),
        motion.NOSE_BASE: (200, 200),
        motion.LIP_LEFT: (150, 250),
        motion.LIP_RIGHT: (250, 250),
        motion.UPPER_EDGE: (200, 230),
        motion.UPPER_LIP: (200, 250),
        motion.LOWER_LIP: (200, 250),
        motion.LOWER_EDGE: (200, 270),
        motion.CHIN: (200, 340),
        motion.FOREHEAD: (200, 20),
    }.items():
        found[0, number] = place
    return found


def moved(points, **places):
    """The same face with some points shifted by (x, y) pixels."""
    result = points.copy()
    for name, shift in places.items():
        result[0, getattr(motion, name)] += shift
    return result


def only(streams, stream, expected):
    """Exactly the expected channels moved."""
    for name, values in streams.items():
        channels = np.zeros(values.shape[1])
        if name == stream:
            for channel, value in expected.items():
                channels[channel] = value
        np.testing.assert_allclose(values[0], channels, atol=1e-9, err_msg=name)


def test_the_portrait_itself_is_zero_wherever_it_is(points):
    angle = np.radians(20)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    only(motion.motion(points, points), "exp", {})
    only(motion.motion(0.5 * points + 7, points), "exp", {})
    only(motion.motion(points @ turn, points), "pose", {2: 20})


def test_each_movement_is_read_in_its_channel(points):
    def read(**places):
        return motion.motion(moved(points, **places), points)

    only(read(LIP_LEFT=(-10, 0), LIP_RIGHT=(10, 0)), "exp", {0: 10})
    only(read(LIP_LEFT=(0, -8)), "exp", {1: 4})
    only(read(LOWER_EDGE=(0, 6)), "exp", {3: 3})
    only(read(BROWS_INNER=(0, -4)), "exp", {4: 2, 5: 2})
    only(read(EYE_TOPS=(0, 20)), "exp", {8: -10, 9: -10})
    only(read(LOWER_LIP=(0, 30)), "jaw", {0: 15})
    only(read(CHIN=(0, 12)), "jaw", {1: 6})
    only(read(NOSE_TIP=(6, -2)), "pose", {0: 3, 1: -1})


def test_apertures_are_shares_of_the_faces_height(points):
    opened = moved(points, LOWER_LIP=(0, 32))
    assert motion.apertures(opened) == pytest.approx(0.1)


def test_gaps_are_bridged_and_nothing_makes_nothing(points):
    track = np.concatenate([points, np.full_like(points, np.nan), moved(points, CHIN=(0, 12))])
    read = motion.motion(track, points)
    assert read is not None
    np.testing.assert_allclose(read["jaw"][:, 1], [0, 3, 6])
    assert list(motion.seen(track)) == [True, False, True]
    assert motion.motion(np.full_like(track, np.nan), points) is None
    assert motion.motion(track, np.full_like(points, np.nan)) is None


def test_a_real_face_is_found_once_for_equal_frames():
    finder, image = FaceFinder(), data.astronaut()
    face = finder.find(image)[0]
    portrait = Alignment.of(face.eyes, face.mouth).crop(image, 256)
    video = np.stack([portrait, portrait, portrait[:, ::-1], np.zeros_like(portrait)])
    calls = []

    class Counting(FaceFinder):
        def find(self, image, **options):
            calls.append(1)
            return finder.find(image, **options)

    points = motion.landmarks(Counting(), video)
    assert len(calls) == 3
    assert list(motion.seen(points)) == [True, True, True, False]
    read = motion.motion(points, points[:1])
    assert read is not None
    assert not read["exp"][1].any() and read["exp"][2].any()
    assert read["pose"][2, 2] == pytest.approx(0, abs=4)


def test_lids_are_shares_of_the_usual_opening(points):
    film = np.tile(points, (5, 1, 1))
    tops, bottoms = list(motion.EYE_TOPS), list(motion.EYE_BOTTOMS)
    middle = (film[2, tops] + film[2, bottoms]) / 2
    film[2, tops] = middle + (film[2, tops] - middle) / 2
    film[3, tops] = film[3, bottoms]
    film[4] *= 0.5  # a smaller picture of the same
    np.testing.assert_allclose(motion.lids(film), [0, 0, 0.25, 1, 0], atol=1e-9)
