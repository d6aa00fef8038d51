"""Scripts performed with a voice that costs nothing: timing, tracks, causes, truth."""

import json

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the corpus extra (scipy) is not installed")

from training.corpus import truth
from training.corpus.causes import CAUSES, CONTEXTS, REACTIONS
from training.corpus.conversation import PEOPLE, Conversation, cut_off, perform, write_script
from training.corpus.dialogues import parse_topics
from training.corpus.voice import VOICES
from visavis.config import FRAME_RATE_HZ, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME

SCRIPT = parse_topics("""
[bad dog]
sad#: our old dog collapsed on our walk this morning, and now he is at the vet.
concerned: oh no. is he in pain?

[story key]
neutral: where is the key to the cellar, and where is the lamp?
surprised!: the key? you had it on monday.

[joke bread]
happy: i tried to bake my own bread.
happy*: the birds brought it back.

[sequel dog]
neutral: is there news about the dog?
happy: he ate, and he may come home.
""")
VOICE = dict(zip(PEOPLE, VOICES["train"]["female"], strict=False))


@pytest.fixture(scope="module")
def conversation(fake_speech) -> Conversation:
    return perform(SCRIPT, 60.0, VOICE, fake_speech, np.random.default_rng(3))


def test_tracks_have_the_length_of_the_video(conversation: Conversation) -> None:
    assert conversation.frames == 60 * FRAME_RATE_HZ
    for track in conversation.voices.values():
        assert track.shape == (conversation.frames * SAMPLES_PER_FRAME,)


def test_each_voice_sounds_only_when_its_person_speaks(conversation: Conversation) -> None:
    for person, track in conversation.voices.items():
        times = np.arange(len(track)) / SAMPLE_RATE_HZ
        silent = np.ones(len(track), bool)
        for start, end in conversation.spoken(person):
            silent &= (times < start - 0.05) | (times > end + 0.12)
        assert not track[silent].any()
        assert track[~silent].any()


def test_turns_alternate_and_an_interruption_overlaps(conversation: Conversation) -> None:
    turns = conversation.turns
    assert len(turns) == 8
    cut, interrupting = turns[2], turns[3]
    assert cut.interrupted
    assert cut.start < interrupting.start < cut.end
    assert not any(turn.interrupted for turn in turns if turn is not cut)
    startles = [r for r in conversation.reactions if r.kind == "startle"]
    assert [r.person for r in startles] == [cut.speaker]


def test_who_was_told_asks_how_it_went_on(conversation: Conversation) -> None:
    assert conversation.turns[6].speaker != conversation.turns[0].speaker


def test_causes_come_first_and_contexts_before_them(conversation: Conversation) -> None:
    assert conversation.reactions
    for reaction in conversation.reactions:
        assert reaction.cause_time <= reaction.start < reaction.end
        assert (reaction.context == "none") == (reaction.context_time is None)
        if reaction.context_time is not None:
            assert reaction.context_time <= reaction.start


def test_the_joke_is_sobered_by_the_news(conversation: Conversation) -> None:
    (answer,) = (r for r in conversation.reactions if r.cause == "joke")
    assert answer.context == "bad_news"
    assert answer.context_time == pytest.approx(conversation.turns[0].end)
    assert answer.strength < 0.6  # at least 0.75 without the news


def test_performing_again_gives_the_same(conversation: Conversation, fake_speech) -> None:
    again = perform(SCRIPT, 60.0, VOICE, fake_speech, np.random.default_rng(3))
    assert again.turns == conversation.turns
    assert again.reactions == conversation.reactions


def test_an_interrupted_voice_dies_away(fake_speech) -> None:
    spoken = fake_speech.speak("abcdefgh", VOICE["a"])
    cut = cut_off(spoken, 0.4)
    assert cut.seconds == pytest.approx(0.4)
    assert cut.samples[-1] == 0
    assert cut.phonemes[-1].end == 0.4


def test_of_three_scripts_one_has_bad_and_one_good_news() -> None:
    kinds = [[topic.kind for topic in write_script("train", n, seed=0)] for n in range(3)]
    assert "bad" in kinds[0] and "good" not in kinds[0]
    assert "good" in kinds[1] and "bad" not in kinds[1]
    assert not {"good", "bad"} & set(kinds[2])
    for topics in kinds[:2]:
        assert topics.index("joke") > 1  # a joke comes after the news


def test_truth_has_a_value_a_frame_and_names_for_all(conversation: Conversation) -> None:
    for person in PEOPLE:
        tracks = truth.reaction_tracks(conversation, person)
        assert {values.shape for values in tracks.values()} == {(conversation.frames,)}
        reacts = tracks["reaction"] > 0
        assert reacts.any()
        assert (tracks["cause_frame"][reacts] >= 0).all()
        assert (tracks["cause"][reacts] > 0).all()
        assert not tracks["cause"][~reacts].any()
        swayed = tracks["context"] > 0
        assert ((tracks["context_frame"] >= 0) == swayed).all()
        assert tracks["reaction"].max() < len(REACTIONS)
        assert tracks["cause"].max() < len(CAUSES)
        assert tracks["context"].max() < len(CONTEXTS)


def test_the_floor_belongs_to_who_has_the_turn(conversation: Conversation) -> None:
    floor = truth.floor_track(conversation)
    cut, interrupting = conversation.turns[2:4]
    assert floor[int((interrupting.start + cut.end) / 2 * FRAME_RATE_HZ)] == 3
    first = conversation.turns[0]
    middle = int((first.start + first.end) / 2 * FRAME_RATE_HZ)
    assert floor[middle] == PEOPLE.index(first.speaker) + 1
    assert floor[0] == 0


def test_transcript_and_reactions_are_json(conversation: Conversation) -> None:
    turns = json.loads(truth.transcript(conversation))
    assert [turn["text"] for turn in turns] == [turn.text for turn in conversation.turns]
    assert all(turn["end_frame"] > turn["start_frame"] for turn in turns)
    rows = json.loads(truth.reactions(conversation))
    expected = {"person", "kind", "cause", "cause_frame", "start_frame", "end_frame"}
    assert expected <= set(rows[0])
    assert all(row["cause_frame"] <= row["start_frame"] < row["end_frame"] for row in rows)
