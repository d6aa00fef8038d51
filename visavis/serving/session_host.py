"""This is where conversations live on a server: a SessionState by correlation id.

Requests of one session run one after the other, those of different sessions side by side. Triton
neither tells a model that it dropped a sequence nor bounds how many run, so expiry and admission
are kept here. Nor does it tell that a client has vanished between two messages: a silent session
keeps its place for as long as nobody else needs it. `visavis.session` moves the states; this file
knows nothing of Triton.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import numpy as np

from visavis import session
from visavis.affect import AffectError, AffectModel, ReaderAffect, Turn, word_ids
from visavis.config import FRAME_RATE_HZ, EchoConfig
from visavis.contract import contracts
from visavis.messages import (
    PICTURES,
    SessionError,
    check_announced,
    check_pending,
    check_portrait,
    check_tensor,
    parse_options,
    parse_transcript,
    session_inputs,
)
from visavis.serving import session_log
from visavis.serving.admission import MOST, Admission
from visavis.serving.errors import ServerFull, SessionNotFound
from visavis.serving.pictures import PictureEncoder, decoded, encoder_of
from visavis.serving.session_log import Record, known_as
from visavis.session import Frames, SessionState
from visavis.snapshot import SIGNALS, from_bytes, to_bytes

LOG = logging.getLogger(__name__)

RETRY_AFTER_S = 5.0  # conversations last minutes, so a place is free again within some seconds

Arrays = Mapping[str, np.ndarray]
Call = Callable[[str, Arrays, Sequence[str]], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Message:
    """One request: `tensors` as in the contract of `echo_session`, only those that were sent."""

    session_id: str
    start: bool
    end: bool
    tensors: Arrays


class Reply(Protocol):
    """The way back to the client that sent a message."""

    def send(self, tensors: Arrays) -> None:
        """One response."""

    def fail(self, error: Exception) -> None:
        """An error, after which nothing follows."""

    def close(self) -> None:
        """Nothing follows; may be called again."""

    def is_cancelled(self) -> bool:
        """Whether the client has gone away or lost interest."""
        ...


class Watcher(Protocol):
    """Who wants the host's figures."""

    def sessions(self, count: int) -> None:
        """How many sessions there are now."""

    def block(self, seconds: float) -> None:
        """One block was made."""

    def answer(self, seconds: float, *, late: bool) -> None:
        """A message was answered by its first block; `late` if a live one would have stalled."""

    def refused(self) -> None:
        """A session found no place."""

    def places(self, count: int) -> None:
        """How many sessions there may be."""


@dataclass
class Slot:
    """One session's place. `users` counts the messages that hold or await its lock.

    The encoder is None when the client may lack some of the pictures that it has encoded.
    """

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    admitted: bool = False
    state: SessionState | None = None
    encoder: PictureEncoder | None = None
    users: int = 0
    last_used_s: float = 0.0
    record: Record = field(default_factory=Record)


