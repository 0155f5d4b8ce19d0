"""A span of each event for OpenTelemetry, in the trace that the client's request belongs to.

The parent is what the request's header ``traceparent`` says when the handler begins: the client's
span, or Kong's own once a tracing plugin of Kong's has set it. While a handler runs the span is the
current one, so that what the plugin traces itself is below it.

The only module that imports opentelemetry. Needs the extra ``kong-pdk[tracing]``. The sampler, the
sizes of batches and so on are what the environment's ``OTEL_*`` variables say, by
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/.
"""

from __future__ import annotations

import logging
import re
import threading
import time
import traceback
from typing import Any, Callable, Optional
from urllib.parse import urlsplit

from .. import __version__
from .._codec import Event
from ..exception import ConfigError
from .base import GOOD, Observer, Record, ask, outcome_of, phases_of, status_of

try:
    from opentelemetry import context, trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except Exception as exc:  # not only ImportError: protobuf has one of its own for a wrong version
    raise ConfigError(
        f"--tracing needs OpenTelemetry's SDK and its OTLP exporter over HTTP, which cannot be "
        f"imported ({exc}): pip install 'kong-pdk[tracing]'"
    ) from exc

logger = logging.getLogger("kong_pdk.server")

#: The service's name unless the environment says otherwise.
SERVICE = "kong-python-pluginserver"
#: How long the end waits for the last spans to be sent, seconds.
END_PATIENCE = 2.0
#: What a collector's address without a path means (OTLP over HTTP).
PATH = "/v1/traces"

_GET_HEADER = "kong.request.get_header"
#: A header ``traceparent`` whose trace is recorded, as far as is asked here: its last bit is set.
_SAMPLED = re.compile("[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f][13579bdf]").match

#: Longest such header that is looked at, characters.
_LONGEST = 512
#: A header ``tracestate`` that OpenTelemetry takes. For others it writes a line into the log, with
#: what the client has sent.
_KEY = "(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
_VALUE = r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_MEMBER = re.compile(f"{_KEY}={_VALUE}").fullmatch
_MOST_MEMBERS, _LONGEST_STATE = 32, 8192
#: Longest text of an exception, and longest traceback, characters: 2,048 spans may wait.
_LONGEST_TEXT = 16384


def state_of(header: str) -> Optional[str]:
    """All that can be taken of a header ``tracestate``; None if it is not as it should be."""
    members = [member for member in (each.strip(" \t") for each in header.split(",")) if member]
    good = len(header) <= _LONGEST_STATE and 0 < len(members) <= _MOST_MEMBERS
    return ",".join(members) if good and all(map(_MEMBER, members)) else None


def describe(exc: BaseException) -> dict[str, str]:
    """What a span says of what a handler has raised: OpenTelemetry's words for it.

    Its own ``record_exception`` relies on the exception, whose class is an author's, and on its
    text, which may be of any size and may hold what cannot be sent.
    """
    kind = type(exc)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return {
        "exception.type": _text(lambda: f"{module}{kind.__qualname__}"),
        "exception.message": _text(lambda: str(exc)),
        "exception.stacktrace": _text(
            lambda: "".join(traceback.format_exception(kind, exc, exc.__traceback__))
        ),
        "exception.escaped": "False",
    }


def _text(make: Callable[[], str]) -> str:
    try:
        text = make()
    except BaseException:  # an author's own class may do anything
        return "(its text cannot be had)"
    if len(text) > _LONGEST_TEXT:
        text = f"...{text[-_LONGEST_TEXT:]}"  # the end of a traceback says most
    return text.encode("utf-8", "backslashreplace").decode()  # not all surrogates can be sent


def endpoint_of(text: str) -> Optional[str]:
    """Where spans go, as the flag ``--tracing`` names it.

    Args:
        text: a URL of a collector, or ``env``.

    Returns:
        None if the environment says where.

    Raises:
        ConfigError: it is neither.
    """
    if text == "env":
        return None
    error = ConfigError(
        f"--tracing wants the address of an OpenTelemetry collector, as in http://127.0.0.1:4318, "
        f"or the word env, got {text!r}"
    )
    try:
        url = urlsplit(text)
        good = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:  # a port that is no number
        raise error from None
    if not good:
        raise error
    return text if url.path.strip("/") else url._replace(path=PATH).geturl()


def _resource() -> Resource:
    """What the spans say of this process."""
    resource = Resource.create()
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: SERVICE}))
    return resource


