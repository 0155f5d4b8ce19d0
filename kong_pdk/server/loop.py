"""The loop: accepts connections, watches those that nobody reads, keeps time.

A connection always has one reader. The loop reads what arrives on a parked connection, and hands
the request to the mode. In a mode that takes connections, the connection goes with it, until the
mode parks it again: in threads the thread that answers on it also reads what comes next, so that
most requests do not pass through here at all. In other modes the loop goes on reading, when the
mode says so (:meth:`Loop.read_kept`).
"""

from __future__ import annotations

import collections
import functools
import logging
import os
import selectors
import socket
import time
from typing import Any, Callable, Optional, Protocol, cast

from .. import _wire
from .._codec import Connection, Events, Poller, Request, encode_notification
from ..config import ServerConfig
from ..exception import ConnectionClosed, MessageTooLarge, NestingTooDeep, ProtocolError
from ..refusals import answer_debt
from .door import Door
from .drain import Drain
from .listener import Listener

logger = logging.getLogger("kong_pdk.server")

#: How often time-outs and idle threads are looked for, seconds.
TICK = 1.0
#: The same while a request that is refused is still on its way, seconds.
DRAINING_TICK = 0.05
#: How often it is looked whether the last event has ended, once the server is to stop, seconds.
STOPPING_TICK = 0.05

WHY_STOPPING = "the server stops"


class LoopMode(Protocol):
    """What the loop wants of a mode."""

    #: Whether a connection that a request has arrived on is the mode's until it is parked again.
    takes_connections: bool

    def route(self, connection: Connection, request: Request) -> None:
        """Take over a connection and the request that has arrived on it."""

    def tick(self, tick: int) -> None:
        """Do what is due; called about once a second with a number that counts up."""

    def is_busy(self, connected: bool) -> bool:
        """Whether anything is being answered.

        Args:
            connected: whether Kong has connections; without any, no step will come.
        """
        ...

    def leave(self) -> None:
        """Keep no connection for longer than an event needs it, from now on."""

    def stop(self) -> None:
        """End all handlers that can be ended."""


