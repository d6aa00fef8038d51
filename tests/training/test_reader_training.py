"""The reader learns what is labelled, and is the same when it is read back."""

import numpy as np
import pytest

from training import reader
from training.corpus.dialogues import topics
from training.reader import Said, fit, left_out_share, read, right_share, save, spoken
from visavis.reader import WordVectors

WORDS = ["rain", "sun", "gift", "grave", "it", "is"]
TURNS = [
    Said(emotion, text, number)
    for number, (emotion, text) in enumerate(
        [("happy", "sun"), ("happy", "gift is it"), ("sad", "grave"), ("neutral", "rain")] * 8
    )
]


@pytest.fixture
def words():
    vectors = np.random.default_rng(0).standard_normal((len(WORDS), 5)).astype(np.float32)
    return WordVectors({word: row for row, word in enumerate(WORDS)}, vectors)


def test_labelled_files_are_read_and_bad_lines_named(tmp_path):
    path = tmp_path / "turns.txt"
    path.write_text("sad: It rained: all day.\ncalm: Did it?\n")
    assert read(path) == [Said("sad", "It rained: all day."), Said("calm", "Did it?")]
    path.write_text("neutral: Yes.\nbored: So what.\n")
    with pytest.raises(ValueError, match="line 2: got 'bored"):
        read(path)


def test_all_labelled_turns_of_the_corpus_can_be_read():
    for turns in (spoken("train"), spoken("test"), read(reader.SENTENCES)):
        assert len(turns) > 50
    assert {turn.dialogue for turn in spoken("test")} == set(range(len(topics("test"))))


def test_it_learns_what_words_show_and_is_judged_on_what_it_has_not_seen(words):
    found = fit(words, TURNS, 10.0)
    assert right_share(found, TURNS) == 1.0
    assert found("sun is it")["happy"] > 0.5 > found("grave")["happy"]
    assert left_out_share(words, TURNS, [], 10.0) == 1.0
    odd = [Said("sad", "gift", reader.FOLDS)]  # says what no other dialogue says
    assert left_out_share(words, [*TURNS, *odd], [], 10.0) < 1.0


def test_what_is_written_reads_the_same(words, tmp_path):
    found = fit(words, TURNS, 10.0)
    again = save(found, tmp_path / "weights" / "reader.npz")
    for turn in TURNS:
        assert again(turn.text) == pytest.approx(found(turn.text), abs=0.02)
