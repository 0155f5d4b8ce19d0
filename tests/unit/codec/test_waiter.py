"""Waiter: a sleep that another thread ends."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator
from typing import Any, Callable

import pytest

PATIENCE = 30.0  # for what is about to happen; reached only by a failure


def readable(fd: int) -> bool:
    """Whether there is something to read right now."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


@pytest.fixture
def waiter(codec: Any) -> Iterator[Any]:
    one = codec.Waiter()
    yield one
    one.release()
    one.close()


def run(*targets: Callable[[], object]) -> list[threading.Thread]:
    """Start threads; daemons, so that one that hangs does not keep pytest."""
    threads = [threading.Thread(target=target, daemon=True) for target in targets]
    for thread in threads:
        thread.start()
    return threads


def test_a_wake_before_the_sleep_is_not_lost(waiter: Any) -> None:
    waiter.wake()
    waiter.wait()


def test_waking_makes_the_descriptor_readable_and_waiting_takes_it_back(waiter: Any) -> None:
    assert not readable(waiter.fileno())
    waiter.wake()
    assert readable(waiter.fileno())
    waiter.wait()
    assert not readable(waiter.fileno())


def test_many_wakes_are_one(waiter: Any) -> None:
    for _ in range(100):
        waiter.wake()
    waiter.wait()
    assert not readable(waiter.fileno())


def test_a_wake_ends_the_sleep_of_another_thread(codec: Any, waiter: Any) -> None:
    """Two threads wake each other a thousand times; no wake is lost."""
    other = codec.Waiter()
    rounds = 1000

    def answer() -> None:
        for _ in range(rounds):
            other.wait()
            waiter.wake()
        other.release()

    (thread,) = run(answer)
    for _ in range(rounds):
        other.wake()
        waiter.wait()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    other.close()


def test_a_sleeping_thread_lets_the_others_run(waiter: Any) -> None:
    """wait() holds no lock of Python's: this thread gets on while the other one sleeps."""
    done = threading.Event()

    def sleep() -> None:
        waiter.wait()
        waiter.release()
        done.set()

    run(sleep)
    assert sum(range(100_000)) > 0
    assert not done.is_set()
    waiter.wake()
    assert done.wait(PATIENCE)


def test_another_one_is_woken_by_going_to_sleep(codec: Any, waiter: Any) -> None:
    """Each thread wakes the other with its own sleep; no wake is lost."""
    other = codec.Waiter()
    rounds = 1000

    def answer() -> None:
        for _ in range(rounds):
            other.wait()
            other.wake_next(waiter)
        other.wake_next(None)
        other.release()

    (thread,) = run(answer)
    for _ in range(rounds):
        waiter.wake_next(other)
        waiter.wait()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    other.close()


def test_a_second_one_to_wake_sends_off_the_first(codec: Any, waiter: Any) -> None:
    first, second = codec.Waiter(), codec.Waiter()
    waiter.wake_next(first)
    waiter.wake_next(second)
    first.wait()
    first.release()
    waiter.wake_next(None)
    second.wait()
    for one in (first, second):
        one.release()
        one.close()


def test_who_is_to_be_woken_is_woken_by_a_release_too(codec: Any, waiter: Any) -> None:
    other = codec.Waiter()
    waiter.wake_next(other)
    waiter.release()
    other.wait()
    other.release()
    other.close()


def test_there_is_nothing_to_take_from_a_thread_that_reads_nothing(waiter: Any) -> None:
    assert waiter.take_reading() is None


@pytest.mark.parametrize("gated", [True, False])
def test_many_threads_wake_whatever_the_gate_does(codec: Any, gated: bool) -> None:
    """Each thread blocks outside of a waiter while it may hold the gate: nobody is held up."""
    count = 8
    waiters = [codec.Waiter() for _ in range(count)]
    barrier = threading.Barrier(count)
    passed = []

    def work(index: int) -> None:
        one = waiters[index]
        one.gated = gated
        one.wait()
        barrier.wait(PATIENCE)  # can be passed only if all of them have come out of wait()
        passed.append(index)
        one.release()
        one.close()

    threads = run(*[lambda index=index: work(index) for index in range(count)])
    for one in waiters:
        one.wake()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(passed) == list(range(count))


def test_release_may_be_called_without_a_sleep_and_again(waiter: Any) -> None:
    waiter.release()
    waiter.wake()
    waiter.wait()
    waiter.release()
    waiter.release()


def test_what_the_mode_reads_of_it(waiter: Any) -> None:
    assert waiter.gated is True
    waiter.gated = False
    assert waiter.gated is False
    assert waiter.lost == 0


def test_close(codec: Any) -> None:
    one = codec.Waiter()
    fd = one.fileno()
    os.fstat(fd)
    one.close()
    assert one.fileno() == -1
    with pytest.raises(OSError):
        os.fstat(fd)
    one.close()


def test_a_wake_after_close_is_an_error(codec: Any) -> None:
    one = codec.Waiter()
    one.close()
    with pytest.raises(OSError):
        one.wake()


def test_closing_releases_every_descriptor(codec: Any) -> None:
    def open_now() -> int:
        return len(os.listdir("/proc/self/fd"))

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no /proc on this system")
    before = open_now()
    for _ in range(50):
        one = codec.Waiter()
        one.wake()
        one.close()
    assert open_now() == before


def test_a_pipe_where_there_is_no_eventfd(codec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "eventfd", raising=False)
    one = codec.Waiter()
    for _ in range(20_000):  # more than a pipe holds: a full one does not block
        one.wake()
    drained = 0
    while readable(one.fileno()):
        one.wait()
        drained += 1
    assert drained > 1
    one.release()
    one.close()
