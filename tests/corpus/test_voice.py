"""Phoneme times must match what is heard: lips learned from them would be out of sync else."""

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the corpus extra (scipy) is not installed")

from scipy.signal import butter, sosfiltfilt

from training.corpus.voice import VOICES, SpeechSynthesizer, Voice, laughter
from visavis.config import SAMPLE_RATE_HZ

STEP = 80  # samples, 5 ms
TEXT = "She says the fish is fresh, so we should buy sixty of those."
ENGINES = {
    "kokoro": Voice("kokoro", {"jm_kumo": 1.0}, pitch=0.95),
    "hibari": VOICES["train"]["female"][0],
    "piper": VOICES["test"]["male"][0],
}


@pytest.fixture(scope="module")
def speech(speech_model: None) -> SpeechSynthesizer:
    return SpeechSynthesizer()


@pytest.mark.parametrize("engine", ENGINES)
def test_vowels_sound_at_the_time_of_their_phonemes(engine: str, speech: SpeechSynthesizer) -> None:
    said = speech.speak(TEXT, ENGINES[engine])
    assert said.phonemes[-1].end == pytest.approx(said.seconds, abs=0.1)
    count = len(said.samples) // STEP
    band = butter(4, [200, 2500], "band", fs=SAMPLE_RATE_HZ, output="sos")
    voiced = sosfiltfilt(band, said.samples)
    loudness = np.log(1e-3 + np.abs(voiced[: count * STEP]).reshape(count, STEP).mean(1))
    times = (np.arange(count) + 0.5) * STEP / SAMPLE_RATE_HZ
    expected = np.zeros(count)
    for phoneme in said.phonemes:
        if phoneme.symbol in "aɑæʌɛɪiuɔOAIWYəɜ":
            expected[(times >= phoneme.start) & (times < phoneme.end)] = 1
    steps = np.arange(-20, 21)
    fit = [np.corrcoef(np.roll(expected, step), loudness)[0, 1] for step in steps]
    assert max(fit) > 0.3
    assert abs(steps[int(np.argmax(fit))]) * STEP / SAMPLE_RATE_HZ <= 0.04


def test_pitch_leaves_the_length_of_speech(speech: SpeechSynthesizer) -> None:
    low, high = (
        speech.speak(TEXT, Voice("hibari", {}, pitch=pitch)).seconds for pitch in (0.9, 1.1)
    )
    assert low == pytest.approx(high, rel=0.15)  # phonemes last whole frames


def test_laughter_is_made_of_calls(speech: SpeechSynthesizer) -> None:
    laugh = laughter(speech, ENGINES["hibari"], 4, np.random.default_rng(0))
    calls = [phoneme for phoneme in laugh.phonemes if phoneme.symbol == "ɑ"]
    assert len(calls) == 4
    gaps = np.diff([call.start for call in calls])
    assert (gaps > 0.17).all() and (gaps < 0.23).all()
    energy = [
        np.abs(laugh.samples[int(c.start * SAMPLE_RATE_HZ) : int(c.end * SAMPLE_RATE_HZ)]).max()
        for c in calls
    ]
    assert energy[0] > energy[-1] > 0
