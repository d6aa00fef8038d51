"""This is where the session model's own figures reach Triton's `/metrics`.

visavis_open_sessions             gauge      conversations that are held,
visavis_places                    gauge      and how many there may be
visavis_refused_sessions_total    counter    that found no place
visavis_block_seconds             histogram  of making a block; one of five frames has 0.2 s if it
                                             is to keep up
visavis_answer_seconds            histogram  from a message's arrival to its first block's leaving,
                                             waiting in line included
visavis_missed_deadlines_total    counter    answers that took longer than their block lasts

The watchdog's are elsewhere, as it is no part of Triton: `visavis.serving.watchdog_metrics`.

How many blocks share a batch, Triton counts itself: nv_inference_count over
nv_inference_exec_count of a model.
"""

from __future__ import annotations

import threading
from typing import Any

import triton_python_backend_utils as pb_utils

SECONDS = [0.025, 0.05, 0.1, 0.15, 0.2, 0.4, 0.8, 1.6]


class SessionMetrics:
    """Figures of one instance of `echo_session`; `instance` keeps several apart.

    May be told from any thread: a metric passes its values through one piece of shared memory, so
    two threads in one metric crash the server. A lock stands before them.
    """

    def __init__(self, instance: str):
        self.labels = {"instance": instance}
        self.lock = threading.Lock()
        self.families: list[Any] = []  # kept because a metric does not outlive its family
        kinds = pb_utils.MetricFamily
        self.open_sessions = self._metric("open_sessions", "Conversations held", kinds.GAUGE)
        self.session_places = self._metric("places", "Conversations there may be", kinds.GAUGE)
        self.refused_sessions = self._metric(
            "refused_sessions_total", "Conversations that found no place", kinds.COUNTER
        )
        self.block_seconds = self._metric(
            "block_seconds", "Time of one block", kinds.HISTOGRAM, buckets=SECONDS
        )
        self.answer_seconds = self._metric(
            "answer_seconds", "Time to a message's first block", kinds.HISTOGRAM, buckets=SECONDS
        )
        self.missed_deadlines = self._metric(
            "missed_deadlines_total", "Answers longer than their block lasts", kinds.COUNTER
        )

    def _metric(self, name: str, description: str, kind: Any, **options: Any) -> Any:
        family = pb_utils.MetricFamily(name=f"visavis_{name}", description=description, kind=kind)
        self.families.append(family)
        return family.Metric(labels=self.labels, **options)

    def sessions(self, count: int) -> None:
        """How many conversations there are now."""
        with self.lock:
            self.open_sessions.set(count)

    def places(self, count: int) -> None:
        """How many conversations there may be."""
        with self.lock:
            self.session_places.set(count)

    def refused(self) -> None:
        """A conversation found no place."""
        with self.lock:
            self.refused_sessions.increment(1)

    def block(self, seconds: float) -> None:
        """One block was made."""
        with self.lock:
            self.block_seconds.observe(seconds)

    def answer(self, seconds: float, *, late: bool) -> None:
        """A message was answered by its first block."""
        with self.lock:
            self.answer_seconds.observe(seconds)
            self.missed_deadlines.increment(int(late))
