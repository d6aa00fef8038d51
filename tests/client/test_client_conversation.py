"""How a recorded conversation is cut into the chunks of a live one, and read from files."""

import json

import numpy as np
import pytest
from visavis_client import AudioError, Conversation, InputError, Position, TranscriptError, Turn
from visavis_client.conversation import read_transcript

SIZE = 8
FRAMES = 53


@pytest.fixture
def talk():
    rng = np.random.default_rng(0)
    return Conversation(
        rng.uniform(-0.5, 0.5, (FRAMES - 1) * 640 + 100).astype(np.float32),
        user_audio=rng.uniform(-0.5, 0.5, 20 * 640).astype(np.float32),
        user_video=rng.integers(0, 256, (30, SIZE, SIZE, 3), np.uint8),
        transcript=(Turn("avatar", "late", 1.5), Turn("user", "early", 0.1)),
    )


def chunks(talk, sent=None):
    return list(talk.chunks(block_frames=5, image_size=SIZE, sent=sent))


def test_each_chunk_has_what_its_block_needs_and_nothing_of_the_users_future(talk):
    position = Position()
    for block, chunk in enumerate(chunks(talk)):
        position = position.after(chunk)
        assert position.avatar_samples == min(len(talk.avatar_audio), (5 * block + 8) * 640)
        assert position.user_samples == 5 * block * 640
        assert position.user_frames == 5 * block
    assert position.avatar_frames == talk.frames == FRAMES
    assert position.turns == 2


def test_the_chunks_together_are_the_conversation(talk):
    parts = chunks(talk)
    avatar = np.concatenate([c.avatar_audio for c in parts])
    np.testing.assert_array_equal(avatar, talk.avatar_audio)
    user = np.concatenate([c.user_audio for c in parts])
    np.testing.assert_array_equal(user[: 20 * 640], talk.user_audio)
    video = np.concatenate([c.user_video for c in parts])
    np.testing.assert_array_equal(video[:30], talk.user_video)


def test_tracks_that_end_early_go_on_as_silence_and_as_the_last_picture(talk):
    parts = chunks(talk)
    assert not np.concatenate([c.user_audio for c in parts])[20 * 640 :].any()
    video = np.concatenate([c.user_video for c in parts])
    assert len(video) == 50
    assert (video[30:] == talk.user_video[-1]).all()


def test_turns_come_in_order_and_with_the_sound_of_their_time(talk):
    said = {turn.text: i for i, chunk in enumerate(chunks(talk)) for turn in chunk.turns}
    assert said == {"early": 0, "late": 7}  # blocks of 0.2 s


@pytest.mark.parametrize("after", [1, 4, 10])
def test_what_was_sent_is_not_sent_again(talk, after):
    whole = chunks(talk)
    position = Position()
    for chunk in whole[:after]:
        position = position.after(chunk)
    rest = [c for c in chunks(talk, position) if len(c.avatar_audio) + len(c.user_audio) > 0]
    assert len(rest) == len(whole) - after
    for got, expected in zip(rest, whole[after:], strict=True):
        np.testing.assert_array_equal(got.avatar_audio, expected.avatar_audio)
        np.testing.assert_array_equal(got.user_audio, expected.user_audio)
        np.testing.assert_array_equal(got.user_video, expected.user_video)
        assert got.turns == expected.turns


def test_without_a_user_no_user_is_sent(talk):
    alone = Conversation(talk.avatar_audio)
    assert all(c.user_audio is None and c.user_video is None for c in chunks(alone))


def test_a_conversation_needs_a_sound_avatar():
    with pytest.raises(InputError, match="0 samples"):
        Conversation(np.zeros(0, np.float32))
    with pytest.raises(AudioError, match="sample 3"):
        Conversation(np.array([0, 0, 0, np.inf], np.float32))


def test_a_transcript_is_read(tmp_path):
    path = tmp_path / "t.json"
    path.write_text('[{"role": "user", "text": "hi", "start_s": 0.5}]')
    assert read_transcript(path) == (Turn("user", "hi", 0.5),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no json", "cannot be read as JSON"),
        ('{"role": "user"}', "JSON dict"),
        ('[{"role": "user", "text": "hi", "start_s": 0}, {"role": "user"}]', "turn 1"),
        (json.dumps([{"role": "host", "text": "hi", "start_s": 0}]), "turn 0: role: got 'host'"),
        (json.dumps([{"role": "user", "text": "hi", "start_s": -1}]), "start_s: got -1"),
        (json.dumps([{"role": "user", "text": 3, "start_s": 0}]), "text: got 3"),
    ],
)
def test_a_wrong_transcript_says_where(tmp_path, content, message):
    path = tmp_path / "t.json"
    path.write_text(content)
    with pytest.raises(TranscriptError, match=message):
        read_transcript(path)


def test_a_missing_transcript_is_said_so(tmp_path):
    with pytest.raises(TranscriptError, match="no such file"):
        read_transcript(tmp_path / "t.json")
