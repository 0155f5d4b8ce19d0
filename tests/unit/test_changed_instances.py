"""Instances whose plugin's code is replaced: the same ids, new objects, former ones that end."""

from __future__ import annotations

import threading
from typing import Any, Callable, Optional

import pytest

from kong_pdk.plugins import Plugin, define_plugin
from kong_pdk.processes.registry import SharedInstances
from kong_pdk.runtime.instances import Instance, Instances


class Code:
    """A place that knows whether it is still needed."""

    origin = "test"

    def __init__(self) -> None:
        self.forgotten = 0

    def forget(self) -> None:
        self.forgotten += 1


class Log:
    """What has happened to objects."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def plugin(self, version: str, before: Optional[Callable[[], None]] = None) -> Plugin:
        log = self

        class Made:
            def __init__(self, config: Any) -> None:
                if before is not None:
                    before()
                log.lines.append(f"made {version}")

            def access(self, kong: Any) -> str:
                return version

            def close(self) -> None:
                log.lines.append(f"closed {version}")

        plugin = define_plugin("x", Made, "1.0.0", 1, (), where="test")
        code: Any = Code()
        plugin.code = code
        return plugin


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def instances(log: Log) -> Instances:
    found = Instances({"x": log.plugin("one")})
    found.closer.spawn = lambda function: function()
    return found


def says(instances: Instances, instance_id: int) -> Any:
    return instances.by_id[instance_id].handlers["access"](None)


def take_over(instances: Instances, plugin: Plugin) -> None:
    made = [(one, instances.make_anew(one, plugin)) for one in instances]
    instances.replace(plugin, made)


def test_the_same_ids_with_new_objects(instances: Instances, log: Log) -> None:
    before = [instances.start("x", f'{{"n": {n}}}') for n in range(3)]
    former = instances.plugins["x"]
    former.rows, former.number = {"access": 5}, 7
    new = log.plugin("two")
    take_over(instances, new)
    assert instances.plugins["x"] is new
    assert (new.rows, new.number, new.last_start) == ({"access": 5}, 7, former.last_start)
    for old in before:
        present = instances.by_id[old.id]
        assert present is not old
        assert says(instances, old.id) == "two"
        assert old.handlers["access"](None) == "one"
        assert (present.started, present.config, present.closed) == (
            old.started, old.config, old.closed,
        )  # fmt: skip
    assert says(instances, instances.start("x", "{}").id) == "two"


def test_former_objects_are_closed_when_nobody_can_reach_them(
    instances: Instances, log: Log
) -> None:
    """Not at once: a dispatcher may have looked one up already."""
    old = instances.start("x", "{}")
    former: Any = instances.plugins["x"].code
    instances.tick(1)
    take_over(instances, log.plugin("two"))
    assert not old.closing
    instances.tick(2)
    assert not old.closing
    instances.tick(3)
    assert old.closing
    assert log.lines == ["made one", "made two", "closed one"]
    instances.tick(4)
    assert former.forgotten == 1
    instances.tick(5)
    assert former.forgotten == 1


def test_the_end_of_the_server_does_not_wait_for_that(instances: Instances, log: Log) -> None:
    instances.start("x", "{}")
    take_over(instances, log.plugin("two"))
    instances.drop_all()
    assert sorted(log.lines[2:]) == ["closed one", "closed two"]


def test_closing_one_that_was_replaced_closes_the_present_one(
    instances: Instances, log: Log
) -> None:
    old = instances.start("x", "{}")
    take_over(instances, log.plugin("two"))
    assert instances.drop(old)  # whoever has it from before
    assert log.lines == ["made one", "made two", "closed two"]
    assert not instances.drop(old)
    instances.tick(10)
    assert log.lines[3:] == ["closed one"]


def test_one_that_is_closed_meanwhile_stays_closed(instances: Instances, log: Log) -> None:
    old = instances.start("x", "{}")
    new = log.plugin("two")
    made = [(old, instances.make_anew(old, new))]
    instances.close(old.id)
    instances.replace(new, made)
    assert list(instances) == []
    assert sorted(log.lines) == ["closed one", "closed two", "made one", "made two"]


def test_one_that_is_started_meanwhile_catches_up(instances: Instances, log: Log) -> None:
    """Its __init__ began on the former code, and ends after that was replaced."""
    new = log.plugin("two")
    instances.plugins["x"] = log.plugin("one", before=lambda: take_over(instances, new))
    started = instances.start("x", "{}")
    assert says(instances, started.id) == "two"
    instances.tick(10)
    assert log.lines == ["made one", "made two", "closed one"]


def test_what_cannot_catch_up_goes_on(
    instances: Instances, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise KeyError("missing")

    new = log.plugin("two", before=fail)
    instances.plugins["x"] = log.plugin("one", before=lambda: instances.replace(new, []))
    started = instances.start("x", "{}")
    assert says(instances, started.id) == "one"
    assert "an instance goes on with former code: __init__ raised KeyError" in caplog.text
    former: Any = started.plugin.code
    instances.tick(10)
    instances.tick(20)
    assert former.forgotten == 0  # it is in use


def test_former_code_is_kept_while_an_event_runs_on_it(instances: Instances, log: Log) -> None:
    old = instances.start("x", "{}")
    former: Any = instances.plugins["x"].code

    class Busy(Instance):
        running = 1  # type: ignore[assignment]

    busy = Busy(old.id, old.plugin, {})
    instances.by_id[old.id] = busy
    take_over(instances, log.plugin("two"))
    instances.tick(5)
    instances.tick(6)
    assert busy.closing
    assert former.forgotten == 0
    Busy.running = 0  # type: ignore[assignment]
    instances.tick(7)
    assert former.forgotten == 1


@pytest.mark.parametrize("shared", [False, True], ids=["one process", "worker"])
def test_code_is_kept_while_an_object_of_it_is_made(log: Log, shared: bool) -> None:
    """Its ``__init__`` is slow: the code is replaced meanwhile, and it imports more of it then."""
    making, may_go_on = threading.Event(), threading.Event()

    def wait() -> None:
        making.set()
        assert may_go_on.wait(10)

    former, instances = log.plugin("one", wait), Instances({})
    if shared:
        instances = SharedInstances({}, lambda question, *_: 7)
    instances.plugins["x"] = former
    started: list[Instance] = []
    thread = threading.Thread(target=lambda: started.append(instances.start("x", "{}")))
    thread.start()
    try:
        assert making.wait(10)
        instances.closer.spawn = lambda function: function()
        take_over(instances, log.plugin("two"))
        for tick in range(1, 6):
            instances.tick(tick)
        code: Any = former.code
        assert code.forgotten == 0
    finally:
        may_go_on.set()
        thread.join()
    assert says(instances, started[0].id) == "two"
    for tick in range(6, 11):
        instances.tick(tick)
    assert code.forgotten > 0
    assert not instances._held


def test_idle_phases_do_nothing(instances: Instances, log: Log) -> None:
    plugin = log.plugin("two")
    instances.let_idle(plugin)
    instances.plugins["x"] = plugin
    handlers = instances.start("x", "{}").handlers
    assert set(handlers) == {"certificate", "rewrite", "access", "response", "preread", "log"}
    assert handlers["log"](None) is None
    assert handlers["access"](None) == "two"
    assert plugin.phases == ("access",)


def test_many_at_once(log: Log) -> None:
    """Starts, closes and changes of code from several threads: each object is closed once."""
    instances = Instances({"x": log.plugin("v0")})
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            instances.close(instances.start("x", "{}").id)

    threads = [threading.Thread(target=churn) for _ in range(3)]
    for thread in threads:
        thread.start()
    for version in range(1, 30):
        take_over(instances, log.plugin(f"v{version}"))
        instances.tick(version)
    stop.set()
    for thread in threads:
        thread.join()
    instances.drop_all()
    while instances.closer.pending():
        pass
    made = sorted(line[5:] for line in log.lines if line.startswith("made"))
    assert made == sorted(line[7:] for line in log.lines if line.startswith("closed"))
