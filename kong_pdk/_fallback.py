"""The hot path in pure Python: the reference for the behaviour of ``_speedups``.

Longer than most files because it is that one's twin, name by name.

From below: :class:`Decoder` turns bytes into requests, the ``encode_*`` functions turn replies into
bytes, :class:`Connection` does both on a socket, :class:`Poller` watches those that nobody reads,
:class:`Waiter` and :class:`Switch` are how a handler sleeps in threads and in greenlets,
:class:`Event` makes its PDK calls, which :class:`Namespace` puts into a tree of names and
:class:`Function` checks, :class:`Dispatcher` runs it, and :class:`Tally` counts it.
"""

from __future__ import annotations

import bisect
import itertools
import math
import os
import select
import selectors
import socket
import sys
import threading
import time
from typing import Any, Callable, NoReturn, Optional, Union

from . import _columns, _kinds, _wire
from ._wakeup import drain_wakeup, open_wakeup, send_wakeup
from .exception import (
    ArgumentError,
    ConnectionClosed,
    EventEnded,
    HandlerExit,
    HandlerTimeout,
    MessageTooLarge,
    NestingTooDeep,
    PDKException,
    ProtocolError,
    ReplyLost,
    ResponseSent,
)

_READ = select.POLLIN | select.POLLHUP | select.POLLERR

#: Of a function: bits of its types; least; most; the texts that are right, or with what they must
#: begin, or what returns None for those that are not; what containers may hold.
Texts = Union[frozenset[str], str, Callable[[str], Any], None]
Parameter = tuple[int, Optional[float], Optional[float], Texts, int]


