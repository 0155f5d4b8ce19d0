"""Instances of several workers: known to the parent, made where they are needed, closed for all."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from kong_pdk.config import ServerConfig
from kong_pdk.exception import RPCError, TooManyStarts, UnknownInstance
from kong_pdk.plugins import define_plugin
from kong_pdk.processes.registry import CLOSE, NUMBER, START, Registry, SharedInstances

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


class Closing(Counting):
    """Notes its end."""

    closed: list[Any] = []

    def close(self) -> None:
        Closing.closed.append(self)


@pytest.fixture
def closing(site: Site) -> Site:
    """The same with objects that are closed, an hour for unused ones, and two starts at a time."""
    Closing.closed = []
    plugins = {"mine": define_plugin("mine", Closing, "1.0.0", 1, (), where="test")}
    config = ServerConfig(instance_ttl=3600.0, max_starts=2)
    site.registry = Registry(site._forget, config)
    site.workers = [
        SharedInstances(plugins, site._ask, config, lambda ids: site.registry.note_use(ids))
        for _ in range(2)
    ]
    for worker in site.workers:
        worker.closer.spawn = lambda function: function()
    return site


def test_each_worker_closes_its_own_object(closing: Site) -> None:
    one, other = closing.workers
    instance = one.start("mine", "{}")
    copy = other.find_elsewhere(instance.id)
    one.close(instance.id)
    assert len(Closing.closed) == 2
    assert set(Closing.closed) == set(Counting.made)
    assert copy is not None
    assert copy.closing


def test_one_that_the_parent_does_not_take_is_closed(closing: Site) -> None:
    def fail(*question: Any) -> None:
        raise RPCError("the parent is gone")

    closing.workers[0]._ask = fail
    with pytest.raises(RPCError, match="the parent is gone"):
        closing.workers[0].start("mine", "{}")
    assert Closing.closed == Counting.made
    assert len(Counting.made) == 1


def test_a_worker_drops_its_object_and_makes_another(closing: Site) -> None:
    one = closing.workers[0]
    instance = one.start("mine", "{}")
    for worker in closing.workers:
        worker.tick(3602)
    assert (list(one), Closing.closed) == ([], Counting.made)
    again = one.find_elsewhere(instance.id)
    assert again is not None
    assert again.id == instance.id
    assert again.used == 3602


def test_the_parent_closes_what_no_worker_has_used(closing: Site) -> None:
    one, other = closing.workers
    used, unused = one.start("mine", "{}"), one.start("mine", "{}")
    now = time.monotonic()
    closing.registry.tick(now + 3700)
    assert len(one.report()[0]) == 2
    other.find_elsewhere(unused.id)
    closing.registry._used[used.id] += 1000  # as if the workers had said so at that time
    other.look_up(unused.id)
    closing.registry.tick(now + 4000)
    assert [each[0] for each in one.report()[0]] == [used.id]
    assert one.report()[1]["mine"][1] > 0
    assert len(Closing.closed) == 2
    assert other.find_elsewhere(unused.id) is None


def test_a_worker_tells_what_it_uses(closing: Site) -> None:
    told: list[list[int]] = []
    one = closing.workers[0]
    one._tell_used = told.append
    used, unused = one.start("mine", "{}"), one.start("mine", "{}")
    used.used = 600
    one.tick(660)
    assert told == [[used.id]]
    one.tick(661)  # none is due
    assert len(told) == 1
    unused.used = 700
    one.tick(1000)
    assert told[1] == []


def test_threads_that_have_waited_share_the_failure(closing: Site) -> None:
    """A slow failure is not repeated for each of them, one after the other."""
    one, other = closing.workers
    Counting.go.set()
    instance = one.start("mine", '"waits"')
    Counting.go.clear()
    Counting.entered.clear()
    Counting.fails = True
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(other.find_elsewhere(instance.id)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    assert Counting.entered.wait(PATIENCE)
    while other._starting["mine"] < 2:
        time.sleep(0.001)
    refused = other.find_elsewhere(instance.id)  # it would be the third
    assert refused is not None
    with pytest.raises(RPCError, match=r"TooManyStarts: .*2 of its instances"):
        refused.handlers["access"](None)
    with pytest.raises(TooManyStarts, match=r"plugin mine: 2 of its instances .*--max-starts"):
        other.start("mine", "{}")
    Counting.entered.clear()
    Counting.go.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(found) == 2
    assert found[0] is found[1]
    assert not Counting.entered.is_set()
    assert not other._making
    Counting.fails = False
    whole = other.find_elsewhere(instance.id)
    assert whole is other.by_id[instance.id]


def test_an_init_that_never_returns(closing: Site) -> None:
    one, other = closing.workers
    other.config = ServerConfig(event_timeout=0.0)
    Counting.go.set()
    instance = one.start("mine", '"waits"')
    Counting.go.clear()
    Counting.entered.clear()
    thread = threading.Thread(target=lambda: other.find_elsewhere(instance.id))
    thread.start()
    assert Counting.entered.wait(PATIENCE)
    failing = other.find_elsewhere(instance.id)
    assert failing is not None
    with pytest.raises(RPCError, match="__init__ has not returned within 0 s"):
        failing.handlers["access"](None)
    Counting.go.set()
    thread.join(PATIENCE)
    assert other.by_id[instance.id].handlers["access"](None) is Counting.made[-1]


def test_closed_while_it_is_made_is_closed_after_that(closing: Site) -> None:
    one, other = closing.workers
    Counting.go.set()
    instance = one.start("mine", '"waits"')
    Counting.go.clear()
    Counting.entered.clear()
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(other.find_elsewhere(instance.id)))
    thread.start()
    assert Counting.entered.wait(PATIENCE)
    one.close(instance.id)
    assert len(Closing.closed) == 1
    Counting.go.set()
    thread.join(PATIENCE)
    assert found[0].closing  # so that no event begins on it
    assert len(Closing.closed) == 2


def test_plugins_keep_their_numbers() -> None:
    """What is counted of them stands there: in all workers, and when a worker starts again."""
    registry = Registry(lambda instance_id: None)
    assert registry.answer((NUMBER, ["b", "d"])) == [0, 1]
    assert registry.answer((NUMBER, ["b", "d"])) == [0, 1]
    assert registry.answer((NUMBER, ["a", "b", "c"])) == [2, 0, 3]
    assert registry.answer((NUMBER, ["d"])) == [1]
    assert registry.numbered == 4


def test_instances_are_counted_by_plugin() -> None:
    registry = Registry(lambda instance_id: None)
    assert registry.count() == {}
    ids = [registry.answer((START, name, "{}", 1.0, True)) for name in ("one", "two", "one")]
    assert registry.count() == {"one": 2, "two": 1}
    registry.answer((CLOSE, ids[1]))
    assert registry.count() == {"one": 2}
