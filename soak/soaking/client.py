"""Requests as Kong makes them, each with what it makes of the answer."""

from __future__ import annotations

import json
import socket
import time
from random import Random
from typing import Any, Optional

import msgpack
from kongwire import (
    ABSENT,
    Connection,
    HalfMessage,
    RemoteError,
    Reply,
    Turn,
    turn_of,
)

from .outcomes import (
    CUT,
    ENDED,
    LATE,
    NEEDLESS,
    PASSED,
    REFUSED,
    RESTARTED,
    UNANSWERED,
    WRONG,
    Account,
    Result,
)

#: Kong gives up after 60 s; the server has 58 s by default.
BOUND = 65.0

#: A client that takes longer for a step must expect that its event is given up; below the server's
#: ``--event-timeout`` in a soak.
PATIENCE = 3.0

#: What Kong's clients get to see if the server refuses a request.
REFUSALS = (500, 503)

BROKEN = (
    AssertionError, ValueError, TypeError, KeyError, msgpack.UnpackException,
)  # fmt: skip


class Lost(Exception):
    """A call has not been answered as it had to be; ``result`` tells what Kong makes of it."""

    def __init__(self, outcome: str, note: str) -> None:
        super().__init__(note)
        self.result = Result(outcome, note)


def loss_of(exc: Exception) -> Lost:
    """What Kong makes of a failure to get a reply."""
    if isinstance(exc, socket.timeout):
        return Lost(UNANSWERED, "no reply within the bound")
    if isinstance(exc, HalfMessage):
        return Lost(CUT, "half a reply")
    if isinstance(exc, OSError):
        return Lost(PASSED, f"the connection was closed without a reply ({exc})")
    return Lost(WRONG, f"{type(exc).__name__}: {exc}")


def judge_error(exc: RemoteError) -> Result:
    """What Kong makes of an error that answers an event or a step."""
    outcome = RESTARTED if "no plugin instance" in str(exc) else PASSED
    return Result(outcome, str(exc))


def judge_end(turn: Turn) -> Result:
    """What an event has come to that has ended."""
    if turn.is_return:
        return Result(ENDED)
    status = turn.args[0] if turn.args else None
    return Result(REFUSED if status in REFUSALS else ENDED, args=tuple(turn.args))


class Client:
    """One worker of nginx: a pool of connections.

    Args:
        path: of the server's socket.
        account: is told how long replies take.
        bound: of each reply, seconds.
        random: chooses a connection for each call among all, and now and then a new one; without
            it the last used is taken, as Kong does.
        chunk: most bytes that are read at a time.
        spread: most connections that are made for the sake of being scattered.
    """

    def __init__(
        self,
        path: str,
        account: Account,
        bound: float = BOUND,
        random: Optional[Random] = None,
        chunk: int = 1 << 16,
        spread: int = 8,
    ) -> None:
        self.path = path
        self.account = account
        self.bound = bound
        self.random = random
        self._chunk = chunk
        self._spread = spread
        self._idle: list[Connection] = []
        self._sent = 0.0
        self.answers: dict[str, Any] = {}

    def close(self) -> None:
        """Close all connections."""
        while self._idle:
            self._idle.pop().close()

    def _connect(self) -> Connection:
        try:
            connection = Connection(self.path, self.bound)
        except OSError as exc:
            raise Lost(PASSED, f"cannot connect ({exc})") from exc
        connection.chunk = self._chunk
        return connection

    def _take(self) -> Connection:
        random = self.random
        if random is not None and len(self._idle) < self._spread and random.random() < 0.5:
            return self._connect()
        while self._idle:
            last = len(self._idle) - 1
            where = last if random is None else random.randint(0, last)
            connection = self._idle.pop(where)
            if not connection.has_data():
                return connection
            # nginx, too, closes a connection of its pool on which it finds an end, or anything.
            with connection:
                if not connection.is_closed_by_server():
                    raise Lost(CUT, "a reply that nobody has asked for")
        return self._connect()

    def ask(self, method: str, argument: Any) -> Any:
        """Make a call; returns its result.

        Raises:
            Lost: there is no reply, or a wrong one.
            RemoteError: the reply is an error.
        """
        connection = self._take()
        try:
            begun = time.monotonic()
            msgid = connection.request(method, argument)
            self._sent = time.monotonic()
            reply: Reply = connection.reply()
            self.account.waited(time.monotonic() - begun)
            if reply.msgid != msgid:  # Kong fails then, and closes the connection
                raise Lost(CUT, f"a reply to {reply.msgid}, where {msgid} was asked")
            if reply.error is not None:
                assert isinstance(reply.error, str), f"an error that is no text: {reply.error!r}"
        except (OSError, *BROKEN) as exc:
            connection.close()
            raise loss_of(exc) from exc
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return reply.unwrap()

    def start_instance(self, **config: Any) -> int:
        """Start an instance of the soaked plugin; returns its id.

        Raises:
            Lost: there is none. Whatever the reason, Kong answers its client with status 500.
        """
        argument = {"Name": "soaked", "Config": json.dumps(config)}
        try:
            return int(self.ask("plugin.StartInstance", argument)["Id"])
        except RemoteError as exc:
            raise Lost(NEEDLESS, str(exc)) from exc
        except Lost as exc:
            if exc.result.outcome == PASSED:
                raise Lost(NEEDLESS, exc.result.note) from exc
            raise
        except (KeyError, TypeError, ValueError) as exc:
            raise Lost(WRONG, f"the answer to StartInstance: {exc}") from exc

    def begin(self, instance: int, phase: str = "access") -> Turn:
        """Begin an event."""
        return self._turn("plugin.HandleEvent", {"InstanceId": instance, "EventName": phase})

    def step(self, event_id: int, value: Any = ABSENT) -> Turn:
        """Answer a PDK call."""
        argument = {"EventId": event_id}
        if value is not ABSENT:
            argument["Data"] = value
        return self._turn("plugin.Step", argument)

    def _turn(self, method: str, argument: Any) -> Turn:
        try:
            return turn_of(self.ask(method, argument))
        except (AssertionError, TypeError) as exc:
            raise Lost(WRONG, f"the answer to {method}: {exc}") from exc

    def event(self, instance: int, phase: str = "access") -> Result:
        """Run an event to its end."""
        slow = False
        try:
            turn = self.begin(instance, phase)
            event_id = turn.event_id
            while not turn.is_terminal:
                since = time.monotonic()
                value = self._answer(turn.function)
                try:
                    turn = self.step(event_id, value)
                finally:
                    slow = self._sent - since > PATIENCE
                if turn.event_id != event_id and judge_end(turn).outcome != REFUSED:
                    note = f"an answer for event {turn.event_id}, where {event_id} was asked"
                    return Result(WRONG, note)
            result = judge_end(turn)
            if slow and result.outcome == REFUSED:
                return Result(LATE, "a step that came when the event had been given up")
            return result
        except Lost as exc:
            return exc.result
        except RemoteError as exc:
            return judge_error(exc)

    def _answer(self, function: str) -> Any:
        if function in self.answers:
            return self.answers[function]
        return "example.com" if function.rpartition(".")[2].startswith("get_") else ABSENT
