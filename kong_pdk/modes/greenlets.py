"""gevent: each handler runs in a greenlet, so that thousands of them can wait at the same time.

Everything happens in one thread. The loop's descriptor is watched by gevent's hub, which turns the
loop when something has arrived; the loop reads and hands requests to :meth:`Mode.route`, which
switches straight into the greenlet that is concerned. A PDK call sends, and switches back to the
hub. Greenlets are kept for further events.

The standard library is patched before any plugin is imported: the process starts anew
(:mod:`kong_pdk._again`), patches, and then runs the script. So a plugin's file may import what it
likes before it calls ``start_dedicated_server``.

The only module that imports gevent. Needs the extra ``kong-pdk[gevent]``.
"""

from __future__ import annotations

import functools
import logging
import os
import selectors
import sys
import warnings
from typing import Any, Callable, Optional

from .. import _again, _wire
from .._codec import Connection, Request, Switch
from ..config import ServerConfig
from ..exception import HandlerTimeout, ReplyLost
from ..runtime.events import Event
from ..runtime.service import Service
from ..server.loop import STOPPING_TICK, TICK, Loop
from . import missing_gevent
from .base import BaseMode

try:
    import gevent
    import gevent.event
    import gevent.monkey
    import gevent.socket
    import greenlet
except ImportError as exc:
    raise missing_gevent(exc) from exc

logger = logging.getLogger("kong_pdk.server")

#: Idle greenlets that are kept for further events.
KEEP_IDLE = 1024

#: Modules of the standard library that handlers wait in; a plugin's file may have patched some.
_PATCHED = ("socket", "ssl", "select", "threading", "time", "queue", "subprocess")

#: Modules that were there before :meth:`Mode.patch`, and what they hold that could not be patched;
#: None if that has not been called.
_unpatched: Optional[dict[str, set[str]]] = None

#: Such modules that may lie among the standard library's own.
_CUSTOM = ("sitecustomize", "usercustomize")

_READ = 1  # gevent's loops take events as libev's numbers

_thread_ident = gevent.monkey.get_original("_thread", "get_ident")
_start_thread = gevent.monkey.get_original("_thread", "start_new_thread")


