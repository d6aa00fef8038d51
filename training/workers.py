"""This is where work that takes hours is spread over processes: corpora, experiments."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

PR_SET_PDEATHSIG = 1  # of Linux, <sys/prctl.h>

Job = TypeVar("Job")
Result = TypeVar("Result")


def limit_threads() -> None:
    """One thread per process: the processes already fill the cores.

    Environment variables set here are inherited by the spawned workers before they import.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ["LP_NUM_THREADS"] = "0"  # Mesa's software rasteriser: draw in the calling thread


def done(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: int
) -> Iterator[tuple[Job, Result]]:
    """Jobs with their results, as they are done by `workers` processes.

    When one fails, or nobody wants the next, those that have not begun are left.
    """
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent)
    try:
        futures = {pool.submit(function, job): job for job in jobs}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """A worker whose parent was killed would go on and take a core from whatever comes next."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
