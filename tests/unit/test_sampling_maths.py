"""Schedule, guidance and sampler: the mathematics, with numpy."""

from itertools import pairwise

import numpy as np
import pytest

from visavis.guidance import AUDIO, FULL, NONE, guided, weights
from visavis.sampler import context, sample, settled, settling_weights
from visavis.schedule import timesteps


@pytest.mark.parametrize("num_steps", [1, 2, 7])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_schedule_falls_from_one_to_zero(num_steps, shift):
    times = timesteps(num_steps, shift)
    assert len(times) == num_steps + 1
    assert (times[0], times[-1]) == (1.0, 0.0)
    assert all(later < earlier for earlier, later in pairwise(times))
    assert all(type(t) is float for t in times)  # numpy's would make float64 of float32 arrays


def test_a_shift_spends_more_steps_near_the_noise():
    assert all(b >= a for a, b in zip(timesteps(5), timesteps(5, shift=3.0), strict=True))


@pytest.mark.parametrize(("num_steps", "shift"), [(0, 1.0), (-1, 1.0), (2, 0.0)])
def test_schedule_refuses(num_steps, shift):
    with pytest.raises(ValueError, match="got"):
        timesteps(num_steps, shift)


@pytest.mark.parametrize(
    ("audio_scale", "user_scale", "masks"),
    [
        (1.0, 1.0, [FULL]),
        (0.0, 0.0, [NONE]),
        (1.0, 0.0, [AUDIO]),
        (2.0, 2.0, [NONE, FULL]),
        (2.0, 1.5, [NONE, AUDIO, FULL]),
    ],
)
def test_only_predictions_that_count_are_computed(audio_scale, user_scale, masks):
    found = weights(audio_scale, user_scale)
    assert list(found) == masks
    assert sum(found.values()) == pytest.approx(1.0)


def test_guidance_is_the_papers_sum():
    x_none, x_audio, x_full = (np.random.default_rng(k).standard_normal(4) for k in range(3))
    predictions = {NONE: x_none, AUDIO: x_audio, FULL: x_full}
    denoise = guided(lambda x_t, t, masks: [predictions[mask] for mask in masks], 2.5, 1.7)
    expected = x_none + 2.5 * (x_audio - x_none) + 1.7 * (x_full - x_audio)
    np.testing.assert_allclose(denoise(None, 0.5), expected)


@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_sampler_reaches_what_the_denoiser_predicts(num_steps):
    rng = np.random.default_rng(0)
    noise, x_0 = rng.standard_normal((2, 3, 4)).astype(np.float32)
    seen = []

    def denoise(x_t, t):
        np.testing.assert_allclose(x_t, (1 - t) * x_0 + t * noise, atol=1e-6)  # a straight path
        seen.append(t)
        return x_0

    latents = sample(denoise, noise, timesteps(num_steps))
    np.testing.assert_allclose(latents, x_0, atol=1e-6)
    assert latents.dtype == np.float32
    assert seen == list(timesteps(num_steps)[:-1])


def test_sampler_is_the_same_for_torch():
    torch = pytest.importorskip("torch")
    noise = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    ours = sample(lambda x_t, t: 0.5 * x_t, noise, timesteps(3))
    theirs = sample(lambda x_t, t: 0.5 * x_t, torch.from_numpy(noise), timesteps(3))
    np.testing.assert_allclose(theirs.numpy(), ours, rtol=1e-6)


def test_context_fades_errors_and_keeps_the_portrait():
    generator = np.random.default_rng(0)
    reference = generator.standard_normal((1, 4, 2, 2)).astype(np.float32)
    latents = np.repeat(reference, 5, axis=0)
    latents[-1] += 1.0
    told = context(latents, reference, frames=2, keep=0.5)
    np.testing.assert_allclose(told[0], reference[0], atol=1e-6)
    np.testing.assert_allclose(told[1], reference[0] + 0.5, atol=1e-6)
    np.testing.assert_array_equal(context(latents, reference, frames=2, keep=1.0).shape, told.shape)
    batched = context(latents[None], reference[None], frames=2, keep=0.5)
    np.testing.assert_array_equal(batched[0], told)


def settle(latents, last, keep=0.5, settling=0.4):
    """After a block that ended with `last`, all of one latent (F,)."""
    as_latents = latents[:, None, None, None]
    before = context(last * np.ones((3, 1, 1, 1)), np.full((1, 1, 1, 1), 7.0), 2, keep)
    weights = np.array(settling_weights(settling, len(latents)))[:, None, None, None]
    found = settled(as_latents, before, np.full((1, 1, 1, 1), 7.0), keep, weights)
    return found[:, 0, 0, 0]


def test_what_goes_on_as_before_is_left_alone():
    latents = np.array([3.0, 4.0, 5.5, 6.0, 6.0])
    np.testing.assert_allclose(settle(latents, last=2.0), latents)  # steps of 1 and 1


def test_a_jump_is_spread_over_the_block():
    latents = np.array([5.0, 5.0, 5.0, 5.0, 5.0])
    found = settle(latents, last=2.0)
    np.testing.assert_allclose(found, 5.0 - 3.0 * np.array([0.4, 0.16, 0.064, 0.0256, 0.01024]))
    steps = np.abs(np.diff([2.0, *found]))
    assert steps.max() < 3.0 and (np.diff(steps) < 0).all()
    np.testing.assert_array_equal(settle(latents, last=2.0, settling=0.0), latents)
