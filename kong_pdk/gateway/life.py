"""The life of one request: the phases in Kong's order, and what decides whether each is run.

:func:`life` says what is to be done next and leaves the doing to a driver::

    for action in life(exchange, plugin_phases):
        if isinstance(action, RunPhase):
            ...   # run the plugin's handler, and functions.call() for each PDK call it makes
        elif isinstance(action, CallUpstream):
            ...   # send exchange.service_request(), set exchange.service_response
        else:
            ...   # exchange.response is ready: send it to the client
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Union

from .entities import follow_route
from .exchange import Exchange, PhaseRun

#: The phases that a plugin server can have, in the order in which a request meets them.
PHASES = ("certificate", "rewrite", "access", "response", "log")
#: Those that a stream connection meets.
STREAM_PHASES = ("certificate", "preread", "log")


@dataclass(frozen=True)
class RunPhase:
    """Run the plugin's handler of this phase."""

    name: str


@dataclass(frozen=True)
class CallUpstream:
    """Send the request to the upstream and set the exchange's ``service_response``.

    Attributes:
        buffered: the whole body is needed; if not, the driver may keep the body to itself and say
            so with ``Response.streamed``.
    """

    buffered: bool


@dataclass(frozen=True)
class Respond:
    """Send the exchange's ``response`` to the client."""


Action = Union[RunPhase, CallUpstream, Respond]


def life(exchange: Exchange, phases: Collection[str]) -> Iterator[Action]:
    """Yield what is to be done with a request, in order.

    A stream connection (``exchange.stream``) has phases of its own, and no upstream that answers.

    A phase that answers the client, or breaks, keeps the upstream from being called, and the
    response phase with it; the log phase is run in any case, but for a TLS handshake that fails
    because the certificate phase has broken.

    Args:
        exchange: the request, which the driver changes between two actions.
        phases: the phases for which the plugin has handlers.

    Raises:
        ValueError: a path of the route is no regular expression.
    """
    if exchange.stream:
        yield from _stream_life(exchange, phases)
        return
    began = time.monotonic()
    waited = 0.0
    exchange.buffered = exchange.buffered or "response" in phases
    for phase in ("certificate", "rewrite", "access"):
        if phase == "access":
            follow_route(exchange)  # Kong looks for the route between the two
        if phase in phases and (phase != "certificate" or exchange.tls):
            yield from _run(exchange, phase)
        if exchange.aborted == "certificate":
            return  # no handshake: there is nobody to answer
        if exchange.exited is not None or exchange.aborted is not None:
            break
    else:
        exchange.proxied = True
        before = time.monotonic()
        yield CallUpstream(exchange.buffered)
        waited = time.monotonic() - before
        exchange.upstream_latency = int(waited * 1000)
        exchange.take_service_response()
        if "response" in phases:
            yield from _run(exchange, "response")
    exchange.finish(time.monotonic() - began - waited)
    yield Respond()
    if "log" in phases:
        yield from _run(exchange, "log")


def _stream_life(exchange: Exchange, phases: Collection[str]) -> Iterator[Action]:
    """The life of a stream connection, whose bytes no plugin sees."""
    for phase in ("certificate", "preread"):
        if phase in phases and (phase != "certificate" or exchange.tls):
            yield from _run(exchange, phase)
        if exchange.aborted == "certificate":
            return
        if exchange.exited is not None or exchange.aborted is not None:
            break
    else:
        exchange.proxied = True
    exchange.headers_sent = True
    exchange.response_size = len(exchange.response.body)
    yield Respond()
    if "log" in phases:
        yield from _run(exchange, "log")


def _run(exchange: Exchange, phase: str) -> Iterator[Action]:
    exchange.phase = phase
    run = PhaseRun(phase)
    exchange.runs.append(run)
    yield RunPhase(phase)
    run.seconds = time.monotonic() - run.began
