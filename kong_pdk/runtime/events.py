"""Events: one phase of one request, and the exchange of PDK calls and answers with Kong.

An event begins with HandleEvent. While its handler runs, Kong waits for the answer to the event's
last request. The handler's PDK call is that answer; Kong runs the function and sends a Step, and so
on, until the answer is a return, a call that ends the request, or an error.
"""

from __future__ import annotations

import itertools
import logging
import secrets
import threading
from typing import Any, Optional, Protocol

from .. import _wire
from .._codec import Connection, Request, encode_call
from ..exception import EventEnded, PDKException, ResponseSent
from ..pdk.functions import TERMINAL
from .instances import ID_BITS, Instance

logger = logging.getLogger("kong_pdk.plugin")


class Mode(Protocol):
    """What an event wants of the mode that runs its handler."""

    def exchange(self, event: Event, frame: bytes) -> Request:
        """Send a PDK call and wait for the step that answers it."""

    def send_last(self, event: Event, frame: bytes) -> None:
        """Send a PDK call that no step answers."""


class Event:
    """One phase of one request, from HandleEvent to its end.

    Attributes:
        id: Kong names the event by it in each step.
        connection: the one that asked last, on which the next answer goes out.
        msgid: of the request that the next answer is for.
        runner: the mode's own handle of the thread, greenlet or whatever runs the handler.
        waiting_since: the loop's tick at which the last PDK call was sent.
        over: no PDK call is possible any more.
    """

    __slots__ = (
        "connection", "id", "instance", "lock", "lua_style", "mode", "msgid", "over", "phase",
        "runner", "waiting_since",
    )  # fmt: skip

    def __init__(
        self,
        event_id: int,
        instance: Instance,
        phase: str,
        connection: Connection,
        msgid: int,
        mode: Mode,
        runner: Any,
        lua_style: bool,
    ) -> None:
        self.id = event_id
        self.instance = instance
        self.phase = phase
        self.connection: Optional[Connection] = connection
        self.msgid = msgid
        self.mode = mode
        self.runner = runner
        self.lua_style = lua_style
        self.waiting_since = 0
        self.over = False
        # A plugin may make PDK calls from threads of its own; Kong takes one at a time.
        self.lock = threading.Lock()

    def call(self, function: str, args: tuple[Any, ...]) -> Any:
        """Have Kong run a PDK function.

        Args:
            function: its full name, "kong.request.get_header".
            args: its arguments.

        Returns:
            In Lua style ``(data, err)``, else data.

        Raises:
            ArgumentError: an argument cannot be sent.
            PDKException: not in Lua style: Kong reports a failure.
            ResponseSent: the function ends the request; nothing follows.
            EventAbandoned: Kong is gone, or did not answer in time.
            EventEnded: the event is over already.
        """
        with self.lock:
            if self.over:
                raise EventEnded(
                    f"{function}: this event is over; the kong object is of no use after the end "
                    f"of its handler, kong.response.exit or kong.response.error"
                )
            frame = encode_call(self.msgid, self.id, function, args)
            if function in TERMINAL:
                self.over = True
                self.mode.send_last(self, frame)
                raise ResponseSent(function)
            step = self.mode.exchange(self, frame)
        if step.kind == _wire.STEP_ERROR:
            if self.lua_style:
                return None, step.value
            raise PDKException(f"{function}: {step.value}")
        return (step.value, None) if self.lua_style else step.value


class Events:
    """The events that wait for a step, by id, and new ids.

    Whoever takes an event out of :attr:`waiting` resumes it; ``dict.pop`` lets only one do so.
    """

    def __init__(self) -> None:
        # A restarted server must not know the ids of the one before: Kong may still step to them.
        self._ids = itertools.count(secrets.randbits(ID_BITS) + 1)
        self.waiting: dict[int, Event] = {}

    def next_id(self) -> int:
        """A new id."""
        return next(self._ids)
