"""The codec in pure Python: the reference for the behaviour of ``_speedups``.

:class:`Decoder` turns bytes into requests, the ``encode_*`` functions turn replies into bytes,
:class:`Connection` does both on a socket, and :class:`Waiter` is what a thread sleeps on until
another one hands it something.
"""

from __future__ import annotations

import os
import select
import socket
from typing import Any, Optional

from . import _wire
from ._wakeup import drain_wakeup, open_wakeup, send_wakeup
from .exception import (
    ConnectionClosed,
    MessageTooLarge,
    NestingTooDeep,
    ProtocolError,
    ReplyLost,
)

_READ = select.POLLIN | select.POLLHUP | select.POLLERR


class Request:
    """One request of Kong; the kinds, and what target and value mean, are in ``_wire``."""

    __slots__ = ("kind", "msgid", "target", "value")

    def __init__(self, kind: int, msgid: int, target: Any, value: Any) -> None:
        self.kind = kind
        self.msgid = msgid
        self.target = target
        self.value = value

    def __repr__(self) -> str:
        return f"<Request kind={self.kind} msgid={self.msgid} target={self.target!r}>"


# What follows a type byte: (kind, bytes of the length or number). Fixed-size types keep their
# payload's size in the second place.
_SCALAR, _BYTES, _ARRAY, _MAP, _FIXED_STR, _FIXED_ARRAY, _FIXED_MAP, _EXT, _RESERVED = range(9)


def _token(byte: int) -> tuple[int, int]:
    if byte < 0x80 or byte >= 0xE0:
        return _SCALAR, 0
    if byte < 0x90:
        return _FIXED_MAP, byte & 0x0F
    if byte < 0xA0:
        return _FIXED_ARRAY, byte & 0x0F
    if byte < 0xC0:
        return _FIXED_STR, byte & 0x1F
    return {
        0xC1: (_RESERVED, 0),
        0xC4: (_BYTES, 1), 0xC5: (_BYTES, 2), 0xC6: (_BYTES, 4),
        0xC7: (_EXT, 1), 0xC8: (_EXT, 2), 0xC9: (_EXT, 4),
        0xCA: (_SCALAR, 4), 0xCB: (_SCALAR, 8),
        0xCC: (_SCALAR, 1), 0xCD: (_SCALAR, 2), 0xCE: (_SCALAR, 4), 0xCF: (_SCALAR, 8),
        0xD0: (_SCALAR, 1), 0xD1: (_SCALAR, 2), 0xD2: (_SCALAR, 4), 0xD3: (_SCALAR, 8),
        0xD4: (_SCALAR, 2), 0xD5: (_SCALAR, 3), 0xD6: (_SCALAR, 5), 0xD7: (_SCALAR, 9),
        0xD8: (_SCALAR, 17),
        0xD9: (_BYTES, 1), 0xDA: (_BYTES, 2), 0xDB: (_BYTES, 4),
        0xDC: (_ARRAY, 2), 0xDD: (_ARRAY, 4), 0xDE: (_MAP, 2), 0xDF: (_MAP, 4),
    }.get(byte, (_SCALAR, 0))  # fmt: skip


_TOKENS = tuple(_token(byte) for byte in range(256))