class Request:
    """One request of Kong; the kinds, and what target and value mean, are in ``_wire``.

    Attributes:
        at: when it was read; seconds, of ``time.monotonic``, give or take 10 ms.
    """

    __slots__ = ("at", "kind", "msgid", "target", "value")

    def __init__(self, kind: int, msgid: int, target: Any, value: Any) -> None:
        self.at = time.monotonic()
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
        "_buffer", "_closed", "_consumed", "_error", "_max_depth", "_max_message", "_missing",
        "_pos", "_stack", "_start",
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
        self._missing = 0  # of a message that is too large

    @property
    def consumed(self) -> int:
        """Bytes of all messages that have been returned."""
        return self._consumed

    @property
    def pending(self) -> int:
        """Bytes that wait for the rest of their message."""
        return len(self._buffer) - self._start

    @property
    def missing(self) -> int:
        """Bytes of the last message that are still to come; 0 if that cannot be told yet."""
        if self._error is not None:
            return self._missing
        return max(0, self._pos - len(self._buffer)) if self._closed else 0

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
        size = len(self._buffer)
        # Nearly always there is one whole message, too small to nest too deeply: msgpack can have
        # it without a scan. Anything else, and any error, is found out below.
        if 0 < size <= self._max_depth and size <= self._max_message and not self._pos:
            try:
                fields = _wire.decode_request(self._buffer)
            except ProtocolError:
                pass
            else:
                self._consumed += size
                self._buffer = bytearray()
                return Request(*fields)
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
                if not count and all(left == 1 for left in stack):  # the last value of all
                    self._missing = max(0, end - size)
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

    __slots__ = ("_lock", "_read_fd", "_reading", "_write_fd", "gated", "lost")

    def __init__(self) -> None:
        self._read_fd, self._write_fd = open_wakeup()
        self._lock = threading.Lock()
        self._reading: Optional[Connection] = None
        self.gated = True
        self.lost = 0

    def fileno(self) -> int:
        """The descriptor that is readable once the waiter has been woken."""
        return self._read_fd

    def wake(self) -> None:
        """End the sleep, or the next one."""
        send_wakeup(self._write_fd)

    def wake_next(self, other: Optional[Waiter]) -> None:
        """Wake another waiter's thread as soon as this one sleeps, which it is about to.

        By then it has left the gate, which the other one is going to pass. Before that happens, a
        second call, also one with None, wakes the first one at once.
        """
        if other is not None:
            other.wake()

    def wait(self) -> None:
        """Sleep until woken."""
        if self._read_fd < 0:
            raise ValueError("the waiter is closed")
        poll = select.poll()
        poll.register(self._read_fd, select.POLLIN)
        poll.poll()
        drain_wakeup(self._read_fd)

    def take_reading(self) -> Optional[Connection]:
        """Take over the connection that the thread reads in its sleep.

        For whoever is going to wake the thread, and for the thread once it has been woken. None if
        there is none, if it has been taken already, or if a request is arriving on it right now.
        """
        with self._lock:
            connection, self._reading = self._reading, None
        return connection

    def converse(self, event: Event, frame: bytes) -> Request:
        """Send a PDK call of an event that runs in this thread, and sleep until it is answered.

        What else may happen meanwhile is the mode's business: ``event.mode.converse``.
        """
        connection, waiting = event.connection, event.events.waiting
        go_on: Callable[..., Request] = event.mode.converse
        event.waiting_since = event.events.ticks
        waiting[event.id] = event
        if connection is None or connection.borrowed:
            return go_on(event, frame, None)
        try:
            request = connection.exchange(frame, self)
        except (ConnectionClosed, ProtocolError) as exc:
            return go_on(event, b"", exc)
        except BaseException:  # no memory, no stack: what has arrived is lost, so Kong is told
            event.over = True
            event.mode.refuse(connection)
            if waiting.pop(event.id, None) is not event:
                self.wait()  # whoever has taken the event is about to wake this thread
            raise
        if (
            request is not None
            and request.target == event.id
            and request.kind in _wire.STEPS
            and waiting.pop(event.id, None) is event
        ):
            event.msgid = request.msgid
            return request
        arrived = None if request is None else [request]
        request = None  # it may be large, and what follows a long sleep: the mode alone has it
        return go_on(event, b"", arrived)

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

    What is owed on it can be kept in memory that another process sees (:meth:`share`), which
    answers should this one die.

    Attributes:
        opening: goes out in front of the first reply.
        borrowed: another process reads this connection; here one reply is sent, and no more.
        owes: what is to be answered, a number made of ``_wire.OWES_MSGID`` and so on; 0 if
            nothing is; from the arrival of a request until all of its answer has been sent.
        slot: the place in that memory; -1 if there is none.
    """

    __slots__ = ("_debts", "_head", "_sock", "borrowed", "opening", "owes", "slot", "stuck")

    def __init__(
        self,
        sock: socket.socket,
        max_message: int = _wire.MAX_MESSAGE,
        max_depth: int = _wire.MAX_DEPTH,
    ) -> None:
        super().__init__(max_message, max_depth)
        sock.setblocking(False)
        self._sock = sock
        self.opening = b""
        self.borrowed = False
        self.owes = 0
        self.slot = -1
        self._debts: Optional[memoryview] = None
        self.stuck: Any = None  # the peer does not read: what wakes those who wait to send

    def fileno(self) -> int:
        """The descriptor, -1 once closed."""
        return self._sock.fileno()

    def share(self, memory: Any, slot: int, owes: int = 0) -> None:
        """Keep what is owed where others see it.

        Args:
            memory: a writable buffer, which has ``_wire.DEBT_SIZE`` numbers of 64 bits for each
                connection.
            slot: of this connection.
            owes: what it owes already, as the memory says.

        Raises:
            IndexError: the memory has no such slot.
        """
        debts = memoryview(memory).cast("B").cast("Q")
        if not 0 <= slot < len(debts) // _wire.DEBT_SIZE:
            raise IndexError(f"no slot {slot}")
        self._debts, self.slot, self.owes = debts, slot, owes
        begin = 8 * (slot * _wire.DEBT_SIZE + 4)
        self._head = memoryview(memory).cast("B")[begin : begin + _wire.HEAD_SIZE]

    def lend(self, owner: int) -> int:
        """Leave the answer to another process.

        Args:
            owner: its index.

        Returns:
            What it owes from now on, for its own :meth:`share` or for :meth:`reclaim`.
        """
        owes = self.owes | _wire.OWES_LENT | owner << _wire.OWES_OWNER
        if self._debts is not None:
            self._debts[self.slot * _wire.DEBT_SIZE] = owes
        self.owes = 0
        return owes

    def reclaim(self, owes: int) -> bool:
        """Take back what was lent; False if that has been answered meanwhile."""
        if self._debts is not None and self._debts[self.slot * _wire.DEBT_SIZE] != owes:
            return False
        self._note(owes & (_wire.OWES_LENT - 1))
        return True

    def next(self) -> Optional[Request]:
        """As :meth:`Decoder.next`; what it returns is owed an answer."""
        try:
            request = super().next()
        except ProtocolError:
            if not self.owes:
                head = memoryview(self._buffer)[self._start :]
                self._note(_wire.debt_of_part(head) | _wire.OWES_REST)
            raise
        if request is not None:
            owes = _wire.debt_of(request.kind, request.msgid, request.target, request.value)
            self._note(owes, request.at)
        elif self._debts is not None and self.pending:
            rest = _wire.debt_of_part(memoryview(self._buffer)[self._start :]) | _wire.OWES_REST
            self._note(rest)
        return request

    def _note(self, owes: int, at: float = 0.0) -> None:
        self.owes = owes
        if self._debts is not None:
            index = self.slot * _wire.DEBT_SIZE
            self._debts[index + 2] = self.missing
            self._debts[index + 1] = int(1000 * (at or time.monotonic()))
            self._debts[index] = owes
            self._debts[index + 3] = 0

    def _receive(self) -> bytes:
        """What has arrived; never blocks."""
        if self._debts is None or self.pending:
            return self._sock.recv(_wire.READ_SIZE if self.pending == 0 else 1 << 20)
        reading = self.slot * _wire.DEBT_SIZE + 3
        self._head[:] = bytes(_wire.HEAD_SIZE)
        self._debts[reading] = 1
        rest = bytearray(_wire.READ_SIZE)
        size = 0
        try:
            size = self._sock.recvmsg_into([self._head, rest])[0]
        finally:
            if not size:
                self._debts[reading] = 0
        return bytes(self._head[:size]) + rest[: max(0, size - _wire.HEAD_SIZE)]

    def _settle(self) -> None:
        """Note that all of an answer has been sent."""
        owes, self.owes = self.owes, 0
        if self._debts is not None and owes:
            index = self.slot * _wire.DEBT_SIZE
            if self._debts[index] == owes:  # else its reader has noted the next request already
                self._debts[index] = 0

    def _note_cut(self, size: int) -> None:
        """Note that an answer may go out in part."""
        if size > _wire.CUT_ABOVE and self._debts is not None and self.owes:
            self.owes |= _wire.OWES_CUT
            self._debts[self.slot * _wire.DEBT_SIZE] = self.owes

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
                data = self._receive()
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
        self._note_cut(len(data))
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
                self._settle()
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
        self._note_cut(len(data))
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
        if data and start >= len(data):
            self._settle()
        return start

    def exchange(self, data: bytes, waiter: Waiter) -> Optional[Request]:
        """Send ``data`` if there is any, then block until a request arrives.

        Returns:
            The request, or None when ``waiter`` was woken first. Then somebody may have taken the
            connection: see :meth:`Waiter.take_reading`.

        Raises:
            ConnectionClosed, ReplyLost, ProtocolError: as :meth:`send` and :meth:`receive`.
        """
        if type(data) is not bytes or not isinstance(waiter, Waiter):
            raise TypeError("exchange wants bytes and a Waiter")
        if self.fileno() < 0:
            raise ConnectionClosed("closed already")
        if data:
            self.send(data)
        request = self.next()
        if request is not None:
            return request
        woken = waiter.fileno()
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        poll.register(woken, select.POLLIN)
        while request is None:
            waiter._reading = self
            if any(fd == woken and events & _READ for fd, events in poll.poll()):
                drain_wakeup(woken)
                return None
            if waiter.take_reading() is None:  # somebody else reads it, and is about to wake us
                waiter.wait()
                return None
            request = self.receive()
        return request

    def _with_opening(self, data: bytes) -> bytes:
        if type(data) is not bytes:
            raise TypeError(f"what is sent must be bytes, got {type(data).__name__}")
        if self.opening:
            data, self.opening = self.opening + data, b""
        return data

    def shutdown(self) -> None:
        """Let whoever reads or writes find the connection closed; for other threads."""
        self._settle()
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the peer was faster

    def detach(self) -> socket.socket:
        """Give the socket away, with what is owed there; the connection is as good as closed."""
        self.owes = 0
        sock = socket.socket(fileno=self._sock.detach())
        sock.setblocking(False)
        return sock

    def close(self) -> None:
        """Close the socket. May be called again."""
        self._settle()
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


class Poller:
    """Connections that nobody reads, watched until something arrives on them.

    Any thread may park a connection; one thread finds the ready ones.

    Args:
        new_selector: makes a selector that has a descriptor.
    """

    __slots__ = ("_lock", "_selector")

    def __init__(
        self, new_selector: Callable[[], selectors.BaseSelector] = selectors.DefaultSelector
    ) -> None:
        self._selector: Any = new_selector()
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """A descriptor that is readable while a parked connection is."""
        return int(self._selector.fileno())

    def park(self, connection: Connection) -> None:
        """Watch a connection until :meth:`take_ready` finds it.

        A whole request in its buffer would not be seen.

        Raises:
            OSError, ValueError: the connection is closed.
        """
        with self._lock:
            self._selector.register(connection, selectors.EVENT_READ)

    #: Watch a connection until it is forgotten, for :meth:`read_ready`.
    keep = park

    def forget(self, connection: Connection) -> None:
        """Watch a connection no longer, if it was; to be called before it is closed."""
        self.unpark(connection)

    def unpark(self, connection: Connection) -> bool:
        """Watch a connection no longer; False if it was not watched, or has just been found."""
        with self._lock:
            try:
                self._selector.unregister(connection)
            except (KeyError, ValueError):
                return False
        return True

    def take_ready(self) -> list[Connection]:
        """The connections on which something has arrived; they are watched no longer."""
        with self._lock:
            ready = [key.fileobj for key, _ in self._selector.select(0)]
            for connection in ready:
                self._selector.unregister(connection)
        return ready

    def read_ready(
        self,
        events: Events,
        begin: Callable[[Connection, Request], None],
        route: Callable[[Connection, Request], None],
        lose: Callable[[Connection, Exception], None],
        may_wait: Callable[[], bool],
    ) -> None:
        """Read what has arrived on parked connections, which stay parked.

        Args:
            events: a step of one that waits is handed to its greenlet at once.
            begin: takes those that begin an event.
            route: takes all other requests.
            lose: is told of connections that have failed.
            may_wait: says whether nothing else is to be done; then the compiled one may wait for
                more, for less than a tenth of a millisecond.
        """
        for key, _ in self._selector.select(0):
            connection = key.fileobj
            try:
                if connection.fileno() < 0:
                    continue  # closed by what has just run
                request = connection.receive()
                while request is not None:
                    event = None
                    if request.kind in _wire.STEPS:
                        event = events.waiting.pop(request.target, None)
                    if event is not None:
                        event.connection = connection
                        event.msgid = request.msgid
                        event.sleeper.switch(request)
                    elif request.kind == _wire.HANDLE_EVENT:
                        begin(connection, request)
                    else:
                        route(connection, request)
                    request = connection.next() if connection.pending else None
            except Exception as exc:  # no memory, say: one connection pays, the others go on
                lose(connection, exc)

    def close(self) -> None:
        """Watch nothing any more."""
        with self._lock:
            self._selector.close()


class Events:
    """The events that wait for a step, by id; new ids; the time.

    Whoever takes an event out of :attr:`waiting` resumes it; ``dict.pop`` lets only one do so.

    Args:
        first: the first id.
        step: from one id to the next.
        lua_style: PDK calls return ``(data, err)``; otherwise data, raising PDKException.
        checks: PDK calls are checked before they are sent.
        log_level: log lines of a higher number are dropped (0: emerg, 7: debug).
        late: how long an answer may take until nobody waits for it any more, seconds.
        track: keep those whose handlers run in :attr:`running`.

    Attributes:
        running: by id, those whose handlers run; None if they are not tracked.
        started: how many there have been.
        ticks: counts up about once a second.
    """

    __slots__ = (
        "_ids", "checks", "late", "log_level", "lua_style", "running", "started", "ticks",
        "waiting",
    )  # fmt: skip

    def __init__(
        self,
        first: int,
        step: int = 1,
        lua_style: bool = True,
        checks: bool = True,
        log_level: int = _kinds.ALL_LEVELS,
        late: float = math.inf,
        track: bool = False,
    ) -> None:
        self._ids = itertools.count(first, step)
        self.late = late
        self.running: Optional[dict[int, Event]] = {} if track else None
        self.lua_style = lua_style
        self.checks = checks
        self.log_level = log_level
        self.started = 0
        self.ticks = 0
        self.waiting: dict[int, Event] = {}

    def next_id(self, closed: bool = False) -> int:
        """A new id.

        Args:
            closed: the event's request is refused if its plugin fails, see ``_wire.CLOSED_BIT``.
        """
        self.started += 1
        return next(self._ids) | closed


class Event:
    """One phase of one request, from HandleEvent to its end.

    Args:
        events: those that it is one of.
        instance: of the plugin.
        phase: its name.
        connection: the one that asked last, on which the next answer goes out.
        msgid: of the request that the next answer is for.
        mode: takes its calls to Kong, see ``runtime.events.Mode``.
        runner: the mode's own handle of what runs the handler; a :class:`Waiter` or a
            :class:`Switch` is asked in place of the mode.
        closed: its request is refused if the plugin fails.

    Attributes:
        id: Kong names the event by it in each step.
        sleeper: the greenlet that waits for a step.
        waiting_since: the tick at which the last PDK call was sent.
        over: no PDK call is possible any more.
        began: when the event was read.
        at: when the request was read that is to be answered next, as ``Request.at``.
        expired: its handler has had its time.
        abandoned: nobody waits for its answer any more.
        calls: how many PDK calls it has sent.
        greenlet: the one that its handler runs in, if handlers are tracked.
        exited: the status with which it has answered the client; None if it has not.
        record: what an observer keeps of it.
    """

    __slots__ = (
        "_turn", "abandoned", "at", "began", "calls", "connection", "events", "exited", "expired",
        "greenlet", "id", "instance", "mode", "msgid", "over", "phase", "record", "runner",
        "sleeper", "waiting_since",
    )  # fmt: skip

    def __init__(
        self,
        events: Events,
        instance: Any,
        phase: str,
        connection: Optional[Connection],
        msgid: int,
        mode: Any,
        runner: Any,
        closed: bool = False,
    ) -> None:
        self.id = events.next_id(closed)
        self.events = events
        self.instance = instance
        self.phase = phase
        self.connection = connection
        self.msgid = msgid
        self.mode = mode
        self.runner = runner
        self.sleeper: Any = None
        self.greenlet: Any = None
        self.waiting_since = 0
        self.over = False
        self.began = self.at = time.monotonic()
        self.expired = self.abandoned = False
        self.calls = 0
        self.exited: Any = None
        self.record: Any = None
        # A plugin may make PDK calls from threads of its own; Kong takes one at a time.
        self._turn = threading.Lock()

    def call(self, function: str, args: tuple[Any, ...]) -> Any:
        """Have Kong run a PDK function.

        Args:
            function: its full name, "kong.request.get_header".
            args: its arguments.

        Returns:
            In Lua style ``(data, err)``, else data.

        Raises:
            ArgumentError: an argument cannot be sent.
            PDKException: not in Lua style: Kong reports a failure.
            ResponseSent: the function ends the request; nothing follows.
            EventAbandoned: Kong is gone, or did not answer in time, or we did not.
            HandlerTimeout: the handler has had its time.
            EventEnded: the event is over already.
        """
        if self.over and not self.expired:
            raise EventEnded(_wire.ended_text(function))
        # Before the turn is taken: a mapping's own code may make PDK calls.
        msgid = self.msgid
        frame = encode_call(msgid, self.id, function, args)
        with self._turn:
            if self.expired:
                raise HandlerTimeout(_wire.EXPIRED)
            if self.over:
                raise EventEnded(_wire.ended_text(function))
            if time.monotonic() - self.at > self.events.late:
                self.mode.too_late(self)
            if self.msgid is not msgid:  # another call has been made meanwhile
                frame = _wire.with_msgid(frame, msgid, self.msgid)
            self.calls += 1
            if function in _wire.TERMINAL:
                self.over = True
                self.exited = args[0] if args else None
                self.mode.send_last(self, frame)
                raise ResponseSent(function)
            if isinstance(self.runner, (Waiter, Switch)):
                step = self.runner.converse(self, frame)
            else:
                step = self.mode.exchange(self, frame)
            self.at = step.at
        if self.expired:
            raise HandlerTimeout(_wire.EXPIRED)
        if step.kind == _wire.STEP_ERROR:
            if self.events.lua_style:
                return None, step.value
            raise PDKException(f"{function}: {step.value}")
        return (step.value, None) if self.events.lua_style else step.value

    def end(self) -> bool:
        """End the event; False if it was over already.

        Waits for a PDK call that a thread of the plugin's own is in the middle of.
        """
        with self._turn:
            over, self.over = self.over, True
        return not over

    def expire(self, in_call: bool = True) -> Optional[Connection]:
        """Note that the handler has had its time.

        Args:
            in_call: also if it is in the middle of a PDK call.

        Returns:
            The connection to answer on, the caller's from now on, if the event was ended by this;
            None if it was over, or in the middle of a PDK call, which raises HandlerTimeout when it
            returns.
        """
        if in_call:
            self.expired = True
        if not self._turn.acquire(blocking=False):
            return None
        try:
            if self.over:
                return None
            self.over = self.expired = True
            # In the same turn: the thread of the handler may be about to look for it.
            connection, self.connection = self.connection, None
            return connection
        finally:
            self._turn.release()


class Namespace:
    """One place in the ``kong`` tree, bound to what makes its calls.

    Args:
        caller: whatever can make PDK calls: an event, or a test's stand-in.
    """

    __slots__ = ("_caller",)

    def __init__(self, caller: Any) -> None:
        self._caller = caller


class Child:
    """An attribute of a namespace: the namespace below it, bound to the same caller.

    Args:
        kind: the class of that.
    """

    __slots__ = ("kind",)

    def __init__(self, kind: type[Namespace]) -> None:
        self.kind = kind

    def __get__(self, instance: Optional[Namespace], owner: Any = None) -> Any:
        return self if instance is None else self.kind(instance._caller)

    def __set__(self, instance: Namespace, value: Any) -> NoReturn:
        raise AttributeError("the names of the PDK cannot be set")

    def __delete__(self, instance: Namespace) -> NoReturn:
        raise AttributeError("the names of the PDK cannot be deleted")


class Function:
    """A PDK function, as an attribute of its namespace.

    Args:
        name: its full name, "kong.request.get_header".
        phases: those in which a call that fits goes out as it is.
        parameters: what is right as it is, see :data:`Parameter`.
        least: how many arguments it needs.
        level: of the log line that it writes; -1 if it writes none.
        variadic: takes any number of arguments, each logged as its ``str()``.
        result: what is done with a table that comes back: ``_kinds.MAP`` and so on.
        settle: gets the function, arguments, keyword arguments, the phase if it is none of
            ``phases``, and whether to check; returns the arguments to send, or raises.
        convert: rebuilds a table of the kind ``_kinds.RECORD``.
        spec: has ``doc`` and ``signature(bound)``, for help().
    """

    __slots__ = (
        "_convert", "_least", "_parameters", "_result", "_settle", "level", "name", "phases",
        "spec", "variadic",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        phases: frozenset[str],
        parameters: tuple[Parameter, ...],
        least: int,
        level: int,
        variadic: bool,
        result: int,
        settle: Callable[..., tuple[Any, ...]],
        convert: Optional[Callable[[Any], Any]],
        spec: Any,
    ) -> None:
        if len(parameters) > _kinds.MAX_PARAMETERS:
            raise ValueError(f"{name}: more than {_kinds.MAX_PARAMETERS} parameters")
        self.name = name
        self.phases = phases
        self._parameters = parameters
        self._least = least
        self.level = level
        self.variadic = variadic
        self._result = result
        self._settle = settle
        self._convert = convert
        self.spec = spec

    def __get__(self, instance: Optional[Namespace], owner: Any = None) -> Any:
        return self if instance is None else Method(self, instance._caller)

    def __call__(self, instance: Namespace, /, *args: Any, **kwargs: Any) -> Any:
        return self.invoke(instance._caller, args, kwargs)

    def __repr__(self) -> str:
        return f"<function {self.name}>"

    @property
    def __name__(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        return str(self.spec.doc)

    @property
    def __signature__(self) -> Any:
        return self.spec.signature(False)

    def fits(self, args: tuple[Any, ...]) -> bool:
        """Whether a call with these arguments can go out as it is."""
        if self.variadic:
            return bool(args) and all(type(arg) in (str, bytes) for arg in args)
        if not self._least <= len(args) <= len(self._parameters):
            return False
        for arg, (bits, low, high, texts, holds) in zip(args, self._parameters):
            bit = _kinds.TYPE_BITS.get(type(arg), _kinds.OTHER)
            if not bits & bit:
                return False
            if bit & _kinds.NUMBER:
                if (low is not None and not arg >= low) or (high is not None and not arg <= high):
                    return False
            elif bit & (_kinds.STR | _kinds.BYTES):
                if texts is not None and not (bit == _kinds.STR and _is_one_of(arg, texts)):
                    return False
            elif holds and bit & (_kinds.DICT | _kinds.LIST) and not _holds(arg, holds):
                return False
        return True

    def invoke(self, caller: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Check a call and have it made; what :class:`Method` does when it is called."""
        events = getattr(caller, "events", None)
        checks = True
        phase = getattr(caller, "phase", None)
        if events is not None:
            if self.level > events.log_level:
                return (None, None) if events.lua_style else None
            checks = events.checks
        if checks and phase is not None and phase not in self.phases:
            args = self._settle(self, args, kwargs, phase, True)
        elif kwargs or ((checks or self.variadic) and not self.fits(args)):
            args = self._settle(self, args, kwargs, None, checks)
        if self.variadic:
            return self._log(caller, args)
        result = caller.call(self.name, args)
        if self._result == _kinds.AS_IT_IS:
            return result
        if type(result) is tuple:
            data = self._restore(result[0])
            return result if data is result[0] else (data, result[1])
        return self._restore(result)

    def _log(self, caller: Any, args: tuple[Any, ...]) -> Any:
        try:
            return caller.call(self.name, args)
        except ArgumentError:  # a text that cannot be sent, and has not been: it is logged anyway
            return caller.call(self.name, _wire.escape_texts(args))

    def _restore(self, data: Any) -> Any:
        if self._result == _kinds.MAP:
            return {} if type(data) is list and not data else data
        if self._result == _kinds.ARRAY:
            return [] if type(data) is dict and not data else data
        if self._result == _kinds.RAW:
            return data.encode("utf-8", _wire.ERRORS) if type(data) is str else data
        assert self._convert is not None
        return data if data is None else self._convert(data)


