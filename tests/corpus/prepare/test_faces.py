"""Following a real face through cuts, placing crops, and what the landmarks say."""

from itertools import pairwise

import numpy as np
import pytest
from visavis_client.face import EYES, MOUTH, Alignment, FaceFinder

from training.corpus.prepare import faces, framing, mesh, person
from training.corpus.prepare.faces import Trail
from training.corpus.prepare.framing import Framing, Stretch
from training.corpus.prepare.person import PersonTrack
from training.corpus.prepare.shots import CutDetector
from training.corpus.prepare.source import Dropped

NO_TURN = Alignment(0j, 100 + 0j)


def shown_to(portrait, frames):
    """A portrait as frames of the same size as others."""
    height, width = frames[0].shape[:2]
    size = min(height, width)
    picture = np.zeros_like(frames[0])
    left = (width - size) // 2
    step = len(portrait) / size
    index = (np.arange(size) * step).astype(int)
    picture[:size, left : left + size] = portrait[index][:, index]
    return picture


def test_cuts_are_seen_and_motion_is_not(talking_man, portrait):
    other = shown_to(portrait, talking_man)
    is_cut = CutDetector()
    film = [*talking_man[:40], *[other] * 10, *talking_man[40:]]
    assert [n for n, frame in enumerate(film) if is_cut(frame)] == [40, 50]


def test_a_person_is_followed_through_cuts_and_a_stranger_is_left_out(talking_man, portrait):
    stranger = shown_to(portrait, talking_man)
    film = [*talking_man[:40], *[stranger] * 30, *talking_man[60:]]
    trails, count = faces.follow(film, FaceFinder())
    assert count == 110
    assert sorted((t.shot, t.start, t.end) for t in trails) == [
        (0, 0, 40),
        (1, 40, 70),
        (2, 70, 110),
    ]
    track = person.choose(trails, count)
    assert ((track.trail >= 0) == np.r_[np.ones(40), np.zeros(30), np.ones(40)]).all()
    assert not np.isnan(track.landmarks[track.trail >= 0]).any()
    assert [(f.start, f.end) for f in framing.framings(track)] == [(0, 40), (70, 110)]


def test_a_film_without_faces_is_dropped():
    frames = [np.zeros((60, 80, 3), np.uint8)] * 30
    trails, count = faces.follow(frames, FaceFinder())
    with pytest.raises(Dropped, match="no face"):
        person.choose(trails, count)


def test_a_face_that_is_gone_for_long_ends_its_trail():
    trail = Trail(0, 10, [np.zeros((468, 2), np.float32)] * 40 + [None] * 26, unseen=26)
    assert (trail.seen, trail.end) == (40, 50)


def points_at(middles, side=100.0):
    """(T, 468, 2) landmarks of faces whose crops of that side are centered at complex pixels."""
    landmarks = np.zeros((len(middles), 468, 2), np.float32)
    for n, middle in enumerate(middles):
        for place, indices in ((EYES, (33, 133, 362, 263)), (MOUTH, (61, 291))):
            pixel = middle + side * (place - (EYES + MOUTH) / 2)
            landmarks[n, indices] = pixel.real, pixel.imag
    return landmarks


def track_of(middles, trail=None):
    trail = np.zeros(len(middles), np.int32) if trail is None else np.array(trail)
    return PersonTrack(points_at(middles), trail)


def test_a_head_that_moves_about_keeps_its_place():
    middles = 200 + 200j + 10 * np.exp(1j * np.arange(100))
    (only,) = framing.framings(track_of(middles))
    assert (only.start, only.end) == (0, 100)
    assert abs(only.alignment.turn) == pytest.approx(100, rel=0.01)
    assert only.alignment.locate(200 + 200j) == pytest.approx((EYES + MOUTH) / 2, abs=0.02)


def test_a_person_who_moves_over_gets_a_new_place_from_then_on():
    middles = [200 + 200j] * 40 + [260 + 200j] * 60
    first, second = framing.framings(track_of(middles))
    assert (first.start, first.end, second.start, second.end) == (0, 40, 40, 100)
    assert second.alignment.origin - first.alignment.origin == pytest.approx(60, abs=1e-3)


