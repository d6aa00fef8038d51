"""Voices, when they are active, how loud they are, and what is said."""

import json

import numpy as np
import pytest
import soundfile

from tests.corpus.prepare.conftest import LEAD_S, TURN_S
from training.corpus.prepare import speech, transcripts, voices
from training.corpus.prepare.source import Dropped, Recording, Source

RATE = 16_000


def source(a=None, b=None, **fields):
    return Source("x", "train", Recording("p", audio=a), Recording("q", audio=b), **fields)


def save(path, *channels, rate=RATE):
    soundfile.write(path, np.stack(channels, axis=1), rate, subtype="FLOAT")
    return path


def test_a_frame_is_active_when_its_middle_is():
    assert speech.active_frames([(0.021, 0.061)], 3).tolist() == [0, 1, 0]
    assert speech.active_frames([], 2).tolist() == [0, 0]


def test_turns_of_a_real_dialogue_are_heard(dialogue):
    activity = {key: speech.voice_activity(voice) for key, voice in dialogue.items()}
    for turn, person in enumerate("ba"):
        assert activity[person][0][0] == pytest.approx(turn * TURN_S + LEAD_S, abs=0.25)
    both = [speech.active_frames(spans, 400) for spans in activity.values()]
    assert 0.3 < np.mean(both[0] + both[1] > 0) < 1.0
    assert (both[0] * both[1]).mean() < 0.05  # the two take turns


def test_a_voice_is_brought_to_its_loudness_whatever_it_was(dialogue):
    spans = speech.voice_activity(dialogue["b"])
    for factor in (0.2, 1.0):
        voice = dialogue["b"] * np.float32(factor)
        gain = speech.gain_db(voice, speech.loudness(voice, spans), -26.0)
        louder = voice * 10 ** (gain / 20)
        assert speech.loudness(louder, spans) == pytest.approx(-26.0, abs=0.1)


def test_a_gain_neither_clips_nor_brings_up_noise():
    voice = np.full(10, 0.49, np.float32)
    assert speech.gain_db(voice, -40.0, -20.0) == pytest.approx(20 * np.log10(2), abs=0.01)
    assert speech.gain_db(voice / 1000, -70.0, -20.0) == speech.MAX_GAIN_DB
    assert speech.gain_db(voice, None, -20.0) == 0.0


def test_channels_of_one_file_are_a_voice_each(tmp_path, dialogue):
    path = save(tmp_path / "x.wav", dialogue["a"], dialogue["b"])
    sound = voices.read(source(path, path))
    assert isinstance(sound, dict)
    for key, voice in dialogue.items():
        np.testing.assert_allclose(sound[key], voice, atol=1e-6)


@pytest.mark.parametrize("second", ["the same", "silent"])
def test_a_second_channel_that_says_nothing_new_is_a_mixture(tmp_path, dialogue, second):
    mixture = dialogue["a"] + dialogue["b"]
    other = mixture * np.float32(0.5 if second == "the same" else 0.0)
    path = save(tmp_path / "x.wav", mixture, other)
    assert isinstance(voices.read(source(path, path)), np.ndarray)


def test_two_recordings_of_the_same_mixture_are_noticed(tmp_path, dialogue):
    mixture = dialogue["a"] + dialogue["b"]
    a, b = save(tmp_path / "a.wav", mixture), save(tmp_path / "b.wav", mixture * 0.3)
    sound = voices.read(source(a, b))
    assert isinstance(sound, np.ndarray)
    with pytest.raises(Dropped, match="the same voices"):
        voices.attribute(sound, [], None)


