"""Time-outs are counted in ticks of the loop, so these must keep up with the clock."""

from __future__ import annotations

import pytest

from kong_pdk.config import ServerConfig
from kong_pdk.server import loop as loop_module
from kong_pdk.server.loop import TICK, Loop


class Ticking:
    """A mode that counts."""

    takes_connections = True

    def __init__(self) -> None:
        self.ticks: list[int] = []

    def tick(self, tick: int) -> None:
        self.ticks.append(tick)

    def stop(self) -> None: ...

    def is_busy(self, connected: bool) -> bool:
        return False


class Clock:
    """Stands in for the module ``time``."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(loop_module, "time", clock)
    return clock


def turned(clock: Clock, *pauses: float) -> list[int]:
    """The ticks of a loop that is turned after each pause, as by a timer that is not its own."""
    mode, loop = Ticking(), Loop(ServerConfig())
    loop.start(mode)  # type: ignore[arg-type]
    for pause in pauses:
        clock.now += pause
        assert loop.turn(0)
    loop.stop()
    while loop.turn(0):
        clock.now += TICK
    return mode.ticks


@pytest.mark.parametrize("late", [0.0, 0.001, 0.3])
@pytest.mark.parametrize("early", [0.0, 0.001, 0.2])
def test_none_is_lost_to_a_timer_that_is_early_or_late(
    clock: Clock, early: float, late: float
) -> None:
    pauses = [TICK - early, *[TICK + late, TICK - late] * 30]
    count = len(turned(clock, *pauses))
    assert len(pauses) - 2 <= count <= len(pauses) + 2


def test_a_long_pause_is_not_made_up_for(clock: Clock) -> None:
    """Nothing ran meanwhile; what has just begun must not be taken for old."""
    ticks = turned(clock, *[TICK] * 3, 60 * TICK, *[TICK] * 3)
    assert 6 <= len(ticks) <= 9
