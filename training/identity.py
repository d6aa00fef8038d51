"""This is where two faces are compared: dlib's face embedding (ResNet, CC0 weights, in a package).

Distances below about 0.6 mean the same person to dlib. Here they rank: whose portrait is nearest?
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np

from training.packages import package_folder

PACKAGE, REQUIREMENT = "face_recognition_models", "face-recognition-models==0.3.0"


@cache
def _networks() -> tuple[Any, Any]:
    import dlib

    models = package_folder("identity", PACKAGE, REQUIREMENT, "evaluate") / "models"
    return (
        dlib.shape_predictor(str(models / "shape_predictor_5_face_landmarks.dat")),  # type: ignore[attr-defined]
        dlib.face_recognition_model_v1(  # type: ignore[attr-defined]
            str(models / "dlib_face_recognition_resnet_model_v1.dat")
        ),
    )


def embedding(image: np.ndarray) -> np.ndarray:
    """(128,) float64 of an aligned crop (H, W, 3) uint8.

    An aligned crop has its face in a known place, so no detector stands between.
    """
    import dlib

    predictor, network = _networks()
    side = image.shape[0]
    box = dlib.rectangle(  # type: ignore[attr-defined]
        int(0.24 * side), int(0.27 * side), int(0.76 * side), int(0.84 * side)
    )
    picture = np.ascontiguousarray(image)
    return np.array(network.compute_face_descriptor(picture, predictor(picture, box)))


def embeddings(images: Iterable[np.ndarray]) -> np.ndarray:
    """(N, 128) float64 of aligned crops (H, W, 3) uint8."""
    return np.stack([embedding(image) for image in images])


def distances(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """(N, M) Euclidean distances of embeddings (N, 128) and (M, 128)."""
    return np.linalg.norm(ours[:, None] - theirs[None], axis=-1)


def cosines(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """(N, M) cosine similarities of embeddings (N, 128) and (M, 128)."""
    ours, theirs = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (ours, theirs))
    return ours @ theirs.T
