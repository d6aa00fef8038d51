"""This is where a server is broken in every way that the README speaks of, and what is seen kept.

    python -m benchmarks.faults

Each event happens to a real server on this machine, through `visavis gateway`, as where clients are
not trusted. Where others should not notice, a witness converses beside it at live pace
(`benchmarks.witness`): it counts blocks later than `--deadline-ms` and frames that are not bit for
bit those of an undisturbed run. The first event is none at all, and tells what the machine misses
by itself. Written is `faults_SIZE.json`; `benchmarks.report` makes its table.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated

import grpc
import numpy as np
import psutil
import typer
from rich.console import Console
from visavis_client import Client, Request, ServerUnavailable, VisavisError, _wire

from benchmarks import REPOSITORY, RESULTS, provoke, tables
from benchmarks.fault import Fault, row
from benchmarks.footprint import Footprint, footprint
from benchmarks.live import Talk, example
from benchmarks.provoke import Talker, new_id, start_of, text
from benchmarks.witness import Watched, Witness, converse
from visavis import config as configs
from visavis import record
from visavis.config import SAMPLES_PER_FRAME, EchoConfig
from visavis.contract import contracts
from visavis.serving.server import Ports, Server

FREE = Ports(0, 0, 0)
AT_FRAME = 60  # when a session is interrupted
HEALED_S = 30.0  # a model that is not back by then never will be
SETTLED_S = 3.0  # memory that a server gives back is back by then
HELD = 64  # sessions, whatever the machine bears: what breaks is the question
PLACES = 1000  # more than any server has
UNENDED = 1100
GUESSES = 200
BARGE_INS = 10
LARGE_MB = 600
LAST_IN_LINE = 19  # the lowest priority
UNREAD_FRAMES = 750
MORE_MB = 32.0  # of all processes together, which breathe; half of what may wait unread
SAME_FRAMES = "the frames of an undisturbed run, bit for bit"
NOBODY_NOTICES = "an error that says what was expected; no other session notices"

Event = Callable[["Scene"], Iterator[Fault]]


@dataclass
class Scene:
    """The server that all suffer, and an undisturbed run of `blocks` blocks on it.

    `url` is the gateway's before it, whose process is `gateway`.
    """

    server: Server
    url: str
    gateway: int
    talk: Talk
    blocks: int
    deadline_ms: float
    streams: int
    truth: Watched = field(init=False)

    def __post_init__(self) -> None:
        with Client(self.server.grpc_url) as client:
            self.truth = converse(client, self.talk, self.blocks)

    @cached_property
    def config(self) -> EchoConfig:
        """Its size."""
        return configs.load(EchoConfig, self.server.repository / "config.json")

    def witness(self) -> Witness:
        """Somebody who should notice nothing."""
        return Witness(self.url, self.talk, self.truth.contents, self.deadline_ms)

    def footprint(self) -> Footprint:
        """The memory of the server and its gateway."""
        assert self.server.process is not None
        return footprint(self.server.process.pid) + footprint(self.gateway)

    def same(self, found: Watched) -> bool:
        """Whether a run has the frames of the undisturbed one."""
        return found.contents == self.truth.contents


# What happens to a server


def nothing(scene: Scene) -> Iterator[Fault]:
    """What is missed all the same."""
    with scene.witness() as witness:
        time.sleep(5.0)
    kept = witness.undisturbed
    yield Fault("nothing", "", witness.figures(), kept, {"block_ms": witness.block_ms})


def processes_killed(scene: Scene) -> Iterator[Fault]:
    """Each model's own process."""
    for contract in contracts(scene.config).values():
        if contract.kind != "ensemble":
            event = f"kill -9 of {contract.name}'s process"
            yield _process_lost(scene, contract.name, event, psutil.Process.kill)


def process_hangs(scene: Scene) -> Iterator[Fault]:
    """A process that is there and does nothing."""
    for model in ("sdcm_denoiser", "echo_session"):
        yield _process_lost(scene, model, f"{model}'s process hangs", psutil.Process.suspend)


