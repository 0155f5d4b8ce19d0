"""What each step on the way of one RPC costs, with both codecs: where the time of an event goes.

A PDK call is: encode the call, write it, (Kong runs the function,) read the step, scan it, and be
back in the handler; with other threads under way also a wake. An event adds the dispatch. Where a
system call would need its other end made ready each time, a round goes over 64 connections:
``extra_info["steps"]`` says by how many a time is to be divided.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import runpy
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable
from unittest import mock

import pytest

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "py-hello.py"
PURE_ONLY = os.environ.get("KONG_PDK_TEST_PURE_ONLY", "0") not in ("", "0")
MANY = 64
ROUNDS = 500  # of those that are not repeated by themselves
EVENT = 4503599627370499
CALL = ("kong.response.set_header", ("x-hello-from-python", "Python says hello to example.com"))

Frame = Callable[[str], bytes]


def imported() -> SimpleNamespace:
    """The parts of the package that are measured."""
    return SimpleNamespace(
        codec=importlib.import_module("kong_pdk._codec"),
        service=importlib.import_module("kong_pdk.runtime.service"),
        plugins=importlib.import_module("kong_pdk.plugins"),
        config=importlib.import_module("kong_pdk.config"),
        proxy=importlib.import_module("kong_pdk.pdk.proxy"),
    )


@pytest.fixture(scope="module", params=["compiled", "pure"])
def package(request: pytest.FixtureRequest) -> SimpleNamespace:
    """The package with one codec; the other one's copy of it stays as it is."""
    pure = request.param == "pure"
    if PURE_ONLY and not pure:
        pytest.skip("KONG_PDK_TEST_PURE_ONLY=1: the compiled codec is not measured")
    others = {name: module for name, module in sys.modules.items() if _is_ours(name)}
    switches = {"KONG_PDK_PUREPYTHON": str(int(pure)), "KONG_PDK_REQUIRE_EXTENSIONS": "1"}
    with mock.patch.dict(os.environ, switches), mock.patch.dict(sys.modules):
        if pure:  # a compiled module may be loaded only once
            for name in others:
                del sys.modules[name]
        found = imported()
    assert found.codec.is_compiled() is not pure
    return found


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == "kong_pdk"


class Pairs:
    """Connections, and the sockets at their other ends."""

    def __init__(self, codec: Any, count: int) -> None:
        pairs = [socket.socketpair() for _ in range(count)]
        self.peers = [peer for peer, _ in pairs]
        self.connections = [codec.Connection(ours) for _, ours in pairs]

    def close(self) -> None:
        for end in [*self.peers, *self.connections]:
            end.close()


@pytest.fixture
def pairs(package: SimpleNamespace) -> Iterator[Pairs]:
    """As many connections as one round takes."""
    with contextlib.closing(Pairs(package.codec, MANY)) as many:
        yield many


@pytest.fixture
def waiter(package: SimpleNamespace) -> Iterator[Any]:
    """A waiter of the test's thread."""
    one = package.codec.Waiter()
    yield one
    one.release()
    one.close()


def over_all(benchmark: Any, ends: list[Any], step: Any, prepare: Callable[[], None]) -> None:
    """Measure a step on each of the connections."""

    def run() -> None:
        for end in ends:
            step(end)

    benchmark.extra_info["steps"] = len(ends)
    benchmark.pedantic(run, setup=prepare, rounds=ROUNDS, warmup_rounds=5)


@pytest.mark.benchmark(group="step: read")
def test_read(benchmark: Any, pairs: Pairs, frame: Frame) -> None:
    """From the socket to a request: recv, scan and decode."""
    data = frame("step_string")

    def prepare() -> None:
        for peer in pairs.peers:
            peer.send(data)

    over_all(benchmark, pairs.connections, lambda end: end.receive().value, prepare)


@pytest.mark.benchmark(group="step: scan")
def test_scan(benchmark: Any, package: SimpleNamespace, frame: Frame) -> None:
    """From bytes to a request."""
    data, decoder = frame("step_string"), package.codec.Decoder()
    feed, take = decoder.feed, decoder.next

    def scan() -> Any:
        feed(data)
        return take()

    assert benchmark(scan).value == "example.com"


class Handling:
    """A plugin that does nothing."""

    def __init__(self, config: Any) -> None:
        pass

    def access(self, kong: Any) -> None:
        pass


class Calling(Handling):
    """A plugin that makes one PDK call."""

    def access(self, kong: Any) -> None:
        kong.request.get_header("host")


class Runner:
    """A service with one instance of a plugin; is the mode that exchanges its calls as well."""

    def __init__(self, package: SimpleNamespace, plugin: type, frame: Frame) -> None:
        found = package.plugins.define_plugin("mine", plugin, "1.0.0", 1, (), where=__file__)
        self.service = package.service.Service({"mine": found}, package.config.ServerConfig())
        instance = self.service.instances.start("mine", "{}")
        decoder = package.codec.Decoder()
        decoder.feed(frame("handle_event"))
        kind, msgid = (one := decoder.next()).kind, one.msgid
        self.request = package.codec.Request(kind, msgid, instance.id, "access")
        self.waiter: Any = None

    def exchange(self, event: Any, data: bytes) -> Any:
        return event.connection.exchange(data, self.waiter)

    def send_last(self, event: Any, data: bytes) -> None:
        raise AssertionError("no call of these plugins ends the request")

    def run(self, connection: Any) -> bytes:
        reply, _ = self.service.run_event(self.request, connection, self, None)
        return bytes(reply)


