"""Which worker makes room for another one, and when."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any, Optional

import pytest

from kong_pdk.config import ServerConfig
from kong_pdk.processes import replacing as replacing_module
from kong_pdk.processes.crew import END, LEAVE, STOP, Worker
from kong_pdk.processes.ledger import Ledger
from kong_pdk.processes.memory import allocate, attach
from kong_pdk.processes.parent import Parent
from kong_pdk.processes.poller import Poller
from kong_pdk.processes.replacing import PAUSES, STEADY, Replacing
from kong_pdk.runtime.tally import Table, size_of
from kong_pdk.server.usage import resident_memory

MIB = 1 << 20
LIMIT = 100 * MIB


class Process:
    """One that uses as much memory as is said."""

    def __init__(self, pid: int, memory: int) -> None:
        self.pid = pid
        self.memory = memory

        self.status: Optional[int] = None

    def poll(self) -> Optional[int]:
        return self.status

    def kill(self) -> None: ...


class Site:
    """Two workers or more, and a place for another one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, workers: int = 2) -> None:
        config = ServerConfig(workers=workers, worker_memory=LIMIT)
        self.poller, self.ledger = Poller(), Ledger(config)
        self.crew = [Worker(index, self.poller, self.ledger) for index in range(config.places)]
        fd = allocate(size_of(config.places))
        self.table = Table(attach(fd))
        os.close(fd)
        self.replacing = Replacing(config, self.crew, self.table)
        self.told: list[tuple[int, Any]] = []
        for worker in self.crew:
            monkeypatch.setattr(worker, "tell", lambda *what, n=worker.index: self._note(n, *what))
        monkeypatch.setattr(replacing_module, "resident_memory", self._memory)
        for index in range(workers):
            self.begin(index)

    def _note(self, index: int, *message: Any) -> None:
        self.told.append((index, message[0]))

    def _memory(self, pid: int) -> int:
        for one in self.crew:
            if isinstance(one.process, Process) and one.process.pid == pid:
                return one.process.memory
        return 0

    def begin(self, index: int, now: float = 0.0) -> None:
        """A process is ready in a worker's place."""
        worker = self.crew[index]
        worker.process, worker.ready, worker.started = Process(100 + index, 10 * MIB), True, now
        worker.leaving = worker.quiet = worker.told_end = False

    def use(self, index: int, memory: int) -> None:
        process = self.crew[index].process
        assert isinstance(process, Process)
        process.memory = memory

    def end(self, index: int, now: float) -> bool:
        """A worker's process has ended."""
        worker = self.crew[index]
        assert isinstance(worker.process, Process)
        worker.process.status = 0
        assert worker.take_end()
        return self.replacing.note_end(worker, now)

    def finish(self, old: int, new: int, now: float) -> None:
        """The new worker is ready, and the old one ends."""
        self.begin(new, now)
        self.replacing.go_on()
        self.crew[old].quiet = True
        self.replacing.go_on()
        assert self.told[-2:] == [(old, LEAVE), (old, END)]
        assert self.end(old, now)

    def wait(self, now: float) -> float:
        """How long it takes until the next worker is replaced, seconds."""
        waited = 0.0
        while self.replacing.new is None:
            waited += 0.5
            self.replacing.tick(now + waited)
        return waited

    def close(self) -> None:
        for worker in self.crew:
            worker.close()
        self.poller.close()
        self.ledger.release()

    @property
    def vacant(self) -> list[int]:
        return [one.index for one in self.crew if one.vacant]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    site = Site(monkeypatch)
    yield site
    site.close()


def test_nobody_uses_too_much(site: Site) -> None:
    site.use(1, LIMIT)
    site.replacing.tick(1000.0)
    assert site.replacing.new is None and site.vacant == [2]
    assert [one.memory for one in site.table.states()] == [10 * MIB, LIMIT, 0]
    assert [one.vacant for one in site.table.states()] == [False, False, True]


