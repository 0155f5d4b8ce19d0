"""Gating: handlers that block go around the gate for a while; others do not."""

from __future__ import annotations

import pytest

from kong_pdk._codec import Events
from kong_pdk.modes.gating import Gating

KEY = (5, "access")
OTHER = (5, "log")


class Counted(Gating):
    """With a count of events of its own."""

    def __init__(self) -> None:
        self.events = Events(1)
        super().__init__(self.events)


@pytest.fixture
def gating() -> Counted:
    return Counted()


def note(gating: Counted, blocked: int = 0, free: int = 0, key: tuple[int, str] = KEY) -> None:
    for _ in range(free):
        gating.events.next_id()
    for _ in range(blocked):
        gating.events.next_id()
        gating.note(key)


def test_nobody_goes_around_at_first(gating: Counted) -> None:
    assert not gating.goes_around(KEY)
    note(gating, free=10_000)
    assert not gating.goes_around(KEY)


def test_a_few_blocks_are_chance(gating: Counted) -> None:
    note(gating, blocked=Gating.MIN_BLOCKS - 1)
    assert not gating.goes_around(KEY)
    note(gating, blocked=1)
    assert gating.goes_around(KEY)


def test_a_small_share_of_blocks_is_not_enough(gating: Counted) -> None:
    events = int(Gating.MIN_BLOCKS / Gating.MIN_SHARE)
    note(gating, free=events - Gating.MIN_BLOCKS + 1, blocked=Gating.MIN_BLOCKS)
    assert not gating.goes_around(KEY)
    other = Counted()
    note(other, free=events - Gating.MIN_BLOCKS, blocked=Gating.MIN_BLOCKS)
    assert other.goes_around(KEY)


def test_it_is_for_a_number_of_events(gating: Counted) -> None:
    note(gating, blocked=Gating.MIN_BLOCKS)
    around = 0
    while gating.goes_around(KEY):
        around += 1
        assert around <= Gating.UNGATED_EVENTS
    assert around == Gating.UNGATED_EVENTS
    assert not gating.goes_around(KEY)


def test_a_handler_that_still_blocks_goes_around_again(gating: Counted) -> None:
    note(gating, blocked=Gating.MIN_BLOCKS)
    while gating.goes_around(KEY):
        pass
    gating.start_window()
    note(gating, blocked=Gating.MIN_BLOCKS - 1)
    assert not gating.goes_around(KEY)
    note(gating, blocked=1)
    assert gating.goes_around(KEY)


def test_what_is_blocked_seldom_among_many_events_is_left_inside(gating: Counted) -> None:
    """What counts is the share of all events that are held up."""
    note(gating, free=10_000, key=OTHER)
    note(gating, blocked=Gating.MIN_BLOCKS)
    assert not gating.goes_around(KEY)


def test_each_instance_and_phase_is_seen_for_itself(gating: Counted) -> None:
    note(gating, blocked=Gating.MIN_BLOCKS - 1)
    note(gating, blocked=Gating.MIN_BLOCKS - 1, key=OTHER)
    assert not gating.goes_around(KEY) and not gating.goes_around(OTHER)
    note(gating, blocked=1, key=OTHER)
    assert gating.goes_around(OTHER) and not gating.goes_around(KEY)
    assert not gating.goes_around((6, "log"))


def test_a_window_forgets_what_was_seen_but_not_what_was_decided(gating: Counted) -> None:
    note(gating, blocked=Gating.MIN_BLOCKS - 1)
    gating.start_window()
    note(gating, blocked=Gating.MIN_BLOCKS - 1)
    assert not gating.goes_around(KEY)
    note(gating, blocked=1)
    gating.start_window()
    assert gating.goes_around(KEY)


def test_nothing_is_kept_of_what_is_over(gating: Counted) -> None:
    """Instances come and go for months: what was decided of them must not stay for ever."""
    for number in range(100):
        key = (number, "access")
        note(gating, blocked=Gating.MIN_BLOCKS, key=key)
        while gating.goes_around(key):
            pass
    gating.start_window()
    assert not gating._blocks and not gating.around
