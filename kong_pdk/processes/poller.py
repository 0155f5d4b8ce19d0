"""What the parent sleeps on: readable descriptors, and connections whose peer has closed."""

from __future__ import annotations

import select
from typing import Any, Callable, Protocol

_EPOLL = hasattr(select, "epoll")
_READ = select.EPOLLIN if _EPOLL else select.POLLIN
_WRITE = select.EPOLLOUT if _EPOLL else select.POLLOUT
#: A peer that has closed is told of in any case; with epoll also one that sends nothing any more.
_HANGUP = select.EPOLLRDHUP if _EPOLL else 0


class HasFileno(Protocol):
    """Anything with a descriptor."""

    def fileno(self) -> int:
        """The descriptor."""
        ...


class Descriptor:
    """A bare descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """The descriptor."""
        return self._fd


class Poller:
    """Calls back when something happens on a descriptor. For one thread."""

    def __init__(self) -> None:
        self._poll: Any = select.epoll() if _EPOLL else select.poll()
        self._callbacks: dict[int, Callable[[], None]] = {}

    def watch(self, file: HasFileno, callback: Callable[[], None], write: bool = False) -> None:
        """Call back while a descriptor is readable (or writable, if ``write``)."""
        self._add(file.fileno(), _WRITE if write else _READ, callback)

    def watch_end(self, file: HasFileno, callback: Callable[[], None]) -> None:
        """Call back when the peer of a connection has closed, whatever else arrives."""
        self._add(file.fileno(), _HANGUP, callback)

    def _add(self, fd: int, events: int, callback: Callable[[], None]) -> None:
        self._poll.register(fd, events)
        self._callbacks[fd] = callback

    def forget(self, file: HasFileno) -> None:
        """Watch a descriptor no longer; before it is closed."""
        fd = file.fileno()
        if self._callbacks.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def turn(self, timeout: float) -> None:
        """Wait for something to happen, up to so many seconds, and call back."""
        ready = self._poll.poll(timeout if _EPOLL else 1000 * timeout)
        for fd, callback in [(fd, self._callbacks[fd]) for fd, _ in ready]:
            # One callback may close the descriptor of another, whose number may be in use again.
            if self._callbacks.get(fd) is callback:
                callback()

    def close(self) -> None:
        """Watch nothing any more."""
        self._callbacks.clear()
        if _EPOLL:
            self._poll.close()
