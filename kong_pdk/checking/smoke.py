"""A run of the plugin: in its own server process, as Kong would start it, for a plain request.

Nothing of the plugin runs in this process, so whatever it does harms nothing here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from ..gateway import entities
from ..gateway.driver import drive
from ..gateway.errors import GatewayError
from ..gateway.exchange import Exchange, Request, Response, ServiceRequest
from ..gateway.headers import Headers
from ..gateway.plugin import PluginInfo
from ..gateway.prefix import temporary_prefix
from ..gateway.process import ServerProcess
from ..gateway.rpc import PluginClient
from ..gateway.trace import Trace

#: The socket's name under the prefix.
SOCKET = "check.sock"
#: Phases in the order in which they are shown.
ORDER = ("certificate", "rewrite", "access", "preread", "response", "log")

_RAISED = re.compile(r"plugin \S+: (\w+) raised (.*) \(instance \d+, event \d+\)")
_OF_HANDLER = re.compile(r"\w+ failed, the request is refused: |plugin \S+: \w+ raised ")
_DEATH_LIMIT = 1.5  # seconds
_FRAME = re.compile(r'\s*File "(.+)", line (\d+)')
_PLUGIN_ID = "2f2f8f4e-0000-4000-8000-000000000001"
_BODY = b'{"message": "hello"}'


@dataclass
class Failure:
    """Something that went wrong in the run.

    Attributes:
        phase: in which; "" if in none.
        text: what.
        path, line: where in the plugin, if that is known.
    """

    phase: str
    text: str
    path: str = ""
    line: int = 0


@dataclass
class Outcome:
    """What came of a run.

    Attributes:
        status: what the client got for the plain request; None for a stream plugin.
        calls: the PDK functions that were called, by phase, in order.
        ended: the phase in which the plugin answered the client itself, if it did.
        failures: what went wrong.
    """

    status: Optional[int] = None
    calls: dict[str, list[str]] = field(default_factory=dict)
    ended: Optional[str] = None
    failures: list[Failure] = field(default_factory=list)


def run(
    start: Sequence[str], plugin: PluginInfo, config: Any, folder: str, limit: float = 20.0
) -> Outcome:
    """Start a plugin's server, take a plain request through it, and end it.

    Phases that the request does not come to, because the plugin answers before, or because they are
    of TLS or of stream connections, are run by themselves after it.

    Args:
        start: the command that starts the server, but for the socket's place.
        plugin: as it was dumped.
        config: its configuration.
        folder: where the plugin's code is: failures are located there.
        limit: seconds that the requests may take, in all.

    Raises:
        GatewayError: the server does not start, or the configuration does not fit.
    """
    text = plugin.config_text(config, _PLUGIN_ID)
    with temporary_prefix(SOCKET) as prefix:
        command = [*start, "--kong-prefix", str(prefix), "--socket-name", SOCKET]
        return asyncio.run(_run(command, prefix / SOCKET, plugin, text, folder, limit))


class _Lines(Trace):
    """What the server writes."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.deaths: list[int] = []
        self.died = asyncio.Event()

    def server_line(self, line: str) -> None:
        self.lines.append(line)

    def server_died(self, status: int) -> None:
        self.deaths.append(status)
        self.died.set()


async def _run(
    command: Sequence[str], socket: Path, plugin: PluginInfo, config: str, folder: str, limit: float
) -> Outcome:
    trace = _Lines()
    server = ServerProcess(command, socket, trace)
    outcome = Outcome()
    try:
        await server.start()
    except GatewayError as error:
        text = "; ".join([str(error), *trace.lines[-3:]])
        raise GatewayError(text) from error
    client = PluginClient(socket, plugin, config)
    try:
        await asyncio.wait_for(_requests(client, plugin, outcome), limit)
        if client.failures:  # was that its process's end? Sockets are closed before that is known
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(trace.died.wait(), _DEATH_LIMIT)
    except asyncio.TimeoutError:
        phase = next(reversed(outcome.calls), "")
        outcome.failures.append(Failure(phase, f"it does not end within {limit:g} s"))
    finally:
        client.close()
        await server.stop()
    for status in trace.deaths:
        how = f"signal {-status}" if status < 0 else f"status {status}"
        outcome.failures.append(Failure("", f"the plugin server's process ended with {how}"))
    outcome.failures = [*_raised(trace.lines, folder), *outcome.failures]
    return outcome