def _is_one_of(text: str, texts: Texts) -> bool:
    if isinstance(texts, str):
        return text.startswith(texts)
    if isinstance(texts, frozenset):
        return text in texts
    return texts is None or texts(text) is not None


def _holds(value: Any, holds: int) -> bool:
    """Whether a dict or list, and what is in it, is right as it is."""
    if type(value) is list:
        return holds == _kinds.HEADER_VALUES and all(type(item) is str for item in value)
    for key, item in value.items():
        if type(key) is not str:
            return False
        kind = type(item)
        if kind is list:
            for each in item:
                if type(each) is not str and (holds == _kinds.HEADERS or type(each) is not bool):
                    return False
        elif not _kinds.TYPE_BITS.get(kind, 0) & _kinds.SCALAR:
            return False
    return True


class Method:
    """A PDK function bound to what makes its calls.

    Args:
        function: what to call.
        caller: an event, or a test's stand-in.
    """

    __slots__ = ("_caller", "function")

    def __init__(self, function: Function, caller: Any) -> None:
        self.function = function
        self._caller = caller

    def __get__(self, instance: Any, owner: Any = None) -> Method:
        return self  # inspect takes what has this for a routine, and help() shows it as one

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self.function.invoke(self._caller, args, kwargs)

    def __repr__(self) -> str:
        return f"<method {self.function.name}>"

    @property
    def __name__(self) -> str:
        return self.function.__name__

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        return str(self.function.spec.doc)

    @property
    def __signature__(self) -> Any:
        return self.function.spec.signature(True)


