"""A worker process: an ordinary server of one mode, to which connections are dealt."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import signal
import socket
import sys
import threading
import time
from typing import Any, Callable, Optional

from .. import _wire
from .._codec import Connection
from ..config import MAX_WORKERS, ServerConfig
from ..exception import KongPDKError, RPCError
from ..modes import load_mode
from ..modes.base import BaseMode
from ..observing import Observer, open_observer
from ..plugins.definition import Plugin
from ..runtime.events import new_events
from ..runtime.service import Service
from ..runtime.tally import Table
from ..server.lifecycle import STOP_SIGNALS, open_reloading, set_title, watch_parent
from ..server.loop import STOPPING_TICK, WHY_STOPPING, Loop
from .channel import Channel
from .crew import FAILED, LEAVE_PATIENCE, LOST, MISSED, QUIET, READY, RELEASED, USED
from .inbox import Forwarder, Lent, read_inbox
from .ledger import beat, life_of
from .link import Link
from .memory import attach
from .registry import NUMBER, SharedInstances

logger = logging.getLogger("kong_pdk.server")


def work(link: Link, load: Callable[[], dict[str, Plugin]], config: ServerConfig) -> None:
    """Be a worker until the parent says otherwise, or is gone.

    Args:
        link: to the parent and the other workers.
        load: loads the plugins.
        config: the server's settings.

    Raises:
        SystemExit: the worker cannot start; the parent has been told why.
    """
    if threading.current_thread() is threading.main_thread():
        # The parent's business; that they are ignored would be passed on to a plugin's children.
        for number in STOP_SIGNALS:
            signal.signal(number, lambda *_: None)
    control = Channel.of_fd(link.control)
    try:
        mode_class = load_mode(config.mode)
        for fd in link.descriptors():
            os.set_inheritable(fd, True)
        mode_class.prepare(worker=dataclasses.asdict(link))
        for fd in link.descriptors():
            os.set_inheritable(fd, False)
        plugins = _load(load, link)
        table = Table(attach(link.tally))
        os.close(link.tally)
        table.rows(link.index, plugins)  # whether there is room for them
        observer = open_observer(
            config,
            mode_class.start_thread,
            mode_class.sleep,
            must=link.first,  # requests wait for one that comes later: they come first
        )
    except KongPDKError as exc:
        control.send((FAILED, str(exc)), timeout=None)
        control.close()
        sys.exit(1)
    with contextlib.ExitStack() as stack:

        def channel(fd: int) -> Channel:
            return stack.enter_context(contextlib.closing(Channel.of_fd(fd)))

        stack.callback(control.close)
        loop = WorkerLoop(config, mode_class, link, control)
        loop.serve(
            plugins,
            table,
            requests=channel(link.requests),
            inbox=channel(link.inbox),
            outboxes=[channel(fd) for fd in link.outboxes],
            observer=observer,
        )


def _load(load: Callable[[], dict[str, Plugin]], link: Link) -> dict[str, Plugin]:
    """Load the plugins; what is to be told about them is told once at the server's start."""
    log = logging.getLogger("kong_pdk")
    level = log.level
    if link.first and link.index:
        log.setLevel(max(level, logging.ERROR))
    try:
        return load()
    finally:
        log.setLevel(level)


