"""Connections that nobody reads from at the moment."""

from __future__ import annotations

import selectors
import threading
from typing import Any, cast

from .._codec import Connection


class Parking:
    """Watches connections until something arrives on one; then it is no longer parked.

    Any thread may park a connection, the loop takes them out. The selector lies in another one:
    its own descriptor is readable while a parked connection is.
    """

    def __init__(self) -> None:
        self._selector: Any = selectors.DefaultSelector()
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """A descriptor that is readable while a parked connection is."""
        return cast(int, self._selector.fileno())

    def park(self, connection: Connection) -> None:
        """Watch a connection. A whole request in its buffer would not be seen."""
        with self._lock:
            self._selector.register(connection, selectors.EVENT_READ)

    def take_ready(self) -> list[Connection]:
        """Take out the connections on which something has arrived."""
        with self._lock:
            ready = [key.fileobj for key, _ in self._selector.select(0)]
            for connection in ready:
                self._selector.unregister(connection)
        return ready

    def close(self) -> None:
        """Watch nothing any more."""
        with self._lock:
            self._selector.close()