class Loop:
    """Owns the listeners and the parked connections.

    Args:
        config: the server's settings.
        new_selector: makes a selector that has a descriptor.
        pid: the process that Kong knows as the server; this one if 0.
    """

    def __init__(
        self,
        config: ServerConfig,
        new_selector: Callable[[], selectors.BaseSelector] = selectors.DefaultSelector,
        pid: int = 0,
    ) -> None:
        self._config = config
        self._door = Door(config)
        self._selector: Any = new_selector()
        self._poller = Poller(new_selector)
        #: Tells whether :meth:`read_kept` has something to do; None where nobody calls it.
        self._kept: Any = None
        self._new_selector = new_selector
        self._connections: set[Connection] = set()
        self._closed_policy = config.closes("")
        # Connections whose request is refused before all of it has come: those to begin with, with
        # the answer, and those that are read, with the slot of each.
        self._to_drain: collections.deque[tuple[Connection, bytes]] = collections.deque()
        self._drains: dict[Drain, int] = {}
        #: What is owed on connections, in memory that another process sees, if there is one.
        self.ledger: Any = None
        self._deadline = float("inf")  # after which a stop does not wait any longer
        self.stopping = False
        #: For those whose event ends with it.
        self.why_stopping = WHY_STOPPING
        self._ticks, self._due = 0, time.monotonic() + TICK
        self._accepting = False
        self._serving = False  # the sockets are open, and connections wait there
        self._quiet = 0  # looks in a row at which nothing was being answered
        # No eventfd: signal.set_wakeup_fd writes single bytes.
        self._wake_fd, self.signal_fd = os.pipe()
        os.set_blocking(self._wake_fd, False)
        os.set_blocking(self.signal_fd, False)
        self._opening = (
            encode_notification("serverPid", pid or os.getpid()) if config.announce_pid else b""
        )
        #: Called at each tick; the life-cycle looks for its parent here.
        self.on_tick: Callable[[], None] = lambda: None

    @property
    def deadline(self) -> float:
        """When a stop is to have ended, by the monotonic clock; infinite before there is one."""
        return self._deadline

    @property
    def connected(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    # --- for the mode, from any thread ---------------------------------------------------------

    def park(self, connection: Connection) -> None:
        """Give a connection back, to be watched until something arrives on it."""
        try:
            self._poller.park(connection)
        except (ValueError, OSError):  # shut down meanwhile
            self.close(connection)

    def close(self, connection: Connection) -> None:
        """Close a connection that nobody else reads; what is owed on it is refused first."""
        self._connections.discard(connection)
        self._poller.forget(connection)
        self._refuse(connection)
        connection.close()

    def lose(self, connection: Connection, exc: Exception) -> None:
        """Close a connection because of an error: it pays, the others go on.

        A request that is too large or too deep is refused, and its connection goes on.
        """
        if isinstance(exc, (MessageTooLarge, NestingTooDeep)):
            answer = answer_debt(connection.owes, self._closed_policy, f"the request is {exc}")
            if answer:
                logger.warning("refused a request: %s", exc)
                self._connections.discard(connection)
                self._poller.forget(connection)
                self._to_drain.append((connection, answer))
                self._wake()
                return
        if isinstance(exc, ProtocolError):
            logger.warning("closed a connection: %s", exc)
        elif isinstance(exc, ConnectionClosed):
            logger.debug("closed a connection: %s", exc)
        else:  # no memory, no thread
            logger.error("closed a connection because of an error of the server", exc_info=exc)
        self.close(connection)

    def stop(self) -> None:
        """Stop serving, gracefully the first time and at once the second; for signal handlers."""
        self._deadline = 0.0 if self.stopping else time.monotonic() + self._config.graceful_timeout
        self.stopping = True
        self._wake()

    # --- the loop's own thread --------------------------------------------------------------------

    def listen(self) -> None:
        """Open the sockets; they are closed and removed when the loop ends.

        Raises:
            ListenError: a socket cannot be opened.
        """
        self._door.open()

    def watch(self, fileobj: Any, callback: Callable[[], object]) -> None:
        """Call back, in the loop's thread, while something with a descriptor is readable."""
        self._selector.register(fileobj, selectors.EVENT_READ, callback)

    def unwatch(self, fileobj: Any) -> None:
        """Do not call back any more."""
        self._selector.unregister(fileobj)

    def adopt(self, sock: socket.socket, slot: int = -1) -> None:
        """Serve a connected socket as if it had been accepted here.

        Args:
            sock: the socket.
            slot: its place in the ledger; -1 if it has none.
        """
        connection = Connection(sock, self._config.max_message, self._config.max_depth)
        if slot >= 0:
            connection.share(self.ledger, slot)
        connection.opening = self._opening
        self._connections.add(connection)
        self._watch(connection)

    def start(self, mode: LoopMode) -> None:
        """Begin to accept connections for a mode."""
        self._mode = mode
        self._selector.register(self._wake_fd, selectors.EVENT_READ, self._take_wakeups)
        if mode.takes_connections:
            self._selector.register(self._poller, selectors.EVENT_READ, self._read_parked)
        else:
            self._kept = self._new_selector()
            self._kept.register(self._poller, selectors.EVENT_READ)
        self._serving = True
        self._set_accepting(True)

    def fileno(self) -> int:
        """A descriptor that is readable while :meth:`turn` has something to do."""
        return cast(int, self._selector.fileno())

    @property
    def parked_fd(self) -> int:
        """A descriptor that is readable while :meth:`read_kept` has something to do."""
        return self._poller.fileno()

    def read_kept(
        self,
        events: Events,
        begin: Callable[[Connection, Request], None],
        may_wait: Callable[[], bool],
    ) -> None:
        """Read what has arrived, in a mode that leaves connections to the loop.

        Args:
            events: those whose steps go to their greenlets directly.
            begin: takes the requests that begin an event.
            may_wait: says whether the mode has nothing else to do at the moment.
        """
        self._poller.read_ready(events, begin, self._mode.route, self.lose, may_wait)

    def turn(self, timeout: Optional[float] = None) -> bool:
        """Do what there is to do, once.

        Args:
            timeout: how long to wait for something to do, seconds; until the next tick if None.

        Returns:
            False when the loop has ended: it was told to stop, and either the running events have
            ended or the graceful time-out is over.
        """
        if timeout is None:
            timeout = max(0.0, self._due - time.monotonic())
            timeout = STOPPING_TICK if self.stopping else timeout
            timeout = min(timeout, DRAINING_TICK) if self._drains else timeout
        try:
            for key, _ in self._selector.select(timeout):
                key.data()
            self._tend_drains()
            if self.stopping:
                self._close_listeners()
            if time.monotonic() >= self._due:
                self._tick()
        except BaseException:
            self._end()
            raise
        if self.stopping and self._may_end():
            self._end()
            return False
        return True

    def _tick(self) -> None:
        # From when it was due: whoever turns the loop by a timer of its own may be a little early,
        # and would lose every second one. What a pause has cost is lost.
        self._ticks, self._due, now = self._ticks + 1, self._due + TICK, time.monotonic()
        if self._due + TICK < now:
            self._due = now + TICK
        self._set_accepting(not self.stopping and not self._door.rests and self._has_room())
        self._door.tick()
        try:
            self._mode.tick(self._ticks)
        except Exception:  # upkeep that fails must not end the server
            logger.exception("upkeep failed; it is tried again")
        self.on_tick()

    def _may_end(self) -> bool:
        if time.monotonic() >= self._deadline:
            logger.warning("stopped with handlers still running")
            return True
        return self._is_quiet()

    def _is_quiet(self) -> bool:
        """Whether nothing is being answered; to be asked at each turn of a loop that stops."""
        # Twice in a row: a request that has just arrived may not have woken its thread yet.
        busy = self._drains or self._to_drain or self._mode.is_busy(self._is_connected())
        # Several turns may follow each other before what has arrived is read.
        busy = busy or (self._kept is not None and self._kept.select(0))
        self._quiet = 0 if busy else self._quiet + 1
        return self._quiet > 2

    def _is_connected(self) -> bool:
        """Whether a step may still come."""
        return bool(self._connections)

    def _end(self) -> None:
        self._close_listeners()
        self._tend_drains()
        for drain in self._drains:
            drain.finish()
        for connection in list(self._connections):
            self._refuse(connection)
            self._cut(connection)
        self._mode.stop()
        for connection in list(self._connections):
            self.close(connection)
        if self._kept is not None:
            self._kept.close()
        self._poller.close()
        self._selector.close()
        # The pipe stays: a signal may still write to it.

    def _close_listeners(self) -> None:
        """Take what the kernel has accepted already, and nothing after it."""
        self._door.remove_paths()
        if self._serving:  # at the bound of connections too: Kong waits for an answer on these
            self._serving = False
            for listener in self._door.listeners:
                self._accept(listener, all_of_them=True)
        self._set_accepting(False)
        self._door.close()

    def _set_accepting(self, accepting: bool) -> None:
        if accepting == self._accepting:
            return
        self._accepting = accepting
        for listener in self._door.listeners:
            if accepting:
                accept = functools.partial(self._accept, listener)
                self._selector.register(listener, selectors.EVENT_READ, accept)
            else:
                self._selector.unregister(listener)

    def _wake(self) -> None:
        try:
            os.write(self.signal_fd, b"\0")
        except OSError:
            pass  # full of wake-ups already, or the loop has ended

    def _take_wakeups(self) -> None:
        try:
            os.read(self._wake_fd, 4096)
        except BlockingIOError:
            pass

    def _note_answered(self, slot: int) -> None:
        """Note in the ledger that nothing is owed on a connection."""
        with memoryview(self.ledger) as memory, memory.cast("Q") as numbers:
            numbers[_wire.DEBT_SIZE * slot] = 0

    def _cut(self, connection: Connection) -> None:
        """Let Kong, and whoever reads a connection, find it closed."""
        connection.shutdown()

    def _refuse(self, connection: Connection) -> None:
        """Answer what is owed on a connection that is about to be closed."""
        why = "the plugin server cannot answer"
        answer = answer_debt(connection.owes, self._closed_policy, why)
        if answer:
            try:
                connection.send_nowait(connection.opening + answer)
            except ConnectionClosed:
                pass  # Kong was faster

    def _tend_drains(self) -> None:
        while self._to_drain:
            connection, answer = self._to_drain.popleft()
            answer = connection.opening + answer
            drain = Drain(connection.detach(), answer, connection.missing)
            self._drains[drain] = connection.slot
            self._selector.register(drain.sock, selectors.EVENT_READ, drain.read)
        for drain in list(self._drains):
            drain.tick()
            if drain.done is not None:
                slot = self._drains.pop(drain)
                self._selector.unregister(drain.sock)
                if slot >= 0:
                    self._note_answered(slot)
                if drain.done:
                    self.adopt(drain.sock, slot)
                else:
                    drain.finish()

    def _accept(self, listener: Listener, all_of_them: bool = False) -> None:
        for sock in self._door.accept(listener, all_of_them):
            self.adopt(sock)
            if not all_of_them and not self._has_room():
                # Further ones stay in the kernel's queue, until a tick finds some closed.
                logger.error(
                    "%d connections are open, which is the limit (--max-connections)",
                    len(self._connections),
                )
                self._set_accepting(False)
                return
        if self._door.rests:
            self._set_accepting(False)

    def _has_room(self) -> bool:
        return len(self._connections) < self._config.max_connections

    def _watch(self, connection: Connection) -> None:
        if self._mode.takes_connections:
            self.park(connection)
            return
        try:
            self._poller.keep(connection)
        except (ValueError, OSError):
            self.close(connection)

    def _read_parked(self) -> None:
        for connection in self._poller.take_ready():
            self._read(connection)

    def _read(self, connection: Connection) -> None:
        """Hand on the request that has arrived, with its connection."""
        try:
            request = connection.receive()
            if request is None:
                self.park(connection)
            else:
                self._mode.route(connection, request)
        except Exception as exc:
            self.lose(connection, exc)
