"""Threads: each handler runs in a thread of its own, which may block without holding up anybody.

The thread that runs an event also reads the connection that the event's last request came on: it
sends its PDK call there and sleeps on that connection and on its own waiter, because the next step
nearly always comes back on the same one. When the event is over it lingers on the connection, ready
for the next event there. So in the usual case nothing is handed from one thread to another, and
nothing of this file runs but :meth:`Runner.run`.

The other case: what arrives is for another thread. Then that one gets the request together with the
connection, and its own connection is taken over in exchange, so that each is read by somebody again
with one thread woken. Steps never need a free thread. A thread that is woken by somebody who has no
use for its connection parks that.
"""

from __future__ import annotations

import collections
import logging
import math
import threading
import time
from typing import Optional, Union

from .. import _wire
from .._codec import Connection, Request, Waiter
from ..config import ServerConfig
from ..exception import ConnectionClosed, ProtocolError, ReplyLost
from ..runtime.events import Event
from ..runtime.service import Service
from ..server.loop import TICK, Loop
from .base import BaseMode
from .gating import Gating
from .scheduling import preempt_nobody

logger = logging.getLogger("kong_pdk.server")

#: A thread that lingers on a connection for less than this is left there if another can be
#: started: its connection is in use. Seconds.
LINGER = 0.25

#: How long an event may wait for Kong while others wait for its thread, seconds. Kong's slowest
#: functions ask a database or a vault.
EVICT_AFTER = 5.0

#: How long a stop waits for the `finally` blocks of handlers whose events it has ended, seconds.
UNWIND = 1.0

Work = tuple[Optional[Connection], Optional[Request]]