class Mode(BaseMode):
    """Runs handlers in greenlets; see :class:`kong_pdk.modes.base.BaseMode`."""

    # gevent's own selector would cost a watcher for each connection.
    new_selector: type[selectors.BaseSelector] = gevent.monkey.get_original(
        "selectors", "DefaultSelector"
    )

    def __init__(self, service: Service, loop: Loop, config: ServerConfig) -> None:
        super().__init__(service, loop, config)
        self._hub: Any = gevent.get_hub()
        self._switch = Switch(
            self,
            # The hub's own switch only adds a look for a hook that no greenlet of today has.
            functools.partial(greenlet.greenlet.switch, self._hub),
            greenlet.getcurrent,
            _thread_ident,
            lambda body: greenlet.greenlet(body, self._hub),
            KEEP_IDLE,
            config.max_events,
        )
        service.instances.closer.spawn = gevent.spawn
        self._ended = gevent.event.Event()
        self._failure: Optional[BaseException] = None

    @classmethod
    def prepare(cls, **purpose: Any) -> None:
        """Start the process anew unless the standard library is patched.

        Raises:
            ConfigError: the process has no script that could be run again.
        """
        if _unpatched is not None or all(map(gevent.monkey.is_module_patched, _PATCHED)):
            for name, held in sorted((_unpatched or {}).items()):
                logger.warning(
                    "%s was imported before gevent could patch Python, and what it has taken from "
                    "there blocks every handler when it waits (%s): import it in the plugin, or "
                    "call gevent.monkey.patch_all() before it is imported, or leave out --gevent",
                    name, ", ".join(sorted(held)),
                )  # fmt: skip
            return
        _again.replace(mode="gevent", **purpose)

    @classmethod
    def patch(cls, early: list[str]) -> None:
        """Patch the standard library.

        Args:
            early: the modules that Python had imported at its start, before anything of ours.
        """
        global _unpatched
        with warnings.catch_warnings():
            # Tells of some of what _find_unpatched finds; an error where warnings are errors.
            warnings.simplefilter("ignore", gevent.monkey.MonkeyPatchWarning)
            gevent.monkey.patch_all()
        _unpatched = _find_unpatched(early)

    sleep = staticmethod(gevent.monkey.get_original("time", "sleep"))

    @staticmethod
    def start_thread(function: Callable[[], None]) -> None:
        """Start a thread of the system's: one of the patched library would be a greenlet."""
        _start_thread(function, ())

    # --- for the loop ----------------------------------------------------------------------------

    def drive(self) -> None:
        """Let the hub turn the loop until it has ended."""
        loop = self._hub.loop
        turn, ready = loop.io(self.loop.fileno(), _READ), loop.io(self.loop.parked_fd, _READ)
        ticks, self._stopping = (loop.timer(each, each) for each in (TICK / 2, STOPPING_TICK))
        self.loop.start(self)
        turn.start(self._turn)
        ready.start(self._read)
        ticks.start(self._turn)
        try:
            self._ended.wait()
        finally:
            for watcher in (turn, ready, ticks, self._stopping):
                watcher.stop()
                watcher.close()
        if self._failure is not None:
            raise self._failure
        self.close_instances()

    def _read(self) -> None:
        """Called by the hub: something has arrived on connections."""
        self.loop.read_kept(self.events, self._switch.begin, self._has_nothing_to_do)

    def _has_nothing_to_do(self) -> bool:
        """Whether no greenlet is about to run."""
        return not self._hub.loop._callbacks

    def _turn(self) -> None:
        """Called by the hub; whatever escapes from here would only be printed."""
        if self._ended.is_set():
            return
        try:
            if not self.loop.turn(0):
                self._ended.set()
            elif self.loop.stopping and not self._stopping.active:
                self._stopping.start(self._turn)
        except BaseException as exc:
            self._failure = exc
            self._ended.set()

    def route(self, connection: Connection, request: Request) -> None:
        """Switch to the greenlet that waits for this step, or to one that begins something."""
        event = self.find_waiting(request)
        if event is not None:
            event.connection = connection
            event.msgid = request.msgid
            event.sleeper.switch(request)
        elif not self.forward(connection, request):
            self._switch.begin(connection, request)

    def is_busy(self, connected: bool) -> bool:
        """Whether any greenlet is at work."""
        return self._switch.running > (0 if connected else len(self.waiting))

    def count_work(self) -> tuple[int, int]:
        """The greenlets at work; none of them waits to begin."""
        return self._switch.running, 0

    def give_up(self, event: Event) -> None:
        """Switch to the event's greenlet with nothing."""
        event.sleeper.switch(None)

    def interrupt(self, event: Event) -> None:
        """Raise HandlerTimeout where the handler waits; its last call may be another greenlet's."""
        event.greenlet.throw(HandlerTimeout(_wire.EXPIRED))

    # --- in greenlets ----------------------------------------------------------------------------

    def answer(self, connection: Connection, request: Request) -> None:
        """Answer anything but the beginning of an event."""
        reply = self.service.answer(request, connection)
        if reply:
            self.send(connection, reply)

    def fail(self, connection: Connection) -> None:
        """Close the connection of a request that could not be answered: Kong shall not wait."""
        logger.exception("a greenlet of the server failed")
        self.loop.close(connection)

    def send(self, connection: Connection, frame: bytes, sent: int = 0) -> Optional[ReplyLost]:
        """Send a reply, waiting while the peer does not read; returns what went wrong."""
        try:
            if connection.opening and not sent:
                frame, connection.opening = connection.opening + frame, b""
            if connection.stuck is None:
                sent = connection.send_nowait(frame, sent)
            if sent < len(frame):
                self._send_slowly(connection, frame, sent)
        except ReplyLost as exc:
            self.lose(connection, exc)
            return exc
        if connection.borrowed:
            connection.close()
        return None

    def _send_slowly(self, connection: Connection, frame: bytes, sent: int) -> None:
        """Send after all that others have to send: replies must not mix, nor change their order."""
        before, done = connection.stuck, gevent.event.Event()
        connection.stuck = done
        try:
            if before is not None:
                before.wait()
            while True:
                sent = connection.send_nowait(frame, sent)
                if sent == len(frame):
                    return
                fd = connection.fileno()
                if fd < 0:
                    raise ReplyLost("closed meanwhile")
                try:
                    gevent.socket.wait_write(fd, _wire.SEND_TIMEOUT_MS / 1000)
                except OSError as exc:
                    raise ReplyLost(f"the peer does not read its reply: {exc}") from exc
        except ReplyLost:
            raise
        except BaseException:  # a gevent.Timeout of the plugin's: half a reply has gone out
            self.loop.close(connection)
            raise
        finally:
            if connection.stuck is done:
                connection.stuck = None
            done.set()

    # --- for events ------------------------------------------------------------------------------

    def send_rest(self, event: Event, frame: bytes, sent: int) -> None:
        """Send what has not gone out of a PDK call."""
        assert event.connection is not None
        lost = self.send(event.connection, frame, sent)
        if lost is not None:
            self.abandon(event, f"Kong is gone: {lost}")

    def send_last(self, event: Event, frame: bytes) -> None:
        """Send the call that ends the request in Kong."""
        assert event.connection is not None
        self.send(event.connection, frame)


def _find_unpatched(early: list[str]) -> dict[str, set[str]]:
    """What modules have taken out of the standard library too early, as ``from time import sleep``.

    A sitecustomize or a .pth file imports such modules. gevent sees to the library's own.
    """
    replaced: dict[str, dict[str, Any]] = gevent.monkey.saved  # pyright: ignore
    originals = {
        id(original): f"{module}.{name}"
        for module, saved in replaced.items()
        for name, original in saved.items()
        if callable(original)
    }
    library = os.path.dirname(os.__file__) + os.sep
    found: dict[str, set[str]] = {}
    for name in early:
        module = sys.modules.get(name)
        path, package = getattr(module, "__file__", None), name.partition(".")[0]
        if path is None or package in ("gevent", "greenlet"):
            continue
        if path.startswith(library) and "-packages" + os.sep not in path and name not in _CUSTOM:
            continue
        for value in list(vars(module).values()):
            for one in value.__mro__ if isinstance(value, type) else (value,):
                if id(one) in originals:
                    found.setdefault(package, set()).add(originals[id(one)])
    return found
