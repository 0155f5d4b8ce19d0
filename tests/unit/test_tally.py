"""The numbers of a server: where each stands, their sums, and what is told from them."""

from __future__ import annotations

import os
import random
from typing import Any, Optional

import pytest

from kong_pdk import _columns
from kong_pdk.exception import ConfigError
from kong_pdk.pdk.functions import PHASES
from kong_pdk.processes.memory import allocate, attach
from kong_pdk.runtime.tally import MAX_PLUGINS, Counts, Table, size_of


def counts(buckets: dict[int, int], seconds: float = 0.0, **others: int) -> Counts:
    """Counts with so many events in some buckets."""
    all_buckets = tuple(buckets.get(index, 0) for index in range(len(_columns.BOUNDS) + 1))
    fields = {"started": sum(all_buckets), "errors": 0, "refused": 0, "abandoned": 0, "lost": 0}
    return Counts(**{**fields, "calls": 0, **others}, seconds=seconds, buckets=all_buckets)


def shared(workers: int) -> Table:
    fd = allocate(size_of(workers))
    try:
        return Table(attach(fd))
    finally:
        os.close(fd)


# --- what is told from numbers --------------------------------------------------------------------


def test_nothing_has_happened() -> None:
    none = counts({})
    assert (none.ended, none.in_flight, none.mean, none.quantile(0.5)) == (0, 0, None, None)


def test_what_is_under_way() -> None:
    assert counts({3: 2}, started=7, lost=1).in_flight == 4
    assert counts({3: 2}, started=1).in_flight == 0  # read while one was ending


def test_the_mean() -> None:
    assert counts({3: 1, 5: 3}, seconds=0.5).mean == 0.125


@pytest.mark.parametrize(
    ("buckets", "share", "wanted"),
    [
        ({0: 1}, 0.5, 0.00005),  # the first bucket begins at 0
        ({3: 10}, 0.5, 0.00075),  # in the middle of 0.5 to 1 ms
        ({3: 10}, 1.0, 0.001),
        ({3: 10}, 0.0, 0.0005),
        ({3: 1, 9: 1}, 0.5, 0.001),  # at the end of the first one that has enough
        ({3: 90, 9: 10}, 0.99, 0.05 + 0.05 * 0.9),
        ({18: 1}, 0.5, 60.0),  # behind the last bound
        ({3: 1, 18: 9}, 0.9, 60.0),
    ],
)
def test_percentiles(buckets: dict[int, int], share: float, wanted: float) -> None:
    assert counts(buckets).quantile(share) == pytest.approx(wanted)


def test_a_percentile_is_in_the_bucket_of_the_real_one() -> None:
    chosen = random.Random(5)
    times = sorted(chosen.lognormvariate(-5.0, 2.0) for _ in range(5000))
    table = Table()
    tally = table.tally()
    row = table.rows(0, ["one"])["one"]["access"]
    for seconds in times:
        tally.begin(row)
        tally.end(row, seconds, 1, False, False)
    found = table.counts(0, "access")
    assert found.mean == pytest.approx(sum(times) / len(times), rel=1e-6)
    ends = [0.0, *_columns.BOUNDS]
    for share in (0.01, 0.5, 0.9, 0.99):
        real, estimate = times[round(share * len(times)) - 1], found.quantile(share)
        (low, high) = next(pair for pair in zip(ends, ends[1:]) if pair[0] < real <= pair[1])
        assert estimate is not None and low <= estimate <= high


# --- where they stand -----------------------------------------------------------------------------


def test_each_has_a_row_of_its_own() -> None:
    table = shared(3)
    names = ["b", "a", "c"]
    rows = [
        (worker, name, phase, row)
        for worker in range(3)
        for name, phases in table.rows(worker, names).items()
        for phase, row in phases.items()
    ]
    assert len({row for *_, row in rows}) == 3 * 3 * len(PHASES)
    tally = table.tally()
    for number, (_, _, _, row) in enumerate(rows, 1):
        tally.add(row + _columns.STARTED, number)
        tally.add(row + _columns.CALLS, 1)
    for index, name in enumerate(sorted(names)):
        for phase in PHASES:
            wanted = sum(n for n, one in enumerate(rows, 1) if one[1:3] == (name, phase))
            assert table.counts(index, phase).started == wanted
            assert table.counts(index, phase).calls == 3
    assert all(one.pid == one.shed == one.connections == 0 for one in table.states())


