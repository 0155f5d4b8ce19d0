"""Nothing is kept: neither what succeeds nor what fails leaves objects, references or bytes behind.

A debug build of Python, which counts all references, is not to be had everywhere. So this counts
blocks of memory, references of the objects that an operation gets, and for large inputs resident
memory, which is where buffers made with malloc show.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import os
import socket
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Callable

import msgpack
import pytest

from kong_pdk import _kinds, _wire
from kong_pdk.exception import (
    ArgumentError,
    ConnectionClosed,
    EventEnded,
    KongPDKError,
    PDKException,
    ProtocolError,
    ResponseSent,
)

#: A leak shows as that many blocks or references, or more; caches and the like are far below.
ROUNDS = 100
TOLERATED = ROUNDS // 3

#: Of resident memory, bytes: for operations whose buffers are of LARGE bytes.
LARGE = 1 << 20
LARGE_ROUNDS = 64
TOLERATED_BYTES = LARGE * LARGE_ROUNDS // 4

PATIENCE = 30.0
SCALARS = (_kinds.ANY, None, None, None, 0)

Operation = Callable[[], Any]
#: Makes an operation of a codec; returns it and the objects that it uses again and again.
Maker = Callable[[ModuleType], tuple[Operation, list[Any]]]

MAKERS: dict[str, Maker] = {}


def operation(maker: Maker) -> Maker:
    """Have an operation tested."""
    MAKERS[maker.__name__] = maker
    return maker


def pack(*message: Any) -> bytes:
    return msgpack.packb(message, unicode_errors=_wire.ERRORS)


def step(value: Any, event_id: int = 7) -> bytes:
    return pack(0, 1, "plugin.Step", [{"EventId": event_id, "Data": value}])


def grown(measure: Callable[[], int], operation: Operation, rounds: int) -> int:
    """How much a measure grows while an operation is repeated; the least of some attempts."""
    least = sys.maxsize
    for _ in range(4):
        for _ in range(rounds // 4):
            operation()
        gc.collect()
        before = measure()
        for _ in range(rounds):
            operation()
        gc.collect()
        least = min(least, measure() - before)
        if least <= 0:
            break
    return least


def blocks() -> int:
    return sys.getallocatedblocks()


def resident() -> int:
    """Resident memory of this process, bytes, without what other tests have freed."""
    with contextlib.suppress(AttributeError):  # of glibc
        ctypes.CDLL(None).malloc_trim(0)
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


# --- decoding -------------------------------------------------------------------------------------


def decoding(frames: list[bytes], error: Any = None, **bounds: int) -> Maker:
    """Makes an operation that feeds a new decoder, which raises an error twice if one is given."""

    def maker(codec: ModuleType) -> tuple[Operation, list[Any]]:
        def run() -> None:
            decoder = codec.Decoder(**bounds)
            for frame in frames:
                decoder.feed(frame)
                try:
                    while decoder.next() is not None:
                        pass
                except ProtocolError:
                    with pytest.raises(error):
                        decoder.next()

        return run, [*frames, codec.Decoder, codec.Request]

    return maker


NESTED: Any = {"host": ["a", "b"], "deep": {"x": [1.5, None, True, b"bin", "not utf8 \udcff"]}}
USUAL = step("value") + step(None) + step(NESTED) + step(3) + step(b"bin")
EVENT = pack(0, 2, "plugin.HandleEvent", [{"InstanceId": 1 << 40, "EventName": "access"}])
CALLS = pack(0, 3, "plugin.GetStatus", []) + pack(0, 4, ["x"], [{"Data": 1}]) + pack(2, "a", 1)

MAKERS.update({
    "decode_usual": decoding([USUAL, EVENT]),
    "decode_rare": decoding([CALLS]),
    "decode_in_bytes": decoding([bytes((byte,)) for byte in USUAL + EVENT + CALLS]),
    "decode_unfinished": decoding([USUAL + step(NESTED)[:-3]]),
    "decode_wrong_start": decoding([USUAL, b"GET / HTTP/1.1"], ProtocolError),
    "decode_reserved_byte": decoding([b"\x94\x00\x01\xc1"], ProtocolError),
    "decode_no_request": decoding([pack(1, 2, None, 3)], ProtocolError),
    "decode_wrong_msgid": decoding([pack(0, "1", "a", [])], ProtocolError),
    "decode_wrong_value": decoding([step(0)[:-1] + b"\xd4\xff\x00"], ProtocolError),
    "decode_wrong_key": decoding([step(0)[:-1] + b"\x81\x91\x01\x02"], ProtocolError),
    "decode_wrong_value_first": decoding([
        b"\x94\x00\x01\xabplugin.Step\x91\x82\xa4Data\xd4\xff\x00\xa7EventId\x07"
    ], ProtocolError),
    "decode_too_large": decoding([b"\xdd\xff\xff\xff\xff"], ProtocolError),
    "decode_too_deep": decoding([step(NESTED)], ProtocolError, max_depth=3),
    "decode_deep": decoding([b"\x94\x00\x01\xa1x" + b"\x91" * 900 + b"\xc0"]),
})  # fmt: skip


@operation
def decoder_of_wrong_bounds(codec: ModuleType) -> tuple[Operation, list[Any]]:
    def run() -> None:
        for bounds in ((0, 1), (1, 0), ("1", 1), (1, None)):
            with pytest.raises((TypeError, ValueError)):
                codec.Decoder(*bounds)

    return run, [codec.Decoder]


@operation
def feed_what_are_no_bytes(codec: ModuleType) -> tuple[Operation, list[Any]]:
    decoder, text = codec.Decoder(), "text"

    def run() -> None:
        with pytest.raises(TypeError):
            decoder.feed(text)

    return run, [decoder, text]


# --- encoding -------------------------------------------------------------------------------------

OBJECT = object()
LONG = "x" * 700
ENCODED: dict[str, tuple[Any, ...]] = {
    "usual": ("kong.request.get_header", ("host",)),
    "long": ("kong.log", (LONG, LONG)),
    "padded": ("kong.response.exit", (403, None, {"x": "y"})),
    "values": ("kong.ctx.shared.set", ("k", NESTED)),
    "not_utf8": ("kong.log", ("\udcff", b"\xff", 2**63, -(2**40), 1.5)),
    "many": ("kong.log", tuple(range(20))),
    "an_object": ("kong.log", (LONG, OBJECT)),
    "a_nested_object": ("kong.log", ([{"a": OBJECT}],)),
    "a_surrogate": ("kong.log", ("\ud800",)),
    "a_large_number": ("kong.log", (2**64,)),
    "too_many": ("kong.log", (None,) * 70_000),
    "a_name_that_is_none": (None, ()),
    "a_list": ("kong.log", []),
}


def encoding(function: Any, args: Any) -> Maker:
    def maker(codec: ModuleType) -> tuple[Operation, list[Any]]:
        def run() -> None:
            try:
                codec.encode_call(1, 2, function, args)
            except TypeError:  # an ArgumentError is one
                pass

        return run, [args, OBJECT]

    return maker


MAKERS.update({f"encode_{name}": encoding(*pair) for name, pair in ENCODED.items()})


@operation
def encode_other_replies(codec: ModuleType) -> tuple[Operation, list[Any]]:
    def run() -> None:
        codec.encode_return(1, 2)
        codec.encode_result(1, NESTED)
        codec.encode_error(1, "text")
        codec.encode_notification("label", 3)

    return run, [NESTED]


@operation
def encode_unsendable_replies(codec: ModuleType) -> tuple[Operation, list[Any]]:
    def run() -> None:
        for write, args in (
            (codec.encode_return, (OBJECT, 1)),
            (codec.encode_return, (1, OBJECT)),
            (codec.encode_result, (1, [OBJECT])),
            (codec.encode_error, (1, "\ud800")),
            (codec.encode_notification, ("\ud800", 1)),
            (codec.encode_notification, ("a", OBJECT)),
        ):
            with pytest.raises((TypeError, ValueError)):
                write(*args)

    return run, [OBJECT]


# --- sockets --------------------------------------------------------------------------------------


@operation
def connection_conversation(codec: ModuleType) -> tuple[Operation, list[Any]]:
    def run() -> None:
        peer, ours = socket.socketpair()
        peer.settimeout(PATIENCE)
        connection, waiter = codec.Connection(ours), codec.Waiter()
        peer.send(USUAL)
        assert connection.receive().target == 7
        while connection.receive() is not None:
            pass
        peer.send(EVENT)
        assert connection.exchange(b"reply", waiter).kind == _wire.HANDLE_EVENT
        assert connection.send_nowait(b"reply") == 5
        connection.send(b"reply")
        waiter.wake()
        assert connection.exchange(b"", waiter) is None
        waiter.take_reading()
        waiter.wake()
        waiter.wait()
        for one in (connection, peer, waiter):
            one.close()

    return run, [codec.Connection, codec.Waiter, USUAL]


def ended(how: str) -> Maker:
    """Makes an operation on a connection that ends in one way or the other."""

    def maker(codec: ModuleType) -> tuple[Operation, list[Any]]:
        def run() -> None:
            peer, ours = socket.socketpair()
            connection, waiter = codec.Connection(ours, max_message=1000), codec.Waiter()
            connection.opening = b"opening"
            connection.stuck = [connection]  # a circle, which gc finds
            connection.share(bytearray(8 * _wire.DEBT_SIZE), 0)
            connection.stuck = None
            peer.send(b"GET" if how == "garbage" else step("x")[:9])
            if how == "closed":
                connection.close()
            else:
                peer.close()
            for call in (
                connection.receive,
                lambda: connection.exchange(b"", waiter),
                lambda: connection.exchange(b"x", waiter),
                lambda: connection.send(b"x"),
                lambda: connection.send_nowait(b"x"),
                lambda: connection.send("x"),
                lambda: connection.exchange(None, None),
            ):
                with pytest.raises((ConnectionClosed, ProtocolError, TypeError, OSError)):
                    call()
            connection.shutdown()
            for one in (connection, peer, waiter):
                one.close()

        return run, [codec.Connection, codec.Waiter]

    return maker


MAKERS.update({f"connection_{how}": ended(how) for how in ("lost", "closed", "garbage")})


@operation
def poller(codec: ModuleType) -> tuple[Operation, list[Any]]:
    def ignore(*_: Any) -> None:
        pass

    events = codec.Events(1)

    def run() -> None:
        peers = [socket.socketpair() for _ in range(3)]
        connections = [codec.Connection(ours) for _, ours in peers]
        watching = codec.Poller()
        for connection in connections:
            watching.park(connection)
        for data, (peer, _) in zip((EVENT, b"GET", CALLS), peers):
            peer.send(data)
        assert len(watching.take_ready()) == 3
        for connection in connections:
            watching.keep(connection)
        watching.read_ready(events, ignore, ignore, ignore, lambda: False)
        watching.forget(connections[0])
        for connection, (peer, _) in zip(connections, peers):
            watching.forget(connection)
            connection.close()
            peer.close()
        with pytest.raises((OSError, ValueError)):
            watching.park(connections[0])
        watching.close()

    return run, [events, ignore]


# --- events and PDK functions ---------------------------------------------------------------------


class Mode:
    """Answers each PDK call as told."""

    def __init__(self, codec: ModuleType) -> None:
        self.codec, self.kind, self.value = codec, _wire.STEP, "value"

    def exchange(self, event: Any, frame: bytes) -> Any:
        if self.value is OBJECT:
            raise PDKException("no")
        return self.codec.Request(self.kind, 1, event.id, self.value)

    def send_last(self, event: Any, frame: bytes) -> None:
        pass


def settle(function: Any, args: Any, kwargs: Any, phase: Any, checked: bool) -> tuple[Any, ...]:
    if kwargs or phase is not None:
        raise ArgumentError("no")
    return tuple(map(str, args))


def new_function(codec: ModuleType, *parameters: Any, name: str = "kong.f", **more: Any) -> Any:
    given = {"least": 0, "level": -1, "variadic": False, "result": _kinds.AS_IT_IS, **more}
    spec = SimpleNamespace(doc="doc", signature=lambda bound: bound)
    return codec.Function(
        name, frozenset(("access",)), parameters, settle=settle, convert=list, spec=spec, **given
    )


PARAMETERS = (
    (_kinds.STR | _kinds.BYTES, None, None, frozenset(("GET", "PUT")), 0),
    (_kinds.NUMBER | _kinds.NONE, 1, 99, None, 0),
    (_kinds.DICT | _kinds.LIST, None, None, None, _kinds.HEADERS),
    (_kinds.STR, None, None, "/", 0),
    (_kinds.LIST, None, None, None, _kinds.HEADER_VALUES),
)
ARGUMENTS: tuple[tuple[Any, ...], ...] = (
    (), ("GET",), ("PUT", 3, {"a": "b", "c": ["d"], "e": 1}, "/x", ["y"]), ("NO",), (b"GET",),
    ("GET", 100), ("GET", float("nan")), ("GET", 2**70), ("GET", None, {1: 2}),
    ("GET", None, {"a": [1]}), ("GET", 1, {"a": OBJECT}), ("GET", 1, {}, "x"), (OBJECT,),
    ("GET", 1, {}, "/", [1]), (1, 2, 3, 4, 5, 6, 7, 8, 9),
)  # fmt: skip


@operation
def function_fits(codec: ModuleType) -> tuple[Operation, list[Any]]:
    function = new_function(codec, *PARAMETERS)
    variadic = new_function(codec, variadic=True)

    def run() -> None:
        for args in ARGUMENTS:
            function.fits(args)
            variadic.fits(args)

    return run, [function, variadic, settle, OBJECT, *ARGUMENTS]


def raising(call: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Make a call, whether or not it raises."""
    try:
        call(*args, **kwargs)
    except (KongPDKError, ResponseSent, TypeError, AttributeError, ValueError):
        pass