def _process_lost(
    scene: Scene, model: str, event: str, lose: Callable[[psutil.Process], None]
) -> Fault:
    before, healed = scene.server.healed[model], threading.Event()
    took_s: list[float] = []

    def strike() -> None:
        begun_s = time.perf_counter()
        lose(provoke.process_of(scene.server, model))

        def wait() -> None:
            while scene.server.healed[model] == before:
                if time.perf_counter() - begun_s > HEALED_S:
                    break
                time.sleep(0.01)
            took_s.append(time.perf_counter() - begun_s)
            healed.set()

        threading.Thread(target=wait).start()

    promised = f"loaded anew; {SAME_FRAMES}"
    with Client(scene.url, frame_timeout_s=1.0 + scene.deadline_ms / 1e3) as client:
        try:
            found = converse(client, scene.talk, scene.blocks, strike, AT_FRAME)
        except VisavisError as error:
            return Fault(event, promised, {"error": repr(error)}, kept=False)
    healed.wait()
    seen = {
        "healed_s": took_s[0],
        "longest_gap_s": found.longest_gap_s,
        "same_frames": scene.same(found),
    }
    kept = scene.same(found) and scene.server.healed[model] == before + 1
    return Fault(event, promised, seen, kept, {"arrived_s": found.arrived_s})


def server_killed(scene: Scene) -> Iterator[Fault]:
    """Another takes over; or the same, once it is back."""
    for event, again in (("another is there", False), ("started again", True)):
        with Server(
            scene.server.repository, ports=FREE, max_sessions=HELD, stop_timeout_s=2.0
        ) as doomed:
            urls = [doomed.grpc_url] if again else [doomed.grpc_url, scene.url]
            strike = partial(_kill, doomed, again=again)
            yield _server_lost(scene, urls, f"kill -9 of the server, {event}", strike)


def _kill(doomed: Server, *, again: bool) -> None:
    provoke.kill(doomed)
    if again:
        doomed.start()


def server_falls(scene: Scene) -> Iterator[Fault]:
    """It ends by itself, as when it aborts, and `visavis serve` starts it again."""
    options = ("--gateway", f"--max-sessions={HELD}")
    with provoke.kept(scene.server.repository, *options) as (url, keeper):

        def strike() -> None:
            provoke.triton_of(keeper).send_signal(signal.SIGABRT)

        yield _server_lost(scene, [url], "Triton aborts under `visavis serve`", strike)


def _server_lost(scene: Scene, urls: list[str], event: str, strike: Callable[[], None]) -> Fault:
    with Client(urls) as client:
        try:
            found = converse(client, scene.talk, scene.blocks, strike, AT_FRAME)
        except VisavisError as error:
            return Fault(event, SAME_FRAMES, {"error": repr(error)}, kept=False)
    seen = {"longest_gap_s": found.longest_gap_s, "same_frames": scene.same(found)}
    return Fault(event, SAME_FRAMES, seen, scene.same(found), {"arrived_s": found.arrived_s})


# Clients that leave, or do not


class Fillers:
    """Sessions that take all places that are left, and say just enough to keep them."""

    def __init__(self, scene: Scene, talker: Talker) -> None:
        self.talker = talker
        self.start = start_of(scene.talk.portrait)
        self.held: list[str] = []
        self.touched_s = time.perf_counter()

    def one_more(self) -> Exception | None:
        """Take a place; the error when there is none."""
        self.touch()
        session_id = new_id()
        error = self.talker.ask(session_id, self.start, start=True)[-1].error
        if error is None:
            self.held.append(session_id)
        return error

    def fill(self) -> tuple[Exception | None, float]:
        """Take all. The refusal, and the seconds that it took."""
        for _ in range(PLACES):
            begun_s = time.perf_counter()
            if error := self.one_more():
                return error, time.perf_counter() - begun_s
        return None, 0.0

    def touch(self) -> None:
        """Say something in every session, once in a while."""
        if time.perf_counter() - self.touched_s > 2.0:
            self.touched_s = time.perf_counter()
            for session_id in self.held:
                self.talker.ask(session_id, {"avatar_audio": np.zeros(1, np.float32)})

    def leave(self) -> None:
        """Give all places back."""
        for session_id in self.held:
            self.talker.ask(session_id, end=True)
        self.held = []


def no_place(scene: Scene) -> Iterator[Fault]:
    """One session more than a server holds."""
    with Talker(scene.url) as talker:
        fillers = Fillers(scene, talker)
        refusal, took_s = fillers.fill()
        places = len(fillers.held)
        fillers.leave()
    full = isinstance(refusal, ServerUnavailable)
    retry_s = refusal.retry_after_s if isinstance(refusal, ServerUnavailable) else None
    seen = {"places": places, "refused_after_s": took_s, "retry_after_s": retry_s}
    promised = "ServerUnavailable at once, with retry_after_s"
    yield Fault("no place is left", promised, seen, full and retry_s is not None and took_s < 1.0)