class Switch:
    """How handlers run and sleep in greenlets: by switches to the one that reads the connections.

    Args:
        mode: takes what is rare: ``answer``, ``send``, ``lose``, ``fail``, and what ends an event.
        switch: switches there; returns what this greenlet is switched back with.
        current: see below.
        ident: returns the running thread's number.
        spawn: makes a greenlet that runs a function with what it is first switched to with.
        keep: idle greenlets that are kept for further events.
        limit: most that run at the same time; ``mode.shed`` gets the requests beyond.

    Attributes:
        current: returns the running greenlet.
        idle: greenlets that wait for work.
        running: how many are at work.
    """

    __slots__ = (
        "_ident", "_keep", "_limit", "_mode", "_spawn", "_switch", "_thread", "current", "idle",
        "running",
    )  # fmt: skip

    def __init__(
        self,
        mode: Any,
        switch: Callable[[], Any],
        current: Callable[[], Any],
        ident: Callable[[], int],
        spawn: Callable[[Callable[[Any], None]], Any],
        keep: int,
        limit: int = sys.maxsize,
    ) -> None:
        self._limit = limit
        self._mode = mode
        self._switch = switch
        self.current = current
        self._ident = ident
        self._spawn = spawn
        self._keep = keep
        self._thread = ident()
        self.idle: list[Any] = []
        self.running = 0

    def begin(self, connection: Connection, request: Request) -> None:
        """Switch to a greenlet that answers a request."""
        if self.running >= self._limit:
            self._mode.shed(connection, request)
            return
        greenlet = self.idle.pop() if self.idle else self._spawn(self.work)
        greenlet.switch((connection, request))

    def work(self, given: Any) -> None:
        """Answer one request after the other, beginning with a pair of connection and request.

        What a greenlet runs.
        """
        mode = self._mode
        while given is not None:
            connection, request = given
            self.running += 1
            try:
                if request.kind == _wire.HANDLE_EVENT:
                    reply, event = mode.service.run_event(request, connection, mode, self)
                    where = connection if event is None else event.connection
                    if reply and where is not None:
                        self._reply(where, reply)
                else:
                    mode.answer(connection, request)
            except BaseException:  # no memory, a bug of ours, a GreenletExit that came late
                mode.fail(connection)
            finally:
                self.running -= 1
            # An idle greenlet keeps nothing alive.
            given = connection = request = reply = event = where = None
            if len(self.idle) >= self._keep:
                return
            greenlet = self.current()
            self.idle.append(greenlet)
            try:
                given = self._switch()
            except BaseException:  # what an event has left behind: a gevent.Timeout, say
                if greenlet in self.idle:
                    self.idle.remove(greenlet)
                return

    def _reply(self, connection: Connection, reply: bytes) -> None:
        sent = 0
        if not (connection.stuck or connection.opening or connection.borrowed):
            try:
                sent = connection.send_nowait(reply)
            except ReplyLost as exc:
                self._mode.lose(connection, exc)
                return
        if sent < len(reply):
            self._mode.send(connection, reply, sent)

    def converse(self, event: Event, frame: bytes) -> Request:
        """Send a PDK call and let other greenlets run until its answer is there.

        Raises:
            PDKException: this is another thread.
        """
        if self._ident() != self._thread:
            raise PDKException(_wire.FOREIGN_THREAD)
        connection, mode = event.connection, event.mode
        sent = 0
        if connection is not None and not (
            connection.stuck or connection.opening or connection.borrowed
        ):
            try:
                sent = connection.send_nowait(frame)
            except ReplyLost as exc:
                mode.lose(connection, exc)
                mode.abandon(event, f"Kong is gone: {exc}")
        if sent < len(frame):
            mode.send_rest(event, frame, sent)
        event.sleeper = self.current()
        event.waiting_since = event.events.ticks
        event.events.waiting[event.id] = event
        interrupt: Optional[BaseException] = None
        while True:
            try:
                step: Optional[Request] = self._switch()
                break
            except BaseException as exc:
                # A gevent.Timeout of the plugin's, say. Kong is still going to answer, and no other
                # call can be made before: it takes effect then.
                interrupt = interrupt or exc
        if step is None:
            mode.end_given_up(event)
        if interrupt is not None:
            raise interrupt
        assert step is not None
        return step