def test_utterances_go_to_whose_lips_move():
    mixture = np.ones(2 * RATE, np.float32)
    moving, still = np.tile([0.0, 0.1], 25).astype(np.float32), np.full(50, 0.2, np.float32)
    mouths = {
        "a": np.concatenate([moving[:25], still[:25]]),
        "b": np.concatenate([still[:25], moving[:25]]),
    }
    spans = [(0.1, 0.9), (1.1, 1.9)]
    each, activity = voices.attribute(mixture, spans, mouths)
    assert activity == {"a": [spans[0]], "b": [spans[1]]}
    assert each["a"][RATE // 2] == pytest.approx(1)
    assert each["a"][RATE + RATE // 2] == 0
    assert each["b"][RATE + RATE // 2] == pytest.approx(1)


def test_an_echo_of_the_other_voice_is_silenced_and_an_overlap_is_not(dialogue):
    other, own = dialogue["b"], dialogue["a"]
    delay = np.zeros(480, np.float32)
    microphone = own + 0.05 * np.concatenate([delay, other])[: len(own)]
    spans = speech.voice_activity(microphone)
    heard, activity = voices.without_bleed(microphone, other, spans)
    frames = len(own) // 640
    truth = speech.active_frames(speech.voice_activity(own), frames)
    before, after = (speech.active_frames(s, frames) for s in (spans, activity))
    assert np.mean(before != truth) > 0.15  # the echo was taken for speech
    assert np.mean(after != truth) < 0.02
    silenced = (before > after).repeat(640)
    left, all_of_it = (np.abs(v[: len(silenced)][silenced]).mean() for v in (heard, microphone))
    assert left < 0.1 * all_of_it

    loud = own + np.roll(other, 8000)  # somebody who talks into the other's words
    spans = speech.voice_activity(loud)
    assert voices.without_bleed(loud, dialogue["b"], spans)[1] == spans


def test_subtitles_and_json_become_turns_in_frames(tmp_path):
    (tmp_path / "x_a.srt").write_text(
        "1\n00:00:01,000 --> 00:00:02,500\nHello.\n", encoding="utf-8-sig"
    )
    (tmp_path / "x.json").write_text(
        json.dumps(
            [{"speaker": "b", "text": "Hi!", "start_s": 0, "end_s": 0.5, "emotion": "happy"}]
        )
    )
    recording = Recording("p", words=tmp_path / "x_a.srt")
    lines = transcripts.read(Source("x", "train", recording, recording_of_b(), tmp_path / "x.json"))
    assert lines is not None
    assert transcripts.rows(lines, 0, 100) == [
        {"speaker": "b", "text": "Hi!", "start_frame": 0, "end_frame": 13, "emotion": "happy"},
        {"speaker": "a", "text": "Hello.", "start_frame": 25, "end_frame": 63},
    ]
    assert transcripts.rows(lines, 30, 50) == [
        {"speaker": "a", "text": "Hello.", "start_frame": 0, "end_frame": 20}
    ]


def recording_of_b():
    return Recording("q")


def test_webvtt_too(tmp_path):
    (tmp_path / "b.vtt").write_text("WEBVTT\n\n00:01.000 --> 00:02.000\nYes.\n")
    lines = transcripts.read(
        Source("x", "train", Recording("p"), Recording("q", words=tmp_path / "b.vtt"))
    )
    assert lines == [transcripts.Line("b", "Yes.", 1.0, 2.0)]


def test_seamless_annotations(tmp_path):
    path = tmp_path / "V00.json"
    words = [{"word": "Hello", "start": 1.0, "end": 1.4, "score": 0.9}]
    line = {"start": 1.0, "end": 1.5, "transcript": "Hello", "words": words}
    vad = [{"start": 1.0, "end": 1.5}]
    path.write_text(json.dumps({"id": "V00", "metadata:transcript": [line], "metadata:vad": vad}))
    lines = transcripts.read(Source("x", "dev", Recording("p", words=path), Recording("q")))
    assert lines == [transcripts.Line("a", "Hello", 1.0, 1.5)]
    assert speech.read_activity(path) == [(1.0, 1.5)]
    path.write_text(json.dumps({"id": "V00"}))
    assert speech.read_activity(path) is None


def test_no_transcript_is_none_and_a_bad_one_is_named(tmp_path):
    assert transcripts.read(source()) is None
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"text": "Who?", "start_s": 0, "end_s": 1}]))
    with pytest.raises(Dropped, match=r"x\.json, line 0: got .* expected"):
        transcripts.read(source(transcript=path))