def client_vanishes(scene: Scene) -> Iterator[Fault]:
    """kill -9 of a client in mid-conversation, while all other places are taken."""
    before = scene.footprint()
    command = [sys.executable, "-m", "benchmarks.provoke", scene.url]
    with Talker(scene.url) as talker:
        fillers = Fillers(scene, talker)
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
        ) as client:
            assert client.stdout is not None
            for _ in range(10):
                client.stdout.readline()
            fillers.fill()
            client.kill()
        killed_s = time.perf_counter()
        while fillers.one_more() is not None and time.perf_counter() - killed_s < 10 * HEALED_S:
            time.sleep(0.1)
        free_s = time.perf_counter() - killed_s
        fillers.leave()
    after = scene.footprint()
    seen = {"place_free_s": free_s, "rss_before_mb": before.rss_mb, "rss_after_mb": after.rss_mb}
    promised = "its place is given to another within some ten seconds"
    yield Fault("kill -9 of a client", promised, seen, free_s < 15.0)


def client_reads_nothing(scene: Scene) -> Iterator[Fault]:
    """Frames that are made and never read, twice: whether the second time takes more again."""
    sound = np.zeros(UNREAD_FRAMES * SAMPLES_PER_FRAME, np.float32)
    tensors = start_of(scene.talk.portrait) | {"avatar_audio": sound}
    tensors["options"] = text({"image_format": "raw"})
    for event, again in (("a client sends and reads nothing", False), ("another one does", True)):
        before, begun = scene.footprint(), provoke.blocks_made(scene.url)[0]
        requests: queue.SimpleQueue = queue.SimpleQueue()
        requests.put(_wire.encode(Request("0", new_id(), tensors, start=True, end=True)))
        with provoke.stub(scene.url) as service:
            call = service.ModelStreamInfer(iter(requests.get, None))
            made = _settled(scene.url)[0] - begun
            told = provoke.refusal(call)
            requests.put(None)
        time.sleep(SETTLED_S)
        more_mb = scene.footprint().pss_mb - before.pss_mb
        seen = {"blocks": made, "answer": _short(told), "more_mb": more_mb}
        # What the first one warms up is not its frames.
        kept = bool(told) and (not again or more_mb < MORE_MB)
        yield Fault(event, "its call ends, and what it did not read is freed", seen, kept)


def barge_in(scene: Scene) -> Iterator[Fault]:
    """The user cuts the avatar short."""
    last_ms, blocks_after, frames_after = [], [], []
    voice = scene.talk.avatar_audio
    with Client(scene.url) as client:
        for _ in range(BARGE_INS):
            with client.session(portrait=scene.talk.portrait) as session:
                session.send(avatar_audio=voice)
                next(session.frames())
                left_s, made = time.time(), provoke.blocks_made(scene.url)[0]
                session.cancel()
                frames_after.append(len(list(session.ready())))
            count, last_s = _settled(scene.url)
            blocks_after.append(count - made)
            last_ms.append(1e3 * max(0.0, last_s - left_s))
    seen = {
        "last_block_begun_p50_ms": float(np.median(last_ms)),
        "last_block_begun_max_ms": max(last_ms),
        "blocks_after_max": max(blocks_after),
        "frames_after": sum(frames_after),
    }
    kept = max(blocks_after) <= 2 and not any(frames_after)
    promised = "the server stops; no frame comes any more"
    raw = {"last_ms": last_ms, "blocks_after": blocks_after}
    yield Fault("barge-in", promised, seen, kept, raw)


def _settled(url: str) -> tuple[int, float]:
    """Blocks made and when the last one was begun, once there are no more."""
    found = provoke.blocks_made(url)
    while True:
        time.sleep(1.0)
        newest = provoke.blocks_made(url)
        if newest == found:
            return found
        found = newest


# Input


def malformed(scene: Scene) -> Iterator[Fault]:
    """Everything that must be refused."""
    for what, make in provoke.malformed(scene.talk.portrait).items():
        with scene.witness() as witness, provoke.stub(scene.url) as service:
            begun_s = time.perf_counter()
            answer = provoke.ask_raw(service, make())
            took_s = time.perf_counter() - begun_s
            time.sleep(1.0)
        seen = {"answered_ms": 1e3 * took_s, "answer": _short(answer), **witness.figures()}
        kept = bool(answer) and witness.undisturbed
        yield Fault(what, NOBODY_NOTICES, seen, kept, {"block_ms": witness.block_ms})