@pytest.mark.benchmark(group="step: dispatch")
def test_dispatch(benchmark: Any, package: SimpleNamespace, pairs: Pairs, frame: Frame) -> None:
    """From a request to the reply: find the instance, an event, an empty handler, the return."""
    runner = Runner(package, Handling, frame)
    assert b"ret" in benchmark(runner.run, pairs.connections[0])


@pytest.mark.benchmark(group="step: dispatch")
def test_dispatch_uncounted(
    benchmark: Any, package: SimpleNamespace, pairs: Pairs, frame: Frame
) -> None:
    """The same without the tally: the difference is what it costs to be seen from outside."""
    runner = Runner(package, Handling, frame)
    (instance,) = runner.service.instances
    instance.rows = None
    assert b"ret" in benchmark(runner.run, pairs.connections[0])


class StandIn:
    """What makes PDK calls, and has the answer at once."""

    def call(self, function: str, args: tuple[Any, ...]) -> Any:
        return "example.com", None


@pytest.mark.benchmark(group="step: handler")
@pytest.mark.parametrize("what", ["one-call", "documented-plugin"])
def test_handler(benchmark: Any, package: SimpleNamespace, what: str) -> None:
    """The way from a handler to the place where a call is encoded; no codec is involved."""
    root, caller = package.proxy.root_class(), StandIn()
    if what == "one-call":
        benchmark(lambda: root(caller).request.get_header("host"))
    else:
        plugin = runpy.run_path(str(EXAMPLE))["Plugin"]({"message": "hello"})
        benchmark(lambda: plugin.access(root(caller)))


@pytest.mark.benchmark(group="step: encode")
def test_encode(benchmark: Any, package: SimpleNamespace, frame: Frame) -> None:
    """From a PDK call to bytes."""
    data = benchmark(package.codec.encode_call, 3, EVENT, *CALL)
    assert data == frame("call_set_header")


@pytest.mark.benchmark(group="step: write")
def test_write(benchmark: Any, pairs: Pairs, frame: Frame) -> None:
    """From bytes to the socket."""
    data = frame("call_set_header")

    def prepare() -> None:
        for peer in pairs.peers:
            peer.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                peer.recv(65536)

    over_all(benchmark, pairs.connections, lambda end: end.send(data), prepare)


@contextlib.contextmanager
def beside(function: Callable[[], None]) -> Iterator[None]:
    """Another thread, which must have come to its end."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    yield
    thread.join(30)
    assert not thread.is_alive()


@pytest.mark.benchmark(group="step: wake")
def test_wake(benchmark: Any, package: SimpleNamespace, waiter: Any) -> None:
    """Two threads hand each other the turn, each going to sleep: two wakes."""
    other, stopping = package.codec.Waiter(), []

    def answer() -> None:
        while True:
            other.wait()
            if stopping:
                break
            other.wake_next(waiter)
        other.release()
        other.close()

    def run() -> None:
        waiter.wake_next(other)
        waiter.wait()

    benchmark.extra_info["steps"] = 2
    with beside(answer):
        benchmark(run)
        stopping.append(True)
        other.wake()
        waiter.release()


@pytest.mark.benchmark(group="step: wake")
def test_wake_through_a_socket(benchmark: Any) -> None:
    """The same through plain sockets, each read by a thread that blocks: what is compared with."""
    ours, theirs = socket.socketpair()

    def answer() -> None:
        while theirs.recv(1):
            theirs.send(b"x")

    def run() -> None:
        ours.send(b"x")
        ours.recv(1)

    benchmark.extra_info["steps"] = 2
    with theirs, beside(answer):
        benchmark(run)
        ours.close()


@pytest.mark.benchmark(group="step: all of an event")
def test_whole_event(
    benchmark: Any, package: SimpleNamespace, pairs: Pairs, frame: Frame, waiter: Any
) -> None:
    """An event with one PDK call, without other threads: all steps but the wake.

    The client's part, in Python, is in it: two sends and two recvs.
    """
    runner, peer, connection = Runner(package, Calling, frame), pairs.peers[0], pairs.connections[0]
    runner.waiter = waiter
    begin, step = frame("handle_event"), frame("step_string")

    def run() -> bytes:
        peer.send(begin)
        assert connection.receive() is not None
        peer.send(step)  # is there before it is asked for: nobody has to wait
        connection.send(runner.run(connection))
        return bytes(peer.recv(65536))

    try:
        reply = benchmark(run)
    finally:
        waiter.release()
    assert b"kong.request.get_header" in reply and b"ret" in reply
