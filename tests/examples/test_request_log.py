"""examples/request-log.py: every request has its line, and no request waits for it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable

import pytest

from kong_pdk.schema import SettingsError
from kong_pdk.testing import Gateway

LOG = "examples/request-log.py"
Make = Callable[..., Gateway]

#: There close is over when the gateway is closed.
pytestmark = pytest.mark.kong_modes("in-process")


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def targets(records: list[dict[str, Any]]) -> list[str]:
    return [record["request"]["uri"] for record in records if "request" in record]


@pytest.mark.kong_modes("all")
def test_close_writes_what_is_in_the_queue(
    kong_gateway: Make, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    """The batch is not full, and has not waited long enough: only close gets it written."""
    path = tmp_path / "requests.log"
    gateway = kong_gateway(LOG, {"path": str(path), "batch": 1000, "linger": 60})
    gateway.respond(418)
    for n in range(20):
        assert (
            gateway.get(f"/orders?n={n}", headers={"Authorization": "Bearer secret"}).status == 418
        )
    assert not path.exists()
    gateway.close()
    # A server closes an instance beside everything else.
    eventually(lambda: path.exists() and path.read_bytes().count(b"\n") >= 20, "all is written")
    records = read(path)
    assert sorted(targets(records)) == sorted(f"/orders?n={n}" for n in range(20))
    assert {record["response"]["status"] for record in records} == {418}
    assert b"secret" not in path.read_bytes()


def test_a_batch_is_written_when_it_is_full(
    kong_gateway: Make, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    path = tmp_path / "requests.log"
    gateway = kong_gateway(LOG, {"path": str(path), "batch": 3, "linger": 60})
    for _ in range(7):
        gateway.get("/")
    eventually(lambda: path.exists() and len(read(path)) == 6, "two full batches are written")
    gateway.close()
    assert len(read(path)) == 7


def test_a_batch_that_is_not_full_does_not_wait_for_ever(
    kong_gateway: Make, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    path = tmp_path / "requests.log"
    kong_gateway(LOG, {"path": str(path), "linger": 0.01}).get("/")
    eventually(lambda: path.exists() and len(read(path)) == 1, "the line is written")


def test_the_file_is_rotated_and_no_line_is_lost(kong_gateway: Make, tmp_path: Path) -> None:
    path = tmp_path / "requests.log"
    config = {"path": str(path), "max_bytes": 5000, "backups": 100, "batch": 1, "linger": 0}
    # As many writers as nginx has workers, say.
    gateways = [kong_gateway(LOG, config) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: gateways[n % 4].get(f"/{n}"), range(120)))
    for gateway in gateways:
        gateway.close()
    files = [path, *(Path(f"{path}.{n}") for n in range(1, 101))]
    there = [file for file in files if file.exists()]
    assert len(there) > 10
    assert all(file.stat().st_size <= 5000 for file in there)
    found = [target for file in there for target in targets(read(file))]
    assert sorted(found) == sorted(f"/{n}" for n in range(120))


def test_old_files_go(kong_gateway: Make, tmp_path: Path) -> None:
    path = tmp_path / "requests.log"
    config = {"path": str(path), "max_bytes": 1, "backups": 2, "batch": 1, "linger": 0}
    gateway = kong_gateway(LOG, config)
    for n in range(6):
        gateway.get(f"/{n}")
    gateway.close()
    found = {
        file.name: targets(read(file))
        for file in tmp_path.glob("requests.log*")
        if "lock" not in file.name
    }
    assert found == {"requests.log": ["/5"], "requests.log.1": ["/4"], "requests.log.2": ["/3"]}


def test_bytes_of_a_client_are_escaped(kong_gateway: Make, tmp_path: Path) -> None:
    """Kong leaves them in its record as they are."""
    path = tmp_path / "requests.log"
    gateway = kong_gateway(LOG, {"path": str(path)})
    with gateway.fake("kong.log.serialize", returns='{"x": "\udcff\u00fc"}'):
        gateway.get("/")
    gateway.close()
    assert path.read_bytes() == '{"x": "\\udcff\u00fc"}\n'.encode()
    assert read(path) == [{"x": "\udcff\u00fc"}]


def test_batches_go_to_an_endpoint(kong_gateway: Make, endpoint: Any) -> None:
    config = {"url": endpoint.url, "authorization": "Bearer k", "batch": 4, "linger": 60}
    gateway = kong_gateway(LOG, config)
    for n in range(10):
        gateway.get(f"/{n}")
    gateway.close()
    assert [len(body.splitlines()) for _, body in endpoint.received] == [4, 4, 2]
    for headers, _ in endpoint.received:
        assert headers["content-type"] == "application/x-ndjson"
        assert headers["authorization"] == "Bearer k"
    records = [json.loads(line) for _, body in endpoint.received for line in body.splitlines()]
    assert targets(records) == [f"/{n}" for n in range(10)]


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What a slow endpoint waits for; opened at the end in any case."""
    gate = threading.Event()
    yield gate
    gate.set()