def large(scene: Scene) -> Iterator[Fault]:
    """A message as large as nobody needs, twice: whether the second takes more again.

    It costs its sender as much as the server. So the sender is a process that takes what cores the
    others leave, as if on a machine of its own.
    """
    start, processes = start_of(scene.talk.portrait), multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, processes, os.nice, (LAST_IN_LINE,)) as sender:
        sender.submit(int).result()  # it is there before anybody is disturbed
        for time_, event in enumerate((f"a message of {LARGE_MB} MB", "another one"), 1):
            before = scene.footprint()
            with scene.witness() as witness:
                asked = sender.submit(provoke.ask_large, scene.url, LARGE_MB, start)
                answer, took_s = asked.result()
                time.sleep(SETTLED_S)
            after = scene.footprint()
            seen = {
                "answered_s": took_s,
                "answer": _short(answer),
                "rss_before_mb": before.rss_mb,
                "rss_after_mb": after.rss_mb,
                "pss_before_mb": before.pss_mb,
                "pss_after_mb": after.pss_mb,
                "shm_before_mb": before.region_mb,
                "shm_after_mb": after.region_mb,
                **witness.figures(),
            }
            kept = bool(answer) and witness.undisturbed
            raw = {"block_ms": witness.block_ms, "time": time_}
            yield Fault(event, NOBODY_NOTICES, seen, kept, raw)


def out_of_order(scene: Scene) -> Iterator[Fault]:
    """A block's tracks in any order, and a message after the end."""
    block_frames, found = scene.config.block_frames, []
    chunks = scene.talk.chunks(block_frames)
    with Client(scene.url) as client:
        session = client.session(
            portrait=scene.talk.portrait, seed=3, user_audio=True, user_video=True
        )
        with session:
            for _, chunk in zip(range(20), chunks, strict=False):
                session.send(user_video=chunk.user_video, turns=chunk.turns)
                session.send(user_audio=chunk.user_audio)
                session.send(avatar_audio=chunk.avatar_audio)
                found += [frame.content for frame in session.ready()]
            session.snapshot()  # after which all that is due has come
            found += [frame.content for frame in session.ready()]
    same = bool(found) and found == scene.truth.contents[: len(found)]
    with Talker(scene.url) as talker:
        session_id = new_id()
        talker.ask(session_id, start_of(scene.talk.portrait), start=True)
        talker.ask(session_id, end=True)
        late = talker.ask(session_id, {"avatar_audio": np.zeros(640, np.float32)})[-1].error
    seen = {"same_frames": same, "frames": len(found), "after_the_end": type(late).__name__}
    kept = same and late is not None
    yield Fault("tracks and messages out of order", SAME_FRAMES, seen, kept)


def guessed_ids(scene: Scene) -> Iterator[Fault]:
    """Whoever has no id gets into no session."""
    with scene.witness() as witness, Talker(scene.url) as talker:
        refused = sum(
            talker.ask(guess, {"want_snapshot": np.array([True])})[-1].error is not None
            for guess in [*(new_id() for _ in range(GUESSES)), "1", "admin", new_id()[:8]]
        )
        time.sleep(1.0)
    seen = {"guesses": GUESSES + 3, "refused": refused, **witness.figures()}
    kept = refused == GUESSES + 3 and witness.undisturbed
    raw = {"block_ms": witness.block_ms}
    yield Fault("unknown and guessed ids", "a session is its holder's", seen, kept, raw)


def never_ended(scene: Scene) -> Iterator[Fault]:
    """Starts that are refused and sessions that nobody ends, in number."""
    with Talker(scene.url) as talker:
        begun_s = time.perf_counter()
        for _ in range(UNENDED):
            talker.ask(new_id(), start=True)
        took_s = time.perf_counter() - begun_s
        begun_s = time.perf_counter()
        answers = talker.ask(new_id(), _one_block(scene), start=True, end=True)
    seen = {"starts": UNENDED, "took_s": took_s, "next_answered_s": time.perf_counter() - begun_s}
    kept = answers[-1].error is None
    yield Fault("refused starts without an end", "the next session finds its place", seen, kept)