class Decoder:
    """Bytes in, requests out. No socket, no thread.

    Args:
        max_message: largest message, bytes.
        max_depth: deepest nesting of containers in a message.
    """

    __slots__ = (
        "_buffer", "_closed", "_consumed", "_error", "_max_depth", "_max_message", "_pos",
        "_stack", "_start",
    )  # fmt: skip

    def __init__(
        self, max_message: int = _wire.MAX_MESSAGE, max_depth: int = _wire.MAX_DEPTH
    ) -> None:
        _wire.check_bounds(max_message, max_depth)
        self._max_message = max_message
        self._max_depth = max_depth
        self._buffer = bytearray()
        self._start = 0  # of the message that is being scanned
        self._pos = 0  # of its next token; may lie behind the end of the buffer
        self._stack: list[int] = []  # values still missing in each open container
        self._closed = False  # all containers are closed: at most a payload is missing
        self._consumed = 0
        self._error: Optional[ProtocolError] = None

    @property
    def consumed(self) -> int:
        """Bytes of all messages that have been returned."""
        return self._consumed

    @property
    def pending(self) -> int:
        """Bytes that wait for the rest of their message."""
        return len(self._buffer) - self._start

    def feed(self, data: Any) -> None:
        """Append bytes that have arrived."""
        if self._start:
            del self._buffer[: self._start]
            self._pos -= self._start
            self._start = 0
        self._buffer += data

    def next(self) -> Optional[Request]:
        """Return the next request, or None while it is not complete.

        Raises:
            ProtocolError: the bytes are no request, or over a bound. The stream has no meaning
                any more: every later call raises the same error.
        """
        if self._error is not None:
            raise self._error
        try:
            if not self._scan():
                return None
            with memoryview(self._buffer) as view, view[self._start : self._pos] as message:
                fields = _wire.decode_request(message)
        except ProtocolError as exc:
            self._error = exc
            raise
        self._consumed += self._pos - self._start
        if self._pos == len(self._buffer):
            self._buffer = bytearray()
            self._pos = 0
        self._start = self._pos
        self._closed = False
        return Request(*fields)

    def _scan(self) -> bool:
        """Go on finding the end of the message at ``_start``; True when all of it is there."""
        buffer, stack, start = self._buffer, self._stack, self._start
        size, limit = len(buffer), self._max_message
        while not self._closed and self._pos < size:
            pos = self._pos
            kind, length = _TOKENS[buffer[pos]]
            if pos == start and kind not in (_ARRAY, _FIXED_ARRAY):
                raise _wire.start_error(buffer[pos])
            end, count = pos + 1, 0
            if kind == _FIXED_ARRAY:
                count = length
            elif kind == _FIXED_MAP:
                count = 2 * length
            elif kind == _RESERVED:
                raise _wire.reserved_error()
            else:
                end += length
                if kind not in (_SCALAR, _FIXED_STR):
                    if end > size:
                        return False  # the length itself is not complete
                    number = int.from_bytes(buffer[pos + 1 : end], "big")
                    if kind == _BYTES:
                        end += number
                    elif kind == _EXT:
                        end += 1 + number
                    else:
                        count = number if kind == _ARRAY else 2 * number
            if end - start + count > limit:  # each value has at least one byte
                least = end - start + count
                raise MessageTooLarge(_wire.SIZE_ADVICE.format(size=least, limit=limit))
            if count:
                if len(stack) >= self._max_depth:
                    raise NestingTooDeep(_wire.NESTING_ADVICE.format(limit=self._max_depth))
                stack.append(count)
            else:
                while stack:
                    stack[-1] -= 1
                    if stack[-1]:
                        break
                    stack.pop()
                self._closed = not stack
            self._pos = end
        return self._closed and self._pos <= size


class Waiter:
    """What one thread sleeps on: ``wake`` by another thread ends its sleep.

    ``gated`` and ``lost`` belong to the compiled codec's gate in front of the GIL; here they have
    no effect. ``wake`` before the sleep is not lost.
    """

    __slots__ = ("_read_fd", "_write_fd", "gated", "lost")

    def __init__(self) -> None:
        self._read_fd, self._write_fd = open_wakeup()
        self.gated = True
        self.lost = 0

    def fileno(self) -> int:
        """The descriptor that is readable once the waiter has been woken."""
        return self._read_fd

    def wake(self) -> None:
        """End the sleep, or the next one."""
        send_wakeup(self._write_fd)

    def wait(self) -> None:
        """Sleep until woken."""
        if self._read_fd < 0:
            raise ValueError("the waiter is closed")
        poll = select.poll()
        poll.register(self._read_fd, select.POLLIN)
        poll.poll()
        drain_wakeup(self._read_fd)

    def release(self) -> None:
        """Leave the gate; for a thread that will not sleep on this waiter again."""

    def close(self) -> None:
        """Release the descriptors."""
        if self._read_fd >= 0:
            os.close(self._read_fd)
            if self._write_fd != self._read_fd:
                os.close(self._write_fd)
            self._read_fd = self._write_fd = -1


