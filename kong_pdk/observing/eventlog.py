"""The event log: a line for each event, as an access log has one for each request.

Handlers only leave what a line is made of. A thread of the system makes the lines and writes them,
so that no request waits for a disk, or for a reader of a pipe.
"""

from __future__ import annotations

import collections
import errno
import functools
import json
import logging
import os
import re
import stat
import sys
import time
from typing import Callable, NamedTuple, Optional

from .._codec import Event
from .._wakeup import drain_wakeup, open_wakeup, send_wakeup
from ..config import ServerConfig
from ..exception import ConfigError
from .base import GOOD, Observer, Record, ask, outcome_of, phases_of, status_of

logger = logging.getLogger("kong_pdk.server")

#: Lines that may wait to be written; further ones are lost, and counted.
MAX_WAITING = 65536
#: How long lines are gathered until they are written together, seconds.
GATHER = 0.1
#: What is written to a pipe in one piece, bytes (PIPE_BUF): lines of several workers do not mix.
PIECE = 4096
#: How long the end waits for the last lines, seconds.
END_PATIENCE = 2.0
#: How often it looks, seconds.
END_TICK = 0.01
#: Permissions of a new file. Kong's nginx leaves no umask, and the log is not for everybody.
FILE_MODE = 0o640

#: Kong's own id of a request, in its access log and in the header X-Kong-Request-Id (Kong 3.5).
REQUEST_ID = "kong_request_id"
_GET_VAR = "kong.nginx.get_var"

_PLAIN = re.compile(r"[!#-<>-\[\]-~]+").fullmatch  # logfmt: no blank, quote, = or backslash


class Line(NamedTuple):
    """What a line says; docs/reference/logs.md has it for users."""

    time: float  # when the event has ended, seconds since the epoch
    plugin: str
    phase: str
    outcome: str
    seconds: float
    calls: int
    instance: int
    event: int
    status: Optional[int]
    error: str
    request: str
    trace: str


#: What is left out where there is nothing to say.
MAY_LACK = ("plugin", "event", "status", "error", "request", "trace")


class Target:
    """Where lines go: a file, which may be moved away meanwhile, or standard output.

    Args:
        path: absolute, or ``-`` for standard output.
        must: a file that cannot be opened now is an error; else that is tried for each write.

    Raises:
        ConfigError: it cannot be written.
    """

    def __init__(self, path: str, must: bool = True) -> None:
        self._path = path
        self._fd, self._whole = -1, False
        self._file: tuple[int, int] = (0, 0)
        self._torn = False  # a line has been written in part
        try:
            if path == "-":
                if sys.__stdout__ is None:  # then descriptor 1 is something else by now
                    raise OSError(errno.EBADF, os.strerror(errno.EBADF))
                self._fd, self._whole = os.dup(1), False  # sys.stdout may be a plugin's
                return
            self._open()
        except OSError as exc:
            if not must and path != "-":
                return
            raise ConfigError(
                f"the event log {self} cannot be written: {exc.strerror}; name a file in a folder "
                f"that the server's user may write to (--event-log)"
            ) from exc

    def _open(self) -> None:
        # Non-blocking: a FIFO that nobody reads is an error, and does not hold up the start.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        fd = os.open(self._path, flags, FILE_MODE)
        os.set_blocking(fd, True)
        found = os.fstat(fd)
        self._file, self._whole = (found.st_dev, found.st_ino), stat.S_ISREG(found.st_mode)
        former, self._fd = self._fd, fd
        if former >= 0:
            os.close(former)

    @property
    def is_open(self) -> bool:
        """Whether there is something to write to."""
        return self._fd >= 0

    def reopen_if_moved(self) -> None:
        """Go on in a new file if the old one was moved away or deleted, as logrotate does.

        Raises:
            OSError: there cannot be a new one; the old one is still written, if it is open.
        """
        if self.is_open and not self._whole:
            return
        try:
            found = os.stat(self._path)
            if (found.st_dev, found.st_ino) == self._file:
                return
        except FileNotFoundError:
            pass
        self._open()

    def write(self, lines: list[bytes]) -> None:
        """Write lines; blocks.

        Raises:
            OSError: not all of them could be written.
        """
        if self._whole:
            self._write(b"".join(lines))
            return
        piece = b""
        for line in lines:
            if piece and len(piece) + len(line) > PIECE:
                self._write(piece)
                piece = b""
            piece += line
        self._write(piece)

    def _write(self, data: bytes) -> None:
        if self._torn:
            data = b"\n" + data
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        finally:
            written = len(data) - len(rest)
            if written:
                self._torn = data[written - 1] != ord("\n")

    def __str__(self) -> str:
        return "standard output" if self._path == "-" else self._path


