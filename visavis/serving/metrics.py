"""This is where the session model's own figures reach Triton's `/metrics`.

visavis_open_sessions    gauge       conversations that are held
visavis_block_seconds    histogram   from a block's signals to its pictures; a block of five
                                     frames has 0.2 s if it is to keep up
"""

from __future__ import annotations

import threading

import triton_python_backend_utils as pb_utils

BLOCK_BUCKETS_S = [0.025, 0.05, 0.1, 0.15, 0.2, 0.4, 0.8, 1.6]


class SessionMetrics:
    """Figures of one instance of `echo_session`; `instance` keeps several apart.

    May be told from any thread: a metric passes its values through one piece of shared memory, so
    two threads in one metric crash the server. A lock stands before them.
    """

    def __init__(self, instance: str):
        labels = {"instance": instance}
        # The families are kept because a metric does not outlive its family.
        self.families = [
            pb_utils.MetricFamily(name=name, description=description, kind=kind)
            for name, description, kind in (
                ("visavis_open_sessions", "Conversations held", pb_utils.MetricFamily.GAUGE),
                ("visavis_block_seconds", "Time of one block", pb_utils.MetricFamily.HISTOGRAM),
            )
        ]
        sessions, seconds = self.families
        self.open_sessions = sessions.Metric(labels=labels)
        self.block_seconds = seconds.Metric(labels=labels, buckets=BLOCK_BUCKETS_S)
        self.lock = threading.Lock()

    def sessions(self, count: int) -> None:
        """How many conversations there are now."""
        with self.lock:
            self.open_sessions.set(count)

    def block(self, seconds: float) -> None:
        """One block was made."""
        with self.lock:
            self.block_seconds.observe(seconds)
