"""What one event takes, from HandleEvent to its return, over the real socket of a real server.

The plugin is the documented one: get_header and two set_header, so four requests of Kong's. One
client, one connection, one event at a time.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import msgpack
import pytest
from servers import running, short_directory

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "py-hello.py"

MODES = {"threads": [], "gevent": ["-g"]}
CODECS = {"compiled": {"KONG_PDK_REQUIRE_EXTENSIONS": "1"}, "pure": {"KONG_PDK_PUREPYTHON": "1"}}


@pytest.fixture(
    scope="module",
    params=[(mode, codec) for mode in MODES for codec in CODECS],
    ids=lambda param: "-".join(param),
)
def run_event(request: pytest.FixtureRequest) -> Iterator[Callable[[], None]]:
    """A function that runs one event of the documented plugin."""
    mode, codec = request.param
    with short_directory() as prefix:
        command = [sys.executable, str(EXAMPLE), "--kong-prefix", str(prefix), *MODES[mode]]
        with running(
            command, prefix, sockets=("py-hello.sock", "py-hello.socket"), env=CODECS[codec]
        ) as server:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.settimeout(30)
                sock.connect(str(prefix / "py-hello.sock"))
                yield client(sock)
            server.check()


def client(sock: socket.socket) -> Callable[[], None]:
    """Start an instance, and return a function that runs one event on it."""
    unpacker = msgpack.Unpacker(raw=False)

    def call(data: bytes) -> Any:
        sock.sendall(data)
        while True:
            try:
                return unpacker.unpack()[3]
            except msgpack.OutOfData:
                unpacker.feed(sock.recv(65536))

    started = call(
        msgpack.packb([0, 1, "plugin.StartInstance", [{"Name": "py-hello", "Config": "{}"}]])
    )
    begin = msgpack.packb(
        [0, 2, "plugin.HandleEvent", [{"InstanceId": started["Id"], "EventName": "access"}]]
    )

    def step(event_id: int, **data: str) -> Any:
        return call(msgpack.packb([0, 3, "plugin.Step", [{"EventId": event_id, **data}]]))

    def run() -> None:
        event_id = call(begin)["EventId"]
        step(event_id, Data="example.com")
        step(event_id)
        assert step(event_id)["Data"] == "ret"

    return run


def test_one_event(benchmark: Any, run_event: Callable[[], None]) -> None:
    benchmark(run_event)
