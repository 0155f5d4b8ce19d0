"""Server processes for tests: started as users start them, waited for, and stopped or killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Callable, NamedTuple, Optional, Union

from kongwire import LIMIT, Kong

SCRIPTS = Path(sysconfig.get_path("scripts"))
SERVER = str(SCRIPTS / "kong-python-pluginserver")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

DIRECTORY_SOCKETS = ("python_pluginserver.sock", "python_pluginserver.socket")

#: Flags of servers whose plugins run in worker processes.
SUPERVISED: dict[str, tuple[str, ...]] = {
    "threads": ("--supervise",),
    "gevent": ("--supervise", "-g"),
    "fork": ("--supervise", "--start-method", "fork"),
    "processes": ("-m", "--workers", "2"),
}

#: Signs of a defect of the server itself; nothing that a plugin does may cause them.
DEFECTS = (
    "a thread of the server failed",
    "Exception in thread",
    "Exception ignored",
    "--- Logging error ---",
    "ResourceWarning",
)


def wait_until(condition: Callable[[], object], what: str, limit: float = LIMIT) -> None:
    """Wait for a condition; the time is only what a failure takes."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit:.0f} s: {what}"
        time.sleep(0.005)


def clean_environment(extra: Optional[Mapping[str, str]] = None) -> dict[str, str]:
    """The environment without what would change the server, and with warnings as errors."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("KONG_", "PYTHON")) or name == "PYTHONHOME"
    }
    return {**kept, "PYTHONWARNINGS": "error", **(extra or {})}


@contextlib.contextmanager
def short_directory() -> Iterator[Path]:
    """A directory whose name leaves room for a Unix socket's path, 107 bytes."""
    path = tempfile.mkdtemp(prefix="kp-", dir="/tmp")
    try:
        yield Path(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def run_command(
    *command: str, env: Optional[Mapping[str, str]] = None, cwd: Union[str, Path] = "/"
) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself, away from the checkout; its output is text."""
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=clean_environment(env),
        cwd=cwd,
        text=True,
        timeout=LIMIT,
    )


def accepts(path: str) -> bool:
    """Whether somebody listens on a socket's path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(LIMIT)
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True


def state_of(pid: int) -> str:
    """The state of a process, a letter as ``ps`` shows it; X if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return "X"
    return stat.rpartition(")")[2].split()[0]


def is_at_rest(pid: int) -> bool:
    """Whether all threads of a process sleep: what they had to send and to note is done."""
    states = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            states.append((task / "stat").read_text(errors="replace").rpartition(")")[2].split()[0])
    return all(state == "S" for state in states)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended but has not been waited for does not."""
    return state_of(pid) not in ("Z", "X")


def family(pid: int) -> list[int]:
    """A process and those below it, in the order of their generations; empty if it is gone."""
    found = [pid] if is_alive(pid) else []
    parents = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            stat = Path(f"/proc/{entry}/stat").read_text(encoding="utf-8", errors="replace")
            state, parent = stat.rpartition(")")[2].split()[:2]
            if state not in "ZX":
                parents[int(entry)] = int(parent)
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


class Server:
    """A server process.

    Args:
        command: to run.
        prefix: where its sockets are to appear; also its working directory.
        sockets: their names; the first one is what :meth:`connect` uses.
        env: additions to a clean environment.
    """

    def __init__(
        self,
        command: Sequence[str],
        prefix: Path,
        sockets: Sequence[str] = DIRECTORY_SOCKETS,
        env: Optional[Mapping[str, str]] = None,
    ) -> None:
        self.paths = [str(prefix / name) for name in sockets]
        descriptor, self._log_path = tempfile.mkstemp(prefix="log-", dir=prefix)
        self._checked = 0  # so much of the log has been looked at
        with open(descriptor, "wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=clean_environment(env),
                cwd=prefix,
            )

    @property
    def pid(self) -> int:
        """The process."""
        return self.process.pid

    @property
    def log(self) -> str:
        """All that it has written so far."""
        return Path(self._log_path).read_text(encoding="utf-8", errors="replace")

    def wait_ready(self) -> Server:
        """Wait until all sockets accept connections."""

        def ready() -> bool:
            assert self.process.poll() is None, f"the server has ended:\n{self.log[-2000:]}"
            return all(accepts(path) for path in self.paths)

        wait_until(ready, "the server listens")
        return self

    def kong(self) -> Kong:
        """A client."""
        return Kong(self.paths[0])

    def wait_log(self, text: str) -> None:
        """Wait until the log has a text."""
        wait_until(lambda: text in self.log, f"{text!r} in the log")

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end; returns the exit status."""
        return self.process.wait(LIMIT)

    def check(self) -> None:
        """Assert that the log shows no defect of the server, since it was last checked."""
        with open(self._log_path, encoding="utf-8", errors="replace") as file:
            file.seek(self._checked)
            log = file.read()
            self._checked = file.tell()
        found = [sign for sign in DEFECTS if sign in log]
        assert not found, f"{found} in the server's log:\n{log[-2000:]}"

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Assert a clean end."""
        self.send_signal(number)
        status = self.wait()
        assert status == 0, f"exit status {status} after signal {number}:\n{self.log[-2000:]}"
        left = [path for path in self.paths if os.path.lexists(path)]
        assert not left, f"sockets left behind: {left}"
        self.check()

    def kill(self) -> None:
        """End it in any case."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(LIMIT)

    def state(self) -> str:
        """Its state, a letter as ``ps`` shows it."""
        return state_of(self.pid)

    # --- what it uses, with the processes below it ------------------------------------------------

    def processes(self) -> list[int]:
        """The server's process and those below it."""
        return family(self.pid)

    def workers(self) -> list[int]:
        """Those below it, in order: the worker processes, unless a plugin has left any."""
        return sorted(set(self.processes()) - {self.pid})

    def descriptors(self) -> int:
        """How many file descriptors are open."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.processes())

    def sockets(self) -> int:
        """How many of these are sockets."""
        found = 0
        for pid in self.processes():
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                    found += os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:")
        return found

    def threads(self) -> int:
        """How many threads there are."""
        return self._status("Threads")

    def memory(self) -> int:
        """The resident memory, KiB."""
        return self._status("VmRSS")

    def _status(self, name: str) -> int:
        total = 0
        for pid in self.processes():
            status = Path(f"/proc/{pid}/status").read_text()
            (line,) = (line for line in status.splitlines() if line.startswith(name + ":"))
            total += int(line.split()[1])
        return total


@contextlib.contextmanager
def running(
    command: Sequence[str],
    prefix: Path,
    sockets: Sequence[str] = DIRECTORY_SOCKETS,
    env: Optional[Mapping[str, str]] = None,
) -> Iterator[Server]:
    """A server that listens; stopped, and asserted to stop cleanly, at the end.

    A test may end it itself. After a failure it is killed.
    """
    server = Server(command, prefix, sockets, env)
    try:
        server.wait_ready()
        yield server
        if server.process.poll() is None:
            server.stop()
    finally:
        server.kill()


#: Starts a server that is stopped at the end of the test.
Start = Callable[..., Server]


class Flavour(NamedTuple):
    """A mode and a codec, with the flags and the environment that choose them."""

    mode: str
    codec: str
    flags: tuple[str, ...]
    env: dict[str, str]


def directory_command(plugins: Path, prefix: Path, *flags: str) -> list[str]:
    """The command line of the directory server."""
    return [SERVER, "-d", str(plugins), "-p", str(prefix), *flags]


def embedded_command(path: Path, prefix: Path, *flags: str) -> list[str]:
    """The command line of a plugin that is its own server."""
    return [sys.executable, str(path), "-p", str(prefix), *flags]
