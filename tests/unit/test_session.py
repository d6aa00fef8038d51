"""The laws of the session, with a stand-in for the networks that hashes everything it is given."""

import hashlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from tests.fakes.echo import affect, hashing
from tests.sizes import tiny
from visavis import session
from visavis.config import SAMPLES_PER_FRAME
from visavis.contract import contracts
from visavis.messages import (
    MAX_PENDING_FRAMES,
    Options,
    SessionError,
    check_portrait,
    parse_options,
    parse_transcript,
)
from visavis.session import block_noise
from visavis.snapshot import MAGIC, from_bytes, to_bytes

CONFIG = tiny()
ECHO = hashing(contracts(CONFIG)["echo"])
AFFECT = affect(CONFIG)
BLOCK = CONFIG.block_frames
FRAMES = 47  # nine blocks and a part of the tenth


def started(**options):
    rng = np.random.default_rng(1)
    reference = {
        spec.name: rng.standard_normal(spec.dims, np.float32)
        for spec in contracts(CONFIG)["enroll"].outputs
    }
    size = CONFIG.image_size
    portrait = rng.integers(0, 256, (size, size, 3), np.uint8)
    return session.start(CONFIG, Options(**options), portrait, reference, AFFECT(()))


def signals(frames: int = FRAMES) -> dict[str, Any]:
    rng = np.random.default_rng(2)
    size = CONFIG.image_size
    samples = frames * SAMPLES_PER_FRAME
    return {
        "avatar_audio": rng.uniform(-1, 1, samples).astype(np.float32),
        "user_audio": rng.uniform(-1, 1, samples).astype(np.float32),
        "user_video": rng.integers(0, 256, (frames, size, size, 3), np.uint8),
    }


TURNS = parse_transcript(
    json.dumps(
        [
            {"role": "user", "text": "I am so sad today.", "start_s": 0.1},
            {"role": "avatar", "text": "Oh, I am sorry!", "start_s": 0.65},
            {"role": "user", "text": "But we won the game!", "start_s": 1.3},
        ]
    )
)


def run(state):
    """Everything that is ready: the state after it and frames by number."""
    steps = list(session.advance(state, ECHO, AFFECT))
    frames = {
        made.first_frame + place: image.tobytes()
        for _, made in steps
        for place, image in enumerate(made.images)
    }
    return (steps[-1][0] if steps else state), frames


def one_pass(frames: int = FRAMES, **options) -> dict[int, bytes]:
    state = session.append(started(**options), **signals(frames), transcript=TURNS)
    return run(session.finish(state))[1]


BOTH = {"user_audio": True, "user_video": True}


@pytest.mark.parametrize("seed", range(4))
def test_any_chunking_gives_the_frames_of_one_pass(seed):
    rng = np.random.default_rng(seed)
    whole, sent = signals(), dict.fromkeys(signals(), 0)
    state, frames = started(**BOTH), {}
    told = 0
    while any(sent[name] < len(whole[name]) for name in whole):
        chunk: dict[str, Any] = {}
        for name in whole:
            scale = 1 if name == "user_video" else SAMPLES_PER_FRAME
            length = int(rng.integers(0, 9 * scale))
            chunk[name] = whole[name][sent[name] : sent[name] + length]
            sent[name] += len(chunk[name])
        now_s = max(sent["avatar_audio"] / 16_000, sent["user_audio"] / 16_000)
        new = [turn for turn in TURNS[told:] if turn.start_s <= now_s]
        told += len(new)
        state, made = run(session.append(state, **chunk, transcript=new))
        assert not frames.keys() & made.keys()
        frames |= made
    frames |= run(session.finish(state))[1]
    assert frames == one_pass(**BOTH)


@pytest.mark.parametrize("cut", [1, 7, 20, 33])
def test_a_snapshot_continues_bit_for_bit(cut):
    whole, samples = signals(), cut * SAMPLES_PER_FRAME + 123
    split: dict[str, Any] = {
        name: np.split(array, [cut if name == "user_video" else samples])
        for name, array in whole.items()
    }
    state = session.append(
        started(**BOTH), **{name: parts[0] for name, parts in split.items()}, transcript=TURNS
    )
    state, frames = run(state)
    state = from_bytes(to_bytes(state), CONFIG)
    state = session.append(state, **{name: parts[1] for name, parts in split.items()})
    frames |= run(session.finish(state))[1]
    assert frames == one_pass(**BOTH)


def test_a_state_does_not_grow():
    state, sizes, chunk = started(**BOTH), [], signals(10)
    for _ in range(12):
        state, _ = run(session.append(state, **chunk))
        sizes.append(len(to_bytes(state)))
        held = (state.avatar_audio, state.user_audio, state.user_video)
        kept = sum((array if array.base is None else array.base).nbytes for array in held)
        assert kept < 3 * sum(array.nbytes for array in chunk.values())
    assert max(sizes[2:]) - min(sizes[2:]) < 10  # digits of the block's number


