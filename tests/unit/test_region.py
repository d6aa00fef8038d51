"""The lip and face masks."""

import numpy as np
import pytest

from visavis.region import region_masks

CENTERS = np.array([[[0.5, 0.68], [0.5, 0.53]], [[0.3, 0.6], [0.4, 0.5]]], np.float32)


def test_masks_are_soft_and_never_pass_one_together():
    masks = region_masks(CENTERS, 8)
    assert masks.shape == (2, 2, 8, 8)
    assert masks.dtype == np.float32
    assert (masks >= 0).all()
    assert (masks.sum(axis=1) <= 1).all()


def test_the_lip_mask_is_where_the_mouth_is():
    lip = region_masks(np.array([[[0.19, 0.69], [0.5, 0.5]]], np.float32), 8)[0, 0]
    assert np.unravel_index(lip.argmax(), lip.shape) == (5, 1)  # row is y, column is x


def test_the_face_mask_leaves_the_mouth_out():
    lip, face = region_masks(np.array([[[0.5, 0.5], [0.5, 0.5]]], np.float32), 32)[0]
    assert face[16, 16] < 0.1 < lip[16, 16]
    assert face[16, 8] > 0.2  # beside the mouth it is there


def test_a_token_holds_the_average_over_its_area():
    coarse, fine = region_masks(CENTERS, 4, samples=8), region_masks(CENTERS, 32, samples=1)
    np.testing.assert_allclose(coarse, fine.reshape(2, 2, 4, 8, 4, 8).mean((3, 5)), atol=1e-6)


def test_masks_are_the_same_for_torch():
    torch = pytest.importorskip("torch")
    theirs = region_masks(torch.from_numpy(CENTERS), 8, exp=torch.exp)
    np.testing.assert_allclose(theirs.numpy(), region_masks(CENTERS, 8), atol=1e-6)
