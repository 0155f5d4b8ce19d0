"""Requests that are refused before all of them has come: too large, or half read by a dead worker.

Kong sends all of a request before it looks for the answer, and takes an error while it sends for a
reason to let its client's request go on. So the rest is read and thrown away, and then answered.
What comes after that on the connection may be the rest or the next request, if Kong has paused in
between; as these cannot be told apart, the connection is closed then. Otherwise it goes on.
"""

from __future__ import annotations

import fcntl
import re
import socket
import struct
import termios
import time
from typing import Optional

#: Silence for so long is taken for the end of the request, seconds. Kong sends it without a pause.
QUIET = 0.2
#: The same where more is said to be missing: the process that has counted may have died before it
#: had counted all.
LONG_QUIET = 2.0
#: Kong itself gives up sending, and waiting for an answer, after so long, seconds.
PATIENCE = 60.0

#: Bytes read in one go.
_PART = 1 << 20

#: How a request of Kong's begins: ``[0, msgid, "plugin.…``.
_BEGINNING = re.compile(
    rb"\x94\x00(?:[\x00-\x7f]|\xcc.|\xcd..|\xce.{4}|\xcf.{8})(?:[\xa0-\xbf]|\xd9.)plugin\.",
    re.DOTALL,
)


class Drain:
    """Reads the rest of a request, and answers it; never blocks.

    Args:
        sock: the connection; the drain's from now on.
        answer: what Kong gets to read.
        missing: bytes that are to come; 0 if that is not known.

    Attributes:
        done: None as long as it goes on; then whether the connection can be used again.
    """

    def __init__(self, sock: socket.socket, answer: bytes, missing: int = 0) -> None:
        sock.setblocking(False)
        self._missing = missing
        self.sock = sock
        self.answer = answer
        self.done: Optional[bool] = None
        self._began = self._read_at = time.monotonic()
        self._answered = False

    def read(self) -> None:
        """Take what has come; to be called when the connection is readable."""
        if self.done is not None:
            return
        try:
            flags = socket.MSG_PEEK if self._answered else 0
            data = self.sock.recv(min(_PART, self._missing or _PART), flags)
            if self._answered and data:
                if self._is_unread():
                    self.sock.recv(len(data))  # it has not looked for the answer: still the rest
                else:
                    self.done = _BEGINNING.match(data) is not None
                return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        self._read_at = time.monotonic()
        if not data:
            self.done = False
        elif self._missing:
            self._missing -= len(data)
            if not self._missing:
                self.done = True
                self._send()

    def tick(self) -> None:
        """Answer when Kong is silent; to be called every now and then."""
        now = time.monotonic()
        if self.done is not None:
            return
        if now - self._began > PATIENCE:
            self.done = False
        elif not self._answered:
            if now - self._read_at >= (LONG_QUIET if self._missing else QUIET):
                self._missing = 0
                self._send()
        elif not self._is_unread():
            self.done = True

    def finish(self) -> None:
        """Answer at once, and close the connection."""
        if not self._answered and self.done is None:
            self._send()
        try:
            self.sock.shutdown(socket.SHUT_RDWR)  # another process may have it too
        except OSError:
            pass  # Kong was faster
        self.sock.close()

    def _send(self) -> None:
        self._answered = True
        try:
            if self.sock.send(self.answer) < len(self.answer):
                self.done = False
        except OSError:
            self.done = False

    def _is_unread(self) -> bool:
        """Whether Kong has not taken the answer yet."""
        return is_unread(self.sock)


def is_unread(sock: socket.socket) -> bool:
    """Whether the peer has not read all that was sent to it; False where that cannot be told."""
    try:
        size = fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0\0\0\0")
    except OSError:
        return False
    return bool(struct.unpack("i", size)[0])