def test_the_last_row_of_the_last_worker() -> None:
    table = shared(2)
    names = [f"p{number:05d}" for number in range(MAX_PLUGINS)]
    row = table.rows(1, names)[names[-1]]["log"]
    table.tally().begin(row)
    assert table.counts(MAX_PLUGINS - 1, "log").started == 1


def test_too_many_plugins() -> None:
    names = [str(number) for number in range(MAX_PLUGINS + 1)]
    with pytest.raises(ConfigError, match=f"{MAX_PLUGINS + 1} plugins .* have {MAX_PLUGINS}"):
        Table().rows(0, names)


def test_all_columns_are_read() -> None:
    table = Table()
    row, tally = table.rows(0, ["one"])["one"]["log"], table.tally()
    for column in range(_columns.COLUMNS):
        tally.add(row + column, 10 + column)
    found = table.counts(0, "log")
    assert (found.started, found.errors, found.refused) == (10, 11, 12)
    assert (found.abandoned, found.lost, found.calls, found.seconds) == (13, 14, 15, 16e-9)
    assert found.buckets == tuple(range(17, 17 + len(_columns.BOUNDS) + 1))


def test_the_state_of_workers() -> None:
    table = shared(2)
    table.start(1234.5)
    table.note_process(1, 77, True)
    table.note_gauges(1, 5, 4, 3, -2)
    table.note_memory(1, 5 << 30)
    table.tally().add(table.shed_place(1), 9)
    one = table.state(1)
    assert table.started == 1234.5
    assert (one.index, one.pid, one.ready, one.restarts) == (1, 77, True, 0)
    assert (one.connections, one.running, one.queued, one.waiting, one.shed) == (5, 4, 3, 0, 9)
    assert (one.memory, one.replaced, one.vacant) == (5 << 30, 0, False)
    assert table.state(0).pid == 0


def test_a_worker_that_has_made_room() -> None:
    table = shared(2)
    table.note_process(1, 77, True)
    table.note_memory(1, 1000)
    table.settle(1, 0, restarts=False, replaced=True)
    table.note_vacant(1, True)
    one = table.state(1)
    assert (one.restarts, one.replaced, one.memory, one.vacant) == (0, 1, 0, True)
    table.note_vacant(1, False)
    assert [state.vacant for state in table.states()] == [False, False]


@pytest.mark.parametrize("restarts", [False, True])
def test_a_worker_that_has_died(restarts: bool) -> None:
    table = shared(2)
    rows = [table.rows(worker, ["one", "two"]) for worker in range(2)]
    tally = table.tally()
    for worker, name, ends in ((0, "one", 1), (0, "two", 0), (1, "two", 0)):
        row = rows[worker][name]["access"]
        for _ in range(3):
            tally.begin(row)
        for _ in range(ends):
            tally.end(row, 0.1, 1, True, False)
    table.note_process(0, 77, True)
    table.note_gauges(0, 1, 2, 3, 4)
    tally.add(table.shed_place(0), 5)
    before = [table.counts(index, "access") for index in range(2)]
    assert [one.in_flight for one in before] == [2, 6]
    table.settle(0, 2, restarts)
    after = [table.counts(index, "access") for index in range(2)]
    assert [(one.in_flight, one.lost) for one in after] == [(0, 2), (3, 3)]
    assert [one.started for one in after] == [one.started for one in before]
    assert [one.buckets for one in after] == [one.buckets for one in before]
    state = table.state(0)
    assert (state.pid, state.ready, state.restarts) == (0, False, int(restarts))
    assert (state.connections, state.running, state.queued, state.waiting) == (0, 0, 0, 0)
    assert state.shed == 5
    table.settle(0, 2, restarts)  # nothing is lost twice
    assert [table.counts(index, "access").lost for index in range(2)] == [2, 3]


def test_unused_room_is_not_touched() -> None:
    """A server of many workers reserves much, and uses what it has plugins for."""
    fd = allocate(size_of(200))
    table: Optional[Table] = Table(attach(fd))
    assert table is not None
    table.start()
    names = ["one", "two"]
    tally: Any = table.tally()
    for worker in range(200):
        tally.begin(table.rows(worker, names)["two"]["log"])
    assert table.counts(1, "log").started == 200
    used = os.fstat(fd)
    os.close(fd)
    assert used.st_size > 200e6
    if used.st_blocks:  # not every system tells
        assert used.st_blocks * 512 < 201 * 3 * 4096 + 65536