@operation
def function_calls(codec: ModuleType) -> tuple[Operation, list[Any]]:
    mode = Mode(codec)
    quiet = codec.Events(1, lua_style=False, checks=True, log_level=3)
    lua = codec.Events(1, lua_style=True, checks=True)
    functions = [
        new_function(codec, *PARAMETERS, result=result)
        for result in (_kinds.AS_IT_IS, _kinds.MAP, _kinds.ARRAY, _kinds.RECORD, _kinds.RAW)
    ]
    functions += [
        new_function(codec, SCALARS, name="kong.response.exit"),
        new_function(codec, SCALARS, level=5),
        new_function(codec, variadic=True),
    ]
    values: tuple[tuple[int, Any], ...] = (
        (_wire.STEP, []), (_wire.STEP, {}), (_wire.STEP, NESTED), (_wire.STEP, "text"),
        (_wire.STEP, None), (_wire.STEP, OBJECT), (_wire.STEP_ERROR, "error"),
    )  # fmt: skip

    def run() -> None:
        for events, phase in ((quiet, "access"), (lua, "access"), (lua, "log")):
            for function in functions:
                for mode.kind, mode.value in values:
                    event = codec.Event(events, None, phase, None, 1, mode, None)
                    method = codec.Method(function, event)
                    for args in (("GET",), ("GET", 3, NESTED), (OBJECT,), (3,), ()):
                        raising(method, *args)
                        raising(function.invoke, event, args, {})
                    raising(method, "GET", keyword=OBJECT)
                    event.end()
                    raising(method, "GET")

    return run, [mode, quiet, lua, settle, OBJECT, NESTED, *functions]


@operation
def wrong_functions(codec: ModuleType) -> tuple[Operation, list[Any]]:
    def run() -> None:
        raising(new_function, codec, *[SCALARS] * 9)
        raising(new_function, codec, (1, 2))
        raising(new_function, codec, 3)
        raising(new_function, codec, ("x", "y", None, None, None))
        raising(new_function, codec, name=None)
        raising(codec.Method, None, None)
        raising(codec.Method, OBJECT, OBJECT)
        raising(codec.Child, None)
        raising(codec.Child, int)
        raising(codec.Child, OBJECT)
        raising(codec.Events, "x")
        raising(codec.Event, None, None, None, None, None, None, None)

    return run, [OBJECT, SCALARS, codec.Function, codec.Method, codec.Child]


@operation
def namespaces(codec: ModuleType) -> tuple[Operation, list[Any]]:
    function = new_function(codec, SCALARS)
    inner = type("Inner", (codec.Namespace,), {"f": function, "__slots__": ()})
    outer = type("Outer", (codec.Namespace,), {"inner": codec.Child(inner), "__slots__": ()})
    events, mode = codec.Events(1), Mode(codec)

    def run() -> None:
        event = codec.Event(events, None, "access", None, 1, mode, None)
        kong = outer(event)
        method = kong.inner.f
        assert method("a") == ("value", None)
        assert (method.__name__, method.__doc__, method.__signature__) == ("f", "doc", True)
        repr(method), repr(function), inner.f, outer.inner, method.__get__(kong, outer)
        raising(setattr, kong, "inner", OBJECT)
        raising(getattr, kong, "odd")
        raising(function, OBJECT)
        raising(function, kong, "a", b=1)

    return run, [function, inner, outer, events, mode, OBJECT]


