"""Traces: a message's spans, from its sender through every model that it takes."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from visavis_client import Client, Portrait

from tests.integration.conftest import CONFIG, FREE, sound
from tests.integration.stream import Stream, new_id, text
from visavis.serving.server import Server, Traces

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="visavis[traces]")

from tests.integration.collector import Collector

SENDER = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
BLOCK = [
    "audio_encoder",
    "lcu_encoder",
    "motion_prior",
    "sdcm_sampler",
    "vae_decoder",
    "vae_encoder",
]


@pytest.fixture(scope="module")
def collector():
    with Collector() as running:
        yield running
        running.shutdown()


@pytest.fixture(scope="module")
def traced(repository, collector, tmp_path_factory):
    """A server that traces what brings a trace, and nothing else."""
    log = tmp_path_factory.mktemp("log") / "server.log"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        traces = Traces(collector.endpoint, rate=0.0)
        with Server(
            repository, ports=FREE, stop_timeout_s=2, traces=traces, log_format="json", log=log
        ) as running:
            yield running


def converse(server, portrait, seed=0, **options):
    face = Portrait(portrait["portrait"], portrait["region_centers"])
    with Client(server.grpc_url, **options) as client, client.session(portrait=face) as session:
        session.send(avatar_audio=sound(14, seed))
        session.finish()
        assert len(list(session.frames())) == 14


def names(spans):
    return sorted(span.name for span in spans)


def children(spans, parent):
    return [
        span
        for span in spans
        if span.parent_span_id == parent.span_id and span.trace_id == parent.trace_id
    ]


def of_trace(spans, headers):
    return [span for span in spans if span.trace_id.hex() == headers["traceparent"].split("-")[1]]


def test_a_block_is_followed_through_every_model(traced, collector, portrait):
    converse(traced, portrait, trace=lambda headers: headers.update(SENDER))
    blocks = -(-14 // CONFIG.block_frames)
    wanted = blocks * (len(BLOCK) + 1 + 2 * CONFIG.sampling.num_steps)
    spans = collector.wait_for(lambda spans: len(of_trace(spans, SENDER)) >= wanted + 8)
    messages = [span for span in spans if span.name == "echo_session"]
    assert {span.parent_span_id.hex() for span in messages} == {"cd" * 8}
    start, *_ = sorted(messages, key=lambda span: span.start_time_unix_nano)
    assert names(children(spans, start)) == ["affect_encoder", "enroll"]
    calls = [span for message in messages for span in children(spans, message)]
    echoes = [span for span in calls if span.name == "echo"]
    assert len(echoes) == blocks
    for echo in echoes:
        steps = children(spans, echo)
        assert names(steps) == BLOCK
        (sampler,) = [span for span in steps if span.name == "sdcm_sampler"]
        denoisings = children(spans, sampler)
        assert names(denoisings) == ["sdcm_denoiser"] * CONFIG.sampling.num_steps
        for call in denoisings:
            assert names(children(spans, call)) == ["sdcm_denoiser"]


def test_no_trace_is_begun_at_rate_0(traced, collector, portrait):
    before = len(collector.spans)
    converse(traced, portrait)
    unsampled = {"traceparent": SENDER["traceparent"][:-2] + "00"}
    converse(traced, portrait, trace=lambda headers: headers.update(unsampled))
    marker = {"traceparent": f"00-{'12' * 16}-{'34' * 8}-01"}  # as nothing can be waited for
    converse(traced, portrait, trace=lambda headers: headers.update(marker))
    spans = collector.wait_for(lambda spans: "vae_decoder" in names(of_trace(spans, marker)))
    assert {span.trace_id.hex() for span in spans[before:]} == {"12" * 16}


def test_conversations_that_share_a_batch_are_linked(traced, collector, portrait):
    """Many at once, as which blocks meet is up to the server."""
    senders = [{"traceparent": f"00-{n:032x}-{'cd' * 8}-01"} for n in range(1, 13)]
    with ThreadPoolExecutor(len(senders)) as threads:
        list(
            threads.map(
                lambda sender: converse(traced, portrait, trace=lambda into: into.update(sender)),
                senders,
            )
        )
    blocks = -(-14 // CONFIG.block_frames)
    ours = {sender["traceparent"].split("-")[1] for sender in senders}

    def samplers(spans):
        return [s for s in spans if s.name == "sdcm_sampler" and s.trace_id.hex() in ours]

    spans = collector.wait_for(lambda spans: len(samplers(spans)) == blocks * len(senders))
    collector.wait_for(lambda spans: all(map(denoised(spans), samplers(spans))))
    linked = [span for span in samplers(collector.spans) if span.links]
    assert linked
    leaders = {span.span_id for span in samplers(spans) if not span.links}
    assert {link.span_id for span in linked for link in span.links} <= leaders


def denoised(spans):
    """Whether a sampler's calls of the denoiser are there, below it or below the one it names."""
    parents = {span.parent_span_id for span in spans if span.name == "sdcm_denoiser"}
    return lambda sampler: bool(
        {sampler.span_id, *(link.span_id for link in sampler.links)} & parents
    )


def test_an_error_is_marked_and_quotes_nobody(traced, collector, portrait):
    failing = {"traceparent": f"00-{'fe' * 16}-{'cd' * 8}-01"}
    secret = "my secret heart"
    with Stream(traced.grpc_url) as stream:
        session_id = new_id()
        turn = {"role": secret, "text": secret, "start_s": 0}
        answer = stream.ask(
            session_id, start=True, parameters=failing, transcript=text([turn]), **portrait
        )
    assert "[INVALID_ARG] transcript[0].role" in str(answer.error)
    spans = collector.wait_for(lambda spans: "echo_session" in names(of_trace(spans, failing)))
    (span,) = [s for s in of_trace(spans, failing) if s.name == "echo_session"]
    assert span.status.message == "SessionError"
    assert secret.encode() not in collector.posted
    assert session_id.encode() not in collector.posted
    log = traced.log.read_text()
    assert secret not in log and session_id not in log
    lines = [json.loads(line) for line in log.splitlines() if line[:1] == "{"]
    (told,) = [line for line in lines if line.get("trace_id") == "fe" * 16]
    assert told["event"] == "session refused" and told["session"] == f"{session_id[:8]}…"


def test_a_collector_that_is_not_there_disturbs_nobody(repository, portrait):
    traces = Traces("http://127.0.0.1:9/v1/traces")
    with Server(repository, ports=FREE, max_sessions=64, stop_timeout_s=4, traces=traces) as server:
        converse(server, portrait)


@pytest.mark.parametrize(
    ("endpoint", "rate", "problem"),
    [("collector:4318", 1.0, "expected the address"), ("http://a", 2.0, "expected 0 to 1")],
)
def test_wrong_settings_are_refused(endpoint, rate, problem):
    with pytest.raises(ValueError, match=problem):
        Traces(endpoint, rate)
