"""The parent's side of one worker: its process, what is said to it, and what was dealt to it."""

from __future__ import annotations

import collections
import logging
import os
import socket
import time
from collections.abc import Sequence
from typing import Any, Callable, Optional

from ..config import ServerConfig
from ..exception import WorkerError
from .channel import Channel
from .launch import Process, describe_end, fork, spawn
from .ledger import Ledger
from .link import Link, open_pair
from .poller import Poller

logger = logging.getLogger("kong_pdk.server")

# What the parent says to a worker.
DEAL, FORGET, LEAVE, STOP, ALONE, END = "deal", "forget", "leave", "stop", "alone", "end"
# What a worker says to it.
READY, FAILED, LOST, MISSED, QUIET, USED = "ready", "failed", "lost", "missed", "quiet", "used"
RELEASED = "released"

#: Waits between the end of a worker and the start of the next, seconds, the longer the more of them
#: have ended soon after their start. The first one is missed as little as can be, and so is one
#: that has worked: then it is a request that ends them, and others wait.
BACK_OFF = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
BACK_OFF_SERVED = (0.0, 0.1, 0.2, 0.5)
#: A worker that has lived for so long is none of those, seconds.
STEADY = 10.0
#: How long a worker may take to end after its graceful time, seconds: handlers unwind, and threads
#: that a plugin has left behind hold it up.
END_PATIENCE = 6.0
#: How long the events of a worker that makes room for another may go on, seconds: Kong waits for no
#: answer for longer.
LEAVE_PATIENCE = 60.0


class Dealt:
    """A connection, as the parent knows it.

    Args:
        sock: the parent's duplicate.
        slot: its place in the ledger.

    Attributes:
        number: of its dealing; descriptors are used again, these are not.
    """

    def __init__(self, sock: socket.socket, slot: int) -> None:
        self.sock = sock
        self.slot = slot
        self.number = 0

    def fileno(self) -> int:
        """The descriptor."""
        return self.sock.fileno()


