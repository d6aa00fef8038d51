"""This is where an OpenTelemetry collector is pretended: it takes OTLP over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

WAIT_S = 20.0  # spans come in batches, from every model's process by itself


class Collector(ThreadingHTTPServer):
    """Spans by arrival."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[Any] = []
        self.posted = b""
        self.came = threading.Condition()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def endpoint(self) -> str:
        """Where traces are to be sent."""
        return f"http://127.0.0.1:{self.server_port}/v1/traces"

    def take(self, body: bytes) -> None:
        """Keep what was posted."""
        message: Any = ExportTraceServiceRequest.FromString(body)
        with self.came:
            self.posted += body
            for resource in message.resource_spans:
                self.spans += [span for scope in resource.scope_spans for span in scope.spans]
            self.came.notify_all()

    def wait_for(self, enough: Callable[[list[Any]], bool]) -> list[Any]:
        """All spans, once there are enough."""
        with self.came:
            assert self.came.wait_for(lambda: enough(self.spans), WAIT_S), self.spans
            return list(self.spans)


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.take(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass
