"""The context of a block in training, and the loss that keeps users off speaking lips."""

import numpy as np
import torch

from tests.training.whole_track import BLOCKS, CONFIG, track
from training.batches import Place, batch_of, stray
from training.contexts import ContextConfig, previous_latents
from training.denoising import Conditions
from training.losses import FlowConfig, flow_loss, swap_loss
from training.stage1 import Stage1Training, nobody, talking_loss
from visavis.nn.echo import Echo

OWN = ContextConfig(noise=0.0, restart_share=0.0, own_share=1.0)


def conditions(batch: int) -> Conditions:
    return nobody(CONFIG, torch.ones(batch))


def test_own_context_is_the_network_s_where_there_is_a_block_before(tmp_path):
    torch.manual_seed(0)
    echo, whole = Echo(CONFIG), track(tmp_path)
    places = [Place(whole, 0, 3), Place(whole, 2, 3)]
    batch = batch_of(places, CONFIG, echo.device)
    previous, strayed = previous_latents(echo, places, batch, conditions(2), OWN)
    assert not strayed.any()  # its own errors are to be undone at once
    # The first block follows the portrait; an untrained avatar is its own portrait.
    torch.testing.assert_close(previous[0], batch.previous_latents[0])
    portrait = batch.reference_latents[1].expand_as(previous[1])
    torch.testing.assert_close(previous[1], portrait, atol=2e-2, rtol=1e-2)
    assert not torch.allclose(batch.previous_latents[1], portrait)


def test_a_stray_is_another_time_with_the_head_held_alike(tmp_path):
    whole = track(tmp_path)
    frames = np.arange(BLOCKS * CONFIG.block_frames) // CONFIG.block_frames
    whole.truth["pose"] = np.array([0.0, 5.0, 1.0, 9.0])[frames][:, None] * np.ones(3)
    torch.manual_seed(0)
    # Before block 2 the pose is 5; before 0 (which is where it is in), 1 and 3 it is 0, 0 and 1.
    assert strays(whole, 2, alike=True) == {3}
    assert strays(whole, 2, alike=False) == {0, 1, 3}
    # Before block 1 it is 0; that block is never its own stray.
    assert 1 not in strays(whole, 1, alike=True)


def strays(track, block, *, alike):
    drawn = (stray(Place(track, block, 0), CONFIG.block_frames, alike=alike) for _ in range(40))
    return {place.block for place in drawn}


def test_the_loss_knows_how_far_a_context_has_strayed(tmp_path):
    torch.manual_seed(0)
    echo, whole = Echo(CONFIG), track(tmp_path)
    places, settings = [Place(whole, 2, 3)] * 8, ContextConfig(0.0, 0.0, 0.0, 0.0, stray_share=1.0)
    batch = batch_of(places, CONFIG, echo.device)
    given, strayed = previous_latents(echo, places, batch, conditions(8), settings)
    torch.testing.assert_close(given[:, -1] - strayed, batch.previous_latents[:, -1])
    assert strayed.any()


def test_moving_as_the_truth_does_from_where_one_is_costs_no_motion():
    x_0, strayed, t = torch.randn(1, 3, 2, 8, 8), torch.randn(1, 2, 8, 8), torch.ones(1, 1)
    still, moving = FlowConfig(motion_weight=0.0), FlowConfig(motion_weight=5.0)
    along, nowhere = x_0 + strayed[:, None], torch.zeros_like(strayed)
    torch.testing.assert_close(
        flow_loss(along, x_0, strayed, t, still), flow_loss(along, x_0, strayed, t, moving)
    )
    assert flow_loss(along, x_0, nowhere, t, moving) > flow_loss(along, x_0, nowhere, t, still)


def test_own_context_costs_the_loss_no_gradients(tmp_path):
    whole = track(tmp_path)
    places = [Place(whole, 1, 0), Place(whole, 2, 0)]
    for context in (OWN, ContextConfig(own_share=0.0)):
        torch.manual_seed(0)
        echo = Echo(CONFIG)
        torch.nn.init.normal_(echo.sdcm_denoiser.head[-1].weight)  # pyright: ignore
        settings = Stage1Training(size="tiny", context=context)
        talking_loss(echo, places, conditions(2), settings).backward()
        for name, parameter in echo.sdcm_denoiser.named_parameters():
            if "audio_attention" in name and "weight" in name:
                assert parameter.grad is not None and parameter.grad.any(), name


def test_only_speaking_lips_are_kept_from_the_user():
    one, other = torch.zeros(1, 2, 1, 8, 8), torch.zeros(1, 2, 1, 8, 8)
    t, flow = torch.ones(1, 1), FlowConfig()
    other[:, 0, :, 5, 4] = 1.0  # the mouth, in frame 0
    speaking = torch.tensor([[1.0, 0.0]])
    assert swap_loss(one, other, speaking, t, flow) > 0
    assert swap_loss(one, other, 1 - speaking, t, flow) == 0
    brow = torch.zeros_like(one)
    brow[:, 0, :, 2, 4] = 1.0
    at_brow, at_mouth = (swap_loss(one, x, speaking, t, flow) for x in (brow, other))
    assert at_brow < 0.01 * at_mouth