class Tracing(Observer):
    """Makes the spans, and has them sent.

    Args:
        address: see :func:`endpoint_of`.

    Raises:
        ConfigError: it is no address, or the environment's settings do not go together.
    """

    def __init__(self, address: str) -> None:
        endpoint = endpoint_of(address)
        _share_log()
        try:
            self._open(endpoint)
        except Exception as exc:
            raise ConfigError(
                f"--tracing: OpenTelemetry cannot work with what the environment says "
                f"({type(exc).__name__}: {exc}): see to its OTEL_* variables"
            ) from exc
        self._propagator = TraceContextTextMapPropagator()
        self._asks = phases_of(_GET_HEADER)

    def _open(self, endpoint: Optional[str]) -> None:
        provider: Any = trace.get_tracer_provider()
        self._own: Optional[TracerProvider] = None
        if endpoint is not None or not isinstance(provider, TracerProvider):
            provider = self._own = TracerProvider(resource=_resource(), shutdown_on_exit=False)
            provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
            # What plugins trace goes the same way, unless they have seen to that themselves.
            if not isinstance(trace.get_tracer_provider(), TracerProvider):
                trace.set_tracer_provider(provider)
        self._tracer = provider.get_tracer("kong_pdk", __version__)

    def begin(self, event: Event) -> None:
        """Begin the span, and make it the current one."""
        parent = self._parent(event)
        plugin = event.instance.plugin
        elapsed = time.monotonic() - event.began
        span = self._tracer.start_span(
            f"{plugin.name} {event.phase}",
            parent,
            trace.SpanKind.SERVER,
            {
                "kong.plugin.name": plugin.name,
                "kong.plugin.version": plugin.version,
                "kong.phase": event.phase,
                "kong.instance": event.instance.id,
                "kong.event": str(event.id),  # has more bits than such a number
            },
            start_time=time.time_ns() - int(elapsed * 1e9),
        )
        record: Record = event.record
        record.span = span
        found = span.get_span_context()
        if not found.is_valid:  # OTEL_SDK_DISABLED
            found = trace.get_current_span(parent).get_span_context()
        if found.is_valid:
            record.trace = trace.format_trace_id(found.trace_id)
        record.token = context.attach(trace.set_span_in_context(span, parent))

    def _parent(self, event: Event) -> context.Context:
        """What the request says of its trace; one round trip, and another one if it is recorded."""
        carrier = {}
        if event.phase in self._asks:
            header = ask(event, _GET_HEADER, "traceparent")
            if header is not None and len(header) <= _LONGEST:
                carrier["traceparent"] = header
                state = ask(event, _GET_HEADER, "tracestate") if _SAMPLED(header) else None
                state = None if state is None else state_of(state)
                if state is not None:
                    carrier["tracestate"] = state
        return self._propagator.extract(carrier, context.Context())

    def fail(self, event: Event, exc: BaseException) -> None:
        """Note what a handler has raised, with its traceback."""
        span = event.record.span
        if span is not None and span.is_recording():
            span.add_event("exception", describe(exc))

    def end(self, event: Event, seconds: float, failed: bool) -> None:
        """End the span."""
        record: Record = event.record
        span, token = record.span, record.token
        record.span = record.token = None
        if token is not None:
            context.detach(token)
        if span is None or not span.is_recording():
            return
        outcome, status = outcome_of(event, failed), status_of(event)
        span.set_attribute("kong.outcome", outcome)
        span.set_attribute("kong.pdk.calls", event.calls)
        if status is not None:
            span.set_attribute("http.response.status_code", status)
        if record.error:
            span.set_attribute("error.type", record.error)
        if outcome not in GOOD:
            span.set_status(trace.StatusCode.ERROR, record.error or outcome)
        span.end()

    def close(self) -> None:
        """Send the last spans, if the collector takes them soon."""
        if self._own is None:
            return
        # It has time-outs of its own, which may be long.
        sender = threading.Thread(target=self._own.shutdown, daemon=True)
        sender.start()
        sender.join(END_PATIENCE)
        if sender.is_alive():
            logger.error("tracing: the collector takes the last spans too slowly: they are lost")


def _share_log() -> None:
    """Write OpenTelemetry's own warnings where ours go, unless somebody has seen to that."""
    theirs, ours = logging.getLogger("opentelemetry"), logging.getLogger("kong_pdk")
    if not theirs.handlers and ours.handlers:
        theirs.handlers = list(ours.handlers)
        theirs.propagate = False