def rush(scene: Scene) -> Iterator[Fault]:
    """Many streams at once."""
    voice = scene.talk.avatar_audio[: 4 * scene.config.block_frames * SAMPLES_PER_FRAME]

    def converse_once(client: Client) -> str | bytes:
        try:
            with client.session(portrait=scene.talk.portrait) as session:
                session.send(avatar_audio=voice)
                session.finish()
                return b"".join(frame.content for frame in session.frames())
        except ServerUnavailable as error:
            return "refused" if error.retry_after_s else repr(error)
        except VisavisError as error:
            return repr(error)

    begun_s = time.perf_counter()
    with (
        Client(scene.url, start_timeout_s=120.0, frame_timeout_s=60.0) as client,
        ThreadPoolExecutor(scene.streams) as threads,
    ):
        _ = client.server
        found = list(threads.map(lambda _: converse_once(client), range(scene.streams)))
    served = [one for one in found if isinstance(one, bytes)]
    others = {one for one in found if isinstance(one, str) and one != "refused"}
    seen = {
        "served": len(served),
        "refused": found.count("refused"),
        "otherwise": len(found) - len(served) - found.count("refused"),
        "same_frames": len(set(served)) == 1,
        "took_s": time.perf_counter() - begun_s,
    }
    kept = not others and len(set(served)) == 1
    promised = "served, or told that there is no place"
    event = f"{scene.streams} streams at once"
    yield Fault(event, promised, seen, kept, {"errors": sorted(others)})


def _one_block(scene: Scene) -> dict[str, np.ndarray]:
    samples = scene.config.block_frames * SAMPLES_PER_FRAME
    return start_of(scene.talk.portrait) | {"avatar_audio": np.zeros(samples, np.float32)}


def _short(answer: str) -> str:
    return answer if len(answer) <= 60 else f"{answer[:59]}…"


EVENTS: tuple[Event, ...] = (
    nothing,
    malformed,
    out_of_order,
    guessed_ids,
    barge_in,
    no_place,
    client_vanishes,
    never_ended,
    rush,
    processes_killed,
    process_hangs,
    server_killed,
    server_falls,
    client_reads_nothing,
    large,
)


def rows(faults: list[Fault]) -> list[tables.Row]:
    """A line an event."""
    return [row(fault.summary()) for fault in faults]


def main(
    repository: Annotated[Path, typer.Option()] = REPOSITORY,
    out: Annotated[Path, typer.Option(help="A folder.")] = RESULTS,
    blocks: Annotated[int, typer.Option(help="Of a session that is interrupted.")] = 60,
    streams: Annotated[int, typer.Option(help="That come at once.")] = 200,
    deadline_ms: Annotated[float, typer.Option(help="A witness misses a block after it.")] = 200.0,
    large_message: Annotated[
        bool, typer.Option(help=f"Send {LARGE_MB} MB; takes some 5 GB of memory.")
    ] = True,
    only: Annotated[list[str] | None, typer.Option(help="Names of events, for trying.")] = None,
) -> None:
    """Break a server in every way, and write what was seen."""
    config, head = configs.load(EchoConfig, repository / "config.json"), record.environment()
    console, faults = Console(), []
    events = [one for one in EVENTS if only is None or one.__name__ in only]
    with (
        Server(repository, ports=FREE, max_sessions=HELD) as server,
        provoke.gateway(server.grpc_url) as (url, gateway),
    ):
        with Client(url) as client:
            talk = example(client.server)
        scene = Scene(server, url, gateway, talk, blocks, deadline_ms, streams)
        for event in events:
            if event is large and not large_message:
                continue
            try:
                for fault in event(scene):
                    faults.append(fault)
                    console.print(tables.in_terminal(rows([fault])))
            except (VisavisError, TimeoutError, grpc.RpcError) as error:
                broken = {"error": repr(error)}
                faults.append(Fault(event.__name__.replace("_", " "), "", broken, kept=False))
    record.write(
        out / f"faults_{config.name}.json",
        "faults",
        settings={
            "size": config.name,
            "blocks": blocks,
            "streams": streams,
            "deadline_ms": deadline_ms,
            "large_message": large_message,
        },
        summary={
            "kept": sum(fault.kept is True for fault in faults),
            "not_kept": sum(fault.kept is False for fault in faults),
            "events": [fault.summary() for fault in faults],
        },
        raw=[{"event": fault.event, **fault.raw} for fault in faults],
        measured_on=head,
    )
    console.print(tables.in_terminal(rows(faults), config.name))


if __name__ == "__main__":
    typer.run(main)
