"""Threads: each handler runs in a thread of its own, which may block without holding up anybody.

The thread that runs an event also reads the connection that the event's last request came on: it
sends its PDK call there and sleeps on that connection and on its own waiter, because the next step
nearly always comes back on the same one. When the event is over it lingers on the connection, ready
for the next event there. So in the usual case nothing is handed from one thread to another.

The other cases: a step of another event is delivered to the thread that waits for it, together with
the connection; anything else that needs a thread goes, with its connection, to an idle one, a new
one, or the queue. Steps never need a free thread. A thread that is woken for something else parks
the connection that it was reading.
"""

from __future__ import annotations

import collections
import logging
import threading
import time
from typing import Optional

from .. import _wire
from .._codec import Connection, Request, Waiter
from ..config import ServerConfig
from ..exception import ConnectionClosed, ProtocolError, ReplyLost
from ..runtime.events import Event
from ..runtime.service import Service
from ..server.loop import Loop
from .base import BaseMode

logger = logging.getLogger("kong_pdk.server")

#: A thread that lingers on a connection for less than this is left there if another can be
#: started: its connection is in use. Seconds.
LINGER = 0.25

#: How long a stop waits for the `finally` blocks of handlers whose events it has ended, seconds.
UNWIND = 1.0


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
        self.gating = Gating()
        self._stopping = False
        self._lock = threading.Lock()  # of the number of threads, and of the queue
        self._threads: set[_Thread] = set()
        self._started = 0
        self._queue: collections.deque[tuple[Connection, Request]] = collections.deque()
        # Idle threads, coldest first: a thread without a connection, or the one that has lingered
        # longest, is the first to get other work.
        self._idle: collections.OrderedDict[_Thread, None] = collections.OrderedDict()

    # --- for the loop ----------------------------------------------------------------------------

    def route(self, connection: Connection, request: Request) -> None:
        """Hand a request, with its connection, to the thread that it is for."""
        if self.deliver(connection, request):
            return
        with self._lock:
            thread = (
                self._claim(idle_before=time.monotonic() - LINGER)
                or self._start_thread()
                or self._claim()
            )
            if thread is None:
                self._queue.append((connection, request))
                return
        thread.hand_over(connection, request)

    def deliver(self, connection: Connection, request: Request) -> bool:
        """Hand a step to the thread whose event waits for it; False if it is no such step."""
        event = self.find_waiting(request)
        if event is None:
            return False
        event.runner.hand_over(connection, request)
        return True

    def give_up(self, event: Event) -> None:
        """Wake the event's thread with nothing."""
        event.runner.hand_over(None, None)

    def tick(self, tick: int) -> None:
        """Give up late events; end threads that have had nothing to do."""
        super().tick(tick)
        self.gating.start_window()
        self._end_idle(time.monotonic() - self.config.idle_timeout)

    def is_busy(self, connected: bool) -> bool:
        """Whether any thread is at work or any request waits for one."""
        at_rest = len(self._idle) + (0 if connected else len(self.waiting))
        return len(self._threads) > at_rest or bool(self._queue)

    def stop(self) -> None:
        """End idle threads, and give up waiting events; wait a moment for those threads."""
        with self._lock:
            self._stopping = True
        super().stop()
        self._end_idle(float("inf"))
        deadline = time.monotonic() + UNWIND
        for thread in list(self._threads):
            thread.join(max(0.0, deadline - time.monotonic()))

    # --- for the threads -------------------------------------------------------------------------

    def _claim(self, idle_before: float = float("inf")) -> Optional[_Thread]:
        """Take the coldest idle thread; whoever gets it must hand something over to it.

        The caller holds the lock.
        """
        thread = next(iter(self._idle), None)
        if thread is None or thread.idle_since > idle_before:
            return None
        del self._idle[thread]
        return thread

    def _start_thread(self) -> Optional[_Thread]:
        """A new thread, unless there are enough, or the system gives none. The caller has the lock.

        The first one must be had: without any, nobody would ever look into the queue.
        """
        if len(self._threads) >= self.config.threads:
            return None
        thread = _Thread(self, self._started)
        try:
            thread.start()
        except RuntimeError as exc:
            thread.waiter.close()
            if not self._threads:
                raise
            logger.error("no further thread: %s (%d are running)", exc, len(self._threads))
            return None
        self._started += 1
        self._threads.add(thread)
        return thread

    def _end_idle(self, idle_before: float) -> None:
        """End the threads that have been idle since before a time."""
        with self._lock:
            cold = [thread for thread in self._idle if thread.last_event <= idle_before]
            for thread in cold:
                del self._idle[thread]
        for thread in cold:
            thread.hand_over(None, None)

    def _enter_idle(
        self, thread: _Thread, lingers: bool
    ) -> Optional[tuple[Optional[Connection], Optional[Request]]]:
        """Register as idle, unless there is something to do, or to end: then that is returned."""
        with self._lock:
            if self._queue:
                return self._queue.popleft()
            if self._stopping:
                return None, None
            thread.last_event = time.monotonic()
            thread.idle_since = thread.last_event if lingers else 0.0
            self._idle[thread] = None
            if not lingers:
                self._idle.move_to_end(thread, last=False)
        return None

    def _leave_idle(self, thread: _Thread) -> bool:
        """Take oneself out of the idle ones; False if somebody has claimed the thread first."""
        with self._lock:
            if thread not in self._idle:
                return False
            del self._idle[thread]
            return True

    def _ended(self, thread: _Thread) -> None:
        with self._lock:
            self._threads.discard(thread)

    # --- for events ------------------------------------------------------------------------------

    def exchange(self, event: Event, frame: bytes) -> Request:
        """Send a PDK call and wait, wherever its answer arrives."""
        thread: _Thread = event.runner
        connection = event.connection
        waiting = self.waiting
        event.waiting_since = self.ticks
        waiting[event.id] = event
        assert connection is not None
        request: Optional[Request] = None
        try:
            request = connection.exchange(frame, thread.waiter)
        except (ConnectionClosed, ProtocolError) as exc:
            # Kong may close a connection and step on another, but not if it has missed our call.
            self.lose(connection, exc)
            connection = None
            if isinstance(exc, ReplyLost) and waiting.pop(event.id, None) is event:
                self.abandon(event, f"Kong is gone: {exc}")
            thread.waiter.wait()
        while True:
            if request is None:  # woken: somebody else has taken the event out of `waiting`
                if connection is not None:
                    self.give_back(connection)
                event.connection, step = thread.take()
                if step is None:
                    self.end_given_up(event)
                event.msgid = step.msgid
                return step
            other = self.find_waiting(request)
            if other is event:
                event.msgid = request.msgid
                return request
            assert connection is not None
            if other is not None:
                other.runner.hand_over(connection, request)
            else:
                self.route(connection, request)
            connection = request = None
            thread.waiter.wait()

    def send_last(self, event: Event, frame: bytes) -> None:
        """Send the call that ends the request in Kong."""
        assert event.connection is not None
        self.send(event.connection, frame)

    def send(self, connection: Connection, frame: bytes) -> bool:
        """Send a reply; False, and the connection is closed, if nobody is there to read it."""
        try:
            connection.send(frame)
        except ConnectionClosed as exc:
            self.lose(connection, exc)
            return False
        return True


