"""Every network keeps its contract, and the paper's separations hold in it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from export.networks import random_networks
from export.onnx import example
from tests.sizes import tiny
from visavis.config import nano, pico
from visavis.contract import contracts
from visavis.nn.echo import Echo
from visavis.nn.perception import serpentine_order
from visavis.nn.sdcm import SDCM, EntangledCrossAttention

CONFIG = tiny()


@pytest.fixture(scope="module")
def networks():
    return random_networks(CONFIG)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", [n for n, c in contracts(CONFIG).items() if c.kind == "onnx"])
def test_shapes_and_types_are_those_of_the_contract(networks, name, batch):
    contract = contracts(CONFIG)[name]
    inputs = [example(spec, batch, length=2) for spec in contract.inputs]
    with torch.inference_mode():
        outputs = networks[name](*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    for output, spec in zip(outputs, contract.outputs, strict=True):
        for item in output.numpy():
            assert spec.mismatch(item) is None


@pytest.mark.parametrize("name", [n for n, c in contracts(CONFIG).items() if c.kind == "onnx"])
def test_every_input_matters(networks, name):
    contract = contracts(CONFIG)[name]
    batch = 256 if name == "motion_prior" else 16  # it draws lots, and few of them are close
    inputs = {spec.name: example(spec, batch) for spec in contract.inputs}
    if name == "sdcm_denoiser":
        inputs["condition_mask"].fill_(1.0)
    before = run(networks[name], inputs)
    for spec in contract.inputs:
        other = inputs[spec.name] + 1 if spec.dtype == "INT64" else example(spec, batch, seed=7)
        after = run(networks[name], inputs | {spec.name: other})
        changed = [(a != b).any() for a, b in zip(before, after, strict=True)]
        assert any(changed), f"{name} ignores {spec.name}"


def test_a_dropped_condition_changes_nothing(networks):
    contract = contracts(CONFIG)["sdcm_denoiser"]
    inputs = {spec.name: example(spec, 1) for spec in contract.inputs}
    for name, mask in (("avatar_audio_features", [0.0, 1.0]), ("user_tokens", [1.0, 0.0])):
        inputs["condition_mask"] = torch.tensor([mask])
        before = run(networks["sdcm_denoiser"], inputs)
        changed = inputs | {name: example(contract.input(name), 1, seed=9)}
        torch.testing.assert_close(run(networks["sdcm_denoiser"], changed), before)


def test_a_dropped_user_takes_the_due_emotion_along(networks):
    """Guidance by the user strengthens all that the LCU says, c_emo included."""
    contract = contracts(CONFIG)["sdcm_denoiser"]
    inputs = {spec.name: example(spec, 1) for spec in contract.inputs}
    inputs["condition_mask"] = torch.tensor([[1.0, 0.0]])
    other = inputs | {"affect_tokens": example(contract.input("affect_tokens"), 1, seed=9)}
    before, after = (run(networks["sdcm_denoiser"], given) for given in (inputs, other))
    torch.testing.assert_close(after, before)


# What a network without a part must not mind: its inputs, and where its own state stays.
BLIND = {
    "understanding": ("lcu_encoder", ("memory", "memory_summary")),
    "affect": ("sdcm_denoiser", ("affect_tokens",)),
    "perception": ("lcu_encoder", ("audio_scan_state", "video_scan_state")),
}


@pytest.mark.parametrize("part", BLIND)
def test_without_a_part_its_inputs_do_not_matter(part):
    name, blind = BLIND[part]
    whole, reduced = (random_networks(replace(CONFIG, without=w))[name] for w in ((), (part,)))
    contract = contracts(CONFIG)[name]
    inputs = {spec.name: example(spec, 1) for spec in contract.inputs}
    if name == "sdcm_denoiser":
        inputs["condition_mask"].fill_(1.0)
    other = inputs | {spec: example(contract.input(spec), 1, seed=9) for spec in blind}
    assert not torch.equal(run(whole, inputs)[0], run(whole, other)[0])
    torch.testing.assert_close(run(reduced, other)[0], run(reduced, inputs)[0])


def test_without_perception_only_what_is_remembered_reaches_the_denoiser():
    lcu = random_networks(replace(CONFIG, without=("perception",)))["lcu_encoder"]
    contract = contracts(CONFIG)["lcu_encoder"]
    inputs = {spec.name: example(spec, 1) for spec in contract.inputs}
    found = list(run(lcu, inputs))
    tokens, memory, summary = found[0], found[4], found[5]
    later = lcu.understand(torch.randn_like(tokens), memory, summary)  # pyright: ignore
    torch.testing.assert_close(later, tokens)


def test_entangled_attention_lets_the_user_reach_the_lips():
    torch.manual_seed(0)
    entangled = EntangledCrossAttention(CONFIG).eval()
    width, tokens, frames = CONFIG.denoiser.width, CONFIG.token_grid**2, CONFIG.block_frames
    h, audio = torch.randn(1, frames, tokens, width), torch.randn(1, frames, 6, width)
    everywhere, nowhere = torch.ones(1, 1, tokens, 1), torch.zeros(1, 1, tokens, 1)
    users = torch.randn(2, 1, frames * 5, CONFIG.lcu.width)
    one, other = (entangled(h, user, audio, everywhere, nowhere) for user in users)
    assert (one != other).any(dim=-1).all()


def test_an_unknown_part_cannot_be_left_out():
    with pytest.raises(ValueError, match=r"without: got \['lips'\], expected some of"):
        replace(CONFIG, without=("lips",))


def test_an_untrained_avatar_is_its_portrait():
    torch.manual_seed(0)
    echo = Echo(CONFIG).eval()
    inputs = {s.name: example(s, 1) for s in contracts(CONFIG)["sdcm_denoiser"].inputs}
    x_0 = run(echo.sdcm_denoiser, inputs)[0]
    torch.testing.assert_close(x_0, inputs["reference_latents"][:, None].expand_as(x_0))


def test_the_user_never_enters_through_the_lip_mask():
    torch.manual_seed(0)
    sdcm = SDCM(CONFIG).eval()
    torch.nn.init.normal_(sdcm.user_attention.out.weight)
    width, tokens, frames = CONFIG.denoiser.width, CONFIG.token_grid**2, CONFIG.block_frames
    h = torch.randn(1, frames, tokens, width)
    audio = torch.randn(1, frames, 6, width)
    everywhere, nowhere = torch.ones(1, 1, tokens, 1), torch.zeros(1, 1, tokens, 1)
    users = torch.randn(2, 1, frames * 5, CONFIG.lcu.width)
    with torch.inference_mode():
        lips = [sdcm(h, user, audio, everywhere, nowhere) for user in users]
        faces = [sdcm(h, user, audio, nowhere, everywhere) for user in users]
    torch.testing.assert_close(lips[0], lips[1])
    assert (faces[0] != faces[1]).any()


def test_nothing_is_added_outside_both_masks():
    sdcm = SDCM(CONFIG).eval()
    tokens, frames = CONFIG.token_grid**2, CONFIG.block_frames
    nowhere = torch.zeros(1, 1, tokens, 1)
    change = sdcm(
        torch.randn(1, frames, tokens, CONFIG.denoiser.width),
        torch.randn(1, frames * 5, CONFIG.lcu.width),
        torch.randn(1, frames, 6, CONFIG.denoiser.width),
        nowhere,
        nowhere,
    )
    assert not change.any()


def test_memory_takes_a_token_every_stride_and_forgets_the_oldest(networks):
    contract = contracts(CONFIG)["lcu_encoder"]
    inputs = {spec.name: example(spec, 1) for spec in contract.inputs}
    stride = CONFIG.lcu.memory_stride_blocks
    for block, moves in ((stride - 2, False), (stride - 1, True), (2 * stride - 1, True)):
        inputs["block_index"] = torch.tensor([[block]])
        memory = list(run(networks["lcu_encoder"], inputs))[4]
        if moves:
            torch.testing.assert_close(memory[:, :-1], inputs["memory"][:, 1:])
        else:
            torch.testing.assert_close(memory, inputs["memory"])


def test_a_face_is_seen_as_its_change_since_it_was_first_seen(networks):
    contract = contracts(CONFIG)["lcu_encoder"]
    inputs = {spec.name: example(spec, 1) for spec in contract.inputs}
    inputs["user_valid"] = torch.ones(1, 2)
    tokens, *_ = run(networks["lcu_encoder"], inputs)
    other = torch.randn(1, 1, *CONFIG.latent_shape)  # somebody else who does the same
    moved = inputs | {"user_latents": inputs["user_latents"] + other}
    moved["user_reference_latents"] = inputs["user_reference_latents"] + other[:, 0]
    torch.testing.assert_close(run(networks["lcu_encoder"], moved)[0], tokens, rtol=1e-4, atol=1e-4)

    def reference(before, valid):
        given = inputs | {"user_valid": torch.tensor([[1.0, valid]])}
        return list(run(networks["lcu_encoder"], given | {"user_reference_latents": before}))[3]

    nobody = torch.zeros(1, *CONFIG.latent_shape)
    first = inputs["user_latents"][:, 0]
    torch.testing.assert_close(reference(nobody, 1.0), first)
    torch.testing.assert_close(reference(nobody, 0.0), nobody)
    torch.testing.assert_close(reference(other[:, 0], 1.0), other[:, 0])


def test_the_serpentine_path_moves_one_step_at_a_time():
    order = serpentine_order(4)
    assert sorted(order) == list(range(16))
    places = np.stack(np.divmod(order, 4), axis=1)
    assert (np.abs(np.diff(places, axis=0)).sum(axis=1) == 1).all()


@pytest.mark.parametrize("config", [pico(), nano()], ids=lambda config: config.name)
def test_shipped_sizes_fit_their_weight_budget(config):
    networks = random_networks(config)
    halves = sum(p.numel() for n in networks.values() for p in n.state_dict().values()) * 2
    assert halves < 60e6


def run(network, inputs):
    with torch.inference_mode():
        outputs = network(*inputs.values())
    return outputs if isinstance(outputs, tuple) else (outputs,)