class BaseInstance:
    """What the dispatcher knows of an instance: its handlers, and how it is used.

    Args:
        handlers: by phase.
        closed: a request is refused if its plugin fails, where that can be done.
        rows: where in the :class:`Tally` the events of each phase are counted; those of a phase
            that is not there are not.

    Attributes:
        used: the tick at which an event on it has ended last.
        closing: no event is to begin on it any more.
    """

    __slots__ = ("_under_way", "closed", "closing", "handlers", "rows", "used")

    def __init__(
        self,
        handlers: dict[str, Any],
        closed: bool = False,
        rows: Optional[dict[str, int]] = None,
    ) -> None:
        self.handlers = handlers
        self.closed = closed
        self.rows = rows
        self.used = 0
        self.closing = False
        # Ids of events: a set, because threads cannot count in one step.
        self._under_way: set[int] = set()

    @property
    def running(self) -> int:
        """How many events are under way on it."""
        return len(self._under_way)


# Looked up for each event.
_STARTED, _ERRORS, _ABANDONED = _columns.STARTED, _columns.ERRORS, _columns.ABANDONED
_CALLS, _NANOSECONDS, _BUCKETS = _columns.CALLS, _columns.NANOSECONDS, _columns.BUCKETS
_BOUNDS, _LONGEST = _columns.BOUNDS, _columns.LONGEST