class EventLog(Observer):
    """Notes each event, and has a thread write the lines.

    Args:
        target: where they go.
        config: says which lines, and how.
        start_thread, sleep: the mode's, see :func:`kong_pdk.observing.open_observer`.
    """

    def __init__(
        self,
        target: Target,
        config: ServerConfig,
        start_thread: Callable[[Callable[[], None]], None],
        sleep: Callable[[float], None],
    ) -> None:
        self._target = target
        self._format = format_json if config.event_log_format == "json" else format_text
        self._least = config.event_log_slow
        self._asks = phases_of(_GET_VAR) if config.event_log_request_id else ()
        self._sleep = sleep
        self._lines: collections.deque[Line] = collections.deque()
        self._wait_fd, self._wake_fd = open_wakeup()
        os.set_blocking(self._wait_fd, True)
        self._idle = self._stopping = self._done = False
        # Said by the loop: a thread of the system's must not log where Python is patched.
        self._lost = 0
        self._trouble = self._told = ""
        start_thread(self._run)

    # --- in the thread of a handler --------------------------------------------------------------

    def begin(self, event: Event) -> None:
        """Ask which request it is, if that is wanted."""
        if event.phase in self._asks:
            event.record.request = ask(event, _GET_VAR, REQUEST_ID) or ""

    def end(self, event: Event, seconds: float, failed: bool) -> None:
        """Note a line."""
        outcome = outcome_of(event, failed)
        if seconds < self._least and outcome in GOOD:
            return
        record: Record = event.record
        instance = event.instance
        self._note(
            Line(
                time.time(), instance.plugin.name, event.phase, outcome, seconds, event.calls,
                instance.id, event.id, status_of(event), record.error, record.request,
                record.trace,
            )
        )  # fmt: skip

    def turn_away(self, plugin: str, phase: str, instance: int, outcome: str) -> None:
        """Note a line of an event that was refused before it had begun."""
        self._note(Line(time.time(), plugin, phase, outcome, 0.0, 0, instance, 0, None, "", "", ""))

    def _note(self, line: Line) -> None:
        if len(self._lines) >= MAX_WAITING:
            self._lost += 1
            return
        self._lines.append(line)
        if self._idle:
            self._idle = False
            send_wakeup(self._wake_fd)

    # --- in the thread of the loop ---------------------------------------------------------------

    def tick(self) -> None:
        """Say what went wrong."""
        lost, self._lost = self._lost, 0
        if lost:
            logger.error(
                "the event log: %d lines are lost, because %s takes them too slowly", lost,
                self._target,
            )  # fmt: skip
        trouble = self._trouble
        if trouble != self._told:
            self._told = trouble
            if trouble:
                logger.error("the event log: %s until that works", trouble)
            else:
                logger.warning("the event log is written again")

    def close(self) -> None:
        """Wait for the last lines to be written."""
        self._stopping = True
        send_wakeup(self._wake_fd)
        deadline = time.monotonic() + END_PATIENCE
        while not self._done and time.monotonic() < deadline:
            time.sleep(END_TICK)
        self.tick()
        if self._lines:
            logger.error("the event log: the last %d lines are lost", len(self._lines))

    # --- in the thread that writes ---------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._write()
            if self._stopping and not self._lines:
                break
            # Set before it is looked: whoever leaves a line looks in the opposite order.
            self._idle = True
            if not (self._lines or self._stopping):
                drain_wakeup(self._wait_fd)
            self._idle = False
            if not self._stopping:
                self._sleep(GATHER)
        self._done = True

    def _write(self) -> None:
        waiting = [self._lines.popleft() for _ in range(len(self._lines))]
        if not waiting:
            return
        try:
            lines, trouble = list(map(self._format, waiting)), ""
            try:
                self._target.reopen_if_moved()
            except OSError as exc:
                if not self._target.is_open:
                    raise
                trouble = (
                    f"{self._target} was moved away, and there cannot be another one: "
                    f"{exc.strerror}: lines go into the old one"
                )
            self._target.write(lines)
            self._trouble = trouble
        except OSError as exc:
            self._trouble = f"{self._target} cannot be written: {exc.strerror}: its lines are lost"
        except Exception as exc:  # a bug of ours: the thread must not end because of it
            self._trouble = f"lines cannot be made: {exc!r}: they are lost"


@functools.lru_cache(maxsize=2)
def _second(number: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(number))


def _moment(seconds: float) -> str:
    """A time as ISO 8601 with milliseconds, in UTC."""
    milliseconds = int(seconds * 1000)
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


def format_json(line: Line) -> bytes:
    """A line as a JSON object."""
    fields: dict[str, object] = line._asdict()
    fields["time"], fields["seconds"] = _moment(line.time), round(line.seconds, 6)
    for name in MAY_LACK:
        if not fields[name]:
            del fields[name]
    fields["pid"] = os.getpid()
    return json.dumps(fields).encode() + b"\n"


def format_text(line: Line) -> bytes:
    """A line as ``name=value`` pairs between blanks (logfmt), in the order of :class:`Line`."""
    plugin = f" plugin={_quote(line.plugin)}" if line.plugin else ""
    event = f" event={line.event}" if line.event else ""
    more = "".join(
        f" {name}={_quote(str(value))}" for name, value in zip(MAY_LACK[2:], line[-4:]) if value
    )
    return (
        f"time={_moment(line.time)}{plugin} phase={_quote(line.phase)} outcome={line.outcome} "
        f"seconds={line.seconds:.6f} calls={line.calls} instance={line.instance}{event}{more} "
        f"pid={os.getpid()}\n"
    ).encode()


def _quote(text: str) -> str:
    return text if _PLAIN(text) else json.dumps(text)