class WorkerLoop(Loop):
    """A loop that gets its connections from the parent, and ends together with the others.

    Args:
        config: the server's settings.
        mode_class: runs the handlers.
        link: what it is among the workers.
        control: to the parent.
    """

    def __init__(
        self, config: ServerConfig, mode_class: type[BaseMode], link: Link, control: Channel
    ) -> None:
        super().__init__(config, mode_class.new_selector, pid=link.parent)
        self._mode_class = mode_class
        self._control = control
        self.ledger = attach(link.ledger)
        self._debts = memoryview(self.ledger).cast("Q")
        self._life = life_of(self._debts, link.index)
        os.close(link.ledger)
        self._index, self._parent = link.index, link.parent
        self._told_quiet = False
        self._dealt: dict[int, tuple[int, int]] = {}  # by slot: what the parent calls a connection
        self._leaving = False  # it makes room for another worker
        self._sweep_due = 0.0
        self._alone = False  # no connection to any worker is left
        self._may_go = False  # the parent says that nobody needs this worker any more

    def serve(
        self,
        plugins: dict[str, Plugin],
        table: Table,
        requests: Channel,
        inbox: Channel,
        outboxes: list[Channel],
        observer: Optional[Observer] = None,
    ) -> None:
        """Serve until the end.

        Args:
            plugins: by name.
            table: counts what happens here.
            requests: to ask the parent.
            inbox: where other workers leave steps.
            outboxes: to leave steps for them.
            observer: is told of the events.
        """
        ask, names = _Questions(requests).ask, sorted(plugins)
        numbers = dict(zip(names, ask(NUMBER, names)))
        self._instances = SharedInstances(
            plugins,
            ask,
            self._config,
            lambda instance_ids: self._tell(USED, instance_ids),
        )
        service = Service(
            plugins,
            self._config,
            self._instances,
            new_events(self._config, self._index, MAX_WORKERS),
            Forwarder(self._index, outboxes, functools.partial(life_of, self._debts)),
            table,
            self._index,
            numbers,
            observer,
        )
        service.pid = self._parent
        mode = self._mode_class(service, self, self._config)
        self.watch(self._control, self._listen)
        self.watch(inbox, lambda: read_inbox(inbox, self._take, self._miss))
        self.on_tick = watch_parent(self, self._parent)
        set_title(plugins, f"worker {self._index}")
        beat(self._debts, self._index)
        self._tell(READY, {name: plugins[name].phases for name in names})
        logger.debug("worker %d is ready (pid %d)", self._index, os.getpid())
        reloading = open_reloading(service, self, mode, self._config, tells=self._index == 0)
        try:
            mode.drive()
        finally:
            if reloading is not None:
                reloading.close()
            if observer is not None:
                observer.close()
        logger.debug("worker %d has stopped", self._index)

    def _tick(self) -> None:
        beat(self._debts, self._index)
        super()._tick()

    def _take(self, lent: Lent) -> None:
        """Take a step from another worker."""
        connection = Connection(lent.sock, self._config.max_message, self._config.max_depth)
        connection.borrowed = True
        if lent.slot >= 0:
            if lent.life != self._life:  # the worker before this one has died
                connection.close()
                if self._debts[_wire.DEBT_SIZE * lent.slot] == lent.owes:
                    # The parent has answered what it found in the ledger. A core that is not in a
                    # hurry to show what it writes lets the lender and the parent miss each other.
                    self._miss(lent.slot, lent.owes)
                return
            connection.share(self.ledger, lent.slot, lent.owes)
        try:
            self._mode.route(connection, lent.request)
        except Exception:
            logger.exception("a step of another worker is lost because of an error of the server")
            self.close(connection)  # which refuses it

    def _miss(self, slot: int, owes: int) -> None:
        """Let the parent answer where this worker cannot."""
        self._tell(MISSED, slot, owes)

    def close(self, connection: Connection) -> None:
        """As :meth:`Loop.close`; Kong finds it closed although the parent has a duplicate."""
        self._refuse(connection)
        self._cut(connection)
        if not connection.borrowed:
            self._dealt.pop(connection.slot, None)
        super().close(connection)

    def _cut(self, connection: Connection) -> None:
        """As that of Loop; but not while another worker is to answer there."""
        if not self._is_lent(connection):
            connection.shutdown()

    def _is_lent(self, connection: Connection) -> bool:
        """Whether another worker is to answer on a connection of this one."""
        slot = connection.slot
        own = not connection.borrowed and slot >= 0 and not connection.owes
        return own and bool(self._debts[_wire.DEBT_SIZE * slot] & _wire.OWES_LENT)

    # --- making room for another worker ----------------------------------------------------------

    def park(self, connection: Connection) -> None:
        """As :meth:`Loop.park`; a worker that makes room gives the connection to the parent."""
        if not (self._leaving and self._release(connection)):
            super().park(connection)

    def _release(self, connection: Connection) -> bool:
        """Give a connection that nobody reads back to the parent, if nothing is under way there.

        The parent has a duplicate, so nothing that Kong sends meanwhile is lost.
        """
        place = self._dealt.get(connection.slot)
        if place is None or not _is_at_rest(connection):
            return False
        if not self._tell(RELEASED, *place):  # at the next sweep
            return False
        self._connections.discard(connection)
        self._poller.forget(connection)  # closing does not end that: others have duplicates
        connection.close()
        return True

    def _release_parked(self) -> None:
        """Give back the connections on which nothing happens.

        What is lent is kept: with gevent it may be that it waits for room in an inbox still.
        """
        for connection in list(self._connections):
            if (
                _is_at_rest(connection)
                and not self._is_lent(connection)
                and self._poller.unpark(connection)
                and not self._release(connection)
            ):
                self._watch(connection)

    # --- the parent ------------------------------------------------------------------------------

    def _tell(self, *message: Any) -> bool:
        """Say something to the parent; False if that is lost."""
        try:
            self._control.send(message)
        except OSError as exc:  # it is gone, or slow
            logger.debug("the parent does not listen: %s", exc)
            return False
        return True

    def _listen(self) -> None:
        """Do what the parent says."""
        try:
            while True:
                message = self._control.receive()
                getattr(self, f"_on_{message.value[0]}")(*message.value[1:], *message.fds)
        except BlockingIOError:
            pass
        except (EOFError, OSError) as exc:
            logger.info("the parent process %d is gone: stopping (%s)", self._parent, exc)
            self.unwatch(self._control)
            if self._leaving or not self.stopping:
                self._on_stop()
            self._may_go = True

    def _on_deal(self, fd_there: int, number: int, slot: int, fd: int = -1) -> None:
        if fd < 0:
            logger.error("cannot accept connections for a moment: too many open descriptors")
            self._tell(LOST, fd_there, number)
            return
        if slot >= 0:
            self._dealt[slot] = fd_there, number
        self.adopt(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=fd), slot)

    def _on_forget(self, instance_id: int) -> None:
        self._instances.forget(instance_id)

    def _on_leave(self) -> None:
        """Make room for another worker: as a stop, but without a hurry, and connections go on."""
        if self.stopping:
            return
        self._leaving = self.stopping = True
        self.why_stopping = "its worker makes room for another one, and can wait no longer"
        self._deadline = time.monotonic() + LEAVE_PATIENCE
        self._mode.leave()

    def _on_stop(self) -> None:
        if self._leaving:  # that was no stop yet, and its end was not that of the server
            self._leaving = self.stopping = self._may_go = False
            self.why_stopping = WHY_STOPPING
        self.stop()

    def _on_alone(self) -> None:
        self._alone = True

    def _on_end(self) -> None:
        self._may_go = True

    def _is_connected(self) -> bool:
        # While it leaves the others live on, and leave steps here.
        return super()._is_connected() if self._may_go and not self._leaving else not self._alone

    def _is_quiet(self) -> bool:
        """Whether nothing is being answered here, and the parent knows that of all workers."""
        now = time.monotonic()
        if self._leaving and now >= self._sweep_due:
            self._sweep_due = now + STOPPING_TICK
            self._release_parked()
        quiet = super()._is_quiet()
        if quiet != self._told_quiet and self._tell(QUIET, quiet):
            self._told_quiet = quiet
        return quiet and self._may_go


def _is_at_rest(connection: Connection) -> bool:
    """Whether nothing is owed on a connection, and nothing of a request has come."""
    return not (connection.owes or connection.pending or connection.stuck)


class _Questions:
    """Puts questions to the parent, one at a time; any thread may ask."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._number = 0

    def ask(self, *question: Any) -> Any:
        """The parent's answer.

        Raises:
            RPCError: it has not answered.
        """
        with self._lock:
            self._number += 1
            try:
                self._channel.send((self._number, question), timeout=None)
                while True:
                    number, answer = self._channel.receive(timeout=None).value
                    if number is None:
                        raise RPCError("the server's main process has too many open descriptors")
                    if number == self._number:  # else to a question that was given up
                        return answer
            except (OSError, EOFError, ValueError) as exc:
                raise RPCError(f"the server's main process does not answer: {exc}") from exc
