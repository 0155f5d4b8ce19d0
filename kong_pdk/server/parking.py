"""Connections that the loop watches."""

from __future__ import annotations

import selectors
import threading
from typing import Any, Callable, cast

from .._codec import Connection


class Parking:
    """Watches connections until something arrives on them.

    Any thread may park a connection, the loop finds the ready ones. The selector lies in another
    one: its own descriptor is readable while a parked connection is.

    Args:
        new_selector: makes a selector that has a descriptor.
    """

    def __init__(self, new_selector: Callable[[], selectors.BaseSelector]) -> None:
        self._selector: Any = new_selector()
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """A descriptor that is readable while a parked connection is."""
        return cast(int, self._selector.fileno())

    def park(self, connection: Connection) -> None:
        """Watch a connection. A whole request in its buffer would not be seen."""
        with self._lock:
            self._selector.register(connection, selectors.EVENT_READ)

    def forget(self, connection: Connection) -> None:
        """Watch a connection no longer, if it was."""
        with self._lock:
            try:
                self._selector.unregister(connection)
            except (KeyError, ValueError):
                pass

    def find_ready(self, take_out: bool) -> list[Connection]:
        """The connections on which something has arrived.

        Args:
            take_out: watch them no longer.
        """
        with self._lock:
            ready = [key.fileobj for key, _ in self._selector.select(0)]
            if take_out:
                for connection in ready:
                    self._selector.unregister(connection)
        return ready

    def close(self) -> None:
        """Watch nothing any more."""
        with self._lock:
            self._selector.close()
