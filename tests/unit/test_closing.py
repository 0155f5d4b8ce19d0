"""Closing objects: beside everything else, a few of each plugin at a time, within a stop's time."""

from __future__ import annotations

import threading
import time
from typing import Any, Callable

import pytest

from kong_pdk.config import ServerConfig
from kong_pdk.modes import base
from kong_pdk.modes.threads import Mode
from kong_pdk.plugins import Plugin, define_plugin
from kong_pdk.runtime.closing import AT_ONCE, Closer
from kong_pdk.runtime.instances import Instances
from kong_pdk.runtime.service import Service
from kong_pdk.server.loop import Loop

PATIENCE = 30  # seconds; only a failure takes as long


class Closing:
    """Does at its end what its configuration says."""

    closed: list[Any] = []
    gate = threading.Event()

    def __init__(self, config: Any) -> None:
        self.config = config

    def access(self, kong: Any) -> None:
        """Nothing."""

    def close(self) -> None:
        if self.config == "blocks":
            assert Closing.gate.wait(PATIENCE)
        Closing.closed.append(self.config)


@pytest.fixture
def plugin() -> Plugin:
    Closing.closed, Closing.gate = [], threading.Event()
    return define_plugin("mine", Closing, "1.0.0", 1, (), where="test")


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_few_at_a_time_of_each() -> None:
    closer, gate, entered, done = Closer(), threading.Event(), [], []

    def close() -> None:
        entered.append(1)
        assert gate.wait(PATIENCE)
        done.append(1)

    for number in range(3 * AT_ONCE):
        closer.add("one", number, close)
    wait_until(lambda: len(entered) == AT_ONCE)
    other = threading.Event()
    closer.add("other", 1, other.set)
    assert other.wait(PATIENCE)
    assert len(entered) == AT_ONCE
    wait_until(lambda: closer.pending() == ["one"])
    gate.set()
    wait_until(lambda: not closer.pending())
    assert len(done) == 3 * AT_ONCE


def test_no_thread_for_a_while() -> None:
    closer, closed = Closer(), []

    def no_thread(function: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    closer.spawn = no_thread
    closer.add("one", 1, lambda: closed.append(1))
    closer.retry()
    assert (closed, closer.pending()) == ([], ["one"])
    closer.spawn = lambda function: function()
    closer.retry()
    assert (closed, closer.pending()) == ([1], [])


def instances_of(plugin: Plugin, **settings: Any) -> Instances:
    instances = Instances({"mine": plugin}, ServerConfig(**settings))
    instances.closer.spawn = lambda function: function()
    return instances


def test_closed_once(plugin: Plugin) -> None:
    instances = instances_of(plugin)
    one = instances.start("mine", '"a"')
    assert not one.closing
    instances.close(one.id)
    instances.left(one)
    instances.drop_all()
    assert Closing.closed == ["a"]
    assert one.closing


def test_unused_ones_are_dropped(plugin: Plugin) -> None:
    instances = instances_of(plugin, instance_ttl=10)
    old, used = instances.start("mine", '"old"'), instances.start("mine", '"used"')
    instances.tick(9)
    used.used = 9
    young = instances.start("mine", '"young"')
    instances.tick(10)
    assert set(instances) == {old, used, young}
    instances.tick(11)
    assert set(instances) == {used, young}
    assert Closing.closed == ["old"]
    assert plugin.last_close >= old.started
    instances.tick(100)
    assert set(Closing.closed) == {"old", "used", "young"}


def test_they_are_kept_for_ever(plugin: Plugin) -> None:
    instances = instances_of(plugin, instance_ttl=0)
    instances.start("mine", "1")
    instances.tick(10**9)
    assert len(list(instances)) == 1


def test_a_stop_waits_for_close_but_not_for_ever(
    plugin: Plugin, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(base, "CLOSE_PATIENCE", 0.0)
    config = ServerConfig(graceful_timeout=0.0)
    loop = Loop(config)
    mode = Mode(Service({"mine": plugin}, config), loop, config)
    instances = mode.service.instances
    blocks = instances.start("mine", '"blocks"')
    loop.stop()
    mode.close_instances()
    assert "stopped with close() still running of mine" in caplog.text
    assert (list(instances), blocks.closing, Closing.closed) == ([], True, [])
    Closing.gate.set()
    wait_until(lambda: Closing.closed)
    caplog.clear()
    monkeypatch.setattr(base, "CLOSE_PATIENCE", PATIENCE)
    for _ in range(3 * AT_ONCE):
        instances.start("mine", '"blocks"')
    mode.close_instances()
    assert len(Closing.closed) == 3 * AT_ONCE + 1
    assert not caplog.records