class Tally:
    """Counts events in rows of unsigned 64-bit numbers, which other processes may read meanwhile.

    What stands where is in ``_columns``. A row is named by the place of its first number.

    Args:
        memory: a buffer that can be written, of whole numbers; all of them are there to be counted
            up, so it is zero at the beginning.
    """

    __slots__ = ("_last", "_lock", "_numbers")

    def __init__(self, memory: Any) -> None:
        numbers = memoryview(memory).cast("B")
        if numbers.readonly:
            raise BufferError("a tally needs memory that can be written")
        if len(numbers) % 8:
            raise ValueError("a tally needs memory of whole numbers of 8 bytes")
        self._numbers = numbers.cast("Q")
        self._last = len(self._numbers) - _columns.COLUMNS  # the last row
        self._lock = threading.Lock()  # threads cannot count in one step

    def begin(self, row: int) -> None:
        """Count an event that begins.

        Raises:
            IndexError: there is no such row.
        """
        if not 0 <= row <= self._last:
            raise IndexError("no such row in the tally")
        with self._lock:
            self._numbers[row + _STARTED] += 1

    def end(self, row: int, seconds: float, calls: int, failed: bool, abandoned: bool) -> None:
        """Count an event that has ended.

        Args:
            row: in which it has begun.
            seconds: how long it took; none if it is negative or no number.
            calls: how many PDK calls it has made.
            failed: its handler has.
            abandoned: nobody waited for its answer.

        Raises:
            IndexError: there is no such row.
        """
        if not 0 <= row <= self._last:
            raise IndexError("no such row in the tally")
        if not 0.0 < seconds < _LONGEST:
            seconds = _LONGEST if seconds > 0.0 else 0.0
        bucket = row + _BUCKETS + bisect.bisect_left(_BOUNDS, seconds)
        numbers = self._numbers
        with self._lock:
            numbers[bucket] += 1
            numbers[row + _NANOSECONDS] += int(seconds * 1e9)
            if calls:
                numbers[row + _CALLS] += calls
            if failed:
                numbers[row + _ERRORS] += 1
            if abandoned:
                numbers[row + _ABANDONED] += 1

    def add(self, place: int, number: int) -> None:
        """Count up one of the numbers.

        Raises:
            IndexError: there is none at this place.
        """
        if not 0 <= place < len(self._numbers):
            raise IndexError("no such number in the tally")
        with self._lock:
            self._numbers[place] += number


