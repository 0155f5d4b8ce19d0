"""Hearing of changed files. The only module that imports watchfiles.

Needs the extra ``kong-pdk[reload]``.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Callable

from ..exception import ConfigError

logger = logging.getLogger("kong_pdk.server")

#: Changes are told together until there has been none for so long, milliseconds: editors save in
#: several steps.
QUIET = 100
#: How often it is looked whether other folders are to be watched, milliseconds.
LOOK = 500
#: How long a stop waits for the thread, seconds; it looks each ``QUIET``.
PATIENCE = 5.0


def check_watchfiles() -> None:
    """See that the library is there.

    Raises:
        ConfigError: it is not.
    """
    try:
        import watchfiles  # noqa: F401
    except ImportError as exc:
        raise ConfigError(
            f"--reload needs watchfiles ({exc}): pip install 'kong-pdk[reload]'"
        ) from exc


class Watcher:
    """Watches folders, not what is below them, in a thread of its own.

    Args:
        folders: says which ones; asked again and again, in that thread.
        notify: called there, with the paths that have changed; with none when folders have begun to
            be watched, for something may have changed before that.
        sleep: blocks that thread for some seconds, and nothing else.
    """

    def __init__(
        self,
        folders: Callable[[], set[str]],
        notify: Callable[[set[str]], None],
        sleep: Callable[[float], None],
    ) -> None:
        self._folders, self._notify, self._sleep = folders, notify, sleep
        self._stopping = False
        self._ended = True
        # watchfiles tells of each change. Asked here, because in that thread it may take a lock
        # that gevent has patched.
        log = logging.getLogger("watchfiles.main")
        log.setLevel(logging.WARNING)
        for level in (logging.INFO, logging.DEBUG):
            log.isEnabledFor(level)

    def is_set(self) -> bool:
        """Whether it is to stop, as watchfiles asks."""
        return self._stopping

    def start(self, start_thread: Callable[[Callable[[], None]], object]) -> None:
        """Begin.

        Args:
            start_thread: starts a thread of the system's, for the library blocks in its own code.
        """
        self._ended = False
        try:
            start_thread(self._run)
        except BaseException:
            self._ended = True
            raise

    def stop(self) -> None:
        """End; Python must not end while the thread is in the library's code."""
        self._stopping = True
        deadline = time.monotonic() + PATIENCE
        while not self._ended and time.monotonic() < deadline:
            time.sleep(0.005)

    def _run(self) -> None:
        try:
            while not self._stopping:
                try:
                    self._watch()
                except Exception as exc:  # a folder that is gone, no inotify watch left
                    logger.error("cannot watch for changed files, which is tried again: %s", exc)
                    for _ in range(20):
                        if not self._stopping:
                            self._sleep(0.05)
        finally:
            self._ended = True

    def _watch(self) -> None:
        """Watch until other folders are to be watched."""
        from watchfiles import watch

        folders = self._existing()
        told = False
        if not folders:
            self._sleep(LOOK / 1000)
            return
        for changes in watch(
            *sorted(folders), watch_filter=_is_of_interest, step=QUIET, rust_timeout=LOOK,
            yield_on_timeout=True, raise_interrupt=False, recursive=False, stop_event=self,
        ):  # fmt: skip
            if changes or not told:
                told = True
                self._notify({path for _, path in changes})
            if self._existing() != folders:
                return

    def _existing(self) -> set[str]:
        return set(filter(os.path.isdir, self._folders()))


def _is_of_interest(_: object, path: str) -> bool:
    name = os.path.basename(path)
    return name != "__pycache__" and not name.startswith(".") and not name.endswith("~")