def test_the_avatars_sound_decides_the_length():
    whole = signals(8)
    for samples, length in ((0, 0), (1, 1), (SAMPLES_PER_FRAME, 1), (SAMPLES_PER_FRAME * 5 + 1, 6)):
        state = session.append(started(), avatar_audio=whole["avatar_audio"][:samples])
        _, frames = run(session.finish(state))
        assert sorted(frames) == list(range(length))


def blocks(state):
    """The blocks that are ready, as `echo` would get them."""
    seen = []

    def watching(inputs):
        seen.append(inputs)
        return ECHO(inputs)

    for _ in session.advance(state, watching, AFFECT):
        pass
    return seen


def test_windows_end_where_they_should():
    whole, audio = signals(), CONFIG.audio
    seen = blocks(session.append(started(**BOTH), **whole))
    assert len(seen) == (FRAMES - CONFIG.lookahead_frames) // BLOCK
    padded = np.concatenate([np.zeros(audio.window_samples, np.float32), whole["avatar_audio"]])
    user = np.concatenate([np.zeros(audio.window_samples, np.float32), whole["user_audio"]])
    for place, inputs in enumerate(seen):
        end = (place * BLOCK + BLOCK + CONFIG.lookahead_frames) * SAMPLES_PER_FRAME
        np.testing.assert_array_equal(
            inputs["avatar_waveform"], padded[end : end + audio.window_samples]
        )
        end = place * BLOCK * SAMPLES_PER_FRAME
        np.testing.assert_array_equal(
            inputs["user_waveform"], user[end : end + audio.window_samples]
        )
        if place:
            video = whole["user_video"][(place - 1) * BLOCK : place * BLOCK]
            np.testing.assert_array_equal(inputs["user_video"], video)
        assert inputs["user_valid"].tolist() == ([1, 1] if place else [0, 0])
        assert inputs["block_index"].tolist() == [place]


def test_a_session_without_the_user_has_zeros():
    seen = blocks(session.append(started(), avatar_audio=signals()["avatar_audio"]))
    assert seen
    for inputs in seen:
        assert not any(inputs[name].any() for name in ("user_waveform", "user_video", "user_valid"))


def test_a_block_waits_for_every_announced_signal():
    whole = signals()
    state = session.append(started(**BOTH), avatar_audio=whole["avatar_audio"])
    state, frames = run(state)
    assert sorted(frames) == list(range(BLOCK))  # the first block needs nothing of the user
    state, frames = run(session.append(state, user_audio=whole["user_audio"]))
    assert not frames
    _, frames = run(session.append(state, user_video=whole["user_video"][: 2 * BLOCK]))
    assert sorted(frames) == list(range(BLOCK, 3 * BLOCK))


def test_at_the_end_a_missing_signal_is_invalid():
    whole = signals()
    state = session.append(
        started(**BOTH),
        avatar_audio=whole["avatar_audio"],
        user_audio=whole["user_audio"][: 12 * SAMPLES_PER_FRAME],
        user_video=whole["user_video"][:5],
    )
    valid = [inputs["user_valid"].tolist() for inputs in blocks(session.finish(state))]
    assert valid == [[0, 0], [1, 1], [1, 0], *[[0, 0]] * 7]


def test_a_turn_counts_from_its_start_on():
    heard = []

    def listening(history):
        heard.append([turn.start_s for turn in history])
        return AFFECT(history)

    state = session.append(started(), avatar_audio=signals()["avatar_audio"], transcript=TURNS)
    for _ in session.advance(state, ECHO, listening):
        pass
    assert heard == [[0.1], [0.1, 0.65], [0.1, 0.65, 1.3]]


def test_seeds_repeat_and_differ():
    assert one_pass(**BOTH) == one_pass(**BOTH)
    assert one_pass(**BOTH) != one_pass(**BOTH, seed=1)


def test_blocks_share_no_noise():
    drawn = [block_noise(CONFIG, 3, index) for index in range(6)]
    noise = np.concatenate([array.ravel() for block in drawn for array in block.values()])
    assert noise.dtype == np.float32
    assert len(np.unique(noise)) > 0.999 * noise.size
    for name, array in block_noise(CONFIG, 3, 2).items():
        np.testing.assert_array_equal(array, drawn[2][name])


AUDIO = np.zeros(640, np.float32)


