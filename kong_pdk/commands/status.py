"""``kong-pdk status``: what a running plugin server is doing, from the server itself."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Optional, cast

import msgpack

from ..config import DEFAULT_PREFIX
from .terminal import clean

EPILOG = """\
Asks the server on its own socket, which takes the permissions that Kong has: run it as the server's
user. Without names and --socket all servers under the prefix are shown. The exit status is 0 if all
that were named answer (without a name: if any does), so it can be a probe.

examples:
  kong-pdk status
  kong-pdk status my-plugin --kong-prefix /usr/local/kong
  kong-pdk status --socket /usr/local/kong/python_pluginserver.sock --json
  kong-pdk status --watch 2
"""

#: The sockets of a server, which has one of them or both.
SUFFIXES = (".socket", ".sock")
#: The largest answer that is taken, bytes.
MAX_ANSWER = 64 * 1024 * 1024

_REQUEST = cast(bytes, msgpack.packb([0, 1, "plugin.GetStatus", []]))
_CLEAR = "\x1b[H\x1b[2J"


class NoStatus(Exception):
    """A socket does not tell how a server is; the text names it and says what to do."""


class Answer(NamedTuple):
    """What the server at a socket has said."""

    path: str
    status: dict[str, Any]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's arguments to its parser."""
    parser.add_argument(
        "names", metavar="NAME", nargs="*",
        help="a plugin that is its own server, or python_pluginserver: the name of its socket",
    )  # fmt: skip
    parser.add_argument(
        "-p", "--kong-prefix", metavar="PREFIX", dest="prefix", default=DEFAULT_PREFIX,
        help="Kong's prefix, the folder of the sockets (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--socket", metavar="PATH", help="the server's socket, wherever it is")
    parser.add_argument("--json", action="store_true", help="print what the server says, as JSON")
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=_seconds, default=2.0,
        help="how long the server may take to answer (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--watch", metavar="SECONDS", type=_seconds,
        help="ask again and again, so often, until interrupted",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run the subcommand.

    Returns:
        0 if the server answers, 1 if not.
    """
    if args.socket is not None and args.names:
        _complain("name servers, or one socket with --socket, but not both")
        return 1
    try:
        while True:
            answers, problems = _ask_all(args)
            if args.watch is not None and sys.stdout.isatty():
                sys.stdout.write(_CLEAR)
            _show(answers, args.json, several=not args.names and args.socket is None)
            for problem in problems:
                _complain(problem)
            sys.stdout.flush()
            if args.watch is None:
                return 1 if problems else 0
            time.sleep(args.watch)
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:  # `kong-pdk status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0


def _ask_all(args: argparse.Namespace) -> tuple[list[Answer], list[str]]:
    """The answers of all servers that are meant, and what is wrong with the others."""
    answers: list[Answer] = []
    problems: list[str] = []
    if args.socket is not None or args.names:
        paths_of_all = (
            [[args.socket]]
            if args.socket is not None
            else [_paths_of(args.prefix, name) for name in args.names]
        )
        for paths in paths_of_all:
            try:
                answers.append(_ask_first(paths, args.timeout))
            except NoStatus as exc:
                problems.append(str(exc))
        return answers, problems
    # Kong has sockets of its own there, and a server has two: those that are no server are passed
    # over unless there is none at all.
    try:
        found = sorted(_sockets_in(args.prefix))
    except OSError as exc:
        return [], [f"cannot look into {args.prefix}: {exc.strerror}; name Kong's prefix with -p"]
    for path in found:
        try:
            status = ask(path, args.timeout)
        except NoStatus as exc:
            problems.append(str(exc))
        else:
            if status["Pid"] not in [one.status["Pid"] for one in answers]:
                answers.append(Answer(path, status))
    if answers:
        return answers, []
    return [], problems or [
        f"no socket in {args.prefix}: is the server running? Name Kong's prefix with -p, or the "
        f"server's socket with --socket"
    ]


def _paths_of(prefix: str, name: str) -> list[str]:
    """The paths at which a server may be, by the name of its socket."""
    suffixes = ("",) if name.endswith(SUFFIXES) else SUFFIXES
    return [os.path.join(prefix, name + suffix) for suffix in suffixes]


def _sockets_in(folder: str) -> Iterator[str]:
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        with contextlib.suppress(OSError):  # removed meanwhile
            if name.endswith(SUFFIXES) and stat.S_ISSOCK(os.stat(path).st_mode):
                yield path


def _ask_first(paths: Sequence[str], timeout: float) -> Answer:
    """The answer at the first of some paths where there is one; else what is wrong there."""
    there = [path for path in paths if os.path.lexists(path)] or paths[:1]
    for path in there[:-1]:
        try:
            return Answer(path, ask(path, timeout))
        except NoStatus:
            pass
    return Answer(there[-1], ask(there[-1], timeout))


# --- asking ---------------------------------------------------------------------------------------


def ask(path: str, timeout: float) -> dict[str, Any]:
    """What the plugin server at a socket says of itself.

    Args:
        path: of the socket.
        timeout: how long it may take, seconds.

    Raises:
        NoStatus: it does not.
    """
    deadline = time.monotonic() + timeout
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.settimeout(timeout)
            sock.connect(path)
            sock.sendall(_REQUEST)
            answer = _receive(sock, deadline)
        except OSError as exc:
            raise NoStatus(f"{path}: {_explain(exc, timeout)}") from exc
        except (ValueError, msgpack.UnpackException) as exc:
            raise NoStatus(f"{path}: what listens there is no plugin server") from exc
    if not (isinstance(answer, list) and len(answer) == 4 and answer[:2] == [1, 1]):
        raise NoStatus(f"{path}: what listens there is no plugin server")
    if answer[2] is not None:
        raise NoStatus(f"{path}: the server says: {answer[2]}")
    status = answer[3]
    if not (isinstance(status, dict) and "Workers" in status and "Plugins" in status):
        raise NoStatus(f"{path}: the plugin server there is none of kong-pdk, or an older one")
    return status


def _receive(sock: socket.socket, deadline: float) -> Any:
    """The reply to the one request; what else is said (the server's pid) is passed over."""
    unpacker = msgpack.Unpacker(
        raw=False, unicode_errors="surrogateescape", max_buffer_size=MAX_ANSWER
    )
    while True:
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        data = sock.recv(65536)
        if not data:
            raise ConnectionAbortedError
        unpacker.feed(data)
        for message in unpacker:
            if not (isinstance(message, list) and message[:1] == [2]):
                return message


def _explain(exc: OSError, timeout: float) -> str:
    """What is wrong, and what to do."""
    if isinstance(exc, FileNotFoundError):
        return "is not there: is the server running, and is this its prefix (-p)?"
    if isinstance(exc, ConnectionRefusedError):
        return "nobody listens: a server that has died left it behind, start it again"
    if isinstance(exc, PermissionError):
        return (
            "this user may not connect: run this as the server's user, or see the server's flags "
            "--socket-mode, --socket-user and --socket-group"
        )
    if isinstance(exc, socket.timeout):  # TimeoutError's own name before Python 3.10
        return f"no answer within {timeout:g} s (--timeout): the server is stopped, or stuck"
    if isinstance(exc, ConnectionError):
        return (
            "the connection was closed: this user is not among those of the server's --allow-uid, "
            "or the server is about to end, or it is no plugin server"
        )
    return str(exc.strerror or exc)


# --- showing --------------------------------------------------------------------------------------


def _show(answers: Sequence[Answer], as_json: bool, several: bool) -> None:
    if as_json:
        if several:
            print(json.dumps({one.path: one.status for one in answers}, indent=2))
        else:
            for one in answers:
                print(json.dumps(one.status, indent=2))
        return
    for number, one in enumerate(answers):
        if number:
            print()
        for line in describe(one.path, one.status):
            print(clean(line, keep=""))


def describe(path: str, status: dict[str, Any]) -> Iterator[str]:
    """The lines that show a server to people."""
    plugins, workers = status["Plugins"], status["Workers"]
    yield (
        f"{path}: kong-pdk {status['Version']}, pid {status['Pid']}, {status['Mode']}, "
        f"{status['Codec']} codec, up {_time(status['Uptime'])}"
    )
    yield ""
    rows: list[Sequence[Any]] = [
        (
            "PLUGIN", "VERSION", "INSTANCES", "PHASE", "EVENTS", "IN FLIGHT", "ERRORS", "REFUSED",
            "ABANDONED", "CALLS", "P50 ms", "P90 ms", "P99 ms",
        )
    ]  # fmt: skip
    for name in sorted(plugins):
        plugin = plugins[name]
        head = [name, plugin["Version"], len(plugin["Instances"])]
        for phase, events in plugin["Events"].items() or [("-", {})]:
            counts = [
                events.get(key, "-")
                for key in ("Started", "InFlight", "Errors", "Refused", "Abandoned", "Calls")
            ]
            times = [_milliseconds(events.get(key)) for key in ("P50", "P90", "P99")]
            rows.append((*head, phase, *counts, *times))
            head = ["", "", ""]
    yield from _table(rows, left=(0, 1, 3))
    yield ""
    rows = [
        (
            "WORKER", "PID", "STATE", "MEMORY MiB", "RESTARTS", "REPLACED", "CONNECTIONS",
            "RUNNING", "QUEUED", "WAITING", "SHED",
        )
    ]  # fmt: skip
    for one in workers:
        numbers = (
            # A server of an earlier version does not say all of it.
            one.get(key, "-")
            for key in (
                "Restarts", "Replaced", "Connections", "Running", "Queued", "Waiting", "Shed",
            )
        )  # fmt: skip
        state = "ready" if one["Ready"] else "starting"
        memory = one.get("Memory")
        size = f"{memory / (1 << 20):.0f}" if memory else "-"
        rows.append((one["Index"], one["Pid"] or "-", state, size, *numbers))
    yield from _table(rows, left=(2,))


def _table(rows: Sequence[Sequence[Any]], left: Sequence[int]) -> Iterator[str]:
    """Rows as lines with columns: those in ``left`` are words, the others numbers."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts)]
    for row in texts:
        cells = (
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths))
        )
        yield "  ".join(cells).rstrip()


def _milliseconds(seconds: Optional[float]) -> str:
    if seconds is None:
        return "-"
    return f"{1000 * seconds:.3g}" if seconds < 1 else f"{1000 * seconds:.0f}"


def _time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    shown = [f"{number} {unit}" for number, unit in parts if number] or ["0 s"]
    return " ".join(shown[:2])


def _complain(text: str) -> None:
    print(f"kong-pdk status: {clean(text, keep='')}", file=sys.stderr)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds
