"""Kong's side of the wire: MessagePack-RPC over a Unix socket, for tests.

:class:`Connection` is one socket, down to single bytes. :class:`Kong` makes calls as Kong does:
each takes a connection from a last-in-first-out pool and gives it back after the reply.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
from collections.abc import Iterator, Mapping
from typing import Any, Callable, NamedTuple, Optional, Union

import msgpack

#: All time-outs of the tests are multiplied by it; for slow machines.
SCALE = float(os.environ.get("KONG_PDK_TEST_TIMEOUT_SCALE", "1"))

#: How long anything may take before a test fails, seconds. Nothing takes a fraction of it.
LIMIT = 30.0 * SCALE

#: A step without Data: the PDK function returned nothing.
ABSENT: Any = type("Absent", (), {"__repr__": lambda self: "ABSENT"})()

#: PDK functions that no step follows.
TERMINAL = ("kong.response.exit", "kong.response.error")

REQUEST, RESPONSE, NOTIFICATION = 0, 1, 2


def pack(value: Any) -> bytes:
    """A value as Kong sends it: ``str`` of any bytes as str, ``bytes`` as bin."""
    packed: bytes = msgpack.packb(value, use_bin_type=True, unicode_errors="surrogateescape")
    return packed


def nested(depth: int, core: bytes = b"\xc0") -> bytes:
    """The bytes of ``core`` in so many arrays; msgpack's own packer ends at 511."""
    return b"\x91" * depth + core


class RemoteError(Exception):
    """The reply to a call is an error; Kong would read this text."""


class HalfMessage(ConnectionError):
    """The server has closed the connection in the middle of a message."""


class Notification(NamedTuple):
    """What the server sent without having been asked."""

    label: str
    args: Any


class Reply(NamedTuple):
    """A reply; exactly one of ``error`` and ``result`` is not None."""

    msgid: int
    error: Any
    result: Any

    def unwrap(self) -> Any:
        """The result, or RemoteError."""
        if self.error is not None:
            assert isinstance(self.error, str), f"errors must be strings: {self.error!r}"
            raise RemoteError(self.error)
        return self.result


class Turn(NamedTuple):
    """What the server wants next in an event: a PDK call, or nothing more."""

    event_id: int
    data: Any

    @property
    def is_return(self) -> bool:
        """Whether the handler is done."""
        return bool(self.data == "ret")

    @property
    def function(self) -> str:
        """The PDK function to run."""
        return str(self.data["Method"])

    @property
    def args(self) -> list[Any]:
        """Its arguments."""
        args = self.data["Args"]
        assert isinstance(args, list)
        return args

    @property
    def is_terminal(self) -> bool:
        """Whether no step follows."""
        return self.is_return or self.function in TERMINAL


def turn_of(result: Any) -> Turn:
    """Check the result of HandleEvent or a step, to the letter."""
    assert isinstance(result, dict), result
    assert set(result) == {"Data", "EventId"}, result
    assert type(result["EventId"]) is int, result
    data = result["Data"]
    if data != "ret":
        assert isinstance(data, dict), data
        assert set(data) == {"Method", "Args"}, data
    return Turn(result["EventId"], data)


class Connection:
    """One connection to the server. Every wait ends after a time-out, as an error.

    Args:
        path: of the server's socket.
        timeout: of each send and receive, seconds.

    Attributes:
        chunk: most bytes that are received at a time.
    """

    def __init__(self, path: str, timeout: float = LIMIT) -> None:
        self.chunk = 1 << 16
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(timeout)
        try:
            self.sock.connect(path)
        except BaseException:
            self.sock.close()
            raise
        self.notifications: list[Notification] = []
        self._msgid = 0
        self._unpacker = msgpack.Unpacker(
            raw=False,
            unicode_errors="surrogateescape",
            strict_map_key=False,
            max_buffer_size=1 << 30,
        )

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket. May be called again."""
        self.sock.close()

    # --- bytes ---------------------------------------------------------------------------------

    def send_raw(self, data: Union[bytes, memoryview]) -> None:
        """Send bytes, whatever they mean."""
        self.sock.sendall(data)

    def is_closed_by_server(self) -> bool:
        """Wait for the server to close; False if it sends something instead."""
        try:
            return self.sock.recv(1) == b""
        except (ConnectionResetError, BrokenPipeError):
            return True

    def read_to_end(self) -> bytes:
        """All that the server sends until it closes."""
        data = b""
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while part := self.sock.recv(1 << 16):
                data += part
        return data

    def has_data(self) -> bool:
        """Whether anything lies there to be received, without waiting for it."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(0))

    # --- messages ------------------------------------------------------------------------------

    def request(self, method: Any, *args: Any, msgid: Optional[int] = None) -> int:
        """Send a request and do not wait; returns its msgid."""
        if msgid is None:
            self._msgid = msgid = self._msgid + 1
        self.send_raw(pack([REQUEST, msgid, method, list(args)]))
        return msgid

    def message(self) -> list[Any]:
        """The next message of the server, of whatever kind."""
        begun = False
        while True:
            try:
                message = self._unpacker.unpack()
            except msgpack.OutOfData:
                data = self.sock.recv(self.chunk)
                if not data:
                    kind = HalfMessage if begun else ConnectionError
                    raise kind("closed by the server") from None
                begun = True
                self._unpacker.feed(data)
            else:
                assert isinstance(message, list), message
                return message

    def reply(self) -> Reply:
        """The next reply; notifications before it are put into :attr:`notifications`."""
        while True:
            message = self.message()
            if message[0] == NOTIFICATION:
                _, label, args = message
                self.notifications.append(Notification(label, args))
                continue
            kind, msgid, error, result = message
            assert kind == RESPONSE, message
            assert (error is None) != (result is None), message
            return Reply(msgid, error, result)

    def result(self, msgid: int) -> Any:
        """The result of the request with that msgid, which must be the next to be answered."""
        reply = self.reply()
        assert reply.msgid == msgid, f"{reply} answers another request than {msgid}"
        return reply.unwrap()

    def call(self, method: Any, *args: Any, msgid: Optional[int] = None) -> Any:
        """Send a request, wait for its reply, and return the result, or raise RemoteError."""
        return self.result(self.request(method, *args, msgid=msgid))

    # --- events --------------------------------------------------------------------------------

    def send_event(self, instance_id: int, phase: str = "access") -> int:
        """Begin an event and do not wait."""
        return self.request("plugin.HandleEvent", {"InstanceId": instance_id, "EventName": phase})

    def send_step(self, event_id: int, value: Any = ABSENT, method: Any = "plugin.Step") -> int:
        """Answer a PDK call and do not wait."""
        argument = {"EventId": event_id}
        if value is not ABSENT:
            argument["Data"] = value
        return self.request(method, argument)

    def turn(self, msgid: int) -> Turn:
        """The answer to :meth:`send_event` or :meth:`send_step`."""
        return turn_of(self.result(msgid))

    def handle_event(self, instance_id: int, phase: str = "access") -> Turn:
        """Begin an event."""
        return self.turn(self.send_event(instance_id, phase))

    def step(self, event_id: int, value: Any = ABSENT, method: Any = "plugin.Step") -> Turn:
        """Answer a PDK call."""
        return self.turn(self.send_step(event_id, value, method))


