"""What becomes of the connections of a worker that has died.

Kong lets a request go on when its connection is closed without an answer. So what the worker owed
is answered here, as the failure policy says, and the connection is kept open, for another worker or
the next one. Calls that come meanwhile wait in it; if there is no worker for long they are refused.
"""

from __future__ import annotations

import logging
import socket
import time
from typing import Optional

from .. import _wire
from .._codec import Connection
from ..config import ServerConfig
from ..exception import ConnectionClosed, MessageTooLarge, NestingTooDeep, ProtocolError
from ..refusals import answer_debt
from ..server.drain import Drain, is_unread
from .crew import Dealt, Worker
from .inbox import Lent, read_inbox
from .ledger import Debt, Ledger
from .poller import Poller

logger = logging.getLogger("kong_pdk.server")

#: How long calls wait for a worker until they are refused, seconds. Kong would wait for 60 s, and
#: let the requests go on then.
PATIENCE = 10.0

#: A worker whose loop has done nothing for so long does not notice that Kong is about to give up,
#: seconds.
STUCK = 5.0
#: How much later than ``answer_timeout`` the parent acts, and answers at the latest, seconds. Kong
#: gives up 2 s after the default.
LATE, TOO_LATE = 0.2, 1.9

DIED = "the worker process of this call has died"
NOBODY = "no worker process is ready"


class _Homeless:
    """A connection that no worker has."""

    def __init__(self, dealt: Dealt, since: float) -> None:
        self.dealt = dealt
        self.since = since
        self.reader: Optional[Connection] = None  # once its calls are refused