class SessionHost:
    """All conversations of one server.

    Args:
        config: the size that is served.
        call: `call(model, inputs, outputs)` runs another model on arrays with a batch axis.
        affect: Psi.
        max_sessions: how many may be open; one more is refused with UNAVAILABLE. None measures, at
            the first conversation's beginning, what the machine bears.
        idle_s: a session that is silent for longer is forgotten.
        yield_after_s: and after so long already if another finds no place. A live one is not silent
            for a second, and a client that was only slow resumes from its snapshot.
        watcher: is told the number of sessions, of those refused, and how long blocks and answers
            take.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        config: EchoConfig,
        call: Call,
        affect: AffectModel,
        *,
        max_sessions: int | None = 64,
        idle_s: float = 300.0,
        yield_after_s: float = 10.0,
        watcher: Watcher | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.config = config
        self.call = call
        self.affect = affect
        block_s = config.block_frames / FRAME_RATE_HZ
        self.admission = Admission(block_s, max_sessions, clock)
        self.measuring = asyncio.Lock()
        self.idle_s = idle_s
        self.yield_after_s = yield_after_s
        self.watcher = watcher
        self.clock = clock
        self.slots: dict[str, Slot] = {}
        self.outputs = {
            name: [spec.name for spec in model.outputs] for name, model in contracts(config).items()
        }
        # A thread a session: Python's default pool has cores + 4 and would queue the others.
        self.pool = ThreadPoolExecutor(max_sessions or MOST, thread_name_prefix="session")

    async def serve(self, message: Message, reply: Reply) -> None:
        """Answer one message. Never raises: an exception here would never reach the client."""
        slot, arrived_s = None, self.clock()
        try:
            slot = self._slot(message)
            slot.users += 1
            async with slot.lock:
                if not slot.admitted:
                    await self._admit(slot, message)
                loop = asyncio.get_running_loop()
                answer = partial(self._answer, slot, message, reply, arrived_s)
                # With the context of whoever asked, such as a trace that goes on in the thread.
                await loop.run_in_executor(self.pool, copy_context().run, answer)
        except Exception as error:
            if self.watcher is not None and isinstance(error, ServerFull):
                self.watcher.refused()
            session_log.went_wrong(message.session_id, error)
            reply.fail(error)
        finally:
            reply.close()
            if slot is not None:
                self._leave(slot, message)

    def close(self) -> None:
        """Let running blocks end and drop the rest."""
        self.pool.shutdown(wait=True, cancel_futures=True)

    # Places

    def _slot(self, message: Message) -> Slot:
        self._forget(self._silent(self.idle_s))
        if message.start:
            return self.slots.setdefault(message.session_id, Slot())
        if message.session_id not in self.slots:
            raise self._not_found(message)
        return self.slots[message.session_id]

    async def _admit(self, slot: Slot, message: Message) -> None:
        """Give a new session its place. Its further messages wait in line for it meanwhile."""
        if not message.start:
            raise self._not_found(message)  # it began, and was refused
        await self._measured()
        parse_options(_text(message.tensors, "options"), self.config)  # who errs moves nobody out
        resumed = "snapshot" in message.tensors
        if self.admission.refusal(self.open_sessions, resumed=resumed) is not None:
            self._forget(self._silent(self.yield_after_s)[:1])
        refusal = self.admission.refusal(self.open_sessions, resumed=resumed)
        if refusal is not None:
            raise ServerFull(
                f"session: got one more than {refusal}, expected a free place; try again later or "
                "on another server",
                RETRY_AFTER_S,
            )
        slot.admitted = True
        self._count()

    async def _measured(self) -> None:
        """Know how many places there are; the first sessions wait for it."""
        async with self.measuring:
            if self.admission.limit is None:
                make_block = partial(self._echo, silent_block(self.config))
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(None, self.admission.measure, make_block, self.pool)
        if self.watcher is not None and self.admission.limit is not None:
            self.watcher.places(self.admission.limit)

    def _not_found(self, message: Message) -> SessionNotFound:
        return SessionNotFound(
            f"session: got the unknown id {known_as(message.session_id)}, expected one that was "
            f"started and used within {self.idle_s:g} s; start it, or resume from a snapshot"
        )

    @property
    def open_sessions(self) -> int:
        """How many have a place."""
        return sum(slot.admitted for slot in self.slots.values())

    def _silent(self, seconds: float) -> list[str]:
        """The sessions that nothing came of for longer, the most silent one first."""
        now_s = self.clock()
        silent = {
            session_id: now_s - slot.last_used_s
            for session_id, slot in self.slots.items()
            if not slot.users
        }
        found = [session_id for session_id, silent_s in silent.items() if silent_s > seconds]
        return sorted(found, key=lambda session_id: -silent[session_id])

    def _forget(self, session_ids: Sequence[str]) -> None:
        for session_id in session_ids:
            slot = self.slots.pop(session_id)
            session_log.ended(session_id, slot.record, self.clock(), expired=True)
            self._count()

    def _leave(self, slot: Slot, message: Message) -> None:
        slot.users -= 1
        slot.last_used_s = self.clock()
        if not slot.users and slot.state is None:
            self.slots.pop(message.session_id, None)
            self._count()

    def _count(self) -> None:
        if self.watcher is not None:
            self.watcher.sessions(self.open_sessions)

    # One message, in a thread of the pool

    def _answer(self, slot: Slot, message: Message, reply: Reply, arrived_s: float) -> None:
        try:
            if _says(message, "discard"):
                return _only_at_the_end(message)
            slot.state = self._received(slot, message)
            if message.start:
                self._begin(slot, message)
            blocks = session.advance(slot.state, self._echo, self._affect_tokens)
            begun_s, answered = self.clock(), False
            while not reply.is_cancelled() and (block := next(blocks, None)):
                slot.state, frames = block
                self._send(slot, frames, reply)
                begun_s = self._made_block(slot.record, begun_s)
                if not answered:
                    answered = True
                    self._answered(slot.record, begun_s - arrived_s)
            if _says(message, "want_snapshot"):
                reply.send({"snapshot": np.frombuffer(to_bytes(slot.state), np.uint8)})
        finally:
            if reply.is_cancelled():
                slot.encoder = None
            if message.end:
                if slot.state is not None:
                    session_log.ended(message.session_id, slot.record, self.clock())
                slot.state = None

    def _send(self, slot: Slot, frames: Frames, reply: Reply) -> None:
        assert slot.state is not None
        options = slot.state.options
        wanted = frames.images[max(0, options.first_frame - frames.first_frame) :]
        if not len(wanted):
            return
        slot.encoder = slot.encoder or encoder_of(options, self.config.image_size)
        images = np.array(slot.encoder.encode(wanted), np.object_)
        first = frames.first_frame + len(frames.images) - len(wanted)
        reply.send({"images": images, "first_frame": np.array([first], np.int64)})

    def _begin(self, slot: Slot, message: Message) -> None:
        assert slot.state is not None
        slot.record = Record(begun_s=self.clock())
        resumed_at = slot.state.block_index if "snapshot" in message.tensors else None
        session_log.started(message.session_id, resumed_at=resumed_at)

    def _made_block(self, record: Record, begun_s: float) -> float:
        now_s = self.clock()
        record.blocks += 1
        self.admission.made_block(now_s - begun_s)
        if self.watcher is not None:
            self.watcher.block(now_s - begun_s)
        return now_s

    def _answered(self, record: Record, seconds: float) -> None:
        """A message's first block counts: those after it were not live, as they came at once."""
        late = seconds > self.admission.block_s
        record.missed_deadlines += late
        if self.watcher is not None:
            self.watcher.answer(seconds, late=late)

    def _received(self, slot: Slot, message: Message) -> SessionState:
        """The session's state with what the message brings; raises before anything changes."""
        tensors = message.tensors
        for name, array in tensors.items():
            if name in {*SIGNALS, *PICTURES}:
                check_pending(name, array)
            check_tensor(session_inputs(self.config)[name], array)
        if message.end and _says(message, "want_snapshot"):
            raise SessionError(
                "want_snapshot: got it with the conversation's end, expected it before, as "
                "nothing is left to continue then; ask earlier"
            )
        if message.start:
            state = self._started(tensors)
            slot.encoder = encoder_of(state.options, self.config.image_size)
        elif slot.state is not None:
            state = slot.state
            _refuse(tensors, ("options", "portrait", "region_centers", "snapshot"))
        else:
            raise SessionNotFound(
                "session: got a message after its end or a failed start, expected a started "
                "session; start it again"
            )
        state = session.append(
            state,
            avatar_audio=tensors.get("avatar_audio"),
            user_audio=tensors.get("user_audio"),
            user_video=_user_video(tensors, state),
            transcript=parse_transcript(_text(tensors, "transcript")),
        )
        return session.finish(state) if message.end else state

    def _started(self, tensors: Arrays) -> SessionState:
        options = _text(tensors, "options")
        if "snapshot" in tensors:
            _refuse(tensors, ("portrait", "region_centers"))
            state = from_bytes(tensors["snapshot"].tobytes(), self.config)
            return replace(state, options=parse_options(options, self.config, state.options))
        missing = [name for name in ("portrait", "region_centers") if name not in tensors]
        if missing:
            raise SessionError(
                f"session: got a start without {' and '.join(missing)}, expected both portrait "
                "and region_centers, or a snapshot; send them"
            )
        parsed = parse_options(options, self.config)
        check_portrait(self.config, tensors["portrait"], tensors["region_centers"])
        reference = self._call(
            "enroll",
            {"portrait": tensors["portrait"][None], "region_centers": tensors["region_centers"]},
        )
        return session.start(
            self.config, parsed, tensors["portrait"], reference, self._affect_tokens(())
        )

    # Other models

    def _call(self, model: str, inputs: Arrays) -> dict[str, np.ndarray]:
        batch = {name: array[None] for name, array in inputs.items()}
        outputs = self.call(model, batch, self.outputs[model])
        return {name: array[0] for name, array in outputs.items()}

    def _echo(self, inputs: Arrays) -> dict[str, np.ndarray]:
        return self._call("echo", inputs)

    def _affect_tokens(self, history: Sequence[Turn]) -> np.ndarray:
        try:
            text = self.affect.describe(history)
        except AffectError as error:  # a face without the best mood is better than none
            LOG.warning("affect: %s; the built-in reader answers instead", error)
            text = ReaderAffect().describe(history)
        ids = word_ids(text, self.config.affect)
        return self._call("affect_encoder", {"word_ids": ids})["affect_tokens"]


