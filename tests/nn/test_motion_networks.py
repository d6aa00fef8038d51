"""Motion is drawn from noise and painted as told; who has learned none keeps still."""

from dataclasses import replace

import torch

from export.networks import random_networks
from export.onnx import example
from tests.sizes import tiny
from visavis.contract import contracts
from visavis.motion import NAMES, SCALES
from visavis.nn.echo import Echo

CONFIG = tiny()


def inputs_of(name):
    return {spec.name: example(spec, 2) for spec in contracts(CONFIG)[name].inputs}


def test_motion_has_a_scale_for_every_number():
    assert len(NAMES) == len(SCALES)


def test_who_knows_no_motion_keeps_still_with_open_eyes():
    given = inputs_of("motion_prior")
    with torch.inference_mode():
        motion = Echo(CONFIG).motion_prior(*given.values())
    still = given["previous_motion"][:, -1:].clone()
    still[..., NAMES.index("lids")] = 0
    torch.testing.assert_close(motion, still.expand_as(motion))


def test_every_code_wins_as_often_as_it_is_likely():
    torch.manual_seed(0)
    prior, count = Echo(CONFIG).motion_prior, 20_000
    lids = prior.codes["lids"]
    lids.copy_(torch.arange(len(lids))[:, None, None].expand_as(lids))
    previous, gist = (
        torch.zeros(1, CONFIG.block_frames, len(NAMES)),
        torch.randn(1, prior.gist_width),
    )
    with torch.inference_mode():
        expected = prior.likelihoods(previous, gist)["lids"].softmax(1)[0]
        noise = torch.empty(count, CONFIG.motion.noise_width).exponential_()
        drawn = prior.draw(noise, previous.expand(count, -1, -1), gist.expand(count, -1))
    codes = drawn[:, 0, NAMES.index("lids")].long()
    found = torch.bincount(codes, minlength=len(lids)) / count
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0)


def test_little_passes_of_what_is_heard_and_seen():
    gist = Echo(CONFIG).motion_prior.gist(*list(inputs_of("motion_prior").values())[2:])
    everything = CONFIG.block_frames * CONFIG.lcu.tokens_per_frame * CONFIG.lcu.width
    assert gist.shape[1] < everything / 8


def test_a_head_moves_frame_by_frame_as_it_is_told():
    denoiser = random_networks(CONFIG)["sdcm_denoiser"]
    given = inputs_of("sdcm_denoiser")
    other = given["motion"].clone()
    other[:, 3] += 1
    with torch.inference_mode():
        before = denoiser(*given.values())
        after = denoiser(*(given | {"motion": other}).values())
    change = (after - before).abs().mean((0, 2, 3, 4))
    assert change.argmax() == 3


def test_without_motion_none_is_painted():
    denoiser = random_networks(replace(CONFIG, without=("motion",)))["sdcm_denoiser"]
    given = inputs_of("sdcm_denoiser")
    with torch.inference_mode():
        before = denoiser(*given.values())
        after = denoiser(*(given | {"motion": given["motion"] + 1}).values())
    torch.testing.assert_close(after, before)
