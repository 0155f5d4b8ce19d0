"""Starting a worker process, and finding out how it ended."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import warnings
from typing import Optional, Protocol, Union

from .. import _again
from .link import Link


class Process(Protocol):
    """A child process."""

    pid: int

    def poll(self) -> Optional[int]:
        """Its exit status, negative for the signal that ended it; None while it runs."""

    def kill(self) -> None:
        """End it at once."""


class _Forked:
    """A child that was made by ``os.fork``."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: Optional[int] = None

    def poll(self) -> Optional[int]:
        if self._status is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # somebody else has waited for it
                self._status = 0
            else:
                if pid:
                    code = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
                    self._status = -code or os.WEXITSTATUS(status)
        return self._status

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def spawn(link: Link, mode: str) -> Process:
    """Start a worker in a new Python.

    Raises:
        OSError: the system gives no process.
        ConfigError: this process has no script that could be run again.
    """
    purpose = {"worker": dataclasses.asdict(link), "mode": mode}
    return subprocess.Popen(_again.command(**purpose), pass_fds=tuple(set(link.descriptors())))


def fork() -> Union[Process, None]:
    """Start a worker as a copy of this process; None in the worker.

    Raises:
        OSError: the system gives no process.
    """
    with warnings.catch_warnings():
        # The thread that serves metrics is not in the copy, which needs nothing that it holds.
        warnings.filterwarnings("ignore", ".*multi-threaded.*fork", DeprecationWarning)
        pid = os.fork()
    return _Forked(pid) if pid else None


def describe_end(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"