class Dispatcher:
    """Runs the handlers of events.

    Args:
        events: those that this process runs.
        instances: by id, each a :class:`BaseInstance`.
        root: makes the ``kong`` that a handler gets, out of the event.
        find: looks for an instance that is not there; returns None, or the instance.
        refuse: makes the answer to a request; gets None if its instance does not exist, the
            instance if its phase does not, or what ``find`` has raised.
        fail: told of a handler that has raised; returns the text of the answer.
        left: told of an instance that is ``closing`` when the last event on it has ended.
        tally: counts the events, if there is one.
        observer: if there is one, its ``begin(event)`` is called in front of each handler, and may
            do what a handler may; its ``end(event, seconds, failed)`` after it, and raises nothing.
    """

    __slots__ = (
        "_events", "_fail", "_find", "_instances", "_left", "_observer", "_refuse", "_root",
        "_tally",
    )  # fmt: skip

    def __init__(
        self,
        events: Events,
        instances: dict[int, Any],
        root: Callable[[Event], Any],
        find: Callable[[int], Any],
        refuse: Callable[[Request, Any], bytes],
        fail: Callable[[Event, BaseException], str],
        left: Callable[[Any], None],
        tally: Optional[Tally] = None,
        observer: Any = None,
    ) -> None:
        self._events = events
        self._tally = tally
        self._observer: Any = observer
        self._instances = instances
        self._root = root
        self._find = find
        self._refuse = refuse
        self._fail = fail
        self._left = left

    def run(
        self, request: Request, connection: Any, mode: Any, runner: Any
    ) -> tuple[bytes, Optional[Event]]:
        """Run the handler of an event from its beginning to its end.

        Args:
            request: a HandleEvent.
            connection: that it came on.
            mode: takes the handler's PDK calls to Kong and waits for the answers.
            runner: the mode's own handle of whatever this runs in.

        Returns:
            The last reply (b"" if there is none to give) and the event, whose ``connection`` and
            ``msgid`` say where it goes; None for an event that could not begin.
        """
        instance = self._instances.get(request.target)
        if instance is None:
            try:
                instance = self._find(request.target)
            except Exception as exc:
                return self._refuse(request, exc), None
        if instance is None:
            return self._refuse(request, None), None
        handler = instance.handlers.get(request.value)
        if handler is None:
            return self._refuse(request, instance), None
        closed = instance.closed and request.value in _wire.CLOSABLE
        event = Event(
            self._events, instance, request.value, connection, request.msgid, mode, runner, closed
        )
        event.began = event.at = request.at
        running, failure, tally = self._events.running, None, self._tally
        observer: Any = self._observer
        observed = False
        row = None if tally is None or instance.rows is None else instance.rows.get(request.value)
        under_way, begun = instance._under_way, False
        under_way.add(event.id)
        try:
            # Looked at after that: whoever closes it looks at both in the opposite order.
            if instance.closing:
                return self._refuse(request, None), None
            if tally is not None and row is not None:
                tally.begin(row)
                begun = True
            if running is not None:
                running[event.id] = event
                if isinstance(runner, Switch):
                    event.greenlet = runner.current()
            try:
                if observer is not None:
                    observed = True
                    observer.begin(event)
                result = handler(self._root(event))
                if result is not None:
                    _wire.check_result(result)
                if event.expired and not event.over:  # it has caught that, or a thread of its own
                    raise HandlerTimeout(_wire.EXPIRED)
            except HandlerTimeout as exc:
                failure = self._fail(event, exc)
            except HandlerExit as exc:
                if not event.over:  # the end of another event, from something that they share
                    failure = self._fail(event, exc)
            except BaseException as exc:  # sys.exit() in it must not end the server's thread
                failure = self._fail(event, exc)
            if not event.end():
                return b"", event
            if time.monotonic() - event.at > self._events.late:
                mode.drop_late(event)
                return b"", event
            if failure is None:
                return encode_return(event.msgid, event.id), event
            return encode_error(event.msgid, failure), event
        finally:
            if running is not None:
                running.pop(event.id, None)
            under_way.discard(event.id)
            if begun or observed:
                failed = failure is not None or event.expired
                taken = time.monotonic() - event.began
                if begun:
                    assert tally is not None and row is not None
                    tally.end(row, taken, event.calls, failed, event.abandoned)
                if observed and observer is not None:
                    observer.end(event, taken, failed)
            instance.used = self._events.ticks
            if instance.closing and not under_way:
                self._left(instance)
