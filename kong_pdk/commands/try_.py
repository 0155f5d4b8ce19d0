"""``kong-pdk try``: one plugin in its own plugin server, behind a gateway on this machine."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable, Union

from ..exception import KongPDKError
from ..gateway import PHASES, GatewayError
from ..gateway.plugin import SOCKET_NAME, PluginInfo
from ..gateway.prefix import temporary_prefix
from .console import ConsoleTrace, JsonTrace
from .objects import FromFile, json_object
from .terminal import CHOICES, Screen, wants_colour

EPILOG = """\
The plugin runs in a plugin server of its own, as it does under Kong; nothing of it is loaded here.
Without --upstream requests go to a server that answers with JSON saying what it got.

What -v shows of a PDK call: when it came, counted from the begin of its phase; how long the gateway
had waited for it, which is the plugin's own time and the way over the socket; the call and its
result; how long the gateway took for it. Secrets are shown as REDACTED, going by their names.

examples:
  kong-pdk try my_plugin.py
  kong-pdk try my_plugin.py --config '{"message": "hello"}' --port 0
  kong-pdk try my_plugin.py --reload -v --config @config.json
  kong-pdk try my_plugin.py --upstream https://httpbin.org/anything
  kong-pdk try my_plugin.py --tls --consumer '{"username": "ann"}'
  kong-pdk try my_plugin.py --request "POST /orders" -H "Accept: text/plain" -d @order.json
  kong-pdk try my_stream_plugin.py --stream db.example.org:5432
  kong-pdk try my_plugin.py --json | jq 'select(.event == "request").phases'
"""

_DEFAULT_PORT = 8000
_DEFAULT_TLS_PORT = 8443
_DEFAULT_STREAM_PORT = 9000
#: Flags of the plugin server for each mode.
MODES = {
    "threads": (),
    "gevent": ("-g",),
    "multiprocessing": ("-m",),
}
#: Flags of a plugin server whose handlers may be stopped in a debugger.
_PATIENT = ("--answer-timeout", "0", "--event-timeout", "86400", "--handler-timeout", "0")
_REQUEST = re.compile(r"(?:([A-Za-z]+)\s+)?(/\S*)")
#: Space under the prefix for the folder of one version of the plugin.
_ROOM = "1000/"

Tracer = Union[ConsoleTrace, JsonTrace]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's arguments to its parser."""
    add = parser.add_argument
    add(
        "plugin", metavar="PLUGIN",
        help="the plugin's file, its package's folder, or the name under which it is installed",
    )  # fmt: skip
    add(
        "--config", metavar="JSON", type=_config, default=dict,
        help="the plugin's configuration; @FILE reads it from a file, again with each --reload",
    )  # fmt: skip
    add("--upstream", metavar="URL", help="where requests go")
    add(
        "--port", type=_port, default=None,
        help=f"port on 127.0.0.1, 0 for any free one (default: {_DEFAULT_PORT}; with --request, 0)",
    )  # fmt: skip
    add(
        "--reload", action="store_true",
        help="take over changes of the plugin's code; needs kong-pdk[reload]",
    )  # fmt: skip
    add(
        "--mode", choices=sorted(MODES), default="threads",
        help="how the plugin server runs handlers (default: %(default)s)",
    )  # fmt: skip
    add(
        "--python-style", action="store_true",
        help="PDK calls return data and raise, in place of (data, err)",
    )  # fmt: skip
    add(
        "--no-time-limits", action="store_true",
        help="wait for a plugin that is stopped in a debugger, in place of Kong's 60 seconds",
    )  # fmt: skip
    add(
        "--server-args", metavar='"ARGS"', type=shlex.split, default=[],
        help='more arguments for the plugin server; with "=" if they begin with a dash',
    )  # fmt: skip
    request = parser.add_argument_group("one request")
    request.add_argument(
        "--request", metavar='"METHOD /path"', type=_request,
        help="make this one request, print its response and stop; all else goes to standard error",
    )  # fmt: skip
    request.add_argument(
        "-H", "--header", metavar='"K: V"', type=_header, action="append", default=[],
        help="a header for --request; may be repeated",
    )  # fmt: skip
    request.add_argument(
        "-d", "--data", metavar="TEXT", type=_data,
        help="the body for --request; @FILE reads it from a file, @- from standard input",
    )  # fmt: skip
    found = parser.add_argument_group("what requests find in the gateway")
    for name, text in (
        ("consumer", "who the client is, as if a plugin before this one had found out"),
        ("credential", "the credential that showed it"),
        ("route", "fields of the route entity"),
        ("service", "fields of the service entity; time-outs hold, --upstream says where it is"),
    ):
        found.add_argument(
            f"--{name}", metavar="JSON", type=json_object, help=f"{text}; @FILE reads a file"
        )
    found.add_argument(
        "--trusted-ip", metavar="CIDR", action="append", default=[],
        help="believe X-Forwarded-* headers of clients there; may be repeated",
    )  # fmt: skip
    tls = parser.add_argument_group("TLS")
    tls.add_argument(
        "--tls", action="store_true",
        help="speak HTTPS on a second port, with a certificate made for the occasion",
    )  # fmt: skip
    tls.add_argument(
        "--tls-port", type=_port, default=None,
        help=f"the port for HTTPS (default: {_DEFAULT_TLS_PORT}; 0 if --port is 0)",
    )  # fmt: skip
    tls.add_argument("--tls-cert", metavar="FILE", type=Path, help="a certificate, as PEM")
    tls.add_argument("--tls-key", metavar="FILE", type=Path, help="its key, if not in --tls-cert")
    tls.add_argument(
        "--tls-client-ca", metavar="FILE", type=Path,
        help="ask clients for a certificate that one of these has signed; they may have none",
    )  # fmt: skip
    stream = parser.add_argument_group("streams")
    stream.add_argument(
        "--stream", metavar="HOST:PORT", type=_address, nargs="?", const=(),
        help="take TCP connections on a further port, run preread and log on each, and pass it on "
        "(default: to a service that sends back what it gets)",
    )  # fmt: skip
    stream.add_argument(
        "--stream-port", type=_port, default=None,
        help=f"that port (default: {_DEFAULT_STREAM_PORT}; 0 if --port is 0)",
    )  # fmt: skip
    output = parser.add_argument_group("output")
    output.add_argument(
        "-v", "--verbose", action="count", default=0,
        help="show every PDK call; twice: uncut, and the commands too",
    )  # fmt: skip
    output.add_argument(
        "--json", action="store_true", help="print everything as JSON lines, for programs"
    )
    output.add_argument(
        "--color", choices=CHOICES, default="auto",
        help="colours; auto: on a terminal, unless NO_COLOR or FORCE_COLOR is set",
    )  # fmt: skip
    output.add_argument(
        "--show-secrets", action="store_true", help="do not redact arguments and results"
    )


