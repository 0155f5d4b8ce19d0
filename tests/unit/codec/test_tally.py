"""What is counted of events, on both codecs: the same numbers at the same places."""

from __future__ import annotations

import array
import mmap
import sys
import threading
from typing import Any, Callable, Optional

import pytest

from kong_pdk import _columns, _wire
from kong_pdk.exception import EventAbandoned, HandlerTimeout, ResponseSent

ROW = 2 * _columns.COLUMNS
SIZE = 4 * _columns.COLUMNS


class Numbers:
    """A tally, and the numbers that it has counted."""

    def __init__(self, codec: Any) -> None:
        self.memory = array.array("Q", [0] * SIZE)
        self.tally = codec.Tally(self.memory)

    def counted(self) -> dict[int, int]:
        """What is not zero, by its place in the one row that is used."""
        found = {place - ROW: number for place, number in enumerate(self.memory) if number}
        assert all(0 <= place < _columns.COLUMNS for place in found)
        return found

    @property
    def buckets(self) -> list[int]:
        """The buckets in which something is."""
        last = _columns.BUCKETS + len(_columns.BOUNDS)
        return [place - _columns.BUCKETS for place in self.counted() if 7 <= place <= last]


@pytest.fixture
def numbers(codec: Any) -> Numbers:
    return Numbers(codec)


def test_an_event_that_begins_and_ends(numbers: Numbers) -> None:
    numbers.tally.begin(ROW)
    assert numbers.counted() == {_columns.STARTED: 1}
    numbers.tally.end(ROW, 0.0004, 3, False, False)
    assert numbers.counted() == {
        _columns.STARTED: 1, _columns.CALLS: 3, _columns.NANOSECONDS: 400_000,
        _columns.BUCKETS + 2: 1,
    }  # fmt: skip
    numbers.tally.begin(ROW)
    numbers.tally.end(ROW, 1.5, 2, True, True)
    assert numbers.counted() == {
        _columns.STARTED: 2, _columns.CALLS: 5, _columns.NANOSECONDS: 1_500_400_000,
        _columns.ERRORS: 1, _columns.ABANDONED: 1, _columns.BUCKETS + 2: 1,
        _columns.BUCKETS + 13: 1,
    }  # fmt: skip


@pytest.mark.parametrize("index", range(len(_columns.BOUNDS)))
def test_a_bound_belongs_to_its_bucket(codec: Any, index: int) -> None:
    for seconds, bucket in (
        (_columns.BOUNDS[index], index), (_columns.BOUNDS[index] * 1.0001, index + 1),
    ):  # fmt: skip
        numbers = Numbers(codec)
        numbers.tally.end(ROW, seconds, 0, False, False)
        assert numbers.buckets == [bucket]


@pytest.mark.parametrize(
    ("seconds", "bucket", "nanoseconds"),
    [
        (0.0, 0, 0), (-1.0, 0, 0), (float("nan"), 0, 0), (61.0, 18, 61 * 10**9),
        (float("inf"), 18, 4 * 10**18), (1e300, 18, 4 * 10**18),
    ],
)  # fmt: skip
def test_times_that_no_event_takes(
    numbers: Numbers, seconds: float, bucket: int, nanoseconds: int
) -> None:
    numbers.tally.end(ROW, seconds, 0, False, False)
    assert numbers.buckets == [bucket]
    assert numbers.counted().get(_columns.NANOSECONDS, 0) == nanoseconds


def test_other_numbers(numbers: Numbers) -> None:
    numbers.tally.add(ROW + _columns.REFUSED, 1)
    numbers.tally.add(ROW + _columns.REFUSED, 2**60)
    assert numbers.counted() == {_columns.REFUSED: 2**60 + 1}


@pytest.mark.parametrize("row", [-1, -SIZE, SIZE, SIZE - _columns.COLUMNS + 1, sys.maxsize])
def test_a_row_that_is_not_there(numbers: Numbers, row: int) -> None:
    for count in (
        lambda: numbers.tally.begin(row),
        lambda: numbers.tally.end(row, 1.0, 1, True, True),
    ):
        with pytest.raises(IndexError, match="no such row in the tally"):
            count()
    numbers.tally.begin(SIZE - _columns.COLUMNS)
    for place in (-1, SIZE):
        with pytest.raises(IndexError, match="no such number in the tally"):
            numbers.tally.add(place, 1)
    assert sum(numbers.memory) == 1


def test_memory_that_cannot_be_counted_in(codec: Any) -> None:
    with pytest.raises(BufferError):
        codec.Tally(bytes(80))
    with pytest.raises(ValueError, match="whole numbers"):
        codec.Tally(bytearray(81))
    with pytest.raises(TypeError):
        codec.Tally(80)
    with pytest.raises(TypeError):
        codec.Tally(None)


def test_memory_without_room_for_a_row(codec: Any) -> None:
    tally = codec.Tally(bytearray(8))
    with pytest.raises(IndexError):
        tally.begin(0)
    tally.add(0, 1)


def test_memory_of_the_system_stays_mapped(codec: Any) -> None:
    memory = mmap.mmap(-1, SIZE * 8)
    tally = codec.Tally(memory)
    with pytest.raises(BufferError):
        memory.close()
    tally.begin(ROW)
    del tally
    assert memory[ROW * 8] == 1
    memory.close()


