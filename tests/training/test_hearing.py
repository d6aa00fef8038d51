"""Many blocks heard in one pass are what they are one by one."""

import numpy as np
import pytest
import torch

from tests.sizes import tiny
from training.data import Track
from training.hearing import Hindrance, hear, heard_blocks, remembered
from visavis.contract import lcu_state
from visavis.nn.echo import Echo

CONFIG = tiny()
BLOCKS = 23  # two memory tokens and some


@pytest.fixture(scope="module")
def echo():
    torch.manual_seed(0)
    return Echo(CONFIG).eval()


@pytest.fixture(scope="module")
def users(tmp_path_factory):
    """Two people of random latents and features."""
    generator, found = np.random.default_rng(0), []
    for _ in range(2):
        folder = tmp_path_factory.mktemp("track")
        frames = BLOCKS * CONFIG.block_frames
        width = (CONFIG.audio.feature_frames, CONFIG.audio.feature_width)
        np.save(folder / "latents.npy", generator.standard_normal((frames, *CONFIG.latent_shape)))
        np.save(folder / "user_features.npy", generator.standard_normal((BLOCKS, *width)))
        found.append(Track(folder, folder))
    return found


@torch.no_grad()
def one_by_one(echo, users):
    """f_pu of all blocks, as a server computes it."""
    frames, found = CONFIG.block_frames, []
    state = [torch.zeros(len(users), *spec.dims) for spec in lcu_state(CONFIG)]
    for block in range(BLOCKS):
        before = slice(max(0, block - 1) * frames, max(1, block) * frames)
        features = np.stack([user.user_features[block] for user in users])
        latents = np.stack([user.latents[before] for user in users])
        user_tokens, *state = echo.lcu_encoder(
            torch.from_numpy(features).float(),
            torch.from_numpy(latents).float(),
            torch.full((len(users), 2), float(block > 0)),
            torch.full((len(users), 1), block),
            *state,
        )
        found.append(user_tokens)
    return torch.stack(found, dim=1)


def test_all_at_once_is_one_by_one(echo, users):
    whole = one_by_one(echo, users)
    with torch.no_grad():
        at_once = hear(echo, users, range(BLOCKS), BLOCKS)
    torch.testing.assert_close(at_once, whole, rtol=1e-4, atol=1e-4)


def test_answers_and_gradients_do_not_depend_on_what_is_learned(echo, users):
    expected = one_by_one(echo, users)[:, -2:]
    for learned in (0, 3, BLOCKS):
        heard = hear(echo, users, range(BLOCKS), 2, learned_blocks=learned)
        torch.testing.assert_close(heard, expected, rtol=1e-4, atol=1e-4)
        echo.zero_grad()
        heard.square().sum().backward()
        scans = echo.lcu_encoder.perception.audio_scan.project.weight.grad
        assert (scans is not None and bool(scans.any())) == (learned > 0)
        assert echo.lcu_encoder.context_memory.pool.weight.grad.any()


def test_what_is_remembered_at_once_is_what_is_remembered_block_by_block(echo):
    """From the middle of a token on, and for longer than the memory holds."""
    lcu = echo.config.lcu
    perceived = torch.randn(2, 700, 5, lcu.tokens_per_frame, lcu.width)
    blocks, kept = range(-4, 696), echo.lcu_encoder.context_memory
    memory, summary = torch.zeros(2, lcu.memory_tokens, lcu.width), torch.zeros(2, lcu.width)
    found = []
    with torch.no_grad():
        for n, block in enumerate(blocks):
            memory, summary = kept(perceived[:, n], memory, summary, torch.full((2, 1), block))
            found.append((memory, summary))
        at_once = remembered(echo, kept.pooled(perceived), blocks, len(blocks))
    for parts, ours in zip(zip(*found, strict=True), at_once, strict=True):
        torch.testing.assert_close(ours, torch.stack(parts, dim=1), rtol=1e-4, atol=1e-5)


def test_a_window_forgets_what_was_before_it(echo, users):
    window = heard_blocks(echo, BLOCKS - 1, window_blocks=4)
    assert window == range(BLOCKS - 4, BLOCKS)
    with torch.no_grad():
        short = hear(echo, users, window, 1)
        whole = hear(echo, users, heard_blocks(echo, BLOCKS - 1), 1)
        forgetful = [Track(user.folder, user.partner) for user in users]
        for user in forgetful:
            features = np.array(user.user_features)
            features[: BLOCKS - 4] = 7.0
            user.__dict__["user_features"] = features
        assert torch.equal(hear(echo, forgetful, window, 1), short)
        assert not torch.allclose(hear(echo, forgetful, range(BLOCKS), 1), whole)


def test_a_window_may_begin_before_the_conversation(echo, users):
    with torch.no_grad():
        heard = hear(echo, users, heard_blocks(echo, 1, window_blocks=4), 1)
    assert heard.isfinite().all()


def test_what_is_withheld_or_drowned_in_noise_is_not_heard(echo, users):
    """Two people who do different things are told apart by what is left of them."""

    def apart(**changes):
        torch.manual_seed(1)
        left = Hindrance(
            **{"voice_dropout": 1.0, "face_dropout": 1.0, "voice_noise": 0.0} | changes
        )
        heard = hear(echo, users, range(BLOCKS), 1, hindrance=left)
        return float((heard[0] - heard[1]).detach().abs().max())

    assert apart() < 1e-5
    assert apart(face_dropout=0.0) > 1e-3 and apart(voice_dropout=0.0) > 1e-3


def test_who_is_only_heard_has_no_face(echo, users):
    """Unlike a track whose latents were forgotten, which is an error."""
    (heard, other), faceless = users, Hindrance(0.0, 1.0, 0.0, 0.0)
    spoken = Track(heard.folder.parent / "spoken" / "conversation_0000" / "a", heard.folder)
    spoken.__dict__["user_features"] = heard.user_features
    with torch.no_grad():
        unseen = hear(echo, [spoken, other], range(BLOCKS), 1)
        withheld = hear(echo, [heard, heard], range(BLOCKS), 1, hindrance=faceless)
        seen = hear(echo, [heard, other], range(BLOCKS), 1)
    torch.testing.assert_close(unseen[0], withheld[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(unseen[1], seen[1], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(unseen[0], seen[0], atol=1e-3)


def test_noise_is_as_large_as_is_said():
    torch.manual_seed(0)
    voice, face = torch.randn(4, 50, 64), 3 * torch.randn(4, 50, 8, 4, 4)
    rough = Hindrance(voice_noise=1.0, face_noise=0.5).roughen(voice, face)
    assert float((rough[0] - voice).std()) == pytest.approx(1.0, rel=0.05)
    assert float((rough[1] - face).std()) == pytest.approx(1.5, rel=0.05)