class Rescue:
    """Answers in place of workers, and keeps connections for them; for the parent's thread.

    Args:
        config: the server's settings.
        poller: of the parent.
        ledger: what is owed.
    """

    def __init__(self, config: ServerConfig, poller: Poller, ledger: Ledger) -> None:
        self._config = config
        self._closed = config.closes("")
        self._poller = poller
        self._ledger = ledger
        self._homeless: dict[int, _Homeless] = {}  # by descriptor, the oldest first
        self._drains: dict[Drain, Dealt] = {}

    @property
    def is_draining(self) -> bool:
        """Whether :meth:`tick` has something to do soon."""
        return bool(self._drains)

    def __len__(self) -> int:
        """How many connections it has."""
        return len(self._homeless) + len(self._drains)

    # --- connections without a worker ------------------------------------------------------------

    def add(self, dealt: Dealt, now: float) -> None:
        """Keep a connection until :meth:`take`."""
        fd = dealt.fileno()
        self._homeless[fd] = _Homeless(dealt, now)
        self._poller.watch_end(dealt, lambda: self._drop(fd))

    def take(self) -> Optional[Dealt]:
        """A connection for a worker, the one that has waited longest; None if there is none."""
        for fd, one in self._homeless.items():
            if one.reader is None or not one.reader.pending:
                self._poller.forget(one.dealt)
                del self._homeless[fd]
                return one.dealt
        return None

    def tick(self, now: float, lonely: bool) -> None:
        """Do what is due.

        Args:
            now: by the monotonic clock, seconds.
            lonely: there has been no worker for so long that nobody is to wait for one.
        """
        for one in list(self._homeless.values()):
            if one.reader is None and (lonely or now - one.since > PATIENCE):
                self._refuse_calls(one)
        for drain, dealt in list(self._drains.items()):
            drain.tick()
            if drain.done is not None:
                self._poller.forget(dealt)
                del self._drains[drain]
                self.add(dealt, now) if drain.done else self._close(dealt)

    def _refuse_calls(self, one: _Homeless) -> None:
        """Answer what comes on a connection from now on."""
        config = self._config
        one.reader = reader = Connection(one.dealt.sock, config.max_message, config.max_depth)

        def read() -> None:
            try:
                while True:
                    if reader.receive() is None:
                        return
                    answer = answer_debt(reader.owes, self._closed, NOBODY)
                    if reader.send_nowait(answer) < len(answer):
                        raise ConnectionClosed("it does not read its answers")
            except (MessageTooLarge, NestingTooDeep):
                del self._homeless[one.dealt.fileno()]
                self._poller.forget(one.dealt)
                answer = answer_debt(reader.owes, self._closed, NOBODY)
                self._begin_drain(one.dealt, answer, reader.missing)
            except (ConnectionClosed, ProtocolError) as exc:
                logger.debug("closed a connection: %s", exc)
                self._drop(one.dealt.fileno())

        self._poller.forget(one.dealt)
        self._poller.watch(one.dealt, read)
        read()

    def _begin_drain(self, dealt: Dealt, answer: bytes, missing: int) -> None:
        """Read the rest of a request, and answer it then."""
        drain = Drain(dealt.sock, answer, missing)
        self._drains[drain] = dealt
        self._poller.watch(dealt, drain.read)

    def _drop(self, fd: int) -> None:
        one = self._homeless.pop(fd, None)
        if one is not None:
            self._poller.forget(one.dealt)
            self._close(one.dealt)

    def _close(self, dealt: Dealt) -> None:
        try:
            dealt.sock.shutdown(socket.SHUT_RDWR)  # a worker may have it too
        except OSError:
            pass  # Kong was faster
        dealt.sock.close()
        self._ledger.close(dealt.slot)

    def close(self, in_child: bool = False) -> None:
        """Answer what waits, and close all connections.

        Args:
            in_child: this is a forked worker, whose connections are the parent's.
        """
        if not in_child:
            for one in list(self._homeless.values()):
                if one.reader is None:
                    self._refuse_calls(one)
            for drain in self._drains:
                drain.finish()
        for one in self._homeless.values():
            one.dealt.sock.close()
        for dealt in self._drains.values():
            dealt.sock.close()

    def take_from(self, worker: Worker, fd: int, number: int) -> None:
        """Keep a connection, until :meth:`take`, that a worker cannot or need not have.

        Args:
            worker: it owes nothing there.
            fd: the parent's descriptor.
            number: of its dealing.
        """
        dealt = worker.take_back(fd) if worker.has_still(fd, number) else None
        if dealt is not None:
            self._ledger.inherit(dealt.slot, self._ledger.look(dealt.slot).owner >= 0)
            self.add(dealt, time.monotonic())

    def end_stuck(self, crew: list[Worker]) -> None:
        """Kill workers that let Kong wait without end, so that their calls are answered."""
        for worker in crew:
            if self.is_stuck(worker, crew):
                logger.error(
                    "worker %d (pid %d) lets Kong wait, and its loop does nothing: killed",
                    worker.index, worker.pid,
                )  # fmt: skip
                worker.kill()

    def is_stuck(self, worker: Worker, crew: list[Worker]) -> bool:
        """Whether a worker lets Kong wait for too long, and will not notice.

        A handler that blocks is its loop's business, which ends the event in time. A library that
        keeps the interpreter, or blocks gevent's only thread, stops the loop too.
        """
        patience, silence = self._config.answer_timeout, self._ledger.silence(worker.index)
        if not worker.ready or not patience or silence < STUCK:
            return False
        for dealt in worker.connections.values():
            debt = self._ledger.look(dealt.slot)
            if debt.owes and debt.owner < 0 and debt.age > patience + LATE:
                return True
            # What it has not even read may have come just after it fell silent.
            if silence > patience + LATE and not debt.owes and _has_arrived(dealt.sock):
                return True
        lent = (self._ledger.look(dealt.slot) for dealt in self._others(crew))
        return any(one.owner == worker.index and one.age > patience + LATE for one in lent)

    def _others(self, crew: list[Worker]) -> list[Dealt]:
        """All connections that are open."""
        found = [dealt for one in crew for dealt in one.connections.values()]
        return found + [one.dealt for one in self._homeless.values()]

    # --- a worker that has died ------------------------------------------------------------------

    def take_over(self, dead: Worker, crew: list[Worker], now: float) -> int:
        """Answer what a worker owed, and take over its connections.

        Args:
            dead: the worker, whose process has ended.
            crew: all workers.
            now: by the monotonic clock, seconds.

        Returns:
            The number of calls that have been answered here.
        """
        answered = 0
        stuck = self._ledger.silence(dead.index) > STUCK
        self._ledger.bury(dead.index)
        for fd in list(dead.connections):
            dealt = dead.take_back(fd)
            if dealt is not None:
                debt = self._ledger.look(dealt.slot)
                self._ledger.inherit(dealt.slot, debt.owner >= 0)
                # What was lent is another one's business, unless that one is dead too.
                if not debt.owes or debt.owner >= 0 or _is_answered(dealt.sock, debt.owes):
                    self.add(dealt, now)
                    if stuck and not debt.owes and _has_arrived(dealt.sock):
                        # Nobody knows for how long it has waited, and a new handler takes time.
                        self._refuse_calls(self._homeless[fd])
                        one = self._homeless.get(fd)
                        if one is not None and one.reader is not None and not one.reader.pending:
                            self._poller.forget(dealt)
                            self.add(dealt, now)  # the next call may wait for a worker again
                else:
                    answered += 1
                    self._answer(dealt, debt, now)
        for dealt in self._others(crew):
            debt = self._ledger.look(dealt.slot)
            if debt.owner == dead.index:
                answered += 1
                self._answer_lent(dealt.sock, dealt.slot, debt.owes)
        self.read_inbox(dead)
        return answered

    def _answer(self, dealt: Dealt, debt: Debt, now: float) -> None:
        """Answer for a worker, and keep the connection if that is possible."""
        owes = debt.owes
        answer = answer_debt(owes, self._closed, DIED)
        patience = self._config.answer_timeout
        if not answer or (patience and debt.age > patience + TOO_LATE):
            self._close(dealt)
        elif owes & _wire.OWES_REST:
            self._begin_drain(dealt, answer, debt.missing)
        elif not _send(dealt.sock, answer) or owes & _wire.OWES_CUT:
            # After a part of its own answer Kong can make nothing of this one: it fails. If there
            # was no such part, it has read this one.
            self._close(dealt)
        else:
            self.add(dealt, now)

    def _answer_lent(self, sock: socket.socket, slot: int, owes: int) -> None:
        """Answer for a worker on a connection that another one reads."""
        if (slot >= 0 and not self._ledger.settle(slot, owes)) or _is_answered(sock, owes):
            return
        answer = answer_debt(owes, self._closed, DIED)
        if not _send(sock, answer) or owes & _wire.OWES_CUT:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def read_inbox(self, dead: Worker) -> None:
        """Answer the steps that other workers leave for one that is not there."""

        def refuse(lent: Lent) -> None:
            with lent.sock:
                self._answer_lent(lent.sock, lent.slot, lent.owes)

        while read_inbox(dead.inbox, refuse, lambda slot, owes: None):
            pass  # what is missed there has been found in the ledger

    def answer_missed(self, crew: list[Worker], slot: int, owes: int) -> None:
        """Answer a step for which a worker has had no descriptor.

        Args:
            crew: all workers.
            slot: of the connection that it came on.
            owes: what is owed there.
        """
        for dealt in self._others(crew):
            if dealt.slot == slot:
                self._answer_lent(dealt.sock, slot, owes)


def _send(sock: socket.socket, answer: bytes) -> bool:
    """Send all of an answer, without waiting; False if that cannot be done."""
    try:
        sock.setblocking(False)
        return bool(answer) and sock.send(answer) == len(answer)
    except OSError:
        return False


def _is_answered(sock: socket.socket, owes: int) -> bool:
    """Whether a worker has died after its answer and before it could note that.

    Then Kong has not read it yet, or goes on with the next request: it sends that no sooner. If
    neither is so, it may have read it all the same, and gets a second answer: to an idle
    connection, which it closes, or to another call, which fails.
    """
    if owes & _wire.OWES_REST:
        return False
    # What is unread may be a part of the answer only.
    return _has_arrived(sock) or (not owes & _wire.OWES_CUT and is_unread(sock))


def _has_arrived(sock: socket.socket) -> bool:
    """Whether there is something to read on a connection."""
    try:
        return bool(sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:
        return False