class Connection(Decoder):
    """A connected socket as a stream of requests and replies.

    One thread at a time reads from it and writes to it: who owns it is the loop's and the mode's
    business. Closing it from another thread is done by :meth:`shutdown`.

    Args:
        sock: a connected stream socket; the connection owns it from now on.
        max_message: largest message, bytes.
        max_depth: deepest nesting of a message.
    """

    __slots__ = ("_sock", "opening")

    def __init__(
        self,
        sock: socket.socket,
        max_message: int = _wire.MAX_MESSAGE,
        max_depth: int = _wire.MAX_DEPTH,
    ) -> None:
        super().__init__(max_message, max_depth)
        sock.setblocking(False)
        self._sock = sock
        self.opening = b""  # goes out in front of the first reply

    def fileno(self) -> int:
        """The descriptor, -1 once closed."""
        return self._sock.fileno()

    def receive(self) -> Optional[Request]:
        """Return the next request if it has arrived, else None; never blocks.

        Raises:
            ConnectionClosed: the peer has closed; ReplyLost: without having read the last reply.
            ProtocolError: the peer sent what is no request.
        """
        while True:
            request = self.next()
            if request is not None:
                return request
            try:
                data = self._sock.recv(_wire.READ_SIZE if self.pending == 0 else 1 << 20)
            except (BlockingIOError, InterruptedError):
                return None
            except OSError as exc:
                raise ReplyLost(f"cannot read: {exc.strerror}") from exc
            if not data:
                raise ConnectionClosed("closed by the peer")
            self.feed(data)

    def send(self, data: bytes) -> None:
        """Send all of ``data``; blocks this thread while the peer does not read.

        Raises:
            ReplyLost: the peer is gone, or has not read anything for a minute.
        """
        data = self._with_opening(data)
        rest = memoryview(data)
        while True:
            try:
                rest = rest[self._sock.send(rest) :]
            except InterruptedError:
                continue
            except BlockingIOError:
                poll = select.poll()
                poll.register(self._sock, select.POLLOUT)
                if not poll.poll(_wire.SEND_TIMEOUT_MS):
                    raise ReplyLost("the peer does not read its reply") from None
            except OSError as exc:
                raise ReplyLost(f"cannot write: {exc.strerror}") from exc
            if not rest:
                return

    def send_nowait(self, data: bytes, start: int = 0) -> int:
        """Send what goes out without blocking.

        Args:
            data: a reply.
            start: how much of it has been sent before.

        Returns:
            How much of it has been sent now; ``len(data)`` if all of it.

        Raises:
            ReplyLost: the peer is gone.
        """
        if type(data) is not bytes:
            raise TypeError(f"what is sent must be bytes, got {type(data).__name__}")
        with memoryview(data) as view:
            while start < len(data):
                try:
                    start += self._sock.send(view[start:])
                except InterruptedError:
                    continue
                except BlockingIOError:
                    break
                except OSError as exc:
                    raise ReplyLost(f"cannot write: {exc.strerror}") from exc
        return start

    def exchange(self, data: bytes, waiter: Waiter) -> Optional[Request]:
        """Send ``data`` if there is any, then block until a request arrives.

        Returns:
            The request, or None when ``waiter`` was woken first.

        Raises:
            ConnectionClosed, ReplyLost, ProtocolError: as :meth:`send` and :meth:`receive`.
        """
        if type(data) is not bytes or not isinstance(waiter, Waiter):
            raise TypeError("exchange wants bytes and a Waiter")
        if self.fileno() < 0:
            raise ConnectionClosed("closed already")
        if data:
            self.send(data)
        poll: Any = None
        while True:
            request = self.next() if poll is None else self.receive()
            if request is not None:
                return request
            if poll is None:
                poll = select.poll()
                poll.register(self._sock, select.POLLIN)
                poll.register(waiter.fileno(), select.POLLIN)
            woken = waiter.fileno()
            for fd, events in poll.poll():
                if fd == woken and events & _READ:
                    drain_wakeup(woken)
                    return None

    def _with_opening(self, data: bytes) -> bytes:
        if type(data) is not bytes:
            raise TypeError(f"what is sent must be bytes, got {type(data).__name__}")
        if self.opening:
            data, self.opening = self.opening + data, b""
        return data

    def shutdown(self) -> None:
        """Let whoever reads or writes find the connection closed; for other threads."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the peer was faster

    def close(self) -> None:
        """Close the socket. May be called again."""
        self._sock.close()


def _head(msgid: int) -> bytes:
    return _wire.REPLY_HEAD + _wire.pack_value(msgid)


def encode_call(msgid: int, event_id: int, function: str, args: tuple[Any, ...]) -> bytes:
    """The reply that has Kong run a PDK function and step with its result.

    Where a None stands before another argument they are padded, see ``_wire.pad_holes``.

    Raises:
        ArgumentError: an argument cannot be sent; names function and argument.
    """
    if not isinstance(function, str) or not isinstance(args, tuple):
        raise TypeError("encode_call wants the function's name and a tuple of arguments")
    if _wire.has_hole(args):
        args = _wire.pad_holes(args)
    _wire.check_arguments(function, args)
    count = len(args)
    return b"".join((
        _head(msgid),
        _wire.CALL_METHOD,
        _wire.pack_value(function),
        _wire.CALL_ARGS,
        bytes((0x90 | count,)) if count < 16 else b"\xdc" + count.to_bytes(2, "big"),
        _wire.pack_arguments(function, args),
        _wire.EVENT_ID,
        _wire.pack_value(event_id),
    ))  # fmt: skip


def encode_return(msgid: int, event_id: int) -> bytes:
    """The reply that says that the handler is done."""
    return b"".join((
        _head(msgid), _wire.RETURN_DATA, _wire.EVENT_ID, _wire.pack_value(event_id)
    ))  # fmt: skip


def encode_result(msgid: int, result: Any) -> bytes:
    """The reply that carries the result of a call."""
    return _head(msgid) + _wire.NIL + _wire.pack_value(result)


def encode_error(msgid: int, text: str) -> bytes:
    """The reply that says why a call failed."""
    return _head(msgid) + _wire.pack_value(text) + _wire.NIL


def encode_notification(label: str, value: Any) -> bytes:
    """A message to Kong that nobody answers."""
    return _wire.NOTIFICATION_HEAD + _wire.pack_value(label) + _wire.pack_value(value)
