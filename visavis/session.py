"""This is where a conversation becomes blocks: SessionState, a frozen value, and the pure functions
that move it on.

    start -> append … append -> finish        signals come in, in pieces of any size
    next_block -> step                        blocks go out as soon as their signals are there
    to_bytes / from_bytes                     a state moves to another server

Three laws hold, each a test: any chunking of a conversation gives the frames of one pass over it; a
state written to bytes and read back continues bit for bit; a state does not grow with time.

Time is counted in frames (25 a second, 640 samples each). Block i makes the avatar's frames
[F·i, F·i + F) from two windows of equal length: the avatar's own voice up to frame
F·i + F + lookahead (it is synthesised, so a little of its future is known) and the user's voice up
to frame F·i, for the user's signals never come from the future. Every buffer starts at the
beginning of the next block's window, with zeros for what lies before the conversation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from visavis.affect import Turn
from visavis.config import FRAME_RATE_HZ, SAMPLES_PER_FRAME, EchoConfig
from visavis.contract import lcu_state
from visavis.messages import Options, SessionError, check_pending, check_signal
from visavis.motion import NAMES
from visavis.sampler import context

HISTORY_TURNS = 12  # what the affect model reads
MAX_UPCOMING_TURNS = 256

Tensors = Mapping[str, np.ndarray]
Echo = Callable[[dict[str, np.ndarray]], Tensors]
Affect = Callable[[Sequence[Turn]], np.ndarray]


@dataclass(frozen=True)
class SessionState:
    """Everything that lasts from block to block.

    `carried` holds the inputs of `echo` that do: the portrait and its reference, previous latents
    and motion, affect tokens and the LCU's states, named as in the contract. `avatar_audio` and
    `user_audio` (n,) float32 and `user_video` (n, H, W, 3) uint8 start where the next block's
    windows do. `history` are the turns that were heard, `upcoming` those that start later.
    `end_frame` is set once the conversation's length is known.
    """

    config: EchoConfig
    options: Options
    carried: Tensors
    avatar_audio: np.ndarray
    user_audio: np.ndarray
    user_video: np.ndarray
    block_index: int = 0
    history: tuple[Turn, ...] = ()
    upcoming: tuple[Turn, ...] = ()
    end_frame: int | None = None

    @property
    def first_frame(self) -> int:
        """The first frame of the next block."""
        return self.block_index * self.config.block_frames


@dataclass(frozen=True)
class Block:
    """One block's own signals, as `echo` takes them; `frames` of its frames are within the end."""

    index: int
    frames: int
    avatar_waveform: np.ndarray
    user_waveform: np.ndarray
    user_video: np.ndarray
    user_valid: np.ndarray


@dataclass(frozen=True)
class Frames:
    """Finished pictures: `images` (n, H, W, 3) uint8; the first is the avatar's frame number."""

    first_frame: int
    images: np.ndarray


def start(
    config: EchoConfig,
    options: Options,
    portrait: np.ndarray,
    reference: Tensors,
    affect_tokens: np.ndarray,
) -> SessionState:
    """The state before the first block.

    `portrait` (H, W, 3) uint8 was enrolled, and `reference` holds the outputs of `enroll` without
    batch axis; `affect_tokens` (E, D) float32 are those of an empty history.
    """
    latents = reference["reference_latents"]
    carried = {
        "portrait": portrait,
        **reference,
        "previous_latents": np.stack([latents] * config.denoiser.previous_frames),
        "previous_motion": np.zeros((config.block_frames, len(NAMES)), np.float32),
        "affect_tokens": affect_tokens,
        **{spec.name: np.zeros(spec.dims, np.float32) for spec in lcu_state(config)},
    }
    window = config.audio.window_frames
    past = window - config.block_frames - config.lookahead_frames
    size = config.image_size
    return SessionState(
        config=config,
        options=options,
        carried=carried,
        avatar_audio=np.zeros(past * SAMPLES_PER_FRAME, np.float32),
        user_audio=np.zeros(window * SAMPLES_PER_FRAME, np.float32),
        user_video=np.zeros((config.block_frames, size, size, 3), np.uint8),
    )


def carried_names(config: EchoConfig) -> tuple[str, ...]:
    """The inputs of `echo` that last from block to block."""
    reference = ("portrait", "reference_latents", "reference_tokens", "region_masks")
    scans = (spec.name for spec in lcu_state(config))
    return (*reference, "previous_latents", "previous_motion", "affect_tokens", *scans)


def append(
    state: SessionState,
    *,
    avatar_audio: np.ndarray | None = None,
    user_audio: np.ndarray | None = None,
    user_video: np.ndarray | None = None,
    transcript: Sequence[Turn] = (),
) -> SessionState:
    """The state with more of any signal: audio (n,) float32, video (n, H, W, 3) uint8.

    A turn counts from the block at its `start_s` on, or from the next one when it comes later, so
    send it no later than the sound of that time.

    Raises:
        SessionError: a signal that does not fit or was not announced, or too much is pending.
    """
    arrived = {"avatar_audio": avatar_audio, "user_audio": user_audio, "user_video": user_video}
    arrived = {name: array for name, array in arrived.items() if array is not None}
    if state.end_frame is not None and (arrived or transcript):
        raise SessionError("session: got signals after its end, expected none; start a new session")
    signals = {name: _appended(state, name, array) for name, array in arrived.items()}
    upcoming = tuple(sorted((*state.upcoming, *transcript), key=lambda turn: turn.start_s))
    if len(upcoming) > MAX_UPCOMING_TURNS:
        raise SessionError(
            f"transcript: got {len(upcoming)} turns that start later, expected at most "
            f"{MAX_UPCOMING_TURNS}; send turns as they are spoken"
        )
    return replace(state, **signals, upcoming=upcoming)


