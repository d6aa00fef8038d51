"""Picture measures: known values, known pictures, and the order that they must keep."""

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from training.measures import picture
from training.measures.efficientnet_lite import as_input, efficientnet_lite0


@pytest.fixture(scope="module")
def astronaut():
    return cv2.resize(data.astronaut(), (256, 256), interpolation=cv2.INTER_AREA)


def views(image, count, offset):
    """Crops of one picture, a few pixels apart."""
    return np.stack([image[n : n + 200, offset + n : offset + n + 200] for n in range(count)])


def test_psnr_by_hand():
    true = np.full((2, 16, 16, 3), 100, np.uint8)
    images = true.copy()
    images[0] += 5
    assert picture.psnr(images, true) == pytest.approx([20 * np.log10(255 / 5), 100])


def test_ssim_falls_with_noise(astronaut):
    noise = np.random.default_rng(0).normal(0, 20, astronaut.shape)
    noisy = np.clip(astronaut + noise, 0, 255).astype(np.uint8)
    same, less = picture.ssim(np.stack([astronaut, noisy]), np.stack([astronaut] * 2))
    assert same == pytest.approx(1) and 0.1 < less < 0.9


def test_the_network_knows_what_it_sees():
    """ImageNet's classes 281 to 285 are cats, 967 is espresso and 968 a cup."""
    known = ((data.coffee(), {967, 968}), (data.chelsea(), {281, 282, 283, 284, 285}))
    for image, classes in known:
        with torch.inference_mode():
            seen = efficientnet_lite0().classify(as_input(image[None])).argmax().item()
        assert seen in classes


def test_taps_have_the_documented_shapes():
    with torch.inference_mode():
        features, taps = efficientnet_lite0()(torch.zeros(2, 3, 224, 224))
    assert features.shape == (2, 1280)
    expected = [(16, 112), (24, 56), (40, 28), (80, 14), (112, 14), (192, 7)]
    assert [(t.shape[1], t.shape[2]) for t in taps] == expected


def test_tap_distance_by_hand():
    """Unit vectors (1, 0) and (0.6, 0.8) at one place of two, equal at the other."""
    tap = torch.tensor([[[[2.0, 1.0]], [[0.0, 1.0]]]])
    other = torch.tensor([[[[3.0, 5.0]], [[4.0, 5.0]]]])
    expected = ((1 - 0.6) ** 2 + 0.8**2) / 2
    assert picture.tap_distance([tap, tap], [other, tap]).item() == pytest.approx(expected)


def test_blur_is_near_and_another_picture_far(astronaut):
    blurred = cv2.GaussianBlur(astronaut, (0, 0), 1)
    more = cv2.GaussianBlur(astronaut, (0, 0), 3)
    other = cv2.resize(data.coffee(), (256, 256))
    images = np.stack([astronaut, blurred, more, other])
    features, distances = picture.features_and_perceptual_distance(
        images, np.stack([astronaut] * 4)
    )
    assert features.shape == (4, 1280)
    assert distances[0] == pytest.approx(0, abs=1e-5)
    assert 0 < distances[1] < distances[2] < distances[3]


def test_sets_of_like_pictures_are_nearer_than_of_blurred_ones(astronaut):
    true, like = views(astronaut, 12, 0), views(astronaut, 12, 3)
    blurred = np.stack([cv2.GaussianBlur(image, (0, 0), 3) for image in like])
    known, near, far = (
        picture.features_and_perceptual_distance(some, true)[0] for some in (true, like, blurred)
    )
    near, far = picture.set_figures(near, known), picture.set_figures(far, known)
    for name in ("fd_effnetlite0", "kd_effnetlite0"):
        assert near[name] < 0.5 * far[name]
