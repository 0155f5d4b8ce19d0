"""``kong-pdk try``: one plugin in its own plugin server, behind a gateway on this machine."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import shlex
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..config import MAX_SOCKET_PATH
from ..gateway import PHASES, Exchange, GatewayError, LogLine, SettingsError, Trace
from ..gateway.plugin import SOCKET_NAME, PluginInfo, parse_dump, plan

EPILOG = """\
The plugin runs in a plugin server of its own, as it does under Kong; nothing of it is loaded here.
Without --upstream requests go to a server that answers with JSON saying what it got.

examples:
  kong-pdk try my_plugin.py
  kong-pdk try my_plugin.py --config '{"message": "hello"}' --port 0
  kong-pdk try my_plugin.py --upstream https://httpbin.org/anything
  kong-pdk try my_plugin.py --request "POST /orders" --header "Accept: text/plain" --data '{}'
"""

_DEFAULT_PORT = 8000
_CODEC = re.compile(r"\b(compiled|pure-Python) codec\b")
_REQUEST = re.compile(r"(?:([A-Za-z]+)\s+)?(/\S*)")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's arguments to its parser."""
    parser.add_argument("plugin", metavar="PLUGIN.py", type=Path, help="the plugin's file")
    parser.add_argument(
        "--config", metavar="JSON", type=_json, default={}, help="the plugin's configuration"
    )
    parser.add_argument("--upstream", metavar="URL", help="where requests go")
    parser.add_argument(
        "--port",
        type=_port,
        default=None,
        help=f"port on 127.0.0.1, 0 for any free one (default: {_DEFAULT_PORT}; with --request, 0)",
    )
    parser.add_argument(
        "--request",
        metavar='"METHOD /path"',
        type=_request,
        help="make this one request, print its response and stop; all else goes to standard error",
    )
    parser.add_argument(
        "--header",
        metavar='"K: V"',
        type=_header,
        action="append",
        default=[],
        help="a header for --request; may be repeated",
    )
    parser.add_argument("--data", metavar="TEXT", help="the body for --request")
    parser.add_argument(
        "--server-args",
        metavar='"ARGS"',
        type=shlex.split,
        default=[],
        help="more arguments for the plugin server",
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="show the commands and every PDK call"
    )


def run(args: argparse.Namespace) -> int:
    """Run the subcommand.

    Returns:
        0 after a request that was answered or an interrupt; 1 if something could not be done or,
        with ``--request``, the plugin server failed.
    """
    if args.request is None and (args.header or args.data is not None):
        return _complain("--header and --data need --request")
    try:
        from ..gateway import http  # noqa: F401
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("aiohttp", "yarl"):
            raise
        return _complain(f"{error.name} is missing; install it with: pip install 'kong-pdk[try]'")
    try:
        with _prefix() as prefix:
            return asyncio.run(_until_signal(args, prefix))
    except (GatewayError, SettingsError) as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        return 0


class ConsoleTrace(Trace):
    """Prints what the gateway tells.

    Args:
        quiet: standard output is for the response; everything goes to standard error.
        verbose: name every PDK call.
    """

    def __init__(self, quiet: bool, verbose: bool) -> None:
        self._out = sys.stderr if quiet else sys.stdout
        self._verbose = verbose
        #: The build of the server's codec, once its log has told.
        self.codec = ""

    def say(self, text: str) -> None:
        """Print a line about the gateway itself."""
        _print(text, self._out)

    def server_line(self, line: str) -> None:
        told = _CODEC.search(line)
        self.codec = told.group(1) if told else self.codec
        _print(f"[server] {line}", sys.stderr)

    def server_started(self, pid: int) -> None:
        if self._verbose:
            self.say(f"plugin server: process {pid} accepts connections")

    def server_died(self, status: int) -> None:
        how = f"signal {-status}" if status < 0 else f"status {status}"
        _print(f"plugin server ended with {how}; it is started again", sys.stderr)

    def log_line(self, line: LogLine) -> None:
        self.say(f"[{line.level}] {line.message}")

    def exchange_done(self, exchange: Exchange) -> None:
        self.say(summary(exchange))
        if self._verbose:
            for run in exchange.runs:
                for call in run.calls:
                    self.say(f"    {run.name}: {call.function}")


def summary(exchange: Exchange) -> str:
    """Return one line about a request: what was asked and answered, and what each phase cost."""
    parts = [f"{exchange.received} -> {exchange.response.status}"]
    for run in exchange.runs:
        count = len(run.calls)
        calls = f"{count} call" if count == 1 else f"{count} calls"
        parts.append(f"{run.name} {run.seconds * 1000:.1f} ms ({calls})")
    return "  ".join(parts)