class Mode(BaseMode):
    """Runs handlers in threads; see :class:`kong_pdk.modes.base.BaseMode`.

    Args:
        service: answers the requests.
        loop: takes connections that nobody reads.
        config: the server's settings.
    """

    takes_connections = True

    def __init__(self, service: Service, loop: Loop, config: ServerConfig) -> None:
        super().__init__(service, loop, config)
        self.gating = Gating(service.events)
        self._stopping = self._leaving = False
        self._lock = threading.Lock()  # of the number of threads
        self._runners: set[Runner] = set()
        self._started = 0
        self._queue: collections.deque[tuple[Connection, Request]] = collections.deque()
        self._most = min(config.threads, config.max_events)
        self._room = config.max_events - self._most
        # Idle threads: those without a connection, and those that linger on one, longest first.
        # Whoever pops a thread may give it work; a dict lets only one do so.
        self._free: dict[Runner, bool] = {}
        self._lingering: dict[Runner, bool] = {}

    # --- for the loop ----------------------------------------------------------------------------

    def route(self, connection: Connection, request: Request) -> None:
        """Hand a request, with its connection, to the thread that it is for."""
        event = self.find_waiting(request)
        if event is not None:
            event.runner.hand_over(connection, request)
            return
        if self.forward(connection, request):
            self.give_back(connection)
            return
        runner = (
            self._claim_free()
            or self._claim_lingering(idle_before=time.monotonic() - LINGER)
            or self._start_runner()
            or self._claim_lingering()
        )
        if runner is not None:
            runner.hand_over(connection, request)
        else:
            self._put_into_queue(connection, request)

    def give_up(self, event: Event) -> None:
        """Wake the event's thread with nothing."""
        event.runner.hand_over(None, None)

    def tick(self, tick: int) -> None:
        """Give up late events; end threads that have had nothing to do."""
        super().tick(tick)
        if self._queue:
            self._evict(tick - EVICT_AFTER / TICK)
            self._refuse_late()
        self.gating.start_window()
        self._end_idle(time.monotonic() - self.config.idle_timeout)

    def _evict(self, late: float) -> None:
        """Give up events that have waited for Kong for long, for those that wait for a thread.

        Where all threads wait for steps, most of these will not come any more: Kong tells nobody
        that it has abandoned an event.
        """
        for event_id, event in self.waiting.copy().items():
            if event.waiting_since < late and self.waiting.pop(event_id, None) is event:
                self.give_up(event)

    def _refuse_late(self) -> None:
        """Answer the requests that have waited for a thread for as long as they may take."""
        limits = (self.config.answer_timeout, self.config.handler_timeout)
        begun_before = time.monotonic() - min((one for one in limits if one), default=math.inf)
        while True:
            connection, request = self._take_from_queue()
            if connection is None or request is None:
                return
            if request.at >= begun_before:
                self._queue.appendleft((connection, request))
                return
            logger.error("a request has waited too long for a thread (--threads): it is refused")
            self.answer_now(connection, self.service.refuse_busy(request))

    def is_busy(self, connected: bool) -> bool:
        """Whether any thread is at work or any request waits for one."""
        at_rest = len(self._free) + len(self._lingering) + (0 if connected else len(self.waiting))
        return len(self._runners) > at_rest or bool(self._queue)

    def count_work(self) -> tuple[int, int]:
        """The threads at work, and the requests that wait for one."""
        at_rest = len(self._free) + len(self._lingering)
        return len(self._runners) - at_rest, len(self._queue)

    def leave(self) -> None:
        """Let no thread linger on a connection any more."""
        self._leaving = True
        self._end_idle(math.inf)

    def stop(self) -> None:
        """End idle threads, and give up waiting events; wait a moment for those threads."""
        self._stopping = True
        super().stop()
        self._end_idle(math.inf)
        deadline = time.monotonic() + UNWIND
        for runner in list(self._runners):
            runner.thread.join(max(0.0, deadline - time.monotonic()))

    # --- idle threads ----------------------------------------------------------------------------

    def _claim_free(self) -> Optional[Runner]:
        """Take the thread without a connection that was busy last."""
        try:
            return self._free.popitem()[0]
        except KeyError:
            return None

    def _claim_lingering(self, idle_before: float = float("inf")) -> Optional[Runner]:
        """Take the thread that has lingered longest."""
        while True:
            try:
                runner = next(iter(self._lingering), None)
            except RuntimeError:  # changed by another thread meanwhile
                continue
            if runner is None or runner.idle_since > idle_before:
                return None
            if self._lingering.pop(runner, False):
                return runner

    def _start_runner(self) -> Optional[Runner]:
        """A new thread, unless there are enough, or the system gives none.

        The first one must be had: without any, nobody would ever look into the queue.
        """
        with self._lock:
            if len(self._runners) >= self._most:
                return None
            runner = Runner(self, self._started)
            try:
                runner.thread.start()
            except RuntimeError as exc:
                runner.close()
                if not self._runners:
                    raise
                logger.error("no further thread: %s (%d are running)", exc, len(self._runners))
                return None
            self._started += 1
            self._runners.add(runner)
        return runner

    def _end_idle(self, idle_before: float) -> None:
        """End the threads that have been idle since before a time."""
        for idle in (self._free, self._lingering):
            for runner in idle.copy():
                if runner.idle_since <= idle_before and idle.pop(runner, False):
                    runner.hand_over(None, None)

    def _put_into_queue(self, connection: Connection, request: Request) -> None:
        """Let a request wait for a thread."""
        if self.service.is_about_status(request) and not connection.pending:
            # Whoever asks wants to know, above all, why nothing else is answered. A peer that does
            # not wait would be answered from within this call, and so on.
            self.answer_now(connection, self.service.answer(request))
            return
        if len(self._queue) >= self._room:
            self.shed(connection, request)
            return
        self._queue.append((connection, request))
        # One that has become idle meanwhile, or has ended, has not seen it.
        runner = self._claim_free() or self._claim_lingering() or self._start_runner()
        if runner is not None:
            runner.hand_over(*self._take_from_queue())

    def _take_from_queue(self) -> Work:
        try:
            return self._queue.popleft()
        except IndexError:
            return None, None

    # --- for the threads -------------------------------------------------------------------------

    def rest(self, runner: Runner, connection: Optional[Connection], reply: bytes) -> Work:
        """Send a thread's last reply and let it be idle until there is something to do.

        Returns:
            The next request and its connection; twice None if the thread is to end.
        """
        idle = self._free if connection is None else self._lingering
        runner.idle_since = time.monotonic()
        idle[runner] = True
        # Looked at after that, so that nobody waits unseen.
        if self._queue or self._stopping or (self._leaving and connection is not None):
            return self._rest_no_longer(runner, idle, connection, reply)
        request = None
        if connection is None:
            runner.wait()
        else:
            try:
                request = connection.exchange(reply, runner)
            except (ConnectionClosed, ProtocolError) as exc:
                self.lose(connection, exc)
                if idle.pop(runner, False):
                    return self.rest(runner, None, b"")
                runner.wait()
        if request is None:
            runner.park_reading()
            return runner.take()
        if idle.pop(runner, False):
            return connection, request
        # Claimed at this moment: what to do instead is on its way, or there already.
        assert connection is not None
        self.route(connection, request)
        runner.wait()
        return runner.take()

    def _rest_no_longer(
        self,
        runner: Runner,
        idle: dict[Runner, bool],
        connection: Optional[Connection],
        reply: bytes,
    ) -> Work:
        """Take what waits for a thread, or end, in place of being idle."""
        runner.wake_next(None)
        if connection is not None and self.send(connection, reply):
            self.give_back(connection)
        if not idle.pop(runner, False):  # claimed already
            runner.wait()
            return runner.take()
        work = self._take_from_queue()
        if work[0] is None and not self._stopping:
            return self.rest(runner, None, b"")
        return work

    def pass_on(
        self,
        reader: Runner,
        connection: Connection,
        request: Request,
        event: Optional[Event] = None,
    ) -> Optional[Connection]:
        """Hand over, from a thread that reads a connection, what is for another one.

        Args:
            reader: the thread, which goes to sleep next.
            connection: that it reads.
            request: that has arrived there.
            event: that has been found waiting for it.

        Returns:
            The connection that the thread is to read from now on.
        """
        event = event or self.find_waiting(request)
        if event is not None:
            runner: Optional[Runner] = event.runner
        elif request.kind in _wire.STEPS:  # nobody waits for it: that is soon said
            reply = self.service.answer(request, connection)
            return connection if not reply or self.send(connection, reply) else None
        else:
            runner = self._claim_free() or self._claim_lingering() or self._start_runner()
        if runner is None:
            self._put_into_queue(connection, request)
            return None
        reading = runner.take_reading()
        runner.hand_over(connection, request, reader)
        return reading

    def ended(self, runner: Runner) -> None:
        """Note that a thread is at its end, and start another one if that is missed already."""
        self._free.pop(runner, None)  # after an error
        self._lingering.pop(runner, None)
        with self._lock:
            self._runners.discard(runner)
        if self._queue and not self._stopping:  # put there while this one still counted
            another = self._start_runner()
            if another is not None:
                another.hand_over(*self._take_from_queue())

    def send(self, connection: Connection, frame: bytes) -> bool:
        """Send a reply; False, and the connection is closed, if nobody is there to read it."""
        try:
            if frame:
                connection.send(frame)
        except ConnectionClosed as exc:
            self.lose(connection, exc)
            return False
        if connection.borrowed:
            connection.close()
            return False
        return True

    # --- for events ------------------------------------------------------------------------------

    def converse(
        self, event: Event, frame: bytes, arrived: Union[list[Request], Exception, None]
    ) -> Request:
        """Go on with an exchange in which something rare has happened.

        Args:
            event: it is in ``waiting``, unless somebody has taken it from there.
            frame: what has not been sent yet.
            arrived: on the event's connection: another request, in a list from which it is taken,
                or an error; None if the thread has been woken, or nothing has been sent yet.
        """
        runner: Runner = event.runner
        connection: Optional[Connection] = event.connection
        request: Optional[Request] = None
        if frame:
            self._send_borrowed(event, frame)
            runner.wait()
        elif isinstance(arrived, Exception):
            assert connection is not None
            self._lose_under(event, connection, arrived)
            runner.wait()
        elif arrived is not None:
            request = arrived.pop()
        while request is not None:  # for somebody else
            assert connection is not None
            other = self.find_waiting(request)
            if other is event:
                event.connection, event.msgid = connection, request.msgid
                return request
            connection = self.pass_on(runner, connection, request, other)
            request = None  # not kept in the sleep that follows
            if connection is not None:
                request = self._read_on(connection, runner)
            else:
                runner.wait()
        runner.park_reading()
        event.connection, step = runner.take()
        if step is None:
            self.end_given_up(event)
        event.msgid = step.msgid
        return step

    def _read_on(self, connection: Connection, runner: Runner) -> Optional[Request]:
        """Sleep on a connection that has been taken over; None if the thread has been woken."""
        try:
            return connection.exchange(b"", runner)
        except (ConnectionClosed, ProtocolError) as exc:
            self.lose(connection, exc)
            runner.wait()
            return None

    def _lose_under(self, event: Event, connection: Connection, exc: Exception) -> None:
        """Close the connection that a PDK call was sent on, or was to be."""
        self.lose(connection, exc)
        # Kong may close a connection and step on another, but not if it has missed our call.
        if isinstance(exc, ReplyLost) and self.waiting.pop(event.id, None) is event:
            self.abandon(event, f"Kong is gone: {exc}")

    def _send_borrowed(self, event: Event, frame: bytes) -> None:
        """Answer on a connection that another process reads."""
        connection, event.connection = event.connection, None
        if connection is None:
            return
        try:
            connection.send(frame)
        except ConnectionClosed as exc:
            self._lose_under(event, connection, exc)
        connection.close()

    def send_last(self, event: Event, frame: bytes) -> None:
        """Send the call that ends the request in Kong."""
        assert event.connection is not None
        self.send(event.connection, frame)