@pytest.mark.parametrize(
    ("signal", "message"),
    [
        ({"avatar_audio": AUDIO[None]}, r"avatar_audio: got \(1, 640\) float32, expected"),
        ({"avatar_audio": AUDIO.astype(np.float64)}, "cast it"),
        ({"avatar_audio": AUDIO + np.nan}, "640 values that are not finite"),
        ({"avatar_audio": AUDIO + 20_000}, "divide int16 by 32768"),
        ({"user_audio": AUDIO}, 'option "user_audio": true'),
        ({"user_video": np.zeros((5, 8, 8, 3), np.uint8)}, r"user_video: got \(5, 8, 8, 3\)"),
        ({"avatar_audio": np.zeros(640 * (MAX_PENDING_FRAMES + 1), np.float32)}, "shorter pieces"),
    ],
)
def test_bad_signals_are_refused(signal, message):
    with pytest.raises(SessionError, match=message):
        session.append(started(), **signal)


def test_nothing_comes_after_the_end():
    with pytest.raises(SessionError, match="start a new session"):
        session.append(session.finish(started()), avatar_audio=AUDIO)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"seeed": 1, "fps": 2}', "unknown keys fps, seeed"),
        ('{"seed": "x"}', "options.seed: got 'x', expected int"),
        ('{"seed": true}', "options.seed"),
        ('{"user_audio": 1}', "options.user_audio"),
        ('{"num_steps": 0}', "1 to 64"),
        ('{"audio_guidance_scale": NaN}', "options.audio_guidance_scale: got nan"),
        ('{"image_format": "png"}', "jpeg, raw"),
        ('{"expects": {"image_size": 512}}', "expects.image_size: got 512, expected 32"),
        ('{"expects": {"colour": 1}}', "unknown key colour"),
        ("[1]", "got a JSON list"),
        ("{", "expected JSON"),
    ],
)
def test_bad_options_are_refused(text, message):
    with pytest.raises(SessionError, match=message):
        parse_options(text, CONFIG)


def test_options_take_the_sizes_defaults():
    config = replace(CONFIG, sampling=replace(CONFIG.sampling, num_steps=5))
    assert parse_options("", config).num_steps == 5
    given = parse_options('{"seed": 7, "expects": {"image_size": 32, "name": "tiny"}}', config)
    assert (given.seed, given.num_steps) == (7, 5)


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        ("hello", r"transcript\[0\]: got str"),
        ({"role": "user", "text": "x"}, "got role, text"),
        ({"role": "system", "text": "x", "start_s": 0}, "user or avatar"),
        ({"role": "user", "text": 3, "start_s": 0}, "text: got int"),
        ({"role": "user", "text": "x" * 3000, "start_s": 0}, "3000 characters"),
        ({"role": "user", "text": "x", "start_s": "now"}, "start_s: got 3 characters"),
    ],
)
def test_bad_turns_are_refused(turn, message):
    with pytest.raises(SessionError, match=message):
        parse_transcript(json.dumps([turn]))


def test_bad_portraits_are_refused():
    portrait, centers = np.zeros((32, 32, 3), np.uint8), np.full((2, 2), 0.5, np.float32)
    check_portrait(CONFIG, portrait, centers)
    with pytest.raises(SessionError, match=r"portrait: got \(32, 32\)"):
        check_portrait(CONFIG, portrait[..., 0], centers)
    with pytest.raises(SessionError, match="divide pixels"):
        check_portrait(CONFIG, portrait, centers * 128)


def test_damaged_snapshots_are_refused():
    data = to_bytes(started())
    assert from_bytes(data, CONFIG).block_index == 0
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    for damaged in (bytes(flipped), data[:-1], data[:30]):
        with pytest.raises(SessionError, match="checksum"):
            from_bytes(damaged, CONFIG)
    for foreign in (b"", b"PK\x03\x04" * 100):
        with pytest.raises(SessionError, match="something else"):
            from_bytes(foreign, CONFIG)
    with pytest.raises(SessionError, match="same version and size"):
        from_bytes(data, replace(CONFIG, image_size=64))
    with pytest.raises(SessionError, match="ask earlier"):
        to_bytes(session.finish(started()))


def test_a_forged_snapshot_is_checked_like_any_input():
    state = started()
    poisoned = {**state.carried, "memory": np.full_like(state.carried["memory"], np.nan)}
    with pytest.raises(SessionError, match="memory: got"):
        from_bytes(to_bytes(replace(state, carried=poisoned)), CONFIG)
    with pytest.raises(SessionError, match="block"):
        from_bytes(to_bytes(replace(state, block_index=-1)), CONFIG)
    missing = {name: array for name, array in state.carried.items() if name != "memory"}
    with pytest.raises(SessionError, match=r"carried\.memory"):
        from_bytes(to_bytes(replace(state, carried=missing)), CONFIG)


def test_a_snapshot_that_cannot_be_decoded_is_not_quoted():
    tensors = {"facts": np.frombuffer(b'{"history": "I am ill \xff"}', np.uint8)}
    payload = safetensors.numpy.save(tensors)
    forged = MAGIC + hashlib.sha256(payload).digest() + payload
    with pytest.raises(SessionError, match="UnicodeDecodeError") as refused:
        from_bytes(forged, CONFIG)
    assert "ill" not in str(refused.value)