def silent_block(config: EchoConfig) -> dict[str, np.ndarray]:
    """The inputs of `echo`, without batch axis, of a block that costs what any other costs."""
    inputs = {
        spec.name: np.zeros(spec.dims, spec.numpy_dtype)
        for spec in contracts(config)["echo"].inputs
    }
    sampling = config.sampling
    inputs["num_steps"][:] = sampling.num_steps
    inputs["guidance_scale"][:] = sampling.audio_guidance_scale, sampling.user_guidance_scale
    return inputs


def _user_video(tensors: Arrays, state: SessionState) -> np.ndarray | None:
    """The user's pictures of one message, (n, size, size, 3) uint8, however they came."""
    if "user_images" not in tensors:
        return tensors.get("user_video")
    if "user_video" in tensors:
        raise SessionError(
            "user_images: got it together with user_video, expected one of them, as both are the "
            "user's face; leave one out"
        )
    check_announced(state.options, "user_video")
    return decoded("user_images", tensors["user_images"], state.config.image_size)


def _says(message: Message, flag: str) -> bool:
    return flag in message.tensors and bool(message.tensors[flag].all())


def _only_at_the_end(message: Message) -> None:
    """Who leaves in mid-speech wants none of the blocks that an end would still bring."""
    if not message.end:
        raise SessionError(
            "discard: got it in mid-conversation, expected it with the end, as it drops all that "
            "is not made yet; leave it out"
        )


def _text(tensors: Arrays, name: str) -> str:
    if name not in tensors:
        return ""
    try:
        return tensors[name][0].decode()
    except UnicodeDecodeError as error:
        raise SessionError(f"{name}: got {error}, expected UTF-8; encode it so") from error


def _refuse(tensors: Arrays, names: Sequence[str]) -> None:
    sent = [name for name in names if name in tensors]
    if sent:
        raise SessionError(
            f"{', '.join(sent)}: got it where it has no meaning, expected it only in the message "
            "that starts a session, portrait and snapshot not together; leave it out"
        )