def test_a_moment_away_and_a_moment_unseen_change_nothing():
    middles = [200 + 200j] * 40 + [300 + 200j] * (framing.AWAY_FRAMES - 1) + [200 + 200j] * 40
    track = track_of(middles)
    track.landmarks[5:10] = np.nan
    assert [(f.start, f.end) for f in framing.framings(track)] == [(0, len(middles))]


def test_framings_end_where_a_person_wanders_for_ever():
    middles = 1000 + 1000j + 400 * np.exp(2j * np.pi * np.arange(200) / 40)
    parts = framing.framings(track_of(middles))
    assert parts[0].start == 0
    assert parts[-1].end == 200
    assert all(a.end == b.start for a, b in pairwise(parts))


def test_trails_are_never_joined():
    trail = [-1] * 5 + [0] * 40 + [-1] * 30 + [1] * 40
    parts = framing.framings(track_of([200 + 200j] * len(trail), trail))
    assert [(f.start, f.end) for f in parts] == [(5, 45), (75, 115)]


def test_stretches_are_what_both_share_not_too_short_and_not_too_long():
    a = [Framing(0, 100, NO_TURN), Framing(100, 300, NO_TURN)]
    b = [Framing(20, 110, NO_TURN), Framing(150, 290, NO_TURN)]
    spans = [(s.start, s.end) for s in framing.stretches({"a": a, "b": b}, 25, 100)]
    assert spans == [(20, 100), (150, 220), (220, 290)]  # 100 to 110 is too short


def test_lost_time_is_told_by_reason():
    tracks = {
        "a": track_of([0j] * 100, [-1] * 25 + [0] * 75),
        "b": track_of([0j] * 150),
    }
    faults = [(Framing(25, 50, NO_TURN), "face too small (b)")]
    kept = [Stretch(60, 100, {})]
    assert framing.losses(tracks, faults, kept) == {
        "no face of a": 1.0,
        "face too small (b)": 1.0,
        "stretch too short": 0.4,
        framing.LONGER: 2.0,
    }


def test_small_and_cut_faces_are_faults():
    picture = (200, 200, 3)
    assert framing.fault(Alignment(50 + 50j, 100), picture, 200) is None
    assert "too small" in str(framing.fault(Alignment(50 + 50j, 99), picture, 200))
    assert "edge" in str(framing.fault(Alignment(140 + 50j, 100), picture, 200))


def rotation(yaw, pitch, roll):
    """As training.corpus.head.rotation: roll first, then pitch, then yaw."""
    (cy, cp, cr), (sy, sp, sr) = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


def test_a_known_pose_is_recovered_at_any_place_and_size():
    poses = np.array([[0, 0, 0], [0.4, 0, 0], [0, -0.3, 0], [0, 0, 0.2], [-0.3, 0.2, -0.1]])
    landmarks = np.zeros((len(poses), 468, 2))
    for n, pose in enumerate(poses):
        turned = mesh.MODEL @ rotation(*pose).T
        landmarks[n, mesh.RIGID] = (30 + n) * turned[:, :2] * (1, -1) + (100, 50)
    np.testing.assert_allclose(mesh.head_pose(landmarks), poses, atol=1e-5)


def test_aperture_is_the_lips_distance_over_the_faces_height():
    landmarks = np.zeros((1, 468, 2))
    landmarks[0, mesh.FOREHEAD], landmarks[0, mesh.CHIN] = (0, 0), (0, 100)
    landmarks[0, mesh.UPPER_LIP], landmarks[0, mesh.LOWER_LIP] = (0, 70), (0, 75)
    assert mesh.aperture(landmarks)[0] == pytest.approx(0.05)


def test_unseen_frames_are_interpolated_and_said_so():
    landmarks = np.arange(6.0)[:, None, None] + np.zeros((6, 468, 2))
    landmarks[[0, 2, 3]] = np.nan
    whole, seen = mesh.filled(landmarks)
    assert whole[:, 7, 1].tolist() == [1, 1, 2, 3, 4, 5]
    assert seen.tolist() == [False, True, False, False, True, True]
