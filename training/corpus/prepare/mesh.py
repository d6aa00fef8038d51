"""This is where landmarks become a head pose, a mouth's opening and the centers of the masks."""

from __future__ import annotations

import numpy as np
from visavis_client.face import Alignment, Face

# Points of MediaPipe's 468-point mesh.
UPPER_LIP, LOWER_LIP, FOREHEAD, CHIN = 13, 14, 10, 152

# Points that expressions hardly move: corners of the eyes, ridge, tip and base of the nose,
# forehead, sides of the face. Their places are the network's own three-dimensional mesh of four
# of the corpus's heads at pose 0, averaged with their mirror image; x to the picture's right, y up,
# z to the camera, the distance of the outer corners of the eyes being 1.
RIGID = (33, 133, 362, 263, 168, 6, 1, 2, 10, 234, 454)
MODEL = np.array(
    [
        (-0.500, 0.076, -0.032),
        (-0.190, 0.058, 0.029),
        (0.190, 0.058, 0.029),
        (0.500, 0.076, -0.032),
        (0.000, 0.139, 0.200),
        (0.000, 0.037, 0.244),
        (0.000, -0.392, 0.416),
        (0.000, -0.464, 0.248),
        (0.000, 0.679, 0.161),
        (-0.759, -0.133, -0.631),
        (0.759, -0.133, -0.631),
    ]
)


def head_pose(landmarks: np.ndarray) -> np.ndarray:
    """(T, 468, 2) landmarks -> (T, 3) float32 yaw, pitch, roll in rad, signs as in corpus/head.py.

    Roll is that in the picture whose landmarks these are: in a crop, what its turn has left.
    Scaled orthography (the first step of POSIT, DeMenthon and Davis, IJCV 1995): the linear map of
    the model to the picture, made a rotation by its singular value decomposition. On 24 pictures of
    the corpus's heads at known poses: mean errors of 2.1 degrees in yaw, 3.8 in pitch, 0.5 in roll;
    most of pitch's is a person's constant offset, since the model is not that person's face.
    """
    points = landmarks[:, RIGID].astype(np.float64) * (1, -1)
    points -= points.mean(axis=1, keepdims=True)
    model = MODEL - MODEL.mean(axis=0)
    linear = np.einsum("tnc,nk->tck", points, model) @ np.linalg.inv(model.T @ model)  # (T, 2, 3)
    left, _, right = np.linalg.svd(linear, full_matrices=False)
    rows = left @ right
    forward = np.cross(rows[:, 0], rows[:, 1])
    yaw = np.arctan2(rows[:, 0, 2], forward[:, 2])
    pitch = -np.arcsin(np.clip(rows[:, 1, 2], -1, 1))
    roll = np.arctan2(rows[:, 1, 0], rows[:, 1, 1])
    return np.stack([yaw, pitch, roll], axis=1).astype(np.float32)


def aperture(landmarks: np.ndarray) -> np.ndarray:
    """(T, 468, 2) landmarks -> (T,) float32, the inner lips' distance over the face's height."""
    opening = np.linalg.norm(landmarks[:, LOWER_LIP] - landmarks[:, UPPER_LIP], axis=1)
    height = np.linalg.norm(landmarks[:, CHIN] - landmarks[:, FOREHEAD], axis=1)
    return (opening / height).astype(np.float32)


def in_crop(landmarks: np.ndarray, alignment: Alignment) -> np.ndarray:
    """(T, 468, 2) pixels of a film -> float32 in the aligned unit square."""
    z = (landmarks[..., 0] + 1j * landmarks[..., 1] - alignment.origin) / alignment.turn
    return np.stack([z.real, z.imag], axis=-1).astype(np.float32)


def region_centers(landmarks: np.ndarray) -> np.ndarray:
    """(T, 468, 2) in the crop -> (2, 2) float32: lip and face, x and y, as `visavis.region` wants.

    They are those of the median face, since the masks hold for the whole of a session.
    """
    face = Face((0.0, 0.0, 0.0, 0.0), np.median(landmarks, axis=0), 1.0)
    centers = [(c.real, c.imag) for c in (face.mouth, face.center)]
    return np.array(centers, np.float32)


def filled(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(T, 468, 2) landmarks -> with every NaN interpolated, and (T,) bool where there was none."""
    seen = ~np.isnan(landmarks[:, 0, 0])
    times = np.arange(len(landmarks))
    flat = landmarks.reshape(len(landmarks), -1).copy()
    before = np.clip(np.searchsorted(times[seen], times, side="right") - 1, 0, None)
    after = np.clip(np.searchsorted(times[seen], times), None, seen.sum() - 1)
    first, last = times[seen][before], times[seen][after]
    share = (times - first) / np.maximum(last - first, 1)
    share = np.clip(share, 0, 1)[:, None]
    flat = (1 - share) * flat[first] + share * flat[last]
    return flat.reshape(landmarks.shape).astype(np.float32), seen