class Worker:
    """One place in the server, and the process that has it at the moment.

    Args:
        index: of the place.
        poller: of the parent.
        ledger: where it notes what it owes.

    Attributes:
        process: None between the end of one and the start of the next.
        plugins: the phases of those that it has loaded, by name.
        ready: it has loaded its plugins and takes connections.
        served: it has been ready once.
        vacant: no process belongs there at the moment.
        memory: what its process uses, bytes, as of the last look.
        leaving: it makes room for another worker: no connection is dealt to it.
        quiet: it has been told to leave or to stop, and nothing is being answered there.
        told_end: it has been told that nobody needs it any more.
        started: when the process was started, by the monotonic clock.
        due: when the next one may be started, by the same clock.
        rests_until: no connection is dealt to it before that, by the same clock.
        doomed: when it is killed, by the same clock: it does not listen any more.
        connections: those dealt to it, by descriptor.
    """

    def __init__(self, index: int, poller: Poller, ledger: Ledger) -> None:
        self.index = index
        self._poller = poller
        self._ledger = ledger
        # The inbox outlives the process: nobody's step is lost on the way.
        receiver, sender = open_pair()
        self.inbox, self.outbox = Channel(receiver), Channel(sender)
        self.process: Optional[Process] = None
        self.control: Optional[Channel] = None
        self.requests: Optional[Channel] = None
        self._backlog: collections.deque[tuple[Any, Sequence[int]]] = collections.deque()
        self.vacant = False
        self.memory = 0
        self.ready = self.served = self.leaving = self.quiet = self.told_end = False
        self.plugins: dict[str, tuple[str, ...]] = {}
        self.started = float("-inf")
        self.due = 0.0
        self._short_lives = 0  # in a row
        self.rests_until = 0.0
        self.doomed = float("inf")
        self.connections: dict[int, Dealt] = {}
        self._dealt = 0

    @property
    def pid(self) -> int:
        """The process; 0 if there is none."""
        return 0 if self.process is None else self.process.pid

    @property
    def is_congested(self) -> bool:
        """Whether it does not read what it is told."""
        return bool(self._backlog)

    @property
    def is_missing(self) -> bool:
        """Whether there is no process where one belongs."""
        return self.process is None and not self.vacant

    @property
    def takes(self) -> bool:
        """Whether connections may be dealt to it."""
        return self.ready and not self.leaving

    def start(
        self, config: ServerConfig, crew: list[Worker], tally: int, first: bool
    ) -> Optional[Link]:
        """Start a process for the place.

        Args:
            config: the server's settings.
            crew: all workers.
            tally: memory in which the process is to count, a descriptor.
            first: the server does not listen yet.

        Returns:
            The link in a forked worker itself, None in the parent.

        Raises:
            OSError: the system gives no process, or no descriptor.
            ConfigError: this process has no script that could be run again.
        """
        self.started = time.monotonic()
        self.ready = self.served = self.leaving = self.quiet = self.told_end = False
        self.memory = 0
        self.doomed = float("inf")
        pairs = [open_pair() for _ in range(2)]
        try:
            link = Link(
                index=self.index,
                parent=os.getpid(),
                control=pairs[0][1].fileno(),
                requests=pairs[1][1].fileno(),
                inbox=self.inbox.fileno(),
                outboxes=[one.outbox.fileno() for one in crew],
                ledger=self._ledger.fd,
                tally=tally,
                first=first,
            )
            self.process = fork() if config.start_method == "fork" else spawn(link, config.mode)
            if self.process is None:
                # The descriptors of the link are the worker's own from here on.
                for _, theirs in pairs:
                    theirs.detach()
                for one in crew:
                    one.outbox.detach()
                self.inbox.detach()
                return link
        finally:
            for ours, theirs in pairs:
                theirs.close()
                if self.process is None:
                    ours.close()
        self.control, self.requests = (Channel(ours) for ours, _ in pairs)
        return None

    def tell(self, *message: Any, fds: Sequence[int] = ()) -> None:
        """Say something to the worker; kept until it reads, if it is slow."""
        if self.control is None:
            return
        if not self._backlog:
            try:
                self.control.send(message, fds)
                return
            except BlockingIOError:
                pass
            except OSError:
                return  # it has just died
        self._backlog.append((message, fds))

    def deal(self, dealt: Dealt) -> None:
        """Give the worker a duplicate of a connection."""
        fd = dealt.fileno()
        self.connections[fd] = dealt
        self._dealt += 1
        dealt.number = self._dealt
        self.tell(DEAL, fd, dealt.number, dealt.slot, fds=(fd,))

    def has_still(self, fd: int, number: int) -> bool:
        """Whether a descriptor is of the connection that was dealt under that number."""
        dealt = self.connections.get(fd)
        return dealt is not None and dealt.number == number

    def take_back(self, fd: int) -> Optional[Dealt]:
        """A connection that is the worker's no more; None if it has been closed meanwhile."""
        dealt = self.connections.pop(fd, None)
        if dealt is not None:
            self._poller.forget(dealt)
        return dealt

    def drop(self, fd: int) -> None:
        """Close the parent's duplicate of a connection."""
        dealt = self.take_back(fd)
        if dealt is None:
            return
        if self._backlog:  # the descriptor will be another connection's
            kept = [entry for entry in self._backlog if entry[0][:2] != (DEAL, fd)]
            self._backlog = collections.deque(kept)
        dealt.sock.close()
        self._ledger.close(dealt.slot)

    def flush(self) -> None:
        """Say what it had no room for."""
        backlog, self._backlog = self._backlog, collections.deque()
        while backlog:
            message, fds = backlog.popleft()
            self.tell(*message, fds=fds)
            if self._backlog:
                self._backlog.extend(backlog)
                return

    def kill(self, wait: bool = False) -> None:
        """End the process at once.

        Args:
            wait: until it has ended.
        """
        if self.process is not None:
            self.process.kill()
        while wait and self.process is not None and self.process.poll() is None:
            time.sleep(0.001)

    def take_end(self) -> Optional[str]:
        """How the process has ended, once it has; None as long as it runs, or if there is none."""
        status = None if self.process is None else self.process.poll()
        if status is None or self.process is None:
            return None
        text = f"worker {self.index} (pid {self.process.pid}) has ended: {describe_end(status)}"
        self.process = None
        self.ready = self.leaving = False
        now = time.monotonic()
        self._short_lives = 0 if now - self.started >= STEADY else self._short_lives + 1
        waits = BACK_OFF_SERVED if self.served else BACK_OFF
        self.due = now + waits[min(max(0, self._short_lives - 1), len(waits) - 1)]
        self._backlog.clear()
        for channel in (self.control, self.requests):
            if channel is not None:
                self._poller.forget(channel)
                channel.close()
        self.control = self.requests = None
        return text

    def note_success(self) -> None:
        """Note that the process that has ended was to do so: it has not failed."""
        self._short_lives = 0

    def close(self, in_child: bool = False) -> None:
        """Release everything but the process.

        Args:
            in_child: this is a forked worker, and the connections are not to be touched.
        """
        if in_child:
            for dealt in self.connections.values():
                dealt.sock.close()
        else:
            for fd in list(self.connections):
                self.drop(fd)
        for channel in (self.control, self.requests, self.inbox, self.outbox):
            if channel is not None:
                channel.close()


def compare_plugins(crew: list[Worker]) -> None:
    """See that all workers have the same plugins: Kong would let requests through elsewhere.

    Raises:
        WorkerError: one lacks some.
    """
    known = set().union(*(one.plugins for one in crew))
    for worker in (one for one in crew if not one.vacant):
        missing = known.difference(worker.plugins)
        if missing:
            raise WorkerError(f"worker {worker.index} lacks plugins: {', '.join(sorted(missing))}")


#: The answer where there is none, because the parent has too many open descriptors.
LOST_ANSWER = (None, None)

#: What the parent is asked; see :class:`kong_pdk.processes.registry.Registry`.
Answer = Callable[[tuple[Any, ...]], Any]


def answer_requests(channel: Channel, answer: Answer) -> bool:
    """Answer the questions that a worker has asked.

    Args:
        channel: that they come on.
        answer: knows the answers.

    Returns:
        False if it will ask no more.
    """
    try:
        while True:
            try:
                number, question = channel.receive().value
            except BlockingIOError:
                return True
            except OSError as exc:  # a large question, and no descriptor is left for it
                logger.error("a question of a worker is lost: %s", exc)
                channel.send(LOST_ANSWER)
                continue
            result = answer(question)
            try:
                channel.send((number, result))
            except ConnectionError:
                raise
            except OSError as exc:  # the same for a large answer
                logger.error("an answer to a worker is lost: %s", exc)
                channel.send(LOST_ANSWER)
    except (EOFError, OSError) as exc:
        logger.debug("a worker asks no more: %s", exc)
        return False
