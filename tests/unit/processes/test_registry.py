"""Instances of several workers: known to the parent, made where they are needed, closed for all."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from kong_pdk.exception import RPCError, UnknownInstance
from kong_pdk.processes.registry import Registry, SharedInstances
from kong_pdk.runtime.plugins import define_plugin

PATIENCE = 30  # seconds; only a failure takes as long


class Counting:
    """Notes each object that is made; waits or fails if told to."""

    made: list[Any] = []
    fails: bool = False
    entered = threading.Event()
    go = threading.Event()

    def __init__(self, config: Any) -> None:
        if config == "waits":
            Counting.entered.set()
            assert Counting.go.wait(PATIENCE)
        if Counting.fails:
            raise KeyError("no such option")
        Counting.made.append(self)

    def access(self, kong: Any) -> Any:
        return self


class Site:
    """A parent and two workers, without the processes."""

    def __init__(self) -> None:
        plugins = {"mine": define_plugin("mine", Counting, "1.0.0", 1, (), where="test")}
        self.registry = Registry(self._forget)
        self.workers = [SharedInstances(plugins, self._ask) for _ in range(2)]

    def _ask(self, *question: Any) -> Any:
        return self.registry.answer(question)

    def _forget(self, instance_id: int) -> None:
        for worker in self.workers:
            worker.forget(instance_id)


@pytest.fixture
def site() -> Site:
    Counting.made, Counting.fails = [], False
    Counting.entered.clear()
    Counting.go.clear()
    return Site()


def test_each_worker_makes_its_own(site: Site) -> None:
    one, other = site.workers
    instance = one.start("mine", '{"a": 1}')
    assert one.by_id.get(instance.id) is instance
    assert other.by_id.get(instance.id) is None
    copy = other.find_elsewhere(instance.id)
    assert copy is not None
    assert other.by_id.get(instance.id) is copy
    assert other.find_elsewhere(instance.id) is copy
    assert (copy.id, copy.config, copy.started) == (instance.id, {"a": 1}, instance.started)
    assert copy.handlers["access"](None) is not instance.handlers["access"](None)
    assert len(Counting.made) == 2


@pytest.mark.parametrize("instance_id", [0, -1, 2**70, None, "1", 1.5])
def test_unknown(site: Site, instance_id: Any) -> None:
    for worker in site.workers:
        assert worker.find_elsewhere(instance_id) is None
        for method in (worker.close, worker.look_up):
            with pytest.raises(UnknownInstance, match="no plugin instance"):
                method(instance_id)


def test_closed_for_all_without_an_object(site: Site) -> None:
    one, other = site.workers
    instance = one.start("mine", '{"a": 1}')
    closed = other.close(instance.id)
    assert closed.describe() == instance.describe()
    assert len(Counting.made) == 1
    for worker in site.workers:
        assert worker.by_id.get(instance.id) is worker.find_elsewhere(instance.id) is None
        with pytest.raises(UnknownInstance):
            worker.close(instance.id)


def test_told_without_an_object(site: Site) -> None:
    one, other = site.workers
    instance = one.start("mine", '{"a": 1}')
    assert other.look_up(instance.id).describe() == instance.describe()
    assert len(Counting.made) == 1


def test_the_report_is_of_all(site: Site) -> None:
    ids = [worker.start("mine", "{}").id for worker in site.workers]
    for worker in site.workers:
        alive, times = worker.report()
        assert [each[:2] for each in alive] == [(number, "mine") for number in ids]
        assert times["mine"][0] > 0 == times["mine"][1]
    site.workers[0].close(ids[1])
    alive, times = site.workers[1].report()
    assert [each[0] for each in alive] == ids[:1]
    assert times["mine"][1] >= times["mine"][0]


def test_one_that_cannot_be_made_at_first(site: Site) -> None:
    Counting.fails = True
    with pytest.raises(KeyError):
        site.workers[0].start("mine", "{}")
    assert site.workers[0].report()[0] == []


def test_one_that_cannot_be_made_here(site: Site) -> None:
    one, other = site.workers
    instance = one.start("mine", "{}")
    Counting.fails = True
    broken = other.find_elsewhere(instance.id)
    assert broken is not None
    with pytest.raises(RPCError, match="cannot be made in this worker: KeyError"):
        broken.handlers["access"](None)
    assert other.by_id.get(instance.id) is None
    Counting.fails = False
    whole = other.find_elsewhere(instance.id)
    assert whole is not None
    assert whole.handlers["access"](None) is Counting.made[-1]


def test_threads_that_want_the_same_share_it(site: Site) -> None:
    one, other = site.workers
    Counting.go.set()
    waits, free = one.start("mine", '"waits"').id, one.start("mine", "{}").id
    Counting.go.clear()
    Counting.entered.clear()
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(other.find_elsewhere(waits))) for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    assert Counting.entered.wait(PATIENCE)
    assert other.find_elsewhere(free) is not None  # nobody else is held up
    Counting.go.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(found) == 5
    assert len({id(each) for each in found}) == 1
    assert len(Counting.made) == 4


def test_closed_while_it_is_made(site: Site) -> None:
    """The event that has asked for it may run; nothing is kept."""
    one, other = site.workers
    Counting.go.set()
    instance = one.start("mine", '"waits"')
    Counting.go.clear()
    Counting.entered.clear()
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(other.find_elsewhere(instance.id)))
    thread.start()
    assert Counting.entered.wait(PATIENCE)
    one.close(instance.id)
    Counting.go.set()
    thread.join(PATIENCE)
    assert len(found) == 1
    assert other.by_id.get(instance.id) is None
    assert list(other) == []