async def _requests(client: PluginClient, plugin: PluginInfo, outcome: Outcome) -> None:
    stream_only = "preread" in plugin.phases and not set(plugin.phases) & {
        "rewrite", "access", "response",
    }  # fmt: skip
    first = _exchange(stream=stream_only)
    await _take(client, first, plugin.phases, outcome)
    if not stream_only:
        outcome.status = first.response.status
    outcome.ended = first.exited
    for phase in ORDER:
        if phase in plugin.phases and phase not in outcome.calls:
            alone = _exchange(stream=phase == "preread", tls=phase == "certificate")
            await _take(client, alone, (phase,), outcome)


async def _take(
    client: PluginClient, exchange: Exchange, phases: Collection[str], outcome: Outcome
) -> None:
    async def run_handler(exchange: Exchange, phase: str) -> None:
        outcome.calls.setdefault(phase, [])
        await client.run_phase(exchange, phase)

    async def upstream(request: ServiceRequest, buffered: bool) -> Response:
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(_BODY)))]
        return Response(200, Headers(headers), _BODY)

    async def send(response: Response) -> None:
        """The client takes it."""

    before = client.failures
    await drive(exchange, phases, run_handler, upstream, send)
    for done in exchange.runs:
        outcome.calls.setdefault(done.name, []).extend(call.function for call in done.calls)
        for call in done.calls:
            if call.error is not None:
                text = f"Kong refuses {call.function}: {call.error}"
                outcome.failures.append(Failure(done.name, text))
    if client.failures > before:
        phase = exchange.runs[-1].name if exchange.runs else ""
        for line in exchange.logs:
            if line.level == "err" and not _is_of_handler(line.message):
                outcome.failures.append(Failure(phase, line.message))


def _is_of_handler(message: str) -> bool:
    """Whether a line of Kong's log is about what the server's log tells in full."""
    return _OF_HANDLER.match(message) is not None


def _exchange(stream: bool = False, tls: bool = False) -> Exchange:
    service = entities.service(None)
    if stream:
        request = Request("", "", scheme="tls" if tls else "tcp")
    else:
        headers = Headers([("Host", "localhost"), ("User-Agent", "kong-pdk"), ("Accept", "*/*")])
        request = Request("GET", "/", headers=headers, scheme="https" if tls else "http")
    return Exchange(
        request=request,
        service=entities.address_of(service),
        client_port=40000,
        server_port=8443 if tls else 8000,
        tls=tls,
        plugin_id=_PLUGIN_ID,
        route=entities.route(None, service, stream),
        service_entity=service,
        stream=stream,
    )


def _raised(lines: Sequence[str], folder: str) -> list[Failure]:
    """What handlers have raised, with the line of the plugin's that is the innermost."""
    failures: list[Failure] = []
    inside = False
    for line in lines:
        found = _RAISED.search(line)
        if found is not None:
            failures.append(Failure(found.group(1), found.group(2)))
            inside = True
            continue
        frame = _FRAME.match(line)
        if frame is not None and inside:
            path = os.path.realpath(frame.group(1))
            ours = not folder or path.startswith(os.path.realpath(folder) + os.sep)
            if ours and os.path.isfile(path):
                failures[-1].path, failures[-1].line = path, int(frame.group(2))
        elif line[:1].isdigit():  # a line of the log, with its time
            inside = False
        elif inside and line.partition(":")[0].rpartition(".")[2] == failures[-1].text:
            failures[-1].text = line  # what was raised, with its text
            inside = False
    return failures


def shown_calls(functions: Sequence[str]) -> str:
    """Calls as people read them: each function once, with how often it was called."""
    counted = Counter(functions)
    return ", ".join(name if n == 1 else f"{name} x{n}" for name, n in counted.items())
