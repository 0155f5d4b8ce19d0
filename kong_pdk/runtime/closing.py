"""Calls the ``close`` of objects that are no longer needed, where it may block."""

from __future__ import annotations

import collections
import logging
import threading
from typing import Any, Callable

from .failures import log_failure

logger = logging.getLogger("kong_pdk.server")

#: Most objects of one plugin that are closed at the same time; further ones wait. So a ``close``
#: that blocks takes a few threads, and none from other plugins.
AT_ONCE = 8


def start_thread(function: Callable[[], None]) -> None:
    """Run a function in a thread that does not keep the process from ending.

    Raises:
        RuntimeError: the system gives no thread.
    """
    threading.Thread(target=function, name="kong-pdk-close", daemon=True).start()


class Closer:
    """Runs functions that may block or raise, a few of each plugin at a time; from any thread.

    Attributes:
        spawn: runs a function beside everything else; starts a thread unless a mode says otherwise.
    """

    def __init__(self) -> None:
        self.spawn: Callable[[Callable[[], None]], Any] = start_thread
        self._lock = threading.Lock()  # of all that follows
        # By the plugin's name: what waits, and how many are at work.
        self._queues: dict[str, collections.deque[tuple[int, Callable[[], Any]]]] = {}
        self._working: collections.Counter[str] = collections.Counter()

    def add(self, name: str, instance_id: int, close: Callable[[], Any]) -> None:
        """Have a function called.

        Args:
            name: of the plugin that it belongs to.
            instance_id: for the log.
            close: the function.
        """
        with self._lock:
            self._queues.setdefault(name, collections.deque()).append((instance_id, close))
        self._work_on(name)

    def retry(self) -> None:
        """Go on with what waits because the system had no thread; to be called now and then."""
        for name in self.pending():
            self._work_on(name)

    def pending(self) -> list[str]:
        """The names of the plugins whose functions wait or run."""
        with self._lock:
            return sorted(name for name in self._queues if self._is_pending(name))

    def _is_pending(self, name: str) -> bool:
        return bool(self._queues[name]) or self._working[name] > 0

    def _work_on(self, name: str) -> None:
        with self._lock:
            if not self._queues[name] or self._working[name] >= AT_ONCE:
                return
            self._working[name] += 1
        try:
            self.spawn(lambda: self._work(name))
        except RuntimeError as exc:
            with self._lock:
                self._working[name] -= 1
            logger.error("no thread to close instances of plugin %s: %s", name, exc)

    def _work(self, name: str) -> None:
        """Call one function after the other, until none waits."""
        while True:
            with self._lock:
                if not self._queues[name]:
                    self._working[name] -= 1
                    return
                instance_id, close = self._queues[name].popleft()
            try:
                close()
            except BaseException as exc:  # sys.exit() in it too: the others are to be closed
                log_failure(
                    exc, "plugin %s: close raised %s (instance %d)",
                    name, type(exc).__name__, instance_id, plugin=name, instance=instance_id,
                )  # fmt: skip
            del close