def test_no_request_waits_and_what_has_no_room_is_counted(
    kong_gateway: Make, endpoint: Any, gate: threading.Event, eventually: Callable[..., None]
) -> None:
    def answer(body: bytes) -> tuple[int, bytes]:
        gate.wait()
        return 200, b""

    endpoint.answer = answer
    gateway = kong_gateway(LOG, {"url": endpoint.url, "batch": 1, "queue": 5})
    gateway.get("/first")
    eventually(lambda: len(endpoint.received) == 1, "the endpoint has the first line")
    # It does not answer, and all of these come back nevertheless.
    for n in range(12):
        gateway.get(f"/{n}")
    gate.set()
    eventually(lambda: len(endpoint.received) == 7, "what had room arrives")
    gateway.get("/last")
    gateway.close()
    records = [json.loads(body) for _, body in endpoint.received]
    assert targets(records) == ["/first", "/0", "/1", "/2", "/3", "/4", "/last"]
    assert records[6] == {"dropped": 7}


@pytest.mark.parametrize("status", [503, 302])
def test_an_endpoint_that_fails_is_asked_again(
    kong_gateway: Make, endpoint: Any, eventually: Callable[..., None], status: int
) -> None:
    statuses = iter([status])
    endpoint.answer = lambda body: (next(statuses, 200), b"")
    gateway = kong_gateway(LOG, {"url": endpoint.url, "linger": 0})
    gateway.get("/")
    eventually(lambda: len(endpoint.received) == 2, "the line comes once more")
    gateway.close()
    assert len(endpoint.received) == 2 and len({body for _, body in endpoint.received}) == 1


def test_what_an_endpoint_never_takes_is_lost_and_counted(
    kong_gateway: Make, endpoint: Any, eventually: Callable[..., None], caplog: Any
) -> None:
    statuses = iter([500])
    endpoint.answer = lambda body: (next(statuses, 200), b"")
    gateway = kong_gateway(LOG, {"url": endpoint.url, "linger": 0, "attempts": 1})
    gateway.get("/lost")
    eventually(lambda: len(endpoint.received) == 2, "the count arrives")
    gateway.get("/there")
    gateway.close()
    records = [json.loads(body) for _, body in endpoint.received]
    assert targets(records) == ["/lost", "/there"]
    assert records[1] == {"dropped": 1}
    assert "1 lines are lost so far" in caplog.text


def test_close_does_not_wait_for_an_endpoint_that_is_gone(
    kong_gateway: Make, closed_port: int
) -> None:
    config = {"url": f"http://127.0.0.1:{closed_port}/", "batch": 1, "attempts": 10}
    gateway = kong_gateway(LOG, config)
    for _ in range(50):
        assert gateway.get("/").status == 200
    gateway.close()  # with ten attempts for each batch that would take days


@pytest.mark.parametrize("config", [{}, {"path": "/tmp/x", "url": "http://localhost/"}])
def test_either_a_file_or_an_endpoint(kong_gateway: Make, config: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="path"):
        kong_gateway(LOG, config)
