"""What one event takes, from HandleEvent to its return, over the real socket of a real server.

The matrix of modes, codecs, PDK calls and bodies; the first call of each event reads the request's
body. One client in Python, one connection, one event at a time; throughput under load is measured
by compare.py.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import msgpack
import processes
import pytest
from servers import Server, embedded_command, running, short_directory

PLUGIN = Path(__file__).parent / "plugins" / "bench_work.py"
SOCKETS = ("bench-work.sock", "bench-work.socket")

MODES: dict[str, tuple[str, ...]] = {
    "threads": (),
    "gevent": ("-g",),
    "multiprocessing": ("-m", "--workers", "2"),
}
CODECS = {"compiled": {"KONG_PDK_REQUIRE_EXTENSIONS": "1"}, "pure": {"KONG_PDK_PUREPYTHON": "1"}}
PURE_ONLY = os.environ.get("KONG_PDK_TEST_PURE_ONLY", "0") not in ("", "0")


@pytest.fixture(
    scope="module",
    params=[(mode, codec) for mode in MODES for codec in CODECS],
    ids=lambda param: "-".join(param),
)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of the plugin, in a mode and with a codec; shared by all calls and bodies."""
    mode, codec = request.param
    if PURE_ONLY and codec == "compiled":
        pytest.skip("KONG_PDK_TEST_PURE_ONLY=1: the compiled codec is not measured")
    with short_directory() as prefix:
        command = embedded_command(PLUGIN, prefix, *MODES[mode])
        with running(command, prefix, SOCKETS, CODECS[codec]) as server:
            yield server
            server.check()


def client(sock: socket.socket, calls: int, body: bytes) -> Callable[[], None]:
    """Start an instance, and return a function that runs one event on it."""
    unpacker = msgpack.Unpacker(raw=False)

    def call(data: bytes) -> Any:
        sock.sendall(data)
        while True:
            try:
                return unpacker.unpack()[3]
            except msgpack.OutOfData:
                unpacker.feed(sock.recv(65536))

    config = json.dumps({"calls": calls, "body": True})
    argument: dict[str, Any] = {"Name": "bench-work", "Config": config}
    started = call(msgpack.packb([0, 1, "plugin.StartInstance", [argument]]))
    argument = {"InstanceId": started["Id"], "EventName": "access"}
    begin = msgpack.packb([0, 2, "plugin.HandleEvent", [argument]])
    head = b"\x94\x00\x03\xabplugin.Step\x91\x82\xa7EventId"
    answers = [b"\xa4Data" + msgpack.packb(value) for value in (body, *["text/html"] * (calls - 1))]

    def run() -> None:
        turn = call(begin)
        steps = head + msgpack.packb(turn["EventId"])
        for answer in answers:
            turn = call(steps + answer)
        assert turn["Data"] == "ret"

    return run


@pytest.mark.parametrize("size", [1 << 10, 1 << 20], ids=["1KiB", "1MiB"])
@pytest.mark.parametrize("calls", [1, 3, 14])
def test_one_event(benchmark: Any, server: Server, calls: int, size: int) -> None:
    benchmark.group = f"one event: {calls} calls, {size >> 10} KiB"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(30)
        sock.connect(server.paths[0])
        run = client(sock, calls, b"b" * size)
        processes.reset_peak_memory(processes.family(server.pid))
        benchmark(run)
    peak = processes.peak_memory(processes.family(server.pid))
    benchmark.extra_info["peak_memory_kib"] = peak