async def _until_signal(args: argparse.Namespace, prefix: Path) -> int:
    """Run until there is a result, or SIGINT or SIGTERM asks for the end."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(_try(args, prefix))
    asked: list[int] = []

    def stop(number: int) -> None:
        # A second signal must not break off the clean-up.
        if not asked:
            asked.append(number)
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        return await task
    except asyncio.CancelledError:
        if not asked:
            raise
        return 0


async def _try(args: argparse.Namespace, prefix: Path) -> int:
    from ..gateway import http, process
    from ..gateway.rpc import PluginClient

    trace = ConsoleTrace(quiet=args.request is not None, verbose=args.verbose)
    launch = plan(args.plugin, prefix, args.server_args)
    if args.verbose:
        trace.say(f"query: {shlex.join(launch.query)}")
        trace.say(f"start: {shlex.join(launch.start)}")
    plugin = parse_dump(await process.query(launch.query, trace))
    plugin_id = str(uuid.uuid4())
    config = plugin.config_text(args.config, plugin_id)
    service = http.parse_upstream(args.upstream) if args.upstream else None
    async with contextlib.AsyncExitStack() as stack:
        if service is None:
            echo = http.EchoUpstream()
            await echo.start()
            stack.push_async_callback(echo.close)
            service = http.parse_upstream(echo.url)
        client = PluginClient(launch.socket, plugin, config)
        gateway = http.HttpGateway(client, service, trace, plugin_id)
        port = args.port
        if port is None:
            port = _DEFAULT_PORT if args.request is None else 0
        await gateway.start(port)
        stack.push_async_callback(gateway.close)
        server = process.ServerProcess(launch.start, launch.socket, trace)
        await server.start()
        stack.push_async_callback(server.stop)
        # First of all at the end, so that the server still serves the requests under way.
        stack.push_async_callback(gateway.close)
        _introduce(trace, plugin, gateway.port, args)
        if args.request is None:
            never: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            return await never
        method, target = args.request
        data = None if args.data is None else args.data.encode("utf-8", "surrogateescape")
        answer = await http.fetch(gateway.port, method, target, args.header, data)
        await gateway.close()  # the log phase is part of the request
        _print_answer(*answer)
        return 1 if client.failures or server.deaths else 0


def _introduce(
    trace: ConsoleTrace, plugin: PluginInfo, port: int, args: argparse.Namespace
) -> None:
    trace.say(
        f"plugin {plugin.name} {plugin.version}, priority {plugin.priority}, "
        f"phases: {', '.join(sorted(plugin.phases, key=_phase_order)) or 'none'}"
    )
    if trace.codec:
        trace.say(f"plugin server: {trace.codec} codec")
    if "certificate" in plugin.phases:
        trace.say("the certificate phase is not run: this gateway does not speak TLS")
    if "preread" in plugin.phases:
        trace.say("the preread phase is not run: this gateway takes HTTP only, no streams")
    trace.say(f"upstream: {args.upstream or 'an echo of the request'}")
    trace.say(f"listening on http://127.0.0.1:{port}")


def _phase_order(phase: str) -> int:
    return PHASES.index(phase) if phase in PHASES else len(PHASES)


def _print_answer(status_line: str, headers: Sequence[tuple[bytes, bytes]], content: bytes) -> None:
    out = sys.stdout.buffer
    out.write(status_line.encode("utf-8", "surrogateescape") + b"\r\n")
    for name, value in headers:
        out.write(name + b": " + value + b"\r\n")
    out.write(b"\r\n" + content)
    out.flush()


@contextlib.contextmanager
def _prefix() -> Iterator[Path]:
    """Yield a temporary directory whose name leaves room for a socket's, and remove it after."""
    path = Path(tempfile.mkdtemp(prefix="kong-pdk-"))
    if len(bytes(path / SOCKET_NAME)) > MAX_SOCKET_PATH:
        path.rmdir()
        path = Path(tempfile.mkdtemp(prefix="kong-pdk-", dir="/tmp"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _print(text: str, stream: Any) -> None:
    # A log line may hold bytes that are not UTF-8, and control characters that must not reach the
    # terminal, because a client can put them there.
    clean = "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in text)
    with contextlib.suppress(BrokenPipeError):
        print(clean, file=stream, flush=True)


def _complain(text: str) -> int:
    _print(f"kong-pdk try: {text}", sys.stderr)
    return 1


def _json(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"this is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("the configuration must be a JSON object")
    return value


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port")
    return int(text)


def _request(text: str) -> tuple[str, str]:
    found = _REQUEST.fullmatch(text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f'{text!r} is not like "GET /path"')
    return (found.group(1) or "GET").upper(), found.group(2)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f'{text!r} is not like "Name: value"')
    return name.strip(), value.strip()
