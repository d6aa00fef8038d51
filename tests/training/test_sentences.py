"""Sentences are those of the server: by the turns that have begun, as the session keeps them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.training.whole_track import BLOCKS, CONFIG, track
from training import batches, sentences
from training.batches import Place, affect_words, batch_of
from training.data import truth_of
from training.repeated import Repeated
from training.sentences import due, told, turns_heard
from visavis import session
from visavis.affect import ReaderAffect, Turn, sentence, word_ids
from visavis.config import FRAME_RATE_HZ
from visavis.messages import Options

F = CONFIG.block_frames
TURNS = [
    {"speaker": "b", "text": "We won, it is wonderful.", "start_frame": 0, "emotion": "happy"},
    {"speaker": "a", "text": "Good.", "start_frame": F, "emotion": "happy"},
    {"speaker": "b", "text": "My cat died.", "start_frame": 2 * F, "emotion": "sad"},
]


@pytest.fixture
def whole(tmp_path):
    known = {f"a_{name}": np.zeros(BLOCKS * F) for name in ("aperture", "speaking", "pose")}
    found = truth_of({**known, "transcript": np.array(json.dumps(TURNS))}, "a")
    made = track(tmp_path)
    truth = dict(np.load(tmp_path / "truth.npz")) | {"transcript": found["transcript"]}
    np.savez(tmp_path / "truth.npz", **truth)
    return made


def test_a_track_knows_its_turns_as_the_avatars_server_is_told_them(whole):
    assert [turn.role for turn in whole.turns] == ["user", "avatar", "user"]
    assert whole.turns[2] == Turn("user", "My cat died.", 2 * F / FRAME_RATE_HZ)


def test_without_a_transcript_nothing_is_told(tmp_path):
    assert told(track(tmp_path), 3) == sentence([])


def test_what_is_told_is_what_a_session_is(whole, monkeypatch):
    for module in (sentences, session):
        monkeypatch.setattr(module, "HISTORY_TURNS", 2)
    texts = []

    def affect(history):
        texts.append(ReaderAffect().describe(history))
        return np.zeros((CONFIG.affect.tokens, CONFIG.affect.width), np.float32)

    reference = {"reference_latents": np.zeros(CONFIG.latent_shape, np.float32)}
    portrait = np.zeros((CONFIG.image_size, CONFIG.image_size, 3), np.uint8)
    state = session.start(CONFIG, Options(), portrait, reference, affect(()))
    state = session.append(state, transcript=whole.turns)
    for block in range(BLOCKS):
        state = session.hear(replace(state, block_index=block), affect)
        assert told(whole, block * F) == texts[-1]
    assert len(texts) == 1 + len(TURNS) and "happy" in texts[1] and "concerned" in texts[-1]


def test_a_window_forgets_all_but_the_newest_turn_and_what_began_in_it(whole):
    assert turns_heard(whole, 2 * F, F) == whole.turns[2:]
    assert turns_heard(whole, 2 * F, 2 * F) == whole.turns[1:]
    assert turns_heard(whole, 3 * F, 1) == whole.turns[2:]  # it may still go on


def test_places_say_what_is_told_or_what_is_due(whole):
    false, true = Place(whole, 2, 0), Place(whole, 2, 0, told=False)
    assert np.array_equal(affect_words(true, CONFIG), word_ids(due(whole, 2 * F), CONFIG.affect))
    assert due(whole, 2 * F) == sentence(["happy"]) != told(whole, 2 * F)
    batch = batch_of([false, true], CONFIG, torch.device("cpu"))
    expected = [word_ids(text, CONFIG.affect) for text in (told(whole, 2 * F), due(whole, 2 * F))]
    assert np.array_equal(batch.word_ids.numpy(), np.stack(expected))


def test_a_window_of_blocks_is_one_of_frames(whole, monkeypatch):
    asked = []

    def listen(*heard):
        asked.append(heard)
        return sentence([])

    monkeypatch.setattr(batches, "told", listen)
    affect_words(Place(whole, 2, 0, window_blocks=3), CONFIG)
    affect_words(Place(whole, 2, 0), CONFIG)
    assert asked == [(whole, 2 * F, 3 * F), (whole, 2 * F, None)]


def test_a_conversation_that_comes_again_is_told_again(whole):
    twice = Repeated(whole.folder, whole.partner, 2 * BLOCKS, F)
    assert [turn.text for turn in twice.turns] == 2 * [turn.text for turn in whole.turns]
    again = turns_heard(twice, (BLOCKS + 1) * F)
    assert again[:3] == whole.turns
    assert [turn.text for turn in again[3:]] == [turn.text for turn in whole.turns[:2]]
    assert "transcript" not in twice.truth
