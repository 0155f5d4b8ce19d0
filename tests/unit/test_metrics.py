"""Metrics: what is said to Prometheus, and how they are served."""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families
from servers import short_directory, wait_until

from kong_pdk import _columns, metrics
from kong_pdk.config import Address, ServerConfig, read_address
from kong_pdk.exception import ConfigError, ListenError
from kong_pdk.processes.memory import allocate, attach
from kong_pdk.runtime.tally import Table, size_of

PLUGINS = {"two": ("access", "log"), "one": ("access",)}


@pytest.fixture
def table() -> Table:
    """Of two workers, which have counted something."""
    fd = allocate(size_of(2))
    table = Table(attach(fd))
    os.close(fd)
    tally = table.tally()
    table.start(1000.5)
    for worker in range(2):
        table.note_process(worker, 70 + worker, worker == 0)
        table.note_gauges(worker, 10 + worker, 5, 3, 4)
        table.note_memory(worker, 1000 + worker)
        tally.add(table.shed_place(worker), 2)
        row = table.rows(worker, PLUGINS)["two"]["log"]
        for seconds in (0.0003, 0.0004, 30.0):
            tally.begin(row)
            tally.end(row, seconds, 2, seconds > 1, False)
        tally.begin(row)
        tally.add(row + _columns.REFUSED, 1)
    return table


class Served:
    """Metrics that are served, and who scrapes them."""

    def __init__(self, address: str, table: Table, measure: Callable[[], None]) -> None:
        self.address = read_address(address)
        config = ServerConfig(metrics=self.address)
        self.metrics = metrics.Metrics(config)
        self.metrics.serve(table, PLUGINS, lambda: {"one": 3}, measure)
        assert self.metrics._sock is not None
        self.name: Any = self.metrics._sock.getsockname()

    def connect(self) -> socket.socket:
        family = socket.AF_UNIX if self.address.path else socket.AF_INET
        sock = socket.socket(family)
        sock.settimeout(30)
        try:
            sock.connect(self.name if family == socket.AF_INET else self.address.path)
        except BaseException:
            sock.close()
            raise
        return sock

    def get(self, path: str = "/metrics", method: str = "GET") -> tuple[int, str]:
        """Status and body of the answer to a request."""
        connection = http.client.HTTPConnection("localhost")
        connection.sock = self.connect()
        with contextlib.closing(connection):
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def scrape(self) -> dict[Any, float]:
        """All samples, by name and labels."""
        status, body = self.get()
        assert status == 200
        return {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(body)
            for sample in family.samples
        }


@pytest.fixture(params=["127.0.0.1:0", ":0", "unix"])
def served(request: Any, table: Table) -> Iterator[Served]:
    with short_directory() as folder:
        address = f"unix:{folder}/m.sock" if request.param == "unix" else request.param
        one = Served(address, table, lambda: table.note_gauges(1, 100, 0, 0, 0))
        yield one
        one.metrics.close()
        assert not os.listdir(folder)


def test_what_is_said(served: Served) -> None:
    found = served.scrape()
    two = ("log", "two")
    assert found[("kong_pdk_events_total", *two)] == 8
    assert found[("kong_pdk_event_errors_total", *two)] == 2
    assert found[("kong_pdk_events_refused_total", *two)] == 2
    assert found[("kong_pdk_events_abandoned_total", *two)] == 0
    assert found[("kong_pdk_events_lost_total", *two)] == 0
    assert found[("kong_pdk_pdk_calls_total", *two)] == 12
    assert found[("kong_pdk_events_in_flight", *two)] == 2
    # What has not happened yet is 0, not missing.
    assert found["kong_pdk_events_total", "access", "one"] == 0
    assert found["kong_pdk_events_total", "access", "two"] == 0
    assert ("kong_pdk_events_total", "log", "one") not in found
    assert found["kong_pdk_instances", "one"] == 3
    assert found["kong_pdk_instances", "two"] == 0
    assert found["kong_pdk_connections",] == 110  # measured just before
    assert found["kong_pdk_events_shed_total",] == 4
    assert found["kong_pdk_worker_up", "0"] == 1
    assert found["kong_pdk_worker_up", "1"] == 0
    assert found["kong_pdk_worker_restarts_total", "0"] == 0
    assert found["kong_pdk_worker_replaced_total", "0"] == 0
    assert found["kong_pdk_worker_memory_bytes", "1"] == 1001
    assert found["kong_pdk_start_time_seconds",] == 1000.5
    assert sum(key[0] == "kong_pdk_build_info" for key in found) == 1


def test_the_histogram(served: Served) -> None:
    found, name = served.scrape(), "kong_pdk_event_duration_seconds"
    assert found[f"{name}_count", "log", "two"] == 6
    assert found[f"{name}_sum", "log", "two"] == pytest.approx(60.0014)
    buckets = {key[1]: value for key, value in found.items() if key[0] == f"{name}_bucket"
               and key[2:] == ("log", "two")}  # fmt: skip
    wanted = {"0.0001": 0, "0.00025": 0, "0.0005": 4, "10.0": 4, "30.0": 6, "60.0": 6, "+Inf": 6}
    assert {key: buckets[key] for key in wanted} == wanted
    assert len(buckets) == len(_columns.BOUNDS) + 1


def test_paths_and_methods(served: Served) -> None:
    assert served.get("/")[1] == served.get("/metrics")[1]
    assert served.get("/metrics?name[]=kong_pdk_connections")[1].count("\n") == 3
    for path in ("/favicon.ico", "/metrics/", "/../etc/passwd"):
        assert served.get(path)[0] == 404
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert served.get("/metrics", method)[0] == 405


