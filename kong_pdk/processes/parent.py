"""The parent of the workers: owns the sockets, deals connections, starts and ends workers.

It runs one thread and no plugin, so whatever a plugin does, it can answer for a worker. It keeps a
duplicate of each connection, on which it only waits for the end, as long as the worker lives; when
that dies, the connections are another one's, and calls that it owed an answer are refused
(:mod:`kong_pdk.processes.rescue`).
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Optional

from ..config import ServerConfig
from ..exception import ConfigError, WorkerError
from ..runtime.tally import Table, size_of
from ..server.door import Door
from ..server.lifecycle import (
    handle_signals,
    log_start,
    open_metrics,
    set_title,
    watch_parent,
)
from ..server.listener import Listener
from .channel import Channel
from .crew import (
    ALONE,
    END,
    END_PATIENCE,
    FAILED,
    FORGET,
    LOST,
    MISSED,
    QUIET,
    READY,
    RELEASED,
    STOP,
    USED,
    Dealt,
    Worker,
    answer_requests,
    compare_plugins,
)
from .ledger import Ledger
from .link import Link
from .memory import allocate, attach
from .poller import Descriptor, Poller
from .registry import Registry
from .replacing import Replacing
from .rescue import PATIENCE, Rescue

if TYPE_CHECKING:
    from ..metrics import Metrics

logger = logging.getLogger("kong_pdk.server")

#: The parent's upkeep, seconds.
TICK = 1.0
#: The same while something is awaited that nothing wakes it up for, seconds.
SHORT_TICK = 0.02
#: A worker that the system could not start is tried again after so long, seconds.
RETRY = 1.0
#: How long a worker that takes another one's place may take to be ready, seconds.
START_PATIENCE = 60.0


class Parent:
    """The server's main process.

    Args:
        config: the server's settings, with ``workers``.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._pid = os.getpid()
        self._poller = Poller()
        self._ledger = Ledger(config)
        self._crew = [Worker(index, self._poller, self._ledger) for index in range(config.places)]
        self._rescue = Rescue(config, self._poller, self._ledger)
        self._lonely_since = float("inf")  # no worker has been ready since then
        self._registry = Registry(lambda instance_id: self._tell_all(FORGET, instance_id), config)
        self._door = Door(config)
        self._tally = allocate(size_of(config.places))
        self._table = Table(attach(self._tally))
        self._table.start()
        self._replacing = Replacing(config, self._crew, self._table)
        self._metrics: Optional[Metrics] = None
        self._accepting = False
        self._full = False
        self._next = 0  # index of the worker whose turn it is among those with as little to do
        self._plugins: Optional[dict[str, tuple[str, ...]]] = None  # None until the server listens
        self._failure: Optional[str] = None  # why a worker could not start
        self._child_ended = False
        self._signals = self._obeyed = 0
        self._deadline = float("inf")  # after which workers are killed
        self._told_end = self._told_alone = False
        self._wake_fd, self.signal_fd = os.pipe()
        os.set_blocking(self._wake_fd, False)
        os.set_blocking(self.signal_fd, False)

    @property
    def stopping(self) -> bool:
        """Whether it has been told to stop."""
        return self._signals > 0

    def stop(self) -> None:
        """Stop, gracefully the first time and at once the second; for signal handlers."""
        self._signals += 1
        try:
            os.write(self.signal_fd, b"\0")
        except OSError:
            pass  # full of wake-ups already

    def serve(self) -> Optional[Link]:
        """Serve until a signal or the death of the parent's own parent.

        Returns:
            None at the end; in a worker that was forked, at once, its link.

        Raises:
            WorkerError: a worker cannot start; no socket was opened.
            ListenError: a socket cannot be opened.
            ConfigError: metrics are asked for, and the library is missing.
        """
        self._metrics = open_metrics(self._config)
        handle_signals(self)
        self._watch_children(self._note_child)
        self._poller.watch(Descriptor(self._wake_fd), self._drain)
        try:
            return self._run()
        finally:
            if os.getpid() == self._pid:
                self._close()

    def _run(self) -> Optional[Link]:
        look = watch_parent(self, os.getppid())
        due = 0.0
        while not (self.stopping and all(one.process is None for one in self._crew)):
            for worker in self._crew:
                link = self._start_if_due(worker)
                if link is not None:
                    return link
            self._poller.turn(self._time_to_sleep())
            now = time.monotonic()
            if now >= due:
                due = now + TICK
                self._child_ended = True  # a signal may have been lost
                look()
                self._registry.tick(now)
                self._rescue.end_stuck(self._crew)
                self._door.tick()
                if self._plugins is not None and not self.stopping:
                    self._replacing.tick(now)
            self._tend(now)
        return None

    def _time_to_sleep(self) -> float:
        hurry = (
            self.stopping
            or self._rescue.is_draining
            or self._child_ended
            or not self._accepting
            or any(one.is_congested or one.is_missing for one in self._crew)
        )
        return SHORT_TICK if hurry else TICK

    def _tend(self, now: float) -> None:
        """Do what does not wait for a descriptor."""
        if self._child_ended:
            self._child_ended = False
            for worker in self._crew:
                self._look_after(worker, now)
        for worker in self._crew:
            if worker.is_congested:
                worker.flush()
        if any(one.takes for one in self._crew):
            self._lonely_since = float("inf")
        else:
            self._lonely_since = min(self._lonely_since, now)
        while len(self._rescue):
            chosen = self._choose()
            dealt = None if chosen is None else self._rescue.take()
            if chosen is None or dealt is None:
                break
            self._deal(dealt, chosen)
        self._rescue.tick(now, self._is_lonely())
        if not self.stopping:
            self._replacing.go_on()
        while self._obeyed < self._signals:
            self._obeyed += 1
            self._begin_stop(now) if self._obeyed == 1 else self._hurry(now)
        if self._plugins is None and not self.stopping:
            if self._failure is not None:
                raise WorkerError(self._failure)
            if all(one.ready or one.vacant for one in self._crew):
                compare_plugins(self._crew)
                self._listen()
        if self.stopping:
            self._go_on_stopping(now)
        elif self._door.listeners:
            anybody = self._choose() is not None or self._is_lonely()
            self._set_accepting(not self._door.rests and anybody)

    def _is_lonely(self) -> bool:
        """Whether there has been no worker for so long that calls do not wait for one."""
        return time.monotonic() - self._lonely_since > PATIENCE

    def _drain(self) -> None:
        try:
            os.read(self._wake_fd, 4096)
        except BlockingIOError:
            pass

    def _watch_children(self, handler: Any) -> None:
        """Hear of a worker's end at once; without signals, which other threads lack, at a tick."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, handler)

    def _note_child(self, *_: object) -> None:
        self._child_ended = True

    def _tell_all(self, *message: object) -> None:
        for worker in self._crew:
            worker.tell(*message)

    # --- connections -----------------------------------------------------------------------------

    def _listen(self) -> None:
        """Open the sockets, once there is somebody to deal connections to."""
        self._door.open()
        self._plugins = self._crew[0].plugins
        for worker in self._crew:
            if worker.vacant:
                self._watch_inbox(worker)
        if self._metrics is not None:
            self._metrics.serve(self._table, self._plugins, self._registry.count)
        set_title(self._plugins)
        pids = [one.process.pid for one in self._crew if one.process is not None]
        log_start(self._plugins, self._config, pids)

    def _set_accepting(self, accepting: bool) -> None:
        if accepting == self._accepting:
            return
        self._accepting = accepting
        for listener in self._door.listeners:
            if accepting:
                self._poller.watch(listener, functools.partial(self._accept, listener))
            else:
                self._poller.forget(listener)

    def _accept(self, listener: Listener) -> None:
        """Accept some connections and deal them."""
        accepted = self._door.accept(listener)
        while True:
            worker, lonely = self._choose(), self._is_lonely()
            nobody = worker is None and not lonely
            sock = None if nobody else next(accepted, None)
            if nobody or self._door.rests:
                self._set_accepting(False)
                self._note_full()
            if sock is None:
                return
            self._take_in(sock, worker)

    def _take_in(self, sock: socket.socket, worker: Optional[Worker]) -> None:
        """Deal a new connection, or keep it until there is somebody to deal it to."""
        dealt = Dealt(sock, self._ledger.open())
        if worker is None:
            self._rescue.add(dealt, time.monotonic())
        else:
            self._deal(dealt, worker)

    def _note_full(self) -> None:
        """Say so, once, when no worker may have more connections."""
        most = self._config.max_connections
        ready = [one for one in self._crew if one.takes]  # none: all of them have died
        full = bool(ready) and all(len(one.connections) >= most for one in ready)
        if full and not self._full:
            logger.error(
                "%d connections are open in each worker, which is the limit (--max-connections)",
                most,
            )
        self._full = full

    def _choose(self) -> Optional[Worker]:
        """The worker with the fewest connections of those that take any."""
        size, now = len(self._crew), time.monotonic()
        return min(
            (
                one
                for one in self._crew
                if one.takes
                and not one.is_congested
                and now >= one.rests_until
                and (self.stopping or len(one.connections) < self._config.max_connections)
            ),
            key=lambda one: (len(one.connections), (one.index - self._next) % size),
            default=None,
        )

    def _deal(self, dealt: Dealt, worker: Worker) -> None:
        self._next = worker.index + 1
        worker.deal(dealt)
        self._poller.watch_end(dealt, functools.partial(worker.drop, dealt.fileno()))

    # --- workers ---------------------------------------------------------------------------------

    def _start_if_due(self, worker: Worker) -> Optional[Link]:
        """Start a worker where there is none; returns its link in a forked one itself."""
        if not worker.is_missing or self.stopping or time.monotonic() < worker.due:
            return None
        first = self._plugins is None
        try:
            link = worker.start(self._config, self._crew, self._tally, first)
        except (OSError, ConfigError) as exc:
            self._fail(f"worker {worker.index} cannot be started: {exc}")
            worker.due = time.monotonic() + RETRY
            return None
        if link is not None:
            self._become_worker()
            return link
        assert worker.control is not None and worker.requests is not None
        self._poller.watch(worker.control, functools.partial(self._hear, worker, worker.control))
        answer = functools.partial(answer_requests, worker.requests, self._registry.answer)
        self._poller.watch(worker.requests, functools.partial(self._while_open, worker, answer))
        if not first:
            worker.doomed = worker.started + START_PATIENCE
        return None

    def _become_worker(self) -> None:
        """Let go of all that is the parent's, in a process that was forked from it."""
        self._watch_children(signal.SIG_DFL)
        handle_signals(None)
        self._poller.close()
        self._door.let_go()
        if self._metrics is not None:
            self._metrics.let_go()
        for worker in self._crew:
            worker.close(in_child=True)
        self._rescue.close(in_child=True)
        os.close(self._wake_fd)
        os.close(self.signal_fd)

    def _while_open(self, worker: Worker, answer: Callable[[], bool]) -> None:
        if not answer() and worker.requests is not None:
            self._poller.forget(worker.requests)

    def _hear(self, worker: Worker, control: Channel) -> None:
        """Take what a worker has to say."""
        try:
            while True:
                kind, *rest = control.receive().value
                if kind == READY:
                    self._on_ready(worker, *rest)
                elif kind == FAILED:
                    self._fail(*rest)
                elif kind == QUIET:
                    (worker.quiet,) = rest
                elif kind == LOST:
                    self._on_lost(worker, *rest)
                elif kind == RELEASED:
                    self._rescue.take_from(worker, *rest)
                elif kind == MISSED:
                    self._rescue.answer_missed(self._crew, *rest)
                elif kind == USED:
                    self._registry.note_use(*rest)
        except BlockingIOError:
            pass
        except (EOFError, OSError):
            # It ends, or is dead already. Should it hang on its way out, nobody misses it.
            self._poller.forget(control)
            worker.ready = False
            worker.doomed = time.monotonic() + END_PATIENCE

    def _on_ready(self, worker: Worker, plugins: dict[str, tuple[str, ...]]) -> None:
        if self._plugins is not None:
            self._poller.forget(worker.inbox)  # it reads that itself from now on
            missing = set(self._plugins).difference(plugins)
            if missing:  # Kong would let their requests through
                self._fail(f"worker {worker.index} lacks plugins: {', '.join(sorted(missing))}")
                worker.kill()
                return
            if worker is not self._replacing.new:
                logger.info("worker %d is ready again (pid %d)", worker.index, worker.pid)
        worker.plugins = plugins
        worker.ready = worker.served = True
        worker.doomed = float("inf")
        self._table.note_process(worker.index, worker.pid, True)

    def _on_lost(self, worker: Worker, fd: int, number: int) -> None:
        """Deal a connection again that a worker had no descriptor for."""
        worker.rests_until = time.monotonic() + TICK
        self._rescue.take_from(worker, fd, number)

    def _fail(self, text: str) -> None:
        """Note why a worker cannot start: the end of a server that does not listen yet."""
        if self._plugins is None:
            self._failure = self._failure or text
        else:
            logger.error("%s; it is tried again", text)

    def _look_after(self, worker: Worker, now: float) -> None:
        """Find out whether a worker has ended, and answer for it."""
        if now >= worker.doomed:
            worker.kill()
        text = worker.take_end()
        if text is None:
            return
        self._poller.forget(worker.inbox)  # still watched if the one before was never ready
        answered = self._rescue.take_over(worker, self._crew, now)
        replaced = self._replacing.note_end(worker, now)
        restarts = not (self.stopping or replaced) and worker.served
        self._table.settle(worker.index, self._registry.numbered, restarts, replaced)
        self._watch_inbox(worker)
        if self.stopping or (replaced and not answered):
            logger.log(logging.INFO if replaced else logging.DEBUG, "%s", text)
            return
        if self._plugins is None:
            self._fail(f"{text}, before it was ready")
            return
        logger.error(
            "%s%s; %d calls that it had to answer are refused",
            text, "" if worker.served else ", before it was ready", answered,
        )  # fmt: skip

    def _watch_inbox(self, worker: Worker) -> None:
        """Answer the steps for a worker that is not there."""
        self._poller.watch(worker.inbox, functools.partial(self._rescue.read_inbox, worker))

    # --- the end ---------------------------------------------------------------------------------

    def _begin_stop(self, now: float) -> None:
        """Take what the kernel has accepted already, and nothing after it; tell the workers."""
        logger.debug("stopping")
        self._deadline = now + self._config.graceful_timeout + END_PATIENCE
        self._door.remove_paths()
        self._set_accepting(False)
        for listener in self._door.listeners:
            self._take_last(listener)
        self._door.close()
        for worker in self._crew:
            if not worker.told_end:  # what leaves is needed again, for as long as any other
                worker.leaving, worker.doomed = False, float("inf")
            if worker.ready:
                worker.tell(STOP)
            else:
                worker.kill()
        self._child_ended = True

    def _take_last(self, listener: Listener) -> None:
        for sock in self._door.accept(listener, all_of_them=True):
            self._take_in(sock, self._choose())  # all of them may be slow at the moment

    def _hurry(self, now: float) -> None:
        """Wait for handlers no longer."""
        self._deadline = min(self._deadline, now + END_PATIENCE)
        self._tell_all(STOP)

    def _go_on_stopping(self, now: float) -> None:
        """Let the workers end when none of them is needed any more.

        A worker that has nothing to do may still get the steps of another one's events.
        """
        running = [one for one in self._crew if one.process is not None]
        if len(self._rescue) and running and now < self._deadline:
            return
        if not self._told_alone and not any(one.connections for one in running):
            self._told_alone = True
            self._tell_all(ALONE)
        if not self._told_end and all(one.quiet for one in running):
            self._told_end = True
            self._tell_all(END)
        if now >= self._deadline:
            for worker in running:
                logger.error("worker %d (pid %d) does not end: killed", worker.index, worker.pid)
                worker.kill()

    def _close(self) -> None:
        """End everything that is left."""
        self._door.close()
        now = time.monotonic()
        for worker in self._crew:
            worker.kill(wait=True)
            self._rescue.take_over(worker, self._crew, now)
        self._rescue.close()
        for worker in self._crew:
            worker.close()
        self._ledger.release()
        if self._metrics is not None:
            self._metrics.close()
        os.close(self._tally)
        self._watch_children(signal.SIG_DFL)
        handle_signals(None)
        self._poller.close()
        os.close(self._wake_fd)  # the other end stays: a signal may still write to it
        if self._plugins is not None:
            logger.info("stopped")
