"""What all modes share, and what each must say: how a handler is run, woken and stopped."""

from __future__ import annotations

import abc
import logging
import math
import selectors
import threading
import time
from typing import Any, Callable, NoReturn, Optional

from .. import _wire
from .._codec import Connection, Request
from ..config import ServerConfig
from ..exception import ConnectionClosed, EventAbandoned, ProtocolError
from ..runtime.events import Event
from ..runtime.failures import fields_of
from ..runtime.service import Service
from ..server.loop import TICK, Loop
from .stacks import make_room

logger = logging.getLogger("kong_pdk.server")

#: What the ``close`` of plugins gets of a stop's time if events have used it up, seconds.
CLOSE_PATIENCE = 1.0
#: How often it is looked whether the last of them has ended, seconds.
CLOSE_TICK = 0.01


class BaseMode(abc.ABC):
    """A way to run handlers.

    A mode adds :meth:`route`, which runs or resumes what a request is for, what events ask of it
    (:class:`kong_pdk.runtime.events.Mode`), :meth:`give_up` and :meth:`is_busy`.

    Args:
        service: answers the requests.
        loop: reads connections.
        config: the server's settings.
    """

    #: See :class:`kong_pdk.server.loop.LoopMode`.
    takes_connections = False
    #: Makes the loop's selectors.
    new_selector: type[selectors.BaseSelector] = selectors.DefaultSelector

    def __init__(self, service: Service, loop: Loop, config: ServerConfig) -> None:
        make_room()
        self.service = service
        self.loop = loop
        self.config = config
        self.events = service.events
        self.waiting = service.events.waiting
        self._ends = False  # nothing is waited for any more
        self._shedding = False
        self._shed = 0  # since the last tick
        service.measure = self.measure

    @classmethod  # noqa: B027 (not abstract: threads need nothing)
    def prepare(cls, **purpose: Any) -> None:
        """Make the process ready, before any plugin is imported.

        Args:
            purpose: what the process is for, should it have to start again.

        Raises:
            ConfigError: the mode cannot be had here.
        """

    @classmethod  # noqa: B027
    def patch(cls, early: list[str]) -> None:
        """Change Python before the script is run, in a process that has started again for it.

        Args:
            early: the modules that Python had imported at its start, before anything of ours.
        """

    #: Blocks such a thread, seconds.
    sleep: Callable[[float], None] = staticmethod(time.sleep)

    @staticmethod
    def start_thread(function: Callable[[], None]) -> None:
        """Start a thread of the system's, for what blocks in native code.

        Raises:
            RuntimeError: the system gives no thread.
        """
        threading.Thread(target=function, name="kong-pdk-watch", daemon=True).start()

    def drive(self) -> None:
        """Run the loop to its end."""
        self.loop.start(self)
        while self.loop.turn():
            pass
        self.close_instances()

    def close_instances(self) -> None:
        """Have all objects of plugins closed, at the end; waits as long as a stop may take."""
        instances, least = self.service.instances, time.monotonic() + CLOSE_PATIENCE
        instances.drop_all()
        while True:
            pending = instances.closer.pending()
            if not pending:
                return
            if time.monotonic() >= max(least, self.loop.deadline):
                logger.warning("stopped with close() still running of %s", ", ".join(pending))
                return
            time.sleep(CLOSE_TICK)

    @abc.abstractmethod
    def route(self, connection: Connection, request: Request) -> None:
        """Run or resume what a request is for."""

    @abc.abstractmethod
    def is_busy(self, connected: bool) -> bool:
        """Whether anything is being answered.

        Args:
            connected: whether Kong has connections; without any, no step will come.
        """

    @abc.abstractmethod
    def give_up(self, event: Event) -> None:
        """Let the handler of an event find it abandoned; it is out of ``waiting`` already."""

    @abc.abstractmethod
    def count_work(self) -> tuple[int, int]:
        """How much is under way: what runs, and what waits to be run."""

    def measure(self) -> None:
        """Note what is under way, for those who look at the server from outside."""
        running, queued = self.count_work()
        self.service.table.note_gauges(
            self.service.worker, self.loop.connected, running, queued, len(self.waiting)
        )

    def tick(self, tick: int) -> None:
        """Give up the events that have waited too long for a step, and unused instances."""
        self.events.ticks = tick
        self.measure()
        self._stop_shedding()
        late = tick - self.config.event_timeout / TICK
        for event_id, event in self.waiting.copy().items():  # others change it meanwhile
            if event.waiting_since < late and self.waiting.pop(event_id, None) is event:
                self.give_up(event)
        if self.events.running is not None:
            self._expire_handlers()
        self.service.tick(tick)

    def _expire_handlers(self) -> None:
        """End the events whose handlers have had their time, and answer for them.

        That is what ``handler_timeout`` gives them in all, or ``answer_timeout`` until their next
        answer: Kong lets the request go on if it has to wait for longer.

        A handler in the middle of a PDK call finds out when that returns; Kong answers it soon. It
        is looked at again at the next tick, for it may do something else then, or the call may be
        one of a thread of its own.
        """
        now, config = time.monotonic(), self.config
        begun_before = now - (config.handler_timeout or math.inf)
        asked_before = now - (config.answer_timeout or math.inf)
        for event in (self.events.running or {}).copy().values():
            connection = None
            if event.began < begun_before:
                connection = event.expire()
            elif event.at < asked_before:
                connection = event.expire(False)  # in a call it is Kong that takes its time
            if connection is not None:
                self.answer_now(connection, self.service.refuse_expired(event))
                self.interrupt(event)

    def interrupt(self, event: Event) -> None:  # noqa: B027
        """Interrupt a handler that has had its time, if that can be done."""

    def answer_now(self, connection: Connection, frame: bytes) -> None:
        """Send a reply without waiting, on a connection that nobody reads, and give it back."""
        try:
            whole = connection.send_nowait(connection.opening + frame)
        except ConnectionClosed as exc:
            self.lose(connection, exc)
            return
        if whole < len(connection.opening) + len(frame):
            self.lose(connection, ConnectionClosed("the peer does not read its replies"))
            return
        connection.opening = b""
        if connection.borrowed:
            connection.close()
        elif self.takes_connections:
            self.give_back(connection)

    def shed(self, connection: Connection, request: Request) -> None:
        """Refuse a request for which there is no room."""
        if not self._shedding:
            self._shedding = True
            logger.error(
                "%d events run or wait, which is the limit (--max-events): more are refused",
                self.config.max_events,
            )
        self._shed += 1
        if connection.pending and self.takes_connections:
            # Its next request would be refused from within this call, and so on. Not as Kong does.
            self.lose(connection, ConnectionClosed("the peer does not wait for its replies"))
            return
        self.answer_now(connection, self.service.refuse_busy(request))

    def _stop_shedding(self) -> None:
        """Say so when no request has been refused for a tick."""
        if self._shedding and self._shed == 0:
            self._shedding = False
            logger.warning("events are taken again")
        self._shed = 0

    def too_late(self, event: Event) -> NoReturn:
        """End an event whose PDK call comes when Kong does not wait for an answer any more."""
        self._drop(event)
        self.abandon(event, "its answer came when Kong had given up")

    def drop_late(self, event: Event) -> None:
        """Note that an event has ended when Kong does not wait for its end any more."""
        event.abandoned = True
        self._drop(event)
        logger.warning(
            "plugin %s: %s: event %d took %.0f s, and Kong had given up: its answer is not sent",
            event.instance.plugin.name, event.phase, event.id, time.monotonic() - event.began,
            extra=fields_of(event),
        )  # fmt: skip

    def _drop(self, event: Event) -> None:
        """Close the connection on which an answer would be taken for another request's."""
        connection, event.connection = event.connection, None
        if connection is not None:
            connection.shutdown()
            self.lose(connection, ConnectionClosed("an answer was late"))

    def leave(self) -> None:  # noqa: B027 (where the loop has all connections it gives them back)
        """Keep no connection for longer than an event needs it, from now on."""

    def stop(self) -> None:
        """Give up all events that wait for a step.

        A handler that computes or blocks cannot be ended; it dies with the process.
        """
        self._ends = True
        for event_id in self.waiting.copy():
            event = self.waiting.pop(event_id, None)
            if event is not None:
                try:
                    self.give_up(event)
                except Exception:  # one handler that cannot be told must not keep it from others
                    logger.exception("event %d cannot be given up", event_id)

    def find_waiting(self, request: Request) -> Optional[Event]:
        """The event whose step this is, for the caller to resume; None if it is no such step."""
        if request.kind not in _wire.STEPS:
            return None
        return self.waiting.pop(request.target, None)

    def forward(self, connection: Connection, request: Request) -> bool:
        """Hand a step to the process whose event it is for, if that can be done without waiting.

        Then this connection is read on as if the step had been answered.
        """
        forward = self.service.forward
        return (
            forward is not None
            and request.kind in _wire.STEPS
            and forward(request, connection, wait=False)
        )

    def give_back(self, connection: Connection) -> None:
        """Let the loop watch a connection that this mode has taken."""
        try:
            # A peer that does not wait for its replies may have sent the next request already; no
            # event of the socket would tell of it any more.
            request = connection.next() if connection.pending else None
        except ProtocolError as exc:
            self.lose(connection, exc)
            return
        if request is None:
            self.loop.park(connection)
        else:
            self.route(connection, request)

    def end_given_up(self, event: Event) -> NoReturn:
        """End an event whose handler was woken with nothing."""
        if self._ends:
            self.abandon(event, self.loop.why_stopping)
        self.abandon(event, "Kong has not answered a PDK call in time")

    def refuse(self, connection: Connection) -> None:
        """Close a connection because of an error of ours; what is owed there is refused first."""
        try:
            self.loop.close(connection)
        except BaseException:  # no stack, no memory
            connection.shutdown()
            raise

    def lose(self, connection: Connection, exc: Exception) -> None:
        """Close a connection because of an error on it."""
        self.loop.lose(connection, exc)

    def abandon(self, event: Event, why: str) -> NoReturn:
        """End an event from within its handler.

        Args:
            event: the event.
            why: for the log and the exception.
        """
        event.over = event.abandoned = True
        event.connection = None
        logger.warning(
            "plugin %s: %s: event %d is abandoned: %s",
            event.instance.plugin.name, event.phase, event.id, why, extra=fields_of(event),
        )  # fmt: skip
        raise EventAbandoned(why)
