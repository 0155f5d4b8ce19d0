"""Which handlers go around the gate in front of the GIL."""

from __future__ import annotations

from .._codec import Events

#: An instance and a phase.
Key = tuple[int, str]


class Gating:
    """Knows which handlers block, so that they go around the compiled codec's gate.

    A handler that blocks inside the gate holds up all others until the gate is opened behind its
    back. Where a good part of all events does so because of one plugin and phase, its next ones are
    run without the gate for a while.

    Args:
        events: counts all of them.
    """

    MIN_BLOCKS = 8
    MIN_SHARE = 1 / 16
    UNGATED_EVENTS = 1024

    def __init__(self, events: Events) -> None:
        self._events = events
        self._blocks: dict[Key, int] = {}
        self._begin = events.started
        #: What goes around, with the number of events left.
        self.around: dict[Key, int] = {}

    def start_window(self) -> None:
        """Forget what was seen; called about once a second."""
        self._blocks = {}
        self._begin = self._events.started

    def goes_around(self, key: Key) -> bool:
        """Whether the next event of an instance and phase runs without the gate."""
        left = self.around.get(key, 0)
        if left > 1:
            self.around[key] = left - 1
        elif left:
            self.around.pop(key, None)
        return left > 0

    def note(self, key: Key) -> None:
        """Note an event that has blocked inside the gate."""
        blocks = self._blocks[key] = self._blocks.get(key, 0) + 1
        events = self._events.started - self._begin
        if blocks >= self.MIN_BLOCKS and blocks >= events * self.MIN_SHARE:
            self.around[key] = self.UNGATED_EVENTS