def test_threads_do_not_lose_a_number(numbers: Numbers) -> None:
    """Python may switch threads between the reading and the writing of a number."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def count() -> None:
        for _ in range(2000):
            numbers.tally.begin(ROW)
            numbers.tally.end(ROW, 0.5, 1, True, False)

    threads = [threading.Thread(target=count) for _ in range(4)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    found = numbers.counted()
    assert found[_columns.STARTED] == found[_columns.ERRORS] == found[_columns.CALLS] == 8000
    assert found[_columns.BUCKETS + 11] == 8000


# --- what the dispatcher counts -------------------------------------------------------------------


class Mode:
    """Answers PDK calls, or has them find that Kong is gone."""

    def __init__(self, codec: Any) -> None:
        self.codec = codec
        self.late = 0

    def exchange(self, event: Any, frame: bytes) -> Any:
        return self.codec.Request(_wire.STEP, 6, event.id, "x")

    def send_last(self, event: Any, frame: bytes) -> None:
        """Nobody reads it."""

    def drop_late(self, event: Any) -> None:
        self.late += 1
        event.abandoned = True


def dispatch(
    codec: Any,
    numbers: Numbers,
    handler: Callable[[Any], Any],
    rows: Optional[dict[str, int]] = None,
    events: Any = None,
    closing: bool = False,
) -> dict[int, int]:
    """Run one event; what has been counted, with the bucket of its time as 100."""
    rows = {"access": ROW} if rows is None else rows
    instance = codec.BaseInstance({"access": handler}, rows=rows)
    instance.closing = closing
    one = codec.Dispatcher(
        codec.Events(1) if events is None else events,
        {8: instance},
        lambda event: event,
        lambda number: None,
        lambda request, instance: b"refused",
        lambda event, exc: "failed",
        lambda instance: None,
        numbers.tally,
    )
    one.run(codec.Request(_wire.HANDLE_EVENT, 5, 8, "access"), None, Mode(codec), "runner")
    found = numbers.counted()
    found.pop(_columns.NANOSECONDS, None)
    return {100 if place >= _columns.BUCKETS else place: n for place, n in found.items()}


BOTH = {_columns.STARTED: 1, 100: 1}


def test_a_handler_that_makes_calls(codec: Any, numbers: Numbers) -> None:
    def handler(event: Any) -> None:
        assert numbers.counted() == {_columns.STARTED: 1}
        event.call("kong.f", ())
        event.call("kong.f", ())
        assert event.calls == 2

    assert dispatch(codec, numbers, handler) == {**BOTH, _columns.CALLS: 2}
    assert numbers.counted()[_columns.NANOSECONDS] > 0


def test_a_handler_that_ends_the_request(codec: Any, numbers: Numbers) -> None:
    def handler(event: Any) -> None:
        with pytest.raises(ResponseSent):
            event.call("kong.response.exit", (200,))
        raise ResponseSent

    assert dispatch(codec, numbers, handler) == {**BOTH, _columns.CALLS: 1}


@pytest.mark.parametrize(
    "error", [ValueError("no"), SystemExit("no"), HandlerTimeout("no")], ids=repr
)
def test_a_handler_that_fails(codec: Any, numbers: Numbers, error: BaseException) -> None:
    def handler(event: Any) -> None:
        raise error

    assert dispatch(codec, numbers, handler) == {**BOTH, _columns.ERRORS: 1}


def test_a_handler_that_has_had_its_time(codec: Any, numbers: Numbers) -> None:
    def handler(event: Any) -> None:
        event.expired = event.over = True  # answered in its place

    assert dispatch(codec, numbers, handler) == {**BOTH, _columns.ERRORS: 1}


@pytest.mark.parametrize("catches", [False, True])
def test_an_abandoned_event(codec: Any, numbers: Numbers, catches: bool) -> None:
    def handler(event: Any) -> None:
        event.over = event.abandoned = True
        if not catches:
            raise EventAbandoned("no")

    assert dispatch(codec, numbers, handler) == {**BOTH, _columns.ABANDONED: 1}


def test_an_event_that_ends_too_late(codec: Any, numbers: Numbers) -> None:
    events = codec.Events(1, late=-1.0)
    assert dispatch(codec, numbers, lambda event: None, events=events) == {
        **BOTH, _columns.ABANDONED: 1,
    }  # fmt: skip


def test_what_does_not_begin_is_not_counted(codec: Any, numbers: Numbers) -> None:
    assert dispatch(codec, numbers, lambda event: None, closing=True) == {}
    assert dispatch(codec, numbers, lambda event: None, rows={}) == {}
    assert dispatch(codec, numbers, lambda event: None, rows={"log": ROW}) == {}


def test_an_event_whose_row_is_not_there(codec: Any, numbers: Numbers) -> None:
    """A bug of ours, which must not write where nobody looks for it."""
    for row in (-1, SIZE):
        with pytest.raises(IndexError):
            dispatch(codec, numbers, lambda event: None, rows={"access": row})
    assert numbers.counted() == {}


def test_an_event_knows_exactly_when_it_has_begun(codec: Any) -> None:
    """Steps may be noted with what the clock said some milliseconds ago, events may not."""
    times = {codec.Request(_wire.HANDLE_EVENT, 5, 8, "access").at for _ in range(100)}
    assert len(times) == 100
