"""The servers that are compared, and one measurement of one of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Optional

import native
import processes
from servers import accepts, clean_environment, short_directory

ROOT = Path(__file__).resolve().parents[2]
#: The versions that are compared with; the newest ones when this was written.
PUBLISHED = ("kong-pdk==0.36", "gevent")
PUBLISHED_VENV = Path(os.environ.get("KONG_PDK_PUBLISHED_VENV", ROOT / ".venv-published"))

#: How long a server may take until it listens, seconds.
START_LIMIT = 20.0


class Unavailable(Exception):
    """A server does not start: a mode that is not there, a missing compiler."""


class Failed(Exception):
    """A measurement has come to nothing."""


class Contender(NamedTuple):
    """A server.

    Attributes:
        name: unique, in tables and plots.
        project: "ours", "published" or "floor".
        mode: "threads", "gevent" or "multiprocessing"; "" for the floor.
        python: runs its plugins; "" for the floor.
        flags: of its command line.
        env: additions to its environment.
    """

    name: str
    project: str
    mode: str
    python: str
    flags: tuple[str, ...] = ()
    env: Mapping[str, str] = {}

    def command(self, plugin: Path, prefix: Path) -> tuple[list[str], str]:
        """The command line, and the path of the socket."""
        if self.project == "floor":
            try:
                program = native.build("floor")
            except RuntimeError as exc:
                raise Unavailable(str(exc)) from exc
            socket = str(prefix / "floor.sock")
            return [str(program), "--socket", socket, *self.flags], socket
        socket = str(prefix / f"{plugin.stem.replace('_', '-')}.sock")
        return [self.python, str(plugin), "--kong-prefix", str(prefix), *self.flags], socket


PROCESSES = ("-m", "--workers", "2")


def contenders() -> list[Contender]:
    """All servers, in the order of the tables."""
    published = str(PUBLISHED_VENV / "bin" / "python")
    found = [
        Contender("C floor, epoll", "floor", "", ""),
        Contender("C floor, threads", "floor", "", "", ("--threads",)),
    ]
    for mode, flags in (("threads", ()), ("gevent", ("-g",)), ("multiprocessing", PROCESSES)):
        for codec, env in (
            ("compiled", {"KONG_PDK_REQUIRE_EXTENSIONS": "1"}),
            ("pure", {"KONG_PDK_PUREPYTHON": "1"}),
        ):
            found.append(Contender(f"{mode}, {codec}", "ours", mode, sys.executable, flags, env))
        if mode != "multiprocessing":
            supervised = ("--supervise", *flags)
            env = {"KONG_PDK_REQUIRE_EXTENSIONS": "1"}
            found.append(
                Contender(f"{mode}, supervised", "ours", mode, sys.executable, supervised, env)
            )
        found.append(Contender(f"{mode}, published", "published", mode, published, flags[:1]))
    return found


def install_published() -> dict[str, str]:
    """Have the published package in an environment of its own; returns the versions in there."""
    python = PUBLISHED_VENV / "bin" / "python"
    stamp = PUBLISHED_VENV / "installed"
    if not stamp.exists() or stamp.read_text() != str(PUBLISHED):
        print(f"installing {' '.join(PUBLISHED)} into {PUBLISHED_VENV}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(PUBLISHED_VENV)], check=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
        subprocess.run([*pip, *PUBLISHED], check=True)
        stamp.write_text(str(PUBLISHED))
    return versions(str(python))


def versions(python: str) -> dict[str, str]:
    """Versions of what matters in an environment; what is not installed is left out."""
    script = (
        "import importlib.metadata as m, json, platform\n"
        "found = {'python': platform.python_version()}\n"
        "for name in ('kong-pdk', 'msgpack', 'gevent', 'greenlet', 'setproctitle'):\n"
        "    try: found[name] = m.version(name)\n"
        "    except m.PackageNotFoundError: pass\n"
        "print(json.dumps(found))"
    )
    output = subprocess.run(
        [python, "-c", script], check=True, stdout=subprocess.PIPE, text=True, cwd="/"
    ).stdout
    found: dict[str, str] = json.loads(output)
    return found


@contextlib.contextmanager
def started(one: Contender, plugin: Path) -> Iterator[tuple[int, str]]:
    """A server, in a process group of its own of which nothing is left at the end.

    It stays in the client's session, as Kong's plugin servers are in that of nginx: Linux may share
    the cores out among sessions first, and then among what runs in each.

    Yields:
        Its process, and the path of its socket.

    Raises:
        Unavailable: it ends instead of listening.
        Failed: it does not listen in time.
    """
    with short_directory() as prefix:
        command, socket = one.command(plugin, prefix)
        log = prefix / "log"
        with open(log, "wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**clean_environment(one.env), "PYTHONWARNINGS": "ignore"},
                cwd=prefix,
                preexec_fn=os.setpgrp,
            )
        try:
            deadline = time.monotonic() + START_LIMIT
            while not accepts(socket):
                if process.poll() is not None:
                    lines = log.read_text(errors="replace").strip().splitlines() or ["no output"]
                    raise Unavailable(lines[-1])
                if time.monotonic() > deadline:
                    raise Failed(f"does not listen after {START_LIMIT:g} s")
                time.sleep(0.01)
            yield process.pid, socket
        finally:
            processes.end(process)


def measure(
    one: Contender, plugin: Path, options: list[str], seconds: float, idle: Optional[float] = None
) -> dict[str, Any]:
    """Start a server, let the load client run against it once, and end it.

    Args:
        one: the server.
        plugin: the file that it serves.
        options: further options of the load client.
        seconds: of the measurement.
        idle: wait so long before reading the memory of the idle server, seconds; None does not
            read it.

    Returns:
        What the load client has measured, and ``server_cpu_us_per_event``, ``peak_memory_kib`` and
        ``idle_memory_kib``.

    Raises:
        Unavailable: the server does not start.
        Failed: there is no result; the reason.
    """
    with started(one, plugin) as (pid, socket):
        more: dict[str, Any] = {}
        if idle is not None:
            time.sleep(idle)
            more["idle_memory_kib"] = processes.peak_memory(processes.members(pid))
        before = processes.cpu_seconds(processes.members(pid))
        try:
            result = native.load(
                socket, "--seconds", f"{seconds:g}", *options, patience=seconds + 30
            )
        except native.LoadError as exc:
            raise Failed(str(exc)) from exc
        pids = processes.members(pid)
        used = processes.cpu_seconds(pids) - before
        if result["strays"]:
            raise Failed(f"{result['strays']} answers to calls that had been answered")
        if not result["events"]:
            raise Failed(result.get("first_error", "no event came to its end"))
        more["server_cpu_us_per_event"] = used * 1e6 / result["all_events"]
        more["peak_memory_kib"] = processes.peak_memory(pids)
        return {**result, **more}


def end_with_the_terminal() -> None:
    """Let SIGTERM unwind this process, so that no server is left behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
