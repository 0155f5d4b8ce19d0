"""examples/rate-limit.py: how many requests get through, wherever they are counted."""

from __future__ import annotations

import importlib.util
import itertools
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any, Callable, Optional

import pytest

from kong_pdk.testing import Gateway, Result

LIMIT = "examples/rate-limit.py"
Make = Callable[..., Gateway]

#: Most of the tests turn the clock of their own process.
pytestmark = pytest.mark.kong_modes("in-process")


numbers = itertools.count()


class Place:
    """Where requests are counted, with a clock that a test can move on.

    Attributes:
        config: what the plugin is told of it.
    """

    config: dict[str, Any] = {}

    def later(self, seconds: float) -> None:
        raise NotImplementedError


class Memory(Place):
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        real = time.monotonic
        began = real()
        monkeypatch.setattr(time, "monotonic", lambda: began + self.ahead)
        # A server is used by several tests, and what it has counted stays there.
        self.config = {"name": f"test-{next(numbers)}"}

    def later(self, seconds: float) -> None:
        self.ahead += seconds


class InRedis(Place):
    def __init__(self, server: Any) -> None:
        self.client = server.client
        self.config = {"redis_url": server.url, "timeout": 10}

    def later(self, seconds: float) -> None:
        """Have all windows begin earlier: to Redis that is as if it were later."""
        for key in self.client.scan_iter():
            began = int(self.client.hget(key, "began")) - round(seconds * 1_000_000)
            self.client.hset(key, "began", began)


@pytest.fixture(params=["memory", "redis"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.param == "memory":
        with pytest.MonkeyPatch.context() as patch:
            yield Memory(patch)
    else:
        yield InRedis(request.getfixturevalue("redis_server"))


def statuses(gateway: Gateway, number: int, **options: Any) -> list[int]:
    return [gateway.get("/", **options).status for _ in range(number)]


def said(result: Result) -> dict[str, int]:
    """The headers about the limit, as numbers."""
    names = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "Retry-After")
    found = ((name, result.headers.get(name)) for name in names)
    return {name: int(value) for name, value in found if value is not None}


def test_what_is_over_the_limit_is_refused(kong_gateway: Make, place: Place) -> None:
    gateway = kong_gateway(LIMIT, {"limit": 3, "window": 3600, **place.config})
    results = [gateway.get("/") for _ in range(5)]
    assert [result.status for result in results] == [200, 200, 200, 429, 429]
    assert [said(result)["RateLimit-Remaining"] for result in results] == [2, 1, 0, 0, 0]
    refused = results[-1]
    assert refused.service_request is None and refused.ended == "access"
    assert refused.json() == {"message": "too many requests"}
    # The window must end, and a third of it must slide away.
    assert 3600 < said(refused)["Retry-After"] <= 4800
    assert 3500 < said(refused)["RateLimit-Reset"] <= 3600


def test_the_window_slides(kong_gateway: Make, place: Place) -> None:
    gateway = kong_gateway(LIMIT, {"limit": 10, "window": 1000, **place.config})
    assert statuses(gateway, 11) == [200] * 10 + [429]
    place.later(1000)
    # All ten still lie within the last 1000 seconds, give or take the time that this test takes.
    assert statuses(gateway, 2)[-1] == 429
    place.later(505)
    assert statuses(gateway, 6) == [200] * 5 + [429]
    place.later(2000)
    assert statuses(gateway, 11) == [200] * 10 + [429]


def test_who_waits_as_long_as_told_gets_through(kong_gateway: Make, place: Place) -> None:
    gateway = kong_gateway(LIMIT, {"limit": 7, "window": 600, **place.config})
    place_later = 0
    for _ in range(12):
        while (result := gateway.get("/")).status == 200:
            pass
        wait = said(result)["Retry-After"]
        assert 1 <= wait <= 1200
        if wait > 10:
            place.later(wait - 10)
            assert gateway.get("/").status == 429
            place.later(10)
        else:
            place.later(wait)
        assert gateway.get("/").status == 200
        place_later += wait
    # Twelve times nothing but what the limit allows.
    assert place_later >= 600


def test_clients_are_told_apart(kong_gateway: Make, place: Place) -> None:
    config = {"limit": 1, "window": 3600, **place.config}
    by_address = kong_gateway(LIMIT, config)
    assert statuses(by_address, 2, client_ip="10.0.0.1") == [200, 429]
    assert statuses(by_address, 2, client_ip="10.0.0.2") == [200, 429]
    by_header = kong_gateway(LIMIT, {**config, "by": "header", "header": "X-Key"})
    for key in ("one", "two", "\udcff"):
        assert statuses(by_header, 2, headers={"X-Key": key}) == [200, 429]
    assert statuses(by_header, 2, client_ip="10.0.0.3") == [200, 429]  # without the header
    for name in ("alice", "bob"):
        for by, who in (
            ("consumer", {"consumer": {"username": name}}),
            ("credential", {"credential": {"id": name}}),
        ):
            gateway = kong_gateway(LIMIT, {**config, "by": by}, **who)
            # They may come from wherever they like.
            found = [gateway.get("/", client_ip=f"10.1.0.{n}").status for n in range(2)]
            assert found == [200, 429], by


def test_behind_a_proxy_that_is_trusted_the_client_counts(kong_gateway: Make, place: Place) -> None:
    config = {"limit": 1, "window": 3600, **place.config}
    gateway = kong_gateway(LIMIT, config, trusted_ips=["10.0.0.0/8"], client_ip="10.0.0.9")
    for address in ("192.0.2.1", "192.0.2.2"):
        assert statuses(gateway, 2, headers={"X-Real-IP": address}) == [200, 429]


def test_headers_can_be_hidden(kong_gateway: Make, place: Place) -> None:
    config = {"limit": 1, "window": 3600, "hide_headers": True, **place.config}
    gateway = kong_gateway(LIMIT, config)
    assert said(gateway.get("/")) == {}
    assert list(said(gateway.get("/"))) == ["Retry-After"]


@pytest.mark.kong_modes("all")
@pytest.mark.parametrize("where", ["memory", "redis"])
def test_of_many_at_once_no_more_than_the_limit_get_through(
    kong_gateway: Make, redis_server: Any, where: str
) -> None:
    config: dict[str, Any] = {"limit": 10, "window": 3600, "name": f"{where}-at-once"}
    if where == "redis":
        config.update(redis_url=redis_server.url, timeout=10)
    gateway = kong_gateway(LIMIT, config)
    assert gateway.get("/").status == 200
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: gateway.get("/").status, range(40)))
    passed = 1 + found.count(200)
    assert passed + found.count(429) == 41
    if where == "memory" and gateway.mode == "multiprocessing":
        assert 10 <= passed <= 20  # each of the two workers counts for itself
    else:
        assert passed == 10


