"""Requests taken through their life with a plugin that runs in a server of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any, TypeVar

from .exchange import Exchange, Response, ServiceRequest
from .life import CallUpstream, RunPhase, life

T = TypeVar("T")

#: Runs the plugin's handler of a phase.
RunHandler = Callable[[Exchange, str], Awaitable[None]]
#: Sends a request to the upstream. The flag says whether the body must be complete.
Upstream = Callable[[ServiceRequest, bool], Awaitable[Response]]
#: Sends the response to the client.
Send = Callable[[Response], Awaitable[None]]


class UpstreamError(Exception):
    """The upstream gave no answer.

    Attributes:
        status: what the client gets for it: 502, 503 or 504.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


async def drive(
    exchange: Exchange,
    phases: Collection[str],
    run_handler: RunHandler,
    upstream: Upstream,
    send: Send,
) -> None:
    """Take one request through its life.

    The log phase is run even if the client has gone before its answer was sent.

    Args:
        exchange: the request.
        phases: the phases for which the plugin has handlers.
        run_handler: runs one of them.
        upstream: calls the upstream; may raise UpstreamError.
        send: sends the answer; may raise OSError if the client has gone.
    """
    for action in life(exchange, phases):
        if isinstance(action, RunPhase):
            await run_handler(exchange, action.name)
        elif isinstance(action, CallUpstream):
            try:
                request = exchange.service_request()
                exchange.service_response = await upstream(request, action.buffered)
            except UpstreamError as error:
                exchange.upstream_failed(error.status, str(error))
        else:
            try:
                await send(exchange.response)
            except OSError as error:
                exchange.log("info", f"the client closed the connection: {error}")


class Tasks:
    """Requests under way, which outlive the client's connection until their log phase is over."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something until its end, whatever happens to the caller."""
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def finish(self, limit: float | None) -> None:
        """Wait until all have ended, and cancel what has not after ``limit`` seconds, if any."""
        if not self._running:
            return
        late = set(self._running)
        try:
            _, late = await asyncio.wait(late, timeout=limit)
        finally:
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