class Gating:
    """Knows which handlers block, so that they go around the compiled codec's gate.

    A handler that blocks inside the gate holds up all others until the gate is opened behind its
    back. Where that happens to a good part of a plugin's events in one phase, the next ones are run
    without it for a while.
    """

    MIN_BLOCKS = 8
    MIN_SHARE = 1 / 16
    UNGATED_EVENTS = 1024

    def __init__(self) -> None:
        self._seen: dict[tuple[int, str], list[int]] = {}  # events, blocks
        self._around: dict[tuple[int, str], int] = {}  # events left

    def start_window(self) -> None:
        """Forget what was seen; called about once a second."""
        self._seen = {}

    def goes_around(self, key: tuple[int, str]) -> bool:
        """Whether the next event of an instance and phase runs without the gate."""
        left = self._around.get(key, 0) if self._around else 0
        if left > 1:
            self._around[key] = left - 1
        elif left:
            self._around.pop(key, None)
        return left > 0

    def note(self, key: tuple[int, str], blocked: bool) -> None:
        """Note the end of an event that had passed the gate."""
        seen = self._seen.get(key)
        if seen is None:
            seen = self._seen[key] = [0, 0]
        seen[0] += 1
        if blocked:
            seen[1] += 1
            if seen[1] >= self.MIN_BLOCKS and seen[1] >= seen[0] * self.MIN_SHARE:
                self._around[key] = self.UNGATED_EVENTS


