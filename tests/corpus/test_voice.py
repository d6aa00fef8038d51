"""Phoneme times must match what is heard: lips learned from them would be out of sync else."""

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the corpus extra (scipy) is not installed")

from scipy.signal import butter, sosfiltfilt

from training.corpus.voice import SAMPLE_RATE, SpeechSynthesizer, Voice

STEP = 80  # samples, 5 ms


@pytest.mark.usefixtures("speech_model")
def test_hissing_sounds_at_the_time_of_its_phonemes() -> None:
    text = "Sixteen horses passed a house, and six of us saw this scene."
    speech = SpeechSynthesizer().speak(text, Voice({"jm_kumo": 1.0}, speed=1.0, pitch=0.95))
    count = len(speech.samples) // STEP
    hiss = sosfiltfilt(butter(4, 4000, "high", fs=SAMPLE_RATE, output="sos"), speech.samples)
    loudness = np.log(1e-3 + np.abs(hiss[: count * STEP]).reshape(count, STEP).mean(1))
    times = (np.arange(count) + 0.5) * STEP / SAMPLE_RATE
    expected = np.zeros(count)
    for phoneme in speech.phonemes:
        if phoneme.symbol in "sz":
            expected[(times >= phoneme.start) & (times < phoneme.end)] = 1
    steps = np.arange(-20, 21)
    fit = [np.corrcoef(np.roll(expected, step), loudness)[0, 1] for step in steps]
    assert max(fit) > 0.3
    assert abs(steps[int(np.argmax(fit))]) * STEP / SAMPLE_RATE <= 0.03