Answer = Union[Any, Callable[..., Any]]


class Run(NamedTuple):
    """A whole event: the PDK calls that the handler made."""

    calls: list[tuple[str, list[Any]]]

    @property
    def functions(self) -> list[str]:
        """The functions called."""
        return [function for function, _ in self.calls]

    @property
    def headers(self) -> dict[str, Any]:
        """What ``kong.response.set_header`` was called with."""
        return {args[0]: args[1] for name, args in self.calls if name.endswith(".set_header")}


class Kong:
    """Calls as Kong makes them, from a pool of connections.

    Args:
        path: of the server's socket.
        timeout: of each send and receive, seconds.
    """

    def __init__(self, path: str, timeout: float = LIMIT) -> None:
        self.path = path
        self._timeout = timeout
        self._idle: list[Connection] = []
        self._all: list[Connection] = []

    def __enter__(self) -> Kong:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._all:
            connection.close()

    def connect(self) -> Connection:
        """A connection outside of the pool; closed at the end all the same."""
        connection = Connection(self.path, self._timeout)
        self._all.append(connection)
        return connection

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[Connection]:
        """A connection of the pool; given back unless an error left it in an unknown state."""
        connection = self._idle.pop() if self._idle else self.connect()
        try:
            yield connection
        except RemoteError:
            self._idle.append(connection)
            raise
        self._idle.append(connection)

    def call(self, method: Any, *args: Any) -> Any:
        """Make a call on a connection of the pool."""
        with self.borrowed() as connection:
            return connection.call(method, *args)

    def start_instance(self, name: str, config: Mapping[str, Any]) -> int:
        """Start an instance; returns its id."""
        result = self.call("plugin.StartInstance", {"Name": name, "Config": json.dumps(config)})
        assert set(result) == {"Name", "Id", "Config", "StartTime"}
        assert type(result["Id"]) is int
        return int(result["Id"])

    def start_author(self, source: str, **config: Any) -> int:
        """An instance of the tests' plugin ``author``, whose handlers are in ``source``."""
        return self.start_instance("author", {"source": source, **config})

    def close_instance(self, instance_id: int) -> Any:
        """Close an instance."""
        return self.call("plugin.CloseInstance", instance_id)

    def handle_event(self, instance_id: int, phase: str = "access") -> Turn:
        """Begin an event."""
        with self.borrowed() as connection:
            return connection.handle_event(instance_id, phase)

    def step(self, event_id: int, value: Any = ABSENT, method: Any = "plugin.Step") -> Turn:
        """Answer a PDK call."""
        with self.borrowed() as connection:
            return connection.step(event_id, value, method)

    def run_event(
        self,
        instance_id: int,
        phase: str = "access",
        answers: Optional[Mapping[str, Answer]] = None,
    ) -> Run:
        """Run an event to its end.

        Args:
            instance_id: of the instance.
            phase: of the request.
            answers: the values of PDK functions, or what makes them out of the arguments; the
                others return nothing.
        """
        run = Run([])
        turn = self.handle_event(instance_id, phase)
        while not turn.is_return:
            run.calls.append((turn.function, turn.args))
            if turn.is_terminal:
                break
            answer = (answers or {}).get(turn.function, ABSENT)
            value = answer(*turn.args) if callable(answer) else answer
            turn = self.step(turn.event_id, value)
        return run