def run(args: argparse.Namespace) -> int:
    """Run the subcommand.

    Returns:
        0 after a request that was answered or an interrupt; 1 if something could not be done or,
        with ``--request``, the plugin server failed.
    """
    problem = _contradiction(args)
    if problem:
        return _complain(problem)
    try:
        from ..gateway import http  # noqa: F401
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("aiohttp", "yarl"):
            raise
        return _complain(f"{error.name} is missing; install it with: pip install 'kong-pdk[try]'")
    try:
        if args.reload:
            from .watching import check_watchfiles

            check_watchfiles()
        with temporary_prefix(f"{_ROOM}{SOCKET_NAME}") as prefix:
            return asyncio.run(_until_signal(args, prefix))
    except KongPDKError as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        return 0


def _contradiction(args: argparse.Namespace) -> str:
    """Return which flags do not go together, and what to do; empty if all do."""
    if args.request is None and (args.header or args.data is not None):
        return "--header and --data need --request"
    if args.request is not None and args.reload:
        return "--reload is of no use with --request, which makes one request and stops"
    if args.tls_key is not None and args.tls_cert is None:
        return "--tls-key needs --tls-cert, the certificate that it belongs to"
    return ""


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
    from ..gateway import http
    from ..gateway.session import Session

    trace = _tracer(args)
    session = Session(_options(args), prefix, trace)
    try:
        await session.start()
        if args.request is None:
            await _introduce(trace, session, args)
            if args.reload:
                await _follow(trace, session, args)
            never: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            return await never
        await _introduce(trace, session, args)
        method, target = args.request
        answer = await http.fetch(session.url, method, target, args.header, args.data)
        await session.gateway.close()  # the log phase is part of the request
        _print_answer(*answer)
        return 1 if session.failed else 0
    finally:
        await session.close()


def _tracer(args: argparse.Namespace) -> Tracer:
    # With --request standard output is for the response alone.
    out = sys.stdout if args.request is None else sys.stderr
    if args.json:
        return JsonTrace(out, args.show_secrets)
    return ConsoleTrace(
        Screen(out, wants_colour(out, args.color)),
        Screen(sys.stderr, wants_colour(sys.stderr, args.color)),
        args.verbose,
        args.show_secrets,
    )