def test_scrapers_that_say_nothing_are_bounded(served: Served) -> None:
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(served.connect()) for _ in range(metrics.MAX_SCRAPES)]
        wait_until(lambda: threading.active_count() >= before + len(silent), "they are waited for")
        with served.connect() as one_more:
            assert one_more.recv(100) == b""
        silent[0].close()
        wait_until(lambda: can_scrape(served), "there is room again")


def can_scrape(served: Served) -> bool:
    try:
        return served.get()[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def test_what_is_no_request(served: Served, capfd: Any) -> None:
    for data in (b"\x94\x00\x01\xa1x\x90\r\n\r\n", b"GET\r\n\r\n", b"\r\n", b""):
        with served.connect() as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(1000):
                pass
    assert served.get()[0] == 200
    assert capfd.readouterr() == ("", "")


def test_a_bug_is_an_error_of_one_scrape(table: Table, caplog: Any, capfd: Any) -> None:
    scrapes = []

    def measure() -> None:
        scrapes.append(1)
        if len(scrapes) == 2:  # the first time is at the start
            raise RuntimeError("a bug")

    one = Served("127.0.0.1:0", table, measure)
    try:
        assert one.get()[0] == 500
        assert one.get()[0] == 200
    finally:
        one.metrics.close()
    assert "a bug" in caplog.text
    assert capfd.readouterr() == ("", "")


def test_nobody_listens_after_the_end(table: Table) -> None:
    one = Served("127.0.0.1:0", table, lambda: None)
    one.metrics.close()
    with pytest.raises(ConnectionRefusedError):
        one.connect()
    wait_until(
        lambda: not any(t.name == "kong-pdk-metrics" for t in threading.enumerate()),
        "the thread has ended",
    )


# --- opening --------------------------------------------------------------------------------------


def test_a_port_in_use() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(ListenError, match=f"metrics on {address}: .* --metrics"):
            metrics.Metrics(ServerConfig(metrics=read_address(address)))


def test_a_host_that_is_none() -> None:
    with pytest.raises(ListenError, match=r"cannot serve metrics on host\.invalid:1: "):
        metrics.Metrics(ServerConfig(metrics=read_address("host.invalid:1")))


def test_the_port_of_the_server_before(table: Table, monkeypatch: Any) -> None:
    """At kong reload both are there for some seconds."""
    monkeypatch.setattr(metrics, "takes_over", lambda paths: True)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        new = metrics.Metrics(ServerConfig(metrics=Address("127.0.0.1", port)))
        new.serve(table, PLUGINS, dict)
        assert new._sock is None
    try:
        wait_until(lambda: new._sock is not None, "it has the port")
        assert new._sock is not None and new._sock.getsockname()[1] == port
    finally:
        new.close()


def test_a_server_that_ends_while_it_waits_for_the_port(table: Table, monkeypatch: Any) -> None:
    monkeypatch.setattr(metrics, "takes_over", lambda paths: True)
    monkeypatch.setattr(metrics, "RETRY", 60.0)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        new = metrics.Metrics(ServerConfig(metrics=Address(*other.getsockname())))
        new.serve(table, PLUGINS, dict)
        new.close()
        wait_until(
            lambda: not any(t.name == "kong-pdk-metrics" for t in threading.enumerate()),
            "the thread has ended",
        )


def test_a_unix_socket(table: Table) -> None:
    with short_directory() as folder:
        path = folder / "m.sock"
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
        config = ServerConfig(metrics=read_address(f"unix:{path}"), socket_mode=0o640)
        one = metrics.Metrics(config)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        with pytest.raises(ListenError, match="in use"):
            metrics.Metrics(config)
        one.close()
        assert not path.exists()
        path.write_text("no socket")
        with pytest.raises(ListenError, match="no socket"):
            metrics.Metrics(config)


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_ipv6(table: Table) -> None:
    try:
        one = metrics.Metrics(ServerConfig(metrics=read_address("[::1]:0")))
    except ListenError as exc:
        assert isinstance(exc.__cause__, OSError)
        if exc.__cause__.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            pytest.skip("this machine has no address of IPv6")
        raise
    assert one._sock is not None and one._sock.family == socket.AF_INET6
    one.close()


# --- addresses, the library -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address", "shown"),
    [
        ("0.0.0.0:9542", ("0.0.0.0", 9542, ""), "0.0.0.0:9542"),
        (":9542", ("127.0.0.1", 9542, ""), "127.0.0.1:9542"),
        ("[::1]:9", ("::1", 9, ""), "[::1]:9"),
        ("a.example:0", ("a.example", 0, ""), "a.example:0"),
        ("unix:/run/m.sock", ("", 0, "/run/m.sock"), "unix:/run/m.sock"),
    ],
)
def test_addresses(text: str, address: tuple[Any, ...], shown: str) -> None:
    assert (tuple(read_address(text)), str(read_address(text))) == (address, shown)


@pytest.mark.parametrize(
    "text",
    ["", ":", "9542", "host", "host:", "host:x", "host:65536", "host:-1", "::1:9", "[]:9",
     "host:\u0661", "unix:", "unix:m.sock", "unix:/" + "x" * 107],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigError, match="--metrics "):
        read_address(text)


def test_without_the_library(tmp_path: Path) -> None:
    """A line that says what to install, status 1, and no socket of Kong's."""
    (tmp_path / "one.py").write_text(
        "class Plugin:\n    def __init__(self, c): pass\n    def access(self, k): pass\n"
        "version = '1.0.0'\npriority = 1\n"
    )
    script = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from kong_pdk.cli import start_server\n"
        f"start_server(['-d', {str(tmp_path)!r}, '-p', {str(tmp_path)!r}, '--metrics', ':0'])"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "pip install 'kong-pdk[metrics]'" in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.sock*"))
