"""Each test of the codec runs on both of them: [compiled] and [pure].

A compiled codec that is missing is a failure: KONG_PDK_TEST_PURE_ONLY=1 says that it is meant to
be. KONG_PDK_HYPOTHESIS_EXAMPLES=N asks for N examples of each property, new ones at each run.

A test that takes ``golden_request``, ``golden_refused`` or ``golden_reply`` is run for each entry
of that part of tests/data/frames.json.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

import msgpack
import pytest
from hypothesis import settings
from pdkcalls import load_codec

from kong_pdk import _wire

FRAMES = json.loads(
    Path(__file__).parents[2].joinpath("data", "frames.json").read_text(encoding="utf-8")
)
PARTS = {
    "golden_request": "requests",
    "golden_refused": "refused",
    "golden_reply": "replies",
}
EXAMPLES = os.environ.get("KONG_PDK_HYPOTHESIS_EXAMPLES")
PATIENCE = 30.0  # for what is about to happen; reached only by a failure

settings.register_profile(
    "kong_pdk", max_examples=int(EXAMPLES or 100), derandomize=EXAMPLES is None, deadline=None
)
settings.load_profile("kong_pdk")


@pytest.fixture(params=["compiled", "pure"])
def codec(request: pytest.FixtureRequest) -> ModuleType:
    """The module of the codec under test."""
    return load_codec(request.param)


@pytest.fixture(scope="session")
def both() -> tuple[ModuleType, ModuleType]:
    """The compiled codec and the pure one, for tests that compare them."""
    return load_codec("compiled"), load_codec("pure")


def from_json(value: Any) -> Any:
    """The value that frames.json describes."""
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "$bin" in value:
        return bytes.fromhex(value["$bin"])
    if "$ext" in value:
        return msgpack.ExtType(value["$ext"][0], bytes.fromhex(value["$ext"][1]))
    if "$map" in value:
        return {from_json(key): from_json(item) for key, item in value["$map"]}
    return {key: from_json(item) for key, item in value.items()}


class Golden:
    """An entry of frames.json: ``name``, ``data`` and whatever else its part holds."""

    def __init__(self, entry: dict[str, Any]) -> None:
        self.data = bytes.fromhex(entry["hex"])
        for key, value in entry.items():
            setattr(self, key, from_json(value))

    @property
    def fields(self) -> tuple[Any, ...]:
        """What the request decodes to."""
        return getattr(_wire, self.kind), self.msgid, self.target, self.value

    def __repr__(self) -> str:
        return f"<{self.name}>"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for fixture, part in PARTS.items():
        if fixture in metafunc.fixturenames:
            frames = [Golden(entry) for entry in FRAMES[part]]
            metafunc.parametrize(fixture, frames, ids=[frame.name for frame in frames])


@pytest.fixture(scope="session")
def golden_requests() -> list[Golden]:
    """All requests of frames.json."""
    return [Golden(entry) for entry in FRAMES["requests"]]


def _fields(request: Any) -> tuple[Any, ...]:
    return request.kind, request.msgid, request.target, request.value


@pytest.fixture(scope="session")
def fields() -> Callable[[Any], tuple[Any, ...]]:
    """A function: what a request says, to be compared."""
    return _fields


class Pair:
    """A connection, the socket at its other end, and a waiter."""

    def __init__(self, codec: ModuleType, **bounds: int) -> None:
        self.peer, ours = socket.socketpair()
        self.peer.settimeout(PATIENCE)
        self.connection = codec.Connection(ours, **bounds)
        self.waiter = codec.Waiter()

    def read(self, size: int) -> bytes:
        """Exactly that many bytes, at the other end."""
        data = b""
        while len(data) < size:
            part = self.peer.recv(size - len(data))
            if not part:
                break
            data += part
        return data

    def has_sent(self) -> bytes:
        """What is there to be read at the other end, without waiting for more."""
        self.peer.setblocking(False)
        try:
            return self.peer.recv(1 << 20)
        except BlockingIOError:
            return b""
        finally:
            self.peer.settimeout(PATIENCE)

    def close(self) -> None:
        self.peer.close()
        self.connection.close()
        self.waiter.release()
        self.waiter.close()


@pytest.fixture
def pair(codec: ModuleType) -> Iterator[Pair]:
    """A connection and what is at its other end."""
    one = Pair(codec)
    yield one
    one.close()


@pytest.fixture
def small(codec: ModuleType) -> Iterator[Pair]:
    """The same, with tight bounds: 100 bytes, 4 containers."""
    one = Pair(codec, max_message=100, max_depth=4)
    yield one
    one.close()


class Task(threading.Thread):
    """A call in another thread, with its result or error."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        super().__init__(daemon=True)
        self._call = lambda: function(*args)
        self._result: Any = None
        self._error: Any = None
        self.start()

    def run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as exc:
            self._error = exc

    def result(self) -> Any:
        """What came of it."""
        self.join(PATIENCE)
        assert not self.is_alive(), "it hangs"
        if self._error is not None:
            raise self._error
        return self._result


@pytest.fixture
def spawn() -> type[Task]:
    """Starts a call in another thread: ``spawn(function, argument...).result()``."""
    return Task
