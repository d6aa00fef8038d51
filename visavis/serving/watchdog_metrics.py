"""This is where Prometheus reads what a watchdog has done, as Triton's `/metrics` cannot tell it:
the watchdog is no part of Triton's process.

visavis_watchdog_reloads_total              counter  models that were loaded anew
visavis_watchdog_canaries_total             counter  times that a quiet model was asked something
visavis_watchdog_failed_canaries_total      counter  of these, those without an answer
visavis_watchdog_server_restarts_total      counter  times that `visavis serve` started Triton again
visavis_watchdog_last_look_timestamp_seconds  gauge  of the last look at all models, since 1970; an
                                                     old one means that the server does not answer,
                                                     or that nobody watches

Counters of models are by `model`, and all are there from the beginning, at 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from visavis.serving.watchdog import Counts

NAME = "visavis_watchdog"


class CountsCollector(Collector):
    """A watchdog's counts, as they are whenever they are asked for."""

    def __init__(self, counts: Counts, models: Iterable[str]):
        self.counts = counts
        self.models = tuple(models)

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """One family after the other."""
        yield self._counter("reloads", "Models loaded anew", self.counts.reloads)
        yield self._counter("canaries", "Quiet models asked", self.counts.canaries)
        yield self._counter("failed_canaries", "Without an answer", self.counts.failed_canaries)
        yield CounterMetricFamily(
            f"{NAME}_server_restarts", "Server started again", self.counts.restarts
        )
        yield GaugeMetricFamily(
            f"{NAME}_last_look_timestamp_seconds", "The last look", self.counts.looked_s
        )

    def _counter(self, name: str, description: str, counts: Counter[str]) -> CounterMetricFamily:
        family = CounterMetricFamily(f"{NAME}_{name}", description, labels=["model"])
        for model in self.models:
            family.add_metric([model], counts[model])
        return family


@contextmanager
def served(counts: Counts, models: Iterable[str], host: str, port: int) -> Iterator[int]:
    """Within, `http://host:port/metrics` tells them; gives the port, a free one for 0. OSError when
    it cannot be had."""
    registry = CollectorRegistry()
    registry.register(CountsCollector(counts, models))
    server, thread = start_http_server(port, host, registry)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