@operation
def dispatched_events(codec: ModuleType) -> tuple[Operation, list[Any]]:
    mode = Mode(codec)
    function = new_function(codec, SCALARS)
    root = type("Root", (codec.Namespace,), {"f": function, "__slots__": ()})

    def fails(kong: Any) -> None:
        raise ZeroDivisionError

    def ends(kong: Any) -> None:
        raise ResponseSent("x")

    handlers = {"access": lambda kong: kong.f("a"), "log": fails, "response": ends}
    instance = codec.BaseInstance(handlers)
    events = codec.Events(1)

    def find(target: int) -> None:
        if target > 5:
            raise PDKException("no")

    dispatcher = codec.Dispatcher(
        events, {1: instance}, root, find, lambda request, why: b"", lambda event, exc: "failed",
        lambda instance: None,
    )  # fmt: skip

    def run() -> None:
        for target, phase in itertools.product((1, 2, 9), ("access", "log", "response", "odd")):
            request = codec.Request(_wire.HANDLE_EVENT, 1, target, phase)
            _, event = dispatcher.run(request, None, mode, None)
            if event is not None:
                with pytest.raises(EventEnded):
                    event.call("kong.f", ())

    return run, [mode, root, instance, events, dispatcher, *handlers.values()]


# --- the tests ------------------------------------------------------------------------------------

