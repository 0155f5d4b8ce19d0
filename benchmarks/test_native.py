"""The C programs of the benchmarks compile, work with each other and with the real server."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Callable

import msgpack
import native
import processes
import pytest
from servers import accepts, embedded_command, running, short_directory, wait_until

PLUGIN = Path(__file__).parent / "plugins" / "bench_work.py"
SHORT = ("--seconds", "0.05", "--warmup", "0", "--under-way", "8")

pytestmark = pytest.mark.skipif(native.compiler() is None, reason="there is no C compiler")


@pytest.fixture
def floor() -> Iterator[Callable[..., str]]:
    """A function that starts the floor and returns the path of its socket."""
    started = []
    with short_directory() as folder:

        def start(*flags: str) -> str:
            path = str(folder / f"{len(started)}.sock")
            command = [str(native.build("floor")), "--socket", path, *flags]
            started.append(subprocess.Popen(command, start_new_session=True))
            wait_until(lambda: accepts(path), "the floor listens")
            return path

        yield start
        for process in started:
            processes.end(process)
            assert process.returncode == 0


@pytest.mark.parametrize(
    "flags, rpcs",
    [((), 4), (("--threads",), 4), (("--echo",), 1), (("--body",), 2)],
    ids=["epoll", "threads", "echo", "body"],
)
def test_floor_answers_the_load_client(
    floor: Callable[..., str], flags: Sequence[str], rpcs: int
) -> None:
    result = native.load(floor(*flags), *SHORT, "--body", "100000")
    assert result["errors"] == 0, result
    assert result["all_events"] >= max(8, result["events"])  # eight are under way in any case
    assert result["all_rpcs"] == rpcs * result["all_events"]
    assert result["p50_us"] <= result["p90_us"] <= result["p99_us"] <= result["max_us"]


@pytest.mark.parametrize(
    "options",
    [(), ("--scatter",), ("--workers", "3")],
    ids=["in-order", "scattered", "three-workers"],
)
def test_real_server_answers_the_load_client(options: Sequence[str]) -> None:
    with short_directory() as prefix:
        command = embedded_command(PLUGIN, prefix)
        with running(command, prefix, sockets=("bench-work.sock", "bench-work.socket")) as server:
            for config, body in (("{}", "1"), ('{"calls": 3, "body": true}', "200000")):
                result = native.load(
                    server.paths[0], *SHORT, *options, "--plugin", "bench-work",
                    "--config", config, "--body", body,
                )  # fmt: skip
                assert result["errors"] == 0, result
                assert result["all_events"] >= 8
            server.check()


def reply(msgid: int, event: Any) -> bytes:
    return bytes(msgpack.packb([1, msgid, None, event]))


@pytest.mark.parametrize(
    "answer, error",
    [
        (lambda msgid: reply(msgid + 1, {"Data": "ret", "EventId": 1}), "a reply to message"),
        (lambda msgid: reply(msgid, {"Data": "no", "EventId": 1}), "is not {Data, EventId}"),
        (lambda msgid: reply(msgid, {"Data": "ret"}), "is not {Data, EventId}"),
        (lambda msgid: msgpack.packb([1, msgid, "no such thing", None]), "no such thing"),
        (lambda msgid: b"\xc1", "is no reply"),
        (lambda msgid: reply(msgid, {"Data": "ret", "EventId": 1}) + b"\0", "more behind"),
        (lambda msgid: b"", "has closed a connection"),
    ],
)
def test_load_client_notices_errors(answer: Callable[[int], bytes], error: str) -> None:
    """A server that answers StartInstance properly, and events wrongly."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                unpacker = msgpack.Unpacker()
                while data := connection.recv(65536):
                    unpacker.feed(data)
                    for _, msgid, method, _ in unpacker:
                        good = reply(msgid, {"Id": 5}) if "Start" in method else answer(msgid)
                        if good:
                            connection.sendall(good)
                        else:
                            connection.shutdown(socket.SHUT_RDWR)

    with short_directory() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "wrong.sock"))
        listener.listen()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        result = native.load(str(folder / "wrong.sock"), "--seconds", "0.05", "--warmup", "0")
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(30)
    assert result["errors"] > 0
    assert error in result["first_error"]


def test_load_client_says_what_is_missing() -> None:
    with pytest.raises(native.LoadError, match=r"cannot connect to .*nobody\.sock"):
        native.load("/tmp/kong-pdk-nobody.sock")
    with pytest.raises(native.LoadError, match="--under-way wants a number from 1, got 0"):
        native.load("x", "--under-way", "0")


def test_what_a_server_uses() -> None:
    """CPU time and memory of a session and of a family are those of all its processes."""
    child = (
        "import time; a = b'x' * (30 << 20); sum(range(10**7)); print(1, flush=True);"
        "time.sleep(600)"
    )
    script = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]).wait()"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True
    )
    with process:
        assert process.stdout
        assert process.stdout.readline() == b"1\n"  # the child is there
        session = processes.members(process.pid)
        assert len(session) == 2
        assert sorted(session) == sorted(processes.family(process.pid))
        assert processes.cpu_seconds(session) > 0
        assert processes.peak_memory(session) > 30 << 10
        assert processes.peak_memory(session) > processes.peak_memory([process.pid])
        processes.end(process)
    wait_until(lambda: not processes.members(process.pid), "the child is killed, too")
