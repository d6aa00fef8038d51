"""This is where it is seen whether a server stays as it was when it runs for long.

    python -m benchmarks.soak --minutes 60

Boundary: the server and its clients on this machine, sharing its cores, as in
`benchmarks.capacity`; blocks are due at live pace and are not decoded. `--sessions` conversations
last from the first minute to the last. Beside them somebody comes every `--churn-s`, talks for
`--churn-talk-s` and leaves in mid-speech, so that what a start leaves behind shows, too.

- `block_ms`: a block's last input due to its arrival; later than `--deadline-ms` it is missed.
- `first_frame_ms`: of those who come and go, from opening to the first picture.
- `drift_frames`: frames that the avatar's sound was sent for, less those that have come, when a
  block comes. A block under way is no drift; one that grows is.
- memory, every few seconds: of all server processes (`benchmarks.footprint`) and of this one.
- the whole machine's processors since the sample before: how much of them was in use, and how much
  a virtual machine's host gave to others. Blocks that are late then are not the server's doing.

The first minute after the warm-up is compared with the last. Written are `soak_SIZE.json`, with
every sample, and `soak_SIZE.png`; with `--config-name` its name is added to theirs.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import psutil
import typer
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from visavis_client import Client, VisavisError
from visavis_client.conversation import LOOKAHEAD_FRAMES

from benchmarks import REPOSITORY, RESULTS, served_name, tables
from benchmarks.footprint import MB, footprint
from benchmarks.live import Talk, example, latencies
from benchmarks.soak_run import MINUTE_S, Blocks, Run, changes, plot
from visavis import config as configs
from visavis import record
from visavis.config import FRAME_RATE_HZ, EchoConfig
from visavis.serving.server import Ports, Server
from visavis.serving.watch import listener

AGAIN_S = 1.0  # after an error


class Soak:
    """A run: its threads, and what they keep."""

    def __init__(self, url: str, talk: Talk, block_frames: int, deadline_ms: float):
        self.url = url
        self.talk = talk
        self.block_frames = block_frames
        self.run = Run(deadline_ms)
        self.stop = threading.Event()
        self.begun_s = time.perf_counter()

    @property
    def time_s(self) -> float:
        """Since the beginning."""
        return time.perf_counter() - self.begun_s

    def stay(self, blocks: Blocks) -> None:
        """One conversation to the end; another only if it breaks."""
        with Client(self.url) as client:
            while not self.stop.is_set():
                for _ in self._converse(client, blocks):
                    pass

    def come_and_go(self, every_s: float, talk_s: float) -> None:
        """Conversations of `talk_s`, one begun every `every_s`."""
        length = max(1, round(talk_s * FRAME_RATE_HZ / self.block_frames))
        with Client(self.url) as client:
            while not self.stop.is_set():
                begun_s = self.time_s
                found = self._converse(client, self.run.visits, length)
                for first_frame_s in itertools.islice(found, 1):
                    self.run.starts.append((self.time_s, 1e3 * first_frame_s))
                for _ in found:
                    pass
                self.stop.wait(max(0.0, begun_s + every_s - self.time_s))

    def measure(self, pid: int | None, every_s: float) -> None:
        """Memory and processors, every few seconds."""
        own = psutil.Process()
        psutil.cpu_times_percent()  # from where the first sample counts
        while not self.stop.wait(every_s):
            machine = psutil.cpu_times_percent()
            stolen_percent = getattr(machine, "steal", 0.0)  # Linux alone tells it
            self.run.processors.append(
                {
                    "time_s": self.time_s,
                    "busy_percent": 100 - machine.idle - stolen_percent,
                    "stolen_percent": stolen_percent,
                }
            )
            sample = {"time_s": self.time_s, "client_rss_mb": own.memory_info().rss / MB}
            if pid is not None:
                try:
                    sample |= asdict(footprint(pid))
                except (OSError, psutil.Error) as error:
                    self.run.errors.append((self.time_s, f"server's processes: {error!r}"))
                    continue
            self.run.memory.append(sample)

    def _converse(
        self, client: Client, blocks: Blocks, length: int | None = None
    ) -> Iterator[float]:
        """A conversation of `length` blocks, left in mid-speech; gives the latencies."""
        block_s = self.block_frames / FRAME_RATE_HZ
        session = client.session(
            portrait=self.talk.portrait,
            seed=random.randrange(2**31),
            user_audio=True,
            user_video=True,
        )
        chunks = itertools.islice(self.talk.chunks(self.block_frames), length)
        chunks = itertools.takewhile(lambda _: not self.stop.is_set(), chunks)
        try:
            timed = latencies(session, chunks, block_s, finish=False, sleep=self.stop.wait)
            for n, latency_s in enumerate(timed, 1):
                sent = session.position.avatar_frames - LOOKAHEAD_FRAMES
                blocks.time_s.append(round(self.time_s, 2))
                blocks.block_ms.append(round(1e3 * latency_s, 2))
                blocks.drift_frames.append(sent - n * self.block_frames)
                yield latency_s
        except VisavisError as error:
            self.run.errors.append((self.time_s, repr(error)))
            self.stop.wait(AGAIN_S)
        finally:
            session.close()


def soak(
    url: str, pid: int | None, seconds: float, options: Mapping[str, float], console: Console
) -> Run:
    """Let conversations go on for so long; see `main` for the options."""
    with Client(url) as client:
        talk, block_frames = example(client.server), client.server.block_frames
    work = Soak(url, talk, block_frames, options["deadline_ms"])
    threads = [threading.Thread(target=work.measure, args=[pid, options["sample_s"]])]
    for _ in range(int(options["sessions"])):
        work.run.sessions.append(Blocks())
        threads.append(threading.Thread(target=work.stay, args=[work.run.sessions[-1]]))
    if options["churn_s"]:
        visits = [options["churn_s"], options["churn_talk_s"]]
        threads.append(threading.Thread(target=work.come_and_go, args=visits))
    for thread in threads:
        thread.start()
    try:
        _show(work, seconds, console)
    finally:
        work.stop.set()
        for thread in threads:
            thread.join()
    return work.run


def _show(work: Soak, seconds: float, console: Console) -> None:
    """A bar, until the time is over."""
    told = TextColumn("{task.fields[told]}")
    with Progress(TimeElapsedColumn(), TimeRemainingColumn(), told, console=console) as bar:
        task = bar.add_task("soak", total=seconds, told="")
        while work.time_s < seconds and not work.stop.wait(1.0):
            newest = [ms for own in work.run.sessions for ms in own.block_ms[-50:]]
            p50 = f"p50 {np.median(newest):.0f} ms" if newest else "no block yet"
            memory = work.run.memory[-1].get("rss_mb") if work.run.memory else None
            rss = "" if memory is None else f", {memory:.0f} MB"
            said = f"{p50}{rss}, {len(work.run.starts)} starts, {len(work.run.errors)} errors"
            bar.update(task, completed=work.time_s, told=said)


def main(
    repository: Annotated[Path, typer.Option(help="Of the server that is started.")] = REPOSITORY,
    server: Annotated[str | None, typer.Option(help="host:port of one that runs.")] = None,
    config_name: Annotated[str | None, typer.Option(help="As `visavis serve` takes.")] = None,
    out: Annotated[Path, typer.Option(help="A folder.")] = RESULTS,
    minutes: Annotated[float, typer.Option(min=0.1)] = 60.0,
    sessions: Annotated[int, typer.Option(min=1, help="That last to the end.")] = 1,
    churn_s: Annotated[float, typer.Option(help="Somebody comes so often; 0: nobody.")] = 60.0,
    churn_talk_s: Annotated[float, typer.Option(help="And stays for so long.")] = 1.0,
    warm_up_s: Annotated[float, typer.Option(help="Before what is compared.")] = 60.0,
    sample_s: Annotated[float, typer.Option(help="Memory and processors are read so often.")] = 5.0,
    deadline_ms: Annotated[float, typer.Option(help="A block is missed after so long.")] = 200.0,
) -> None:
    """Converse for long, and write what has changed."""
    seconds, console = minutes * MINUTE_S, Console()
    warm_up_s = min(warm_up_s, seconds / 4)
    options = {
        "sessions": sessions,
        "churn_s": churn_s,
        "churn_talk_s": churn_talk_s,
        "sample_s": sample_s,
        "deadline_ms": deadline_ms,
    }
    config, head = configs.load(EchoConfig, repository / "config.json"), record.environment()
    name = served_name(config.name, config_name)
    with ExitStack() as stack:
        if server is None:
            # Visitors too are to find a place.
            most, ports = sessions + 2, Ports(0, 0, 0)
            own = Server(repository, ports=ports, config_name=config_name, max_sessions=most)
            stack.enter_context(own)
            url, pid = own.grpc_url, own.process.pid if own.process else None
        else:
            found = listener(server)
            url, pid = server, found.pid if found else None
        run = soak(url, pid, seconds, options, console)
    summary = run.summary(seconds, warm_up_s)
    title = f"{name}: {sessions} live sessions for {minutes:g} minutes"
    record.write(
        out / f"soak_{name}.json",
        "soak",
        settings={
            "size": config.name,
            "config_name": config_name,
            "minutes": minutes,
            "warm_up_s": warm_up_s,
            **options,
        },
        summary=summary,
        raw=asdict(run),
        measured_on=head,
    )
    plot(run, seconds, title, out / f"soak_{name}.png")
    console.print(tables.in_terminal(changes(summary), title))


if __name__ == "__main__":
    typer.run(main)