def test_threads_that_take_turns_in_the_midst_of_it(kong_gateway: Make) -> None:
    gateway = kong_gateway(LIMIT, {"limit": 10, "window": 3600})

    def give_way(frame: FrameType, event: str, argument: object) -> Optional[Callable[..., Any]]:
        """Let another thread go on, at each line of what counts."""
        if frame.f_code.co_name != "take":
            return None
        time.sleep(0.0005)
        return give_way

    assert gateway.get("/").status == 200
    threading.settrace(give_way)
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: gateway.get("/").status, range(30)))
    finally:
        threading.settrace(None)
    assert found.count(200) == 9


def test_all_instances_of_a_process_count_together(kong_gateway: Make) -> None:
    """Each worker of nginx starts an instance of its own."""
    spec = importlib.util.spec_from_file_location("rate_limit_of_this_test", LIMIT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        gateways = [kong_gateway(module, {"limit": 2, "window": 3600}) for _ in range(2)]
        assert [gateway.get("/").status for gateway in gateways * 2] == [200, 200, 429, 429]


def test_no_secret_and_no_garbage_is_left_in_redis(kong_gateway: Make, redis_server: Any) -> None:
    config = {
        "limit": 5,
        "window": 60,
        "by": "header",
        "redis_url": redis_server.url,
        "timeout": 10,
    }
    kong_gateway(LIMIT, config).get("/", headers={"X-Api-Key": "a-secret-key"})
    (key,) = redis_server.client.keys()
    assert "a-secret-key" not in key
    assert 60_000 < redis_server.client.pttl(key) <= 120_000


@pytest.mark.parametrize("fault", ["closed", "silent"])
@pytest.mark.parametrize("tolerant", [True, False])
def test_without_redis(
    kong_gateway: Make, closed_port: int, silent_port: int, fault: str, tolerant: bool
) -> None:
    port = closed_port if fault == "closed" else silent_port
    url = f"redis://:secret@127.0.0.1:{port}/0"
    config = {"limit": 1, "redis_url": url, "timeout": 0.05, "fault_tolerant": tolerant}
    gateway = kong_gateway(LIMIT, config)
    for _ in range(2):
        result = gateway.get("/")
        assert result.status == (200 if tolerant else 503)
        assert (result.service_request is not None) is tolerant
        (line,) = result.messages("err")
        assert line.startswith("rate-limit: Redis cannot count: ") and "secret" not in line


def test_it_counts_again_when_redis_is_back(kong_gateway: Make, redis_server: Any) -> None:
    config = {"limit": 2, "window": 3600, "redis_url": redis_server.url, "timeout": 10}
    gateway = kong_gateway(LIMIT, config)
    assert gateway.get("/").status == 200
    redis_server.client.client_kill_filter(_type="normal", skipme=True)
    redis_server.client.script_flush()
    assert statuses(gateway, 2) == [200, 429]
