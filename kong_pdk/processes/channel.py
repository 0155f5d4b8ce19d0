"""Messages between the processes of one server, with descriptors if need be.

They are written with ``marshal``: both ends run the same Python, and it takes values that are
nested as deep as Kong's may be, which msgpack's packer does not.
"""

from __future__ import annotations

import array
import errno
import marshal
import os
import select
import socket
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

from .link import KIND
from .memory import open_nameless

#: Larger messages go through a file that has no name; datagrams have a bound. Bytes. Some systems
#: take no more than 2 KiB.
SMALL = 16 * 1024 if hasattr(os, "memfd_create") else 1024

_INLINE, _IN_FILE = b"i", b"f"
_INT = array.array("i").itemsize
_ROOM = socket.CMSG_SPACE(3 * _INT)
_FLAGS = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_FULL = (errno.EAGAIN, errno.ENOBUFS, errno.ETOOMANYREFS)


class Message(NamedTuple):
    """What has arrived: a value, and descriptors that belong to the receiver now.

    ``cut`` tells that descriptors are missing: this process has too many of them.
    """

    value: Any
    fds: list[int]
    cut: bool = False


class Channel:
    """One end of a socket that keeps messages apart.

    Any thread may send, one at a time may receive.

    Args:
        sock: from :func:`kong_pdk.processes.link.open_pair`; the channel owns it from now on.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._buffer = bytearray()  # those who only send need none

    @classmethod
    def of_fd(cls, fd: int) -> Channel:
        """A channel on the descriptor of such a socket."""
        return cls(socket.socket(socket.AF_UNIX, KIND, 0, fileno=fd))

    def fileno(self) -> int:
        """The descriptor."""
        return self._sock.fileno()

    def send(self, value: Any, fds: Sequence[int] = (), timeout: Optional[float] = 0.0) -> None:
        """Send a message.

        Args:
            value: of plain types.
            fds: up to two descriptors, of which the receiver gets duplicates.
            timeout: how long to wait for room, seconds; None for ever.

        Raises:
            BlockingIOError: the other end has not read enough of what lies there.
            ValueError: a value of a type that cannot be sent.
            OSError: the other end is gone.
        """
        data = marshal.dumps(value)
        if len(data) <= SMALL:
            self._send(_INLINE, data, fds, timeout)
            return
        file = _write_file(data)
        try:
            self._send(_IN_FILE, b"", [*fds, file], timeout)
        finally:
            os.close(file)

    def _send(self, kind: bytes, data: bytes, fds: Sequence[int], timeout: Optional[float]) -> None:
        more = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                self._sock.sendmsg((kind, data), more)
                return
            except OSError as exc:
                if exc.errno not in _FULL:
                    raise
                if timeout == 0.0 or not self._wait(select.POLLOUT, deadline):
                    raise BlockingIOError(errno.EAGAIN, "the other process is too slow") from None

    def _wait(self, event: int, deadline: Optional[float]) -> bool:
        """Wait until there may be something to do; False once the time is over."""
        left = None if deadline is None else 1000 * (deadline - time.monotonic())
        if left is not None and left <= 0:
            return False
        poll = select.poll()
        poll.register(self._sock, event)
        if poll.poll(left) and event == select.POLLOUT:
            time.sleep(0.001)  # descriptors on their way have a limit too, which no poll knows
        return True

    def receive(self, timeout: Optional[float] = 0.0) -> Message:
        """The next message.

        Args:
            timeout: how long to wait for one, seconds; None for ever.

        Raises:
            BlockingIOError: there is none.
            EOFError: the other end is closed.
            OSError: the message has come without its content: too many descriptors are open here.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._buffer:
            self._buffer = bytearray(SMALL + 1)
        while True:
            try:
                size, control, flags, _ = self._sock.recvmsg_into([self._buffer], _ROOM, _FLAGS)
                break
            except BlockingIOError:
                if timeout == 0.0 or not self._wait(select.POLLIN, deadline):
                    raise
            except ConnectionResetError:  # closed with messages unread
                raise EOFError("the other end is closed") from None
        fds = array.array("i")
        for level, kind, data in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data[: len(data) - len(data) % _INT])
        if not _FLAGS:
            for fd in fds:
                os.set_inheritable(fd, False)
        if not size:
            raise EOFError("the other end is closed")
        found = fds.tolist()
        cut = bool(flags & socket.MSG_CTRUNC)
        if self._buffer[0] == _INLINE[0]:
            with memoryview(self._buffer) as view, view[1:size] as content:
                return Message(marshal.loads(content), found, cut)
        if cut or not found:
            for fd in found:
                os.close(fd)
            raise OSError("a message has lost its content: too many descriptors are open here")
        return Message(marshal.loads(_read_file(found.pop())), found)

    def detach(self) -> int:
        """Give the descriptor away."""
        return self._sock.detach()

    def close(self) -> None:
        """Close this end. May be called again."""
        self._sock.close()


def _write_file(data: bytes) -> int:
    fd = open_nameless()
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
    except BaseException:
        os.close(fd)
        raise
    return fd


def _read_file(fd: int) -> bytes:
    """All that a file holds; closes it."""
    try:
        size, parts, done = os.fstat(fd).st_size, [], 0
        while done < size:
            parts.append(os.pread(fd, size - done, done))
            if not parts[-1]:
                raise OSError("a message is shorter than its file")
            done += len(parts[-1])
        return b"".join(parts)
    finally:
        os.close(fd)
