"""An OpenTelemetry collector that takes spans over HTTP and keeps them for a test."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Span(NamedTuple):
    """What a span says; ids in hexadecimal digits, attributes by their names."""

    name: str
    trace: str
    id: str
    parent: str
    kind: int
    state: str
    failed: bool
    attributes: dict[str, Any]
    exceptions: list[dict[str, Any]]
    nanoseconds: int
    scope: str
    resource: dict[str, Any]


class Collector:
    """What has arrived so far.

    Attributes:
        url: its address, without a path.
        paths: of all requests.
    """

    def __init__(self, url: str, keep: bool = True) -> None:
        self.url = url
        self._keep = keep
        self.paths: set[str] = set()
        self._spans: list[Span] = []

    def take(self, path: str, body: bytes) -> None:
        """Take one request."""
        self.paths.add(path)
        if not self._keep:
            return
        message: Any = ExportTraceServiceRequest()
        message.ParseFromString(body)
        for of_resource in message.resource_spans:
            resource = _attributes(of_resource.resource.attributes)
            for of_scope in of_resource.scope_spans:
                for span in of_scope.spans:
                    self._spans.append(_read(span, of_scope.scope.name, resource))

    @property
    def spans(self) -> dict[str, Span]:
        """By name, the newest of each."""
        return {span.name: span for span in list(self._spans)}

    def __len__(self) -> int:
        return len(self._spans)


def _attributes(found: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in found}


def _read(span: Any, scope: str, resource: dict[str, Any]) -> Span:
    return Span(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.kind,
        span.trace_state,
        span.status.code == 2,
        _attributes(span.attributes),
        [_attributes(event.attributes) for event in span.events],
        span.end_time_unix_nano - span.start_time_unix_nano,
        scope,
        resource,
    )


@contextlib.contextmanager
def collecting(keep: bool = True) -> Iterator[Collector]:
    """A collector on this machine.

    Args:
        keep: look at what arrives, and keep it.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.take(self.path, body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """No line for each request."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector = Collector(f"http://127.0.0.1:{server.server_port}", keep)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
