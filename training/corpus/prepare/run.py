"""This is where many conversations are prepared, in parallel, and a stopped run goes on.

When a conversation is done, for good or ill, `DIR/records/` has a file that says what became of it,
and no later run touches it again.
"""

from __future__ import annotations

import json
import traceback
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
from functools import partial
from itertools import chain, count
from pathlib import Path

from tqdm import tqdm
from visavis_client import MediaWarning, VisavisError

from training.corpus.prepare.conversation import Kept, Outcome, Settings, prepare, safe
from training.corpus.prepare.source import Dropped, Source
from training.whole import whole
from training.workers import done

CRASHED = "it crashed the process that read it, twice; the file is probably damaged"


def prepare_all(
    sources: Sequence[Source], out: Path, settings: Settings, workers: int
) -> list[Outcome]:
    """What became of every conversation, those of earlier runs included."""
    begin(out, settings)
    unique = _with_own_names(sources)
    for leftover in _records(out).glob("*.started"):
        leftover.unlink()
    waiting = [source for source in unique if not _record(out, source).exists()]
    with tqdm(total=len(unique), initial=len(unique) - len(waiting), unit="conversation") as bar:
        for _ in _done(waiting, out, settings, workers):
            bar.update()
    return [_read(_record(out, source)) for source in unique]


def work(source: Source, out: Path, settings: Settings) -> None:
    """Prepare one conversation and record what became of it."""
    started = _started(out, source)
    started.touch()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MediaWarning)
        outcome = _outcome(source, out, settings)
    odd = dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, MediaWarning))
    _write_record(out, source, replace(outcome, notes=[*outcome.notes, *odd]))
    started.unlink()


def _outcome(source: Source, out: Path, settings: Settings) -> Outcome:
    try:
        return prepare(source, out, settings)
    except (Dropped, VisavisError) as error:
        return Outcome(source.name, source.split, reason=str(error))
    except ImportError:
        raise  # the installation's fault, not the file's
    except Exception as error:  # a damaged file may break any reader, and must cost only itself
        where = traceback.format_exc(limit=-3)
        reason = f"{type(error).__name__}: {error}"
        return Outcome(source.name, source.split, reason=reason, notes=[where])


def _done(
    waiting: Sequence[Source], out: Path, settings: Settings, workers: int
) -> Iterator[Source]:
    """Each conversation as it is done. One that kills its process gets a second chance, alone."""
    while waiting:
        try:
            yield from _in_pool(waiting, out, settings, workers)
        except BrokenProcessPool:
            suspects = [source for source in waiting if _started(out, source).exists()]
            if not suspects:
                raise  # no conversation's fault
            for source in suspects:
                try:
                    yield from _in_pool([source], out, settings, 1)
                except BrokenProcessPool:
                    _write_record(out, source, Outcome(source.name, source.split, reason=CRASHED))
                    _started(out, source).unlink()
                    yield source
        waiting = [source for source in waiting if not _record(out, source).exists()]


def _in_pool(
    sources: Sequence[Source], out: Path, settings: Settings, workers: int
) -> Iterator[Source]:
    prepared = done(partial(work, out=out, settings=settings), sources, workers)
    yield from (source for source, _ in prepared)


def begin(out: Path, settings: Settings) -> None:
    """Makes the folder, or checks that it was begun with the same settings; ValueError if not."""
    _records(out).mkdir(parents=True, exist_ok=True)
    path = out / "settings.json"
    if path.exists() and (old := json.loads(path.read_text())) != asdict(settings):
        raise ValueError(
            f"{out}: got settings {asdict(settings)}, expected {old}, with which it was begun; "
            "use these, or another --out"
        )
    path.write_text(json.dumps(asdict(settings), indent=2))


def _with_own_names(sources: Sequence[Source]) -> list[Source]:
    """Sources whose folders do not collide."""
    taken: set[tuple[str, str]] = set()
    unique = []
    for source in sources:
        names = chain([source.name], (f"{source.name}_{n}" for n in count(2)))
        name = next(name for name in names if (safe(source.split), safe(name)) not in taken)
        taken.add((safe(source.split), safe(name)))
        unique.append(replace(source, name=name))
    return unique


def _records(out: Path) -> Path:
    return out / "records"


def _record(out: Path, source: Source) -> Path:
    return _records(out) / f"{safe(source.split)}--{safe(source.name)}.json"


def _started(out: Path, source: Source) -> Path:
    return _record(out, source).with_suffix(".started")


def _write_record(out: Path, source: Source, outcome: Outcome) -> None:
    with whole(_record(out, source)) as partial:
        partial.write_text(json.dumps(asdict(outcome), indent=2))


def _read(path: Path) -> Outcome:
    fields = json.loads(path.read_text())
    return Outcome(**fields | {"kept": [Kept(**kept) for kept in fields["kept"]]})