class Runner(Waiter):
    """A thread that answers requests until it has had nothing to do for a while, and its sleep.

    Args:
        mode: gives it work.
        number: for its name.

    Attributes:
        idle_since: when it last had something to do.
    """

    def __init__(self, mode: Mode, number: int) -> None:
        super().__init__()
        self.mode = mode
        self.thread = threading.Thread(target=self.run, name=f"kong-pdk-{number}", daemon=True)
        self.idle_since = 0.0
        self._given: Work = (None, None)

    def hand_over(
        self,
        connection: Optional[Connection],
        request: Optional[Request],
        by: Optional[Runner] = None,
    ) -> None:
        """Wake the thread with something to do, or with nothing: time to give up.

        Only for whoever has claimed the thread, or has taken its event out of ``waiting``.

        Args:
            connection: that the request has arrived on.
            request: what to do.
            by: the thread that says so, if it is going to sleep next.
        """
        self._given = (connection, request)
        if by is None:
            self.wake()
        else:
            by.wake_next(self)

    def take(self) -> Work:
        """What the thread was woken for."""
        given, self._given = self._given, (None, None)
        return given

    def park_reading(self) -> None:
        """Give the connection that the woken thread was reading to the loop, if it still has it."""
        connection = self.take_reading()
        if connection is not None:
            self.mode.give_back(connection)

    def run(self) -> None:
        """Be the thread."""
        mode = self.mode
        run_event, gating, rest = mode.service.run_event, mode.gating, mode.rest
        connection: Optional[Connection] = None
        try:
            preempt_nobody()
            self.wait()
            connection, request = self.take()
            while request is not None and connection is not None:
                if request.kind == _wire.HANDLE_EVENT:
                    lost = self.lost
                    if gating.around and gating.goes_around((request.target, request.value)):
                        self.release()
                        self.gated = False
                    reply, event = run_event(request, connection, mode, self)
                    if lost != self.lost:
                        gating.note((request.target, request.value))
                    self.gated = True
                    if event is not None:
                        connection = event.connection
                elif request.kind in _wire.STEPS:
                    connection, reply = mode.pass_on(self, connection, request), b""
                else:
                    reply = mode.service.answer(request, connection)
                if connection is not None and connection.borrowed:
                    mode.send(connection, reply)
                    connection = None
                request = event = None  # what has been read may be large, and the rest long
                connection, request = rest(self, connection, reply)
        except Exception:  # no memory, or a bug of ours: this thread ends, the others go on
            logger.exception("a thread of the server failed")
            if connection is not None:
                mode.loop.close(connection)  # Kong shall not wait for an answer
        finally:
            self.release()
            try:
                mode.ended(self)
            except RuntimeError as exc:
                logger.error("no further thread: %s", exc)
            self.close()