#: Errors that msgpack itself finds in a value.
MSGPACK_REFUSES = ("decode_wrong_value", "decode_wrong_key", "decode_wrong_value_first")


def msgpack_leaks() -> bool:
    """Whether msgpack keeps what it had built of a value that it refuses: 1.1 does, 1.2.4 not."""

    def refuse() -> None:
        with contextlib.suppress(TypeError):
            msgpack.unpackb(b"\x92\xa1x\x81\x91\x01\x02", strict_map_key=False)

    return grown(blocks, refuse, ROUNDS) >= TOLERATED


@pytest.mark.parametrize("name", MAKERS)
def test_no_blocks_and_no_references_are_kept(codec: ModuleType, name: str) -> None:
    if name in MSGPACK_REFUSES and msgpack_leaks():
        pytest.skip(f"msgpack {msgpack.version} leaks on values that it refuses")
    run, used = MAKERS[name](codec)
    rounds = ROUNDS if name != "function_calls" else ROUNDS // 5
    tolerated = rounds // 3
    assert grown(blocks, run, rounds) < tolerated, "blocks of memory"

    def references() -> int:
        return sum(map(sys.getrefcount, used))

    assert grown(references, run, rounds) < tolerated, "references"


def large_decoding(codec: ModuleType) -> Operation:
    frame = step("x" * LARGE)

    def run() -> None:
        decoder = codec.Decoder()
        decoder.feed(frame)
        assert decoder.next() is not None
        decoder.feed(frame[:-1])  # is dropped with half a message

    return run


def large_error(codec: ModuleType) -> Operation:
    frame = step(0)[:-1] + b"\xc6" + LARGE.to_bytes(4, "big") + b"x" * (LARGE + 1)

    def run() -> None:
        decoder = codec.Decoder(max_message=2 * LARGE)
        decoder.feed(frame)
        assert decoder.next() is not None
        with pytest.raises(ProtocolError):
            decoder.next()

    return run


def large_encoding(codec: ModuleType) -> Operation:
    text = "x" * LARGE

    def run() -> None:
        codec.encode_call(1, 2, "kong.log", (text,))
        with pytest.raises(ArgumentError):
            codec.encode_call(1, 2, "kong.log", (text, OBJECT))

    return run


def large_connection(codec: ModuleType) -> Operation:
    frame = step("x" * LARGE)

    def run() -> None:
        peer, ours = socket.socketpair()
        connection = codec.Connection(ours)
        peer.setblocking(False)
        rest = memoryview(frame)[:-1]
        while rest:
            try:
                rest = rest[peer.send(rest) :]
            except BlockingIOError:
                assert connection.receive() is None
        assert connection.receive() is None
        connection.close()
        peer.close()

    return run


@pytest.mark.parametrize(
    "maker", [large_decoding, large_error, large_encoding, large_connection],
    ids=lambda maker: maker.__name__,
)  # fmt: skip
def test_no_large_buffers_are_kept(codec: ModuleType, maker: Callable[..., Operation]) -> None:
    assert grown(resident, maker(codec), LARGE_ROUNDS) < TOLERATED_BYTES


# --- the measures themselves ----------------------------------------------------------------------


def test_a_leak_of_objects_is_seen() -> None:
    kept: list[Any] = []
    assert grown(blocks, lambda: kept.append([1]), ROUNDS) >= TOLERATED


def test_a_leak_of_references_is_seen() -> None:
    kept: list[Any] = []
    assert grown(lambda: sys.getrefcount(OBJECT), lambda: kept.append(OBJECT), ROUNDS) >= TOLERATED


def test_a_leak_of_buffers_is_seen() -> None:
    kept: list[Any] = []
    found = grown(resident, lambda: kept.append(b"x" * LARGE), LARGE_ROUNDS)
    assert found >= TOLERATED_BYTES