def _appended(state: SessionState, name: str, signal: np.ndarray) -> np.ndarray:
    before = getattr(state, name)
    check_pending(name, signal, len(before))
    check_signal(state.config, state.options, name, signal)
    return np.concatenate([before, signal])


def finish(state: SessionState) -> SessionState:
    """The state at the conversation's end, which the avatar's audio decides.

    What is missing of other signals is taken as absent, so every block up to the end is ready.
    """
    if state.end_frame is not None:
        return state
    config = state.config
    window_start = (
        state.first_frame
        + config.block_frames
        + config.lookahead_frames
        - config.audio.window_frames
    )
    samples = window_start * SAMPLES_PER_FRAME + len(state.avatar_audio)
    return replace(state, end_frame=math.ceil(samples / SAMPLES_PER_FRAME))


def hear(state: SessionState, affect: Affect) -> SessionState:
    """The state after the turns that have started by the next block, with their affect tokens.

    `affect` maps a history to `affect_tokens` (E, D) float32; it is asked only when one is new.
    """
    now_s = state.first_frame / FRAME_RATE_HZ
    heard = tuple(turn for turn in state.upcoming if turn.start_s <= now_s)
    if not heard:
        return state
    history = (*state.history, *heard)[-HISTORY_TURNS:]
    return replace(
        state,
        history=history,
        upcoming=state.upcoming[len(heard) :],
        carried={**state.carried, "affect_tokens": affect(history)},
    )


def next_block(state: SessionState) -> Block | None:
    """The next block when its signals are there, else None."""
    config, options = state.config, state.options
    window, frames = config.audio.window_samples, config.block_frames
    has_audio = options.user_audio and len(state.user_audio) >= window
    has_video = options.user_video and len(state.user_video) >= frames
    if state.end_frame is None:
        waiting = (options.user_audio and not has_audio) or (options.user_video and not has_video)
        if waiting or len(state.avatar_audio) < window:
            return None
    elif state.first_frame >= state.end_frame:
        return None
    else:
        frames = min(frames, state.end_frame - state.first_frame)
    past = state.block_index > 0  # the user has none before the first block
    return Block(
        index=state.block_index,
        frames=frames,
        avatar_waveform=_window(state.avatar_audio, window),
        user_waveform=_window(state.user_audio, window),
        user_video=_window(state.user_video, config.block_frames),
        user_valid=np.array([has_audio and past, has_video and past], np.float32),
    )


def step(state: SessionState, block: Block, echo: Echo) -> tuple[SessionState, Frames]:
    """One block: `echo` maps the tensors of the `echo` contract, without batch axis.

    Returns the state after it and the frames that lie within the conversation's end.
    """
    options, config = state.options, state.config
    scales = [options.audio_guidance_scale, options.user_guidance_scale]
    outputs = echo(
        {
            "avatar_waveform": block.avatar_waveform,
            "user_waveform": block.user_waveform,
            "user_video": block.user_video,
            "user_valid": block.user_valid,
            "block_index": np.array([block.index], np.int64),
            **block_noise(config, options.seed, block.index),
            "num_steps": np.array([options.num_steps], np.int32),
            "guidance_scale": np.array(scales, np.float32),
            **state.carried,
        }
    )
    carried = {
        **state.carried,
        "previous_latents": context(
            outputs["latents"],
            state.carried["reference_latents"][None],
            config.denoiser.previous_frames,
            config.context_keep,
        ),
        "previous_motion": outputs["motion"],
        **{spec.name: outputs[f"next_{spec.name}"] for spec in lcu_state(config)},
    }
    samples, window = config.block_frames * SAMPLES_PER_FRAME, config.audio.window_samples
    after = replace(
        state,
        carried=carried,
        avatar_audio=_after(state.avatar_audio, window, samples),
        user_audio=_after(state.user_audio, window, samples),
        user_video=_after(state.user_video, config.block_frames, config.block_frames),
        block_index=state.block_index + 1,
    )
    return after, Frames(state.first_frame, outputs["frames"][: block.frames])


def advance(
    state: SessionState, echo: Echo, affect: Affect
) -> Iterator[tuple[SessionState, Frames]]:
    """Every block that is ready, one at a time: the state after it and its frames."""
    while (block := next_block(state)) is not None:
        state, frames = step(hear(state, affect), block, echo)
        yield state, frames


def block_noise(config: EchoConfig, seed: int, block_index: int) -> dict[str, np.ndarray]:
    """`noise` (F, C, h, w), normal, and `motion_noise` (N,), exponential, of one block.

    Both are float32 and the same on every server.

    The block is the highest word of Philox's counter and which of both the next: the lowest words
    count the draws, so no two share numbers.
    """
    latents, motion = (
        np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, which, block_index]))
        for which in range(2)
    )
    shape = (config.block_frames, *config.latent_shape)
    return {
        "noise": latents.standard_normal(shape, np.float32),
        "motion_noise": motion.standard_exponential(config.motion.noise_width, np.float32),
    }


def _window(signal: np.ndarray, length: int) -> np.ndarray:
    """The first `length` items, with zeros for those that are missing."""
    missing = length - len(signal)
    if missing <= 0:
        return signal[:length]
    return np.concatenate([signal, np.zeros((missing, *signal.shape[1:]), signal.dtype)])


def _after(signal: np.ndarray, window: int, consumed: int) -> np.ndarray:
    """What remains of `signal` when its window moves on; a missing part of the window was zeros."""
    rest = signal[consumed:] if len(signal) >= window else _window(signal, window)[consumed:]
    # A small view would keep the whole of a long request in memory.
    base = rest.base
    return rest.copy() if base is not None and 2 * rest.nbytes < base.nbytes else rest
