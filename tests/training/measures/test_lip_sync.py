"""The lip scorer learns a correspondence, finds shifts, and tells another's voice."""

import dataclasses

import numpy as np
import pytest
import torch

from tests.cache import save_track, write_cache
from tests.sizes import tiny
from training import lip_sync
from training.loop import LoopConfig
from training.measures import lip_sync as scorer
from visavis import checkpoint, config
from visavis.checkpoint import CheckpointError

CONFIG = tiny()
FRAMES = 150
NETWORK = scorer.LipSyncConfig(
    mouth_size=8, mouth_widths=(8, 16), voice_width=16, embedding=16, dropout=0.0
)
SETTINGS = lip_sync.LipSyncTraining(
    size="tiny",
    batch=4,
    report_every=60,
    network=NETWORK,
    loop=LoopConfig(
        steps=120, learning_rate=5e-3, warmup_steps=5, ema_decay=0.9, save_every=60, report_every=60
    ),
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Mouths that open as far as the voice is loud, one loudness a frame, at random."""
    return write_cache(tmp_path_factory.mktemp("cache"), write_track, train=3)


def write_track(folder, generator):
    size, audio = CONFIG.image_size, CONFIG.audio
    loud = np.convolve(generator.uniform(0, 1, FRAMES + 1), [0.5, 0.5], "valid")
    frames = np.broadcast_to(
        generator.integers(90, 200, 3, np.uint8), (FRAMES, size, size, 3)
    ).copy()
    rows = np.linspace(0, 1, size)[None, :, None, None]
    frames[
        (np.abs(rows - 0.69) < 0.13 * loud[:, None, None, None]).repeat(size, 2).repeat(3, 3)
    ] = 20
    per_frame = generator.normal(0, 0.3, (FRAMES + 20, audio.feature_width))
    per_frame[10 : 10 + FRAMES, : audio.feature_width // 2] += 4 * loud[:, None]
    first = 10 - (audio.feature_frames - CONFIG.lookahead_frames - CONFIG.block_frames)
    starts = np.arange(0, FRAMES, CONFIG.block_frames) + first
    features = np.stack([per_frame[n : n + audio.feature_frames] for n in starts])
    save_track(folder, frames, features, speaking=np.ones(FRAMES, bool))


@pytest.fixture(autouse=True, scope="module")
def tiny_size():
    config.SIZES["tiny"] = tiny
    yield
    del config.SIZES["tiny"]


@pytest.fixture(scope="module")
def trained(cache, tmp_path_factory):
    return lip_sync.train(cache, tmp_path_factory.mktemp("run"), SETTINGS)


@pytest.fixture(scope="module")
def talks(cache):
    tracks = lip_sync.tracks(cache, "test")
    return [lip_sync.talk_of(track, CONFIG, NETWORK.mouth_size) for track in tracks]


def test_a_shifted_voice_shifts_the_offset(trained, talks):
    model = scorer.load(trained)
    for delay in (-6, -1, 0, 2, 7):
        found = talks[0].score(model, delay=delay)
        assert found is not None and found.offset_frames == -delay


def test_late_lips_have_a_positive_offset(trained, talks):
    model = scorer.load(trained)
    late = dataclasses.replace(talks[0], mouths=np.roll(talks[0].mouths, 3, axis=0))
    found = late.score(model)
    assert found is not None and found.offset_frames == 3


def test_another_voice_has_less_confidence(trained, talks):
    model = scorer.load(trained)
    for talk, other in zip(talks, talks[1:] + talks[:1], strict=True):
        own, mismatched = talk.score(model), talk.score(model, voice=other)
        assert own is not None and mismatched is not None
        assert mismatched.confidence < 0.5 * own.confidence
        assert mismatched.distance > own.distance


def test_the_report_says_that_it_can_be_trusted(trained):
    import json

    metrics = json.loads((trained / "manifest.json").read_text())["metrics"]
    assert metrics["shift_found"] == 1 and metrics["offset_within_1"] == 1
    assert metrics["confidence_other_voice"] < 0.5 * metrics["confidence"]


def test_features_of_frames_are_those_of_their_own_time(cache):
    track = lip_sync.tracks(cache, "test")[0]
    features = scorer.frame_features(track, CONFIG).astype(np.float32)
    loudness = features[:, : CONFIG.audio.feature_width // 2].mean(1)
    dark = (np.asarray(track.frames)[:, :, 0, 0] == 20).sum(1)
    assert np.corrcoef(loudness, dark)[0, 1] > 0.9


def test_the_score_by_hand():
    """Embeddings on a circle: lips at an angle of t, voices two frames earlier."""
    angle = np.arange(60) * 0.25
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    found = scorer.score(np.roll(circle, 2, axis=0), circle)
    assert found is not None and found.offset_frames == 2
    assert found.distance == pytest.approx(0, abs=1e-9)
    chords = [abs(2 * np.sin(0.25 * (offset - 2) / 2)) for offset in range(-10, 11)]
    np.testing.assert_allclose(found.curve, chords, atol=1e-9)
    assert found.confidence == pytest.approx(np.median(chords))


def test_only_counted_frames_matter():
    generator = np.random.default_rng(0)
    lips = generator.normal(size=(60, 4))
    lips /= np.linalg.norm(lips, axis=1, keepdims=True)
    voices = np.roll(lips, 4, axis=0)
    voices[:30] = lips[:30]
    counted = np.arange(64) < 32  # of frames; windows of five have two frames on either side
    first, second = scorer.score(lips, voices, counted), scorer.score(lips, voices, ~counted)
    assert first is not None and first.offset_frames == 0
    assert second is not None and second.offset_frames == -4
    assert scorer.score(lips, voices, np.zeros(64, bool)) is None
    assert scorer.score(lips[:20], voices[:20]) is None


def test_shapes_and_unit_length():
    model = scorer.LipSync(dataclasses.replace(NETWORK, audio_width=12))
    for batch, frames in ((1, 9), (3, 20)):
        lips, voices = model(torch.randn(batch, frames, 8, 8), torch.randn(batch, frames, 12))
        assert lips.shape == voices.shape == (batch, frames - 4, 16)
        torch.testing.assert_close(lips.norm(dim=-1), torch.ones(batch, frames - 4))


def test_a_mouth_that_does_not_move_is_nothing():
    still = np.full((5, 8, 8), 77, np.uint8)
    assert not scorer.normalised(still).any()


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"got no config\.json"):
        scorer.load(tmp_path)
    checkpoint.save(tmp_path, "vae", CONFIG, {"weight": np.zeros(1, np.float32)})
    with pytest.raises(CheckpointError, match="got the network 'vae', expected 'lip_sync'"):
        scorer.load(tmp_path)
