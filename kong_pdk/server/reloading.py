"""Taking over the changed code of plugins while the server runs, for those who write them.

A thread hears of changed files and tells the loop, which has the rest done beside itself: the code
is loaded anew beside the former one, an object of it is made for each instance, and then all of
them take their places at once. Events under way go on with the former objects. Whatever fails
before that leaves everything as it was.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Optional

from ..config import ServerConfig
from ..exception import PluginError, SettingsError
from ..plugins.changes import Changes, differences
from ..plugins.definition import Plugin, Stamp
from ..runtime.failures import log_failure
from ..runtime.instances import Instance, Instances
from ..runtime.service import Service
from .loop import Loop

if TYPE_CHECKING:
    from ..modes.base import BaseMode

logger = logging.getLogger("kong_pdk.server")

#: How long an error waits for a further change that explains it, seconds: a file may be saved in
#: steps that are further apart than what the watcher takes together.
SETTLE = 0.5
#: How long the objects of changed code may take to be made until it is said that they are awaited,
#: seconds.
SLOW = 5.0
#: How often it is looked whether they are, seconds.
STEP = 0.02


class _Interrupted(Exception):
    """Files have changed once more, or the server ends."""


class _Failed(Exception):
    """An object of changed code cannot be made.

    Args:
        cause: what its ``__init__`` has raised.
        instance_id: of the instance that it was to be the object of.
        stamps: the files of that code.
    """

    def __init__(self, cause: BaseException, instance_id: int, stamps: Mapping[str, Stamp]) -> None:
        super().__init__(f"{type(cause).__name__}: {cause}")
        self.cause, self.instance_id, self.stamps = cause, instance_id, stamps


class _Making:
    """The objects of changed code while they are made, which may take as long as it likes.

    Args:
        instances: for which they are made.
        plugin: the changed one.
    """

    def __init__(self, instances: Instances, plugin: Plugin) -> None:
        self._instances, self._plugin = instances, plugin
        self._lock = threading.Lock()
        self._made: list[tuple[Instance, Instance]] = []
        self._failure: Optional[_Failed] = None
        self._cancelled = False
        self.done = False

    def run(self) -> None:
        """Make them, one after the other."""
        for old in self._instances:
            if old.plugin.name != self._plugin.name or self._cancelled:
                continue
            try:
                new = self._instances.make_anew(old, self._plugin)
            except BaseException as exc:
                assert self._plugin.code is not None
                self._failure = _Failed(exc, old.id, self._plugin.code.stamps())
                break
            self._made.append((old, new))
        with self._lock:
            self.done = True
            cancelled = self._cancelled
        if cancelled:
            self._give_up()

    def cancel(self) -> None:
        """Have no use for them."""
        with self._lock:
            self._cancelled = True
            done = self.done
        if done:
            self._give_up()

    def take(self) -> list[tuple[Instance, Instance]]:
        """The former and the new one of each instance, once they are done.

        Raises:
            _Failed: one cannot be made; then there is none.
        """
        if self._failure is not None:
            self._give_up()
            raise self._failure
        return self._made

    def _give_up(self) -> None:
        for _, new in self._made:
            self._instances.retire(new)
        if self._plugin.code is not None:
            self._plugin.code.forget()


class Reloading:
    """Takes over changed code in one process.

    Args:
        service: whose plugins they are.
        loop: of that process.
        config: the server's settings.
        mode: runs the handlers.
        tells: this process is the one that tells what holds for all of the server's.
    """

    def __init__(
        self,
        service: Service,
        loop: Loop,
        config: ServerConfig,
        mode: BaseMode,
        tells: bool = True,
    ) -> None:
        from ..plugins.watching import Watcher

        self._service, self._loop = service, loop
        self._instances = service.instances
        self._tells = tells
        self._changes = Changes(service.plugins, config.directories)
        self._first = dict(service.plugins)  # as Kong has been told of them
        self._told: dict[str, list[str]] = {}  # how they differ from that
        for plugin in service.plugins.values():
            self._instances.let_idle(plugin)
        self._lock = threading.Lock()
        self._paths: Optional[set[str]] = None  # that are said to have changed; None: nothing is
        self._at_work = False
        self._ended = False
        self._heard: list[set[str]] = []  # by the thread; a list's append takes no lock
        self._wake_fd, self._tell_fd = os.pipe()
        for fd in (self._wake_fd, self._tell_fd):
            os.set_blocking(fd, False)
        self._watcher = Watcher(self._changes.folders, self._hear, mode.sleep)
        loop.watch(self._wake_fd, self._take_heard)
        self._watcher.start(mode.start_thread)

    def close(self) -> None:
        """Hear of nothing more."""
        self._ended = True
        self._watcher.stop()
        for fd in (self._wake_fd, self._tell_fd):
            os.close(fd)

    def _hear(self, paths: set[str]) -> None:
        """Called in the watcher's thread, where no lock may be taken that gevent has patched."""
        self._heard.append(paths)
        try:
            os.write(self._tell_fd, b"\0")
        except BlockingIOError:
            pass  # full of it already

    def _take_heard(self) -> None:
        """Called by the loop."""
        try:
            os.read(self._wake_fd, 4096)
        except BlockingIOError:
            pass
        heard, self._heard = self._heard, []
        with self._lock:
            self._paths = (self._paths or set()).union(*heard)
            if self._at_work:
                return
            self._at_work = True
        try:
            self._instances.closer.spawn(self._work)
        except RuntimeError as exc:  # the next change tries again
            logger.error("no thread to take over changed code: %s", exc)
            with self._lock:
                self._at_work = False

    # --- beside the loop --------------------------------------------------------------------------

    def _work(self) -> None:
        """Look after what has changed until nothing more does."""
        while True:
            with self._lock:
                paths, self._paths = self._paths, None
                if paths is None or self._ended:
                    self._at_work = False
                    return
            try:
                self._look(paths)
            except Exception:
                logger.exception("changed code could not be looked at")

    def _look(self, paths: set[str]) -> None:
        failed: list[tuple[Plugin, Exception]] = []
        for plugin in self._changes.find(paths):
            try:
                self._take_over(plugin)
            except _Interrupted:
                continue
            except Exception as exc:
                failed.append((plugin, exc))
        if self._is_still_changing():
            return  # half of it has been saved; what has failed is looked at again
        for plugin, error in failed:
            self._tell_failure(plugin, error)
        for plugin in self._changes.take_gone():
            self._tell(
                logging.WARNING, "plugin %s: %s is gone: what is loaded goes on until Kong is "
                "reloaded (kong reload)", plugin.name, plugin.origin,
            )  # fmt: skip
        for path in self._changes.take_new():
            self._tell(
                logging.WARNING, "%s may be a new plugin: it is served when Kong is reloaded "
                "(kong reload), and is among its plugins", path,
            )  # fmt: skip

    def _is_still_changing(self) -> bool:
        """Whether something changes soon; waits for that."""
        deadline = time.monotonic() + SETTLE
        while time.monotonic() < deadline and not self._ended:
            if self._paths is not None:
                return True
            time.sleep(STEP)
        return False

    def _take_over(self, old: Plugin) -> None:
        """Load a plugin anew and put it in the place of the former one.

        Raises:
            PluginError: it cannot be loaded.
            _Failed: an object cannot be made.
            _Interrupted: its files change again.
        """
        assert old.code is not None
        changed = sorted(old.code.changed())
        new = old.code.load_again()
        self._instances.let_idle(new)
        made = self._make(new)
        what = differences(self._first[old.name], new)
        news = what != self._told.get(old.name, [])
        self._told[old.name] = what
        self._instances.replace(new, made)
        self._changes.note_success(new)
        self._tell(
            logging.INFO, "plugin %s: changed code is taken over (%s)",
            new.name, ", ".join(map(os.path.basename, changed)),
        )  # fmt: skip
        if news and what:
            self._tell(
                logging.WARNING, "plugin %s: Kong does not know what has changed of it until it is "
                "reloaded (kong reload): %s", new.name, ", ".join(what),
            )  # fmt: skip
        elif news:
            self._tell(logging.WARNING, "plugin %s is as Kong knows it again", new.name)

    def _make(self, plugin: Plugin) -> list[tuple[Instance, Instance]]:
        """Make an object of changed code for each instance; in a thread, for that may block."""
        making = _Making(self._instances, plugin)
        self._instances.closer.spawn(making.run)
        slow = time.monotonic() + SLOW
        while not making.done:
            again = self._paths is not None and plugin.code is not None and plugin.code.changed()
            if self._ended or again:
                making.cancel()
                raise _Interrupted
            if time.monotonic() >= slow:
                slow = float("inf")
                logger.warning(
                    "plugin %s: __init__ of changed code has not returned for %g s: the former "
                    "code serves meanwhile", plugin.name, SLOW,
                )  # fmt: skip
            time.sleep(STEP)
        return making.take()

    # --- what is told -----------------------------------------------------------------------------

    def _tell(self, level: int, text: str, *args: object) -> None:
        """Tell what is the same in all processes, in one of them."""
        logger.log(level if self._tells else logging.DEBUG, text, *args)

    def _tell_failure(self, plugin: Plugin, exc: Exception) -> None:
        news = self._changes.note_failure(plugin, exc)
        if not news:
            return
        if isinstance(exc, _Failed) and isinstance(exc.cause.__cause__, SettingsError):
            logger.error(
                "plugin %s: changed code is not taken over, the former serves on: it does not take "
                "the configuration of an instance that there is: %s (instance %d): give the field "
                "a default, or reload Kong (kong reload) and change that configuration",
                plugin.name, exc.cause.__cause__, exc.instance_id,
            )  # fmt: skip
            return
        if isinstance(exc, _Failed):
            log_failure(
                exc.cause, "plugin %s: changed code is not taken over, the former serves on: "
                "__init__ raised %s (instance %d)", plugin.name, type(exc.cause).__name__,
                exc.instance_id, plugin=plugin.name, instance=exc.instance_id,
            )  # fmt: skip
            return
        if isinstance(exc, PluginError):
            self._tell(
                logging.ERROR, "plugin %s: changed code is not taken over, the former serves on: "
                "%s", plugin.name, exc,
            )  # fmt: skip
            logger.debug("cause", exc_info=exc.__cause__)
            return
        logger.error("plugin %s: changed code is not taken over", plugin.name, exc_info=exc)