def test_a_worker_is_replaced(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.use(0, LIMIT + MIB)
    site.replacing.tick(1000.0)
    assert site.replacing.new is site.crew[2] and site.vacant == []
    assert "worker 0 (pid 100) uses 101 MiB of memory, 1000 s after its start" in caplog.text
    assert "--worker-memory is 100 MiB: worker 2 takes its place" in caplog.text
    site.replacing.go_on()
    assert site.told == []  # not before there is another one
    site.begin(2)
    site.replacing.go_on()
    assert site.told == [(0, LEAVE)] and not site.crew[0].takes and site.crew[0].doomed < 1e9
    site.crew[0].connections[9] = object()  # type: ignore[assignment]
    site.crew[0].quiet = True
    site.replacing.go_on()
    assert site.told == [(0, LEAVE)]  # it may still get a request there
    site.crew[0].connections.clear()
    for _ in range(3):
        site.replacing.go_on()
    assert site.told == [(0, LEAVE), (0, END)]
    assert site.end(0, 1001.0)
    assert site.vacant == [0] and site.replacing.new is None
    assert "too low" not in caplog.text


def test_one_at_a_time_the_largest_first(site: Site) -> None:
    site.use(0, LIMIT + 1)
    site.use(1, LIMIT + 2)
    site.replacing.tick(1000.0)
    site.replacing.tick(1001.0)
    site.begin(2, 1001.0)
    site.replacing.go_on()
    assert site.told == [(1, LEAVE)]
    site.crew[1].quiet = True
    site.replacing.go_on()
    assert site.end(1, 1002.0)
    site.replacing.tick(1002.0 + PAUSES[0])
    assert site.replacing.new is site.crew[1]


def test_it_dies_before_it_makes_room(site: Site) -> None:
    """The new one is wanted all the more, and nobody comes in the place of the old one."""
    site.use(0, LIMIT + 1)
    site.replacing.tick(1000.0)
    assert site.end(0, 1000.5) is False  # that was not meant
    assert site.vacant == [0] and site.crew[2].is_missing
    site.replacing.go_on()
    site.begin(2, 1001.0)
    site.replacing.go_on()
    assert site.told == []


def test_another_one_dies(site: Site) -> None:
    site.use(0, LIMIT + 1)
    site.replacing.tick(1000.0)
    assert site.end(1, 1000.5) is False
    assert site.vacant == [] and site.crew[1].is_missing
    assert site.replacing.new is site.crew[2]


def test_the_new_one_dies(site: Site) -> None:
    """Before it is ready: the old one serves on. After that, the old one leaves all the same."""
    site.use(0, LIMIT + 1)
    site.replacing.tick(1000.0)
    site.begin(2)
    site.crew[2].ready = False
    assert site.end(2, 1000.5) is False
    assert site.crew[2].is_missing and site.crew[0].takes
    site.begin(2, 1001.0)
    site.replacing.go_on()
    assert site.end(2, 1002.0) is False
    assert site.crew[2].is_missing
    site.crew[0].quiet = True
    site.replacing.go_on()
    assert site.told == [(0, LEAVE), (0, END)]


def test_it_dies_while_no_new_one_can_be_had(site: Site) -> None:
    """That is tried again as soon as after the death of any other."""
    site.use(0, LIMIT + 1)
    site.replacing.tick(1000.0)
    new = site.crew[2]
    for _ in range(5):
        site.begin(2, time.monotonic())
        new.ready = False
        assert site.end(2, 1001.0) is False
    assert new.due > time.monotonic() + 1
    site.crew[0].served = True
    assert site.end(0, 1002.0) is False
    assert new.is_missing and new.due <= time.monotonic()


def test_who_makes_room_soon_has_not_failed(site: Site) -> None:
    """The next one in that place is started again at once if it cannot start."""
    old, new = 0, 2
    for _ in range(12):
        begun = time.monotonic()
        site.use(old, LIMIT + 1)
        site.wait(begun)
        site.finish(old, new, begun)
        old, new = new, old
    site.use(old, LIMIT + 1)
    site.wait(begun)
    site.begin(new, time.monotonic())
    site.crew[new].ready = False
    assert site.end(new, begun) is False
    assert site.crew[new].due <= time.monotonic()


def test_a_limit_that_is_too_low(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Workers are replaced less and less often, until one has lived for long."""
    old, new, now, waits = 0, 2, 1000.0, []
    site.use(old, LIMIT + 1)
    site.replacing.tick(now)
    for _ in range(6):
        site.finish(old, new, now)
        site.use(new, LIMIT + 1)
        old, new = new, old
        waits.append(site.wait(now))
        now += waits[-1]
    assert waits == [*PAUSES, PAUSES[-1], PAUSES[-1]]
    assert caplog.text.count("--worker-memory is 100 MiB, which may be too low: worker") == 5
    site.finish(old, new, now)
    old, new, now = new, old, now + STEADY
    site.use(old, LIMIT + 1)
    site.replacing.tick(now)
    site.finish(old, new, now)
    site.use(new, LIMIT + 1)
    assert site.wait(now) == PAUSES[0]


def test_a_limit_that_is_too_low_for_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each lives for long, as it is a while until its turn comes again: that makes none faster."""
    count = 16
    now, waits = 1000.0, []
    with contextlib.closing(Site(monkeypatch, count)) as site:
        for worker in site.crew[:count]:
            worker.started = now
            site.use(worker.index, LIMIT + 2000)
        site.replacing.tick(now)
        for _ in range(5 * count):
            old, new = site.replacing._old, site.replacing.new
            assert old is not None and new is not None
            now += 1.0
            site.finish(old.index, new.index, now)
            site.use(new.index, LIMIT + 1000 - len(waits))  # the oldest one is the next
            waits.append(site.wait(now))
            now += waits[-1]
        assert waits[len(PAUSES) :] == [PAUSES[-1]] * (len(waits) - len(PAUSES))


@pytest.mark.parametrize("told_end", [False, True])
def test_the_server_stops_meanwhile(monkeypatch: pytest.MonkeyPatch, told_end: bool) -> None:
    """Who leaves serves on like all others; who is on its way out has nothing to do any more."""
    parent = Parent(ServerConfig(workers=1, worker_memory=LIMIT, graceful_timeout=1000.0))
    old, new = parent._crew
    told: list[Any] = []
    for worker in (old, new):
        monkeypatch.setattr(worker, "tell", lambda *what: told.append(what[0]))
        worker.process, worker.ready, worker.started = Process(worker.index, 0), True, 0.0
    parent._replacing._begin(old, 0.0)
    parent._replacing.go_on()
    assert old.leaving and old.doomed < 1e9 and told == [LEAVE]
    if told_end:
        old.quiet = True
        parent._replacing.go_on()
        assert told == [LEAVE, END]
    parent._begin_stop(0.0)
    assert told[-2:] == [STOP, STOP]
    assert old.takes is not told_end and new.takes
    assert (old.doomed < 1e9) is told_end
    for worker in (old, new):
        worker.close()
    parent._poller.close()
    parent._ledger.release()
    for fd in (parent._tally, parent._wake_fd, parent.signal_fd):
        os.close(fd)


def test_what_a_process_uses() -> None:
    assert resident_memory(os.getpid()) > 5 * MIB
    assert resident_memory(0) == 0