def _options(args: argparse.Namespace) -> Any:
    """Return what the flags ask for, as :class:`kong_pdk.gateway.session.Options`."""
    from ..gateway.session import Options
    from ..gateway.surroundings import Surroundings, surroundings
    from ..gateway.tls import Certificates

    port, tls_port = args.port, args.tls_port
    if port is None:
        port = _DEFAULT_PORT if args.request is None else 0
    if tls_port is None:
        tls_port = _DEFAULT_TLS_PORT if port else 0
    stream_port = args.stream_port
    if stream_port is None and args.stream is not None:
        stream_port = _DEFAULT_STREAM_PORT if port else 0
    wants_tls = args.tls or args.tls_cert or args.tls_client_ca or args.tls_port is not None

    def around(echo: str) -> Surroundings:
        return surroundings(
            args.upstream or echo,
            consumer=args.consumer,
            credential=args.credential,
            route=args.route,
            service=args.service,
            trusted_ips=tuple(args.trusted_ip),
        )

    around("http://127.0.0.1")  # what is wrong with the flags is said before anything is started

    def certificates(folder: Path) -> Certificates:
        return Certificates(folder, args.tls_cert, args.tls_key, args.tls_client_ca)

    flags = [*MODES[args.mode]]
    if args.python_style:
        flags.append("--no-lua-style")
    if args.no_time_limits:
        flags += _PATIENT
    return Options(
        plugin=args.plugin,
        config=args.config,
        surroundings=around,
        port=port,
        tls_port=tls_port if wants_tls else None,
        certificates=certificates,
        stream_port=stream_port,
        stream=args.stream or None,
        server_args=(*flags, *args.server_args),
        **({"limit": None} if args.no_time_limits else {}),
    )


async def _introduce(trace: Tracer, session: Any, args: argparse.Namespace) -> None:
    plugin: PluginInfo = session.plugin
    for what, command in (("query", session.launch.query), ("start", session.launch.start)):
        trace.note("command", f"{what}: {shlex.join(command)}", detail=2)
    phases = sorted(plugin.phases, key=_phase_order)
    trace.note(
        "plugin",
        f"plugin {plugin.name} {plugin.version}, priority {plugin.priority}, "
        f"phases: {', '.join(phases) or 'none'}",
        name=plugin.name,
        version=plugin.version,
        priority=plugin.priority,
        phases=phases,
    )
    if trace.codec:
        trace.note("codec", f"plugin server: {trace.codec} codec")
    if args.verbose or args.json:
        seconds = await session.measure()
        if seconds is not None:
            trace.note(
                "round_trip",
                f"a call over the plugin server's socket takes {seconds * 1000:.2f} ms here; "
                "that much of what is shown as the plugin's time is the way",
                ms=round(seconds * 1000, 3),
            )
    if "certificate" in plugin.phases and session.certificates is None:
        trace.note("skipped", "the certificate phase is not run without --tls")
    gateway = session.gateway
    if "preread" in plugin.phases and not gateway.stream_port:
        trace.note("skipped", "the preread phase is not run without --stream")
    trace.note("upstream", f"upstream: {args.upstream or 'an echo of the request'}")
    if gateway.stream_port:
        url = f"tcp://127.0.0.1:{gateway.stream_port}"
        trace.note("listening", f"listening on {url}", url=url)
    if session.certificates is not None:
        root = session.certificates.root
        trust = f"  (curl --cacert {root})" if root is not None else ""
        url = f"https://localhost:{gateway.tls_port}"
        trace.note("listening", f"listening on {url}{trust}", url=url)
    url = f"http://127.0.0.1:{gateway.port}"
    trace.note("listening", f"listening on {url}", url=url)


async def _follow(trace: Tracer, session: Any, args: argparse.Namespace) -> None:
    """Take over changes, without an end."""
    from . import watching

    root = watching.root_of(args.plugin)
    if not root:
        raise GatewayError(f"cannot find the files of {args.plugin}, whose changes --reload is for")
    source = getattr(args.config, "path", None)
    others = [] if source is None else [str(source)]
    trace.note("watching", f"changes of {root} and of what it imports there are taken over")
    async for changed in watching.changes(root, others):
        await session.reload(changed)


def _phase_order(phase: str) -> int:
    order = (*PHASES[:-1], "preread", PHASES[-1])
    return order.index(phase) if phase in order else len(order)


def _print_answer(status_line: str, headers: Sequence[tuple[bytes, bytes]], content: bytes) -> None:
    lines = [status_line.encode("utf-8", "surrogateescape")]
    lines += [name + b": " + value for name, value in headers]
    try:
        sys.stdout.buffer.write(b"\r\n".join([*lines, b"", content]))
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads it has had enough; Python must not find that out again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(text: str) -> int:
    screen = Screen(sys.stderr, colour=False)
    screen.line(screen.paint(f"kong-pdk try: {text}"))
    return 1


# --- the arguments' types ---------------------------------------------------------------------


def _config(text: str) -> Callable[[], dict[str, Any]]:
    if text.startswith("@"):
        return FromFile(Path(text[1:]))
    value = json_object(text)
    return lambda: value


def _data(text: str) -> bytes:
    if not text.startswith("@"):
        return text.encode("utf-8", "surrogateescape")
    if text == "@-":
        return sys.stdin.buffer.read()
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot read {text[1:]}: {error.strerror}") from error


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port")
    return int(text)


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not like HOST:PORT")
    return host.strip("[]"), _port(port)


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
