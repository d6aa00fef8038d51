"""This is where a message's way through the models becomes OpenTelemetry spans.

    echo_session                  one message
    ├── enroll, affect_encoder    when a session starts, or somebody has spoken
    └── echo                      one block
        ├── audio_encoder, vae_encoder, lcu_encoder, motion_prior, vae_decoder
        └── sdcm_sampler
            └── sdcm_denoiser     a call for each step; within it, the network's own time

A trace begins with a message to `echo_session`, or belongs to the `traceparent` (W3C) that the
message brings among its parameters. Calls bring it on in the same way: Triton hands an ensemble's
parameters to its steps.

Triton's own OpenTelemetry mode does not do it: it frees the trace of a request as soon as a model's
asynchronous `execute` has returned, and a call that is then made with it (`trace=request.trace()`)
crashes the server (seen in 2.51).

OpenTelemetry's own variables say where spans go and how many: `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`,
`OTEL_TRACES_SAMPLER` and so on. Without the first there are none, and nothing is imported. Spans
hold times, names of models, the beginning of a session's id and kinds of errors, no signal and no
word.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

LOG = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
FLUSH_S = 2.0  # a collector that does not answer must not keep a model from being unloaded
UNTRACED = {"traceparent": f"00-{1:032x}-{1:016x}-00"}  # a parent that is not traced, nor its child

Parameters = Mapping[str, Any]


@dataclass(frozen=True)
class Traces:
    """Where spans go: the address of a collector's OTLP over HTTP, such as
    http://localhost:4318/v1/traces. `rate` is the part of all messages that is traced, of those
    that do not bring a trace of their own."""

    endpoint: str
    rate: float = 1.0

    def __post_init__(self) -> None:
        if not self.endpoint.startswith(("http://", "https://")):
            raise ValueError(
                f"traces: got {self.endpoint!r}, expected the address of OTLP over HTTP; write for "
                "example http://localhost:4318/v1/traces"
            )
        if not 0 <= self.rate <= 1:
            raise ValueError(f"trace rate: got {self.rate}, expected 0 to 1; choose one in range")

    def variables(self) -> dict[str, str]:
        """OpenTelemetry's own, for the server's environment."""
        return {
            "OTEL_SERVICE_NAME": os.environ.get("OTEL_SERVICE_NAME", "visavis"),
            ENDPOINTS[0]: self.endpoint,
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": str(self.rate),
        }


def is_wanted() -> bool:
    """Whether the environment says where spans go."""
    return any(os.environ.get(name) for name in ENDPOINTS)


def is_possible() -> bool:
    """Whether what sends them is installed."""
    try:
        return importlib.util.find_spec(EXPORTER) is not None
    except ModuleNotFoundError:
        return False


def start() -> None:
    """Get ready, which takes a third of a second, before anybody waits."""
    _tracing()


@contextmanager
def message(model: str, parameters: Parameters, **attributes: Any) -> Iterator[None]:
    """Within, there is a span for one message, which begins a trace or is in its sender's."""
    if (tracing := _tracing()) is None:
        yield
        return
    parent = tracing.extract(parameters)
    with tracing.span(model, parent, tracing.SERVER, attributes):
        yield


@contextmanager
def batch(model: str, requests: Iterable[Parameters]) -> Iterator[None]:
    """Within, there is a span for each request of a batch that belongs to a trace.

    What is called for all of them can have one parent only, which is the first one's span; the
    others are linked to that, so that their traces lead to where the time went.
    """
    if (tracing := _tracing()) is None:
        yield
        return
    parents = [tracing.extract(one) for one in requests if "traceparent" in one]
    with tracing.spans(model, parents):
        yield


@contextmanager
def call(model: str, **attributes: Any) -> Iterator[dict[str, str]]:
    """Within, there is a span for the call of a model; gives the parameters that bring it along."""
    tracing = _tracing()
    if tracing is None or not tracing.trace.get_current_span().is_recording():
        yield {}
        return
    with tracing.span(model, None, tracing.CLIENT, attributes):
        parameters: dict[str, str] = {}
        tracing.inject(parameters)
        yield parameters


def failed(error: BaseException) -> None:
    """The current span did not go well. An error's text may quote its sender, so it is left out."""
    if (tracing := _tracing()) is not None:
        tracing.fail(tracing.trace.get_current_span(), error)


def trace_id() -> str | None:
    """The current trace's, in hexadecimal digits."""
    tracing = _tracing()
    if tracing is None or not (span := tracing.trace.get_current_span()).is_recording():
        return None
    return f"{span.get_span_context().trace_id:032x}"


def stop() -> None:
    """Send what is left."""
    if (tracing := _tracing()) is not None:
        thread = threading.Thread(target=tracing.provider.shutdown, daemon=True)
        thread.start()
        thread.join(FLUSH_S)


class Tracing:
    """OpenTelemetry, set up for this process."""

    def __init__(self) -> None:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation import tracecontext

        self.trace = trace
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self.tracer = self.provider.get_tracer("visavis")
        self.SERVER, self.CLIENT = trace.SpanKind.SERVER, trace.SpanKind.CLIENT
        propagator = tracecontext.TraceContextTextMapPropagator()
        self.extract, self.inject = propagator.extract, propagator.inject

    @contextmanager
    def span(self, name: str, parent: Any, kind: Any, attributes: Parameters) -> Iterator[Any]:
        """A span that is the current one within; `parent` None is the one that was before."""
        with self.tracer.start_as_current_span(
            name,
            parent,
            kind,
            {f"visavis.{key}": value for key, value in attributes.items()},
            record_exception=False,  # see `failed`
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except Exception as error:
                self.fail(span, error)
                raise

    @contextmanager
    def spans(self, name: str, parents: list[Any]) -> Iterator[None]:
        """A span for each parent, of which the first that is recorded is the current one."""
        first, started = None, []
        for parent in parents:
            links = [] if first is None else [self.trace.Link(first.get_span_context())]
            attributes = {"visavis.batch": len(parents)}
            span = self.tracer.start_span(name, parent, self.SERVER, attributes, links)
            started.append(span)
            if first is None and span.is_recording():
                first = span
        try:
            with self.trace.use_span(first or self.trace.INVALID_SPAN):
                yield
        finally:
            for span in started:
                span.end()

    def fail(self, span: Any, error: BaseException) -> None:
        """Mark a span."""
        kind = type(error).__name__
        span.set_status(self.trace.Status(self.trace.StatusCode.ERROR, kind))
        span.set_attribute("error.type", kind)


@lru_cache(maxsize=1)
def _tracing() -> Tracing | None:
    if not is_wanted():
        return None
    if not is_possible():
        LOG.warning("traces: got no OpenTelemetry, expected it; pip install 'visavis[traces]'")
        return None
    return Tracing()