class _Thread(threading.Thread):
    """A thread that answers requests until it has had nothing to do for a while."""

    def __init__(self, mode: Mode, number: int) -> None:
        super().__init__(name=f"kong-pdk-{number}", daemon=True)
        self.mode = mode
        self.waiter = Waiter()
        self.idle_since = 0.0  # 0: reads no connection, free to be claimed at once
        self.last_event = 0.0
        self._given: tuple[Optional[Connection], Optional[Request]] = (None, None)

    def hand_over(self, connection: Optional[Connection], request: Optional[Request]) -> None:
        """Wake the thread with something to do, or with nothing: time to give up.

        Only for whoever has claimed the thread, or has taken its event out of ``waiting``.
        """
        self._given = (connection, request)
        self.waiter.wake()

    def take(self) -> tuple[Optional[Connection], Optional[Request]]:
        """What the thread was woken for."""
        given, self._given = self._given, (None, None)
        return given

    def run(self) -> None:
        connection: Optional[Connection] = None
        try:
            self.waiter.wait()
            connection, request = self.take()
            while request is not None and connection is not None:
                if request.kind == _wire.HANDLE_EVENT:
                    connection, request = self._next(self._run_event(connection, request))
                elif self.mode.deliver(connection, request):
                    connection, request = self._next(None)
                else:
                    reply = self.mode.service.answer(request)
                    connection, request = self._next(self._reply(connection, reply))
        except Exception:  # no memory, or a bug of ours: this thread ends, the others go on
            logger.exception("a thread of the server failed")
            if connection is not None:
                self.mode.loop.close(connection)  # Kong shall not wait for an answer
        finally:
            self.mode._ended(self)
            self.waiter.release()
            self.waiter.close()

    def _run_event(self, connection: Connection, request: Request) -> Optional[Connection]:
        """Run one event; returns the connection that the thread reads from then on."""
        mode, waiter = self.mode, self.waiter
        key = (request.target, request.value)
        lost = waiter.lost
        gated = not mode.gating.goes_around(key)
        if not gated:
            waiter.release()
            waiter.gated = False
        reply, event = mode.service.run_event(request, connection, mode, self)
        if gated:
            mode.gating.note(key, waiter.lost != lost)
        waiter.gated = True
        last = connection if event is None else event.connection
        return None if last is None else self._reply(last, reply)

    def _reply(self, connection: Connection, reply: bytes) -> Optional[Connection]:
        if reply and not self.mode.send(connection, reply):
            return None
        return connection if connection.fileno() >= 0 else None

    def _next(
        self, connection: Optional[Connection]
    ) -> tuple[Optional[Connection], Optional[Request]]:
        """Linger on the connection until a request arrives there or the thread is claimed."""
        mode = self.mode
        given = mode._enter_idle(self, connection is not None)
        if given is not None:
            if connection is not None:
                mode.give_back(connection)
            return given
        request = None
        if connection is not None:
            try:
                request = connection.exchange(b"", self.waiter)
            except (ConnectionClosed, ProtocolError) as exc:
                mode.lose(connection, exc)
                connection = None
                if mode._leave_idle(self):
                    return self._next(None)
        if request is not None and mode._leave_idle(self):
            return connection, request
        # Claimed: what to do instead is on its way, or there already.
        if request is not None and connection is not None:
            mode.route(connection, request)
            self.waiter.wait()
        elif connection is not None:
            mode.give_back(connection)
        else:
            self.waiter.wait()
        return self.take()
