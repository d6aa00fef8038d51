"""This is where one turn's words are read: which emotion its speaker shows.

A sentence is the mean of its words' vectors, and a linear classifier says what it shows: small
enough to live beside the code, and fast enough to be asked in every block. `training.reader` makes
the vectors and the classifier; `weights/reader.npz` holds

- `words` (bytes,) uint8: all known words, a line each
- `vectors` (words, D) int8 and `scale` (D,) float32: their vectors, rare words longer than common
- `weight` (D + marks, emotions) and `bias` (emotions,) float32: the classifier
- `emotions` (emotions,) str

Legend: D width of a vector.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

WEIGHTS = Path(__file__).parent / "weights" / "reader.npz"
WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
NEGATIONS = frozenset(["not", "no", "never", "without", "hardly", "nobody", "nothing", "cannot"])


def words_of(text: str) -> list[str]:
    """The words of a text, in small letters."""
    return WORD.findall(text.lower().replace("’", "'"))


def marks(text: str) -> np.ndarray:
    """(4,) float32, what the mean of words does not tell: ?, !, a negation, and how many words."""
    words = words_of(text)
    negated = any(word in NEGATIONS or word.endswith("n't") for word in words)
    length = np.log1p(len(words)) / 3
    return np.array(["?" in text, "!" in text, negated, length], np.float32)


@dataclass(frozen=True)
class WordVectors:
    """Vectors (words, D) of known words, by the word's row."""

    rows: Mapping[str, int]
    vectors: np.ndarray

    def features(self, text: str) -> np.ndarray:
        """(D + 4,) float32: the direction of the mean of all known words, and the marks.

        The direction is zero where no word is known.
        """
        known = [self.rows[word] for word in words_of(text) if word in self.rows]
        mean = self.vectors[known].mean(0) if known else np.zeros(self.vectors.shape[1])
        length = float(np.linalg.norm(mean))
        direction = mean / length if length > 0 else mean
        return np.concatenate([direction, marks(text)]).astype(np.float32)


@dataclass(frozen=True)
class EmotionReader:
    """Tells of a text which emotion it shows, with probabilities."""

    words: WordVectors
    weight: np.ndarray
    bias: np.ndarray
    emotions: tuple[str, ...]

    @classmethod
    def from_file(cls, path: Path = WEIGHTS) -> EmotionReader:
        """The reader that `training.reader` wrote."""
        with np.load(path, allow_pickle=False) as kept:
            words = kept["words"].tobytes().decode().split("\n")
            vectors = kept["vectors"].astype(np.float32) * kept["scale"]
            rows = {word: row for row, word in enumerate(words)}
            emotions = tuple(kept["emotions"].tolist())
            return cls(WordVectors(rows, vectors), kept["weight"], kept["bias"], emotions)

    def __call__(self, text: str) -> dict[str, float]:
        """The probability of every emotion; they sum to 1. Nothing said is neutral."""
        if not words_of(text):
            return {emotion: float(emotion == "neutral") for emotion in self.emotions}
        scores = self.words.features(text) @ self.weight + self.bias
        odds = np.exp(scores - scores.max())
        return dict(zip(self.emotions, (odds / odds.sum()).tolist(), strict=True))


@cache
def built_in() -> EmotionReader:
    """The one that comes with the package."""
    return EmotionReader.from_file()
