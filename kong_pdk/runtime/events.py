"""Events: one phase of one request, and the exchange of PDK calls and answers with Kong.

An event begins with HandleEvent. While its handler runs, Kong waits for the answer to the event's
last request. The handler's PDK call is that answer; Kong runs the function and sends a Step, and so
on, until the answer is a return, a call that ends the request, or an error.

:class:`Event` and :class:`Events` are part of the hot path, and come from the codec in use.
"""

from __future__ import annotations

import math
import secrets
from typing import NoReturn, Protocol, Union

from .._codec import Connection, Event, Events, Request
from ..config import LEVELS, ServerConfig
from .instances import ID_BITS

__all__ = ["Event", "Events", "Mode", "new_events", "owner_of"]


class Mode(Protocol):
    """What an event wants of the mode that runs its handler."""

    def exchange(self, event: Event, frame: bytes) -> Request:
        """Send a PDK call and wait for the step that answers it; where no ``runner`` does that."""
        ...

    def converse(
        self, event: Event, frame: bytes, arrived: Union[list[Request], Exception, None]
    ) -> Request:
        """Go on with an exchange in which something rare has happened; see ``Waiter.converse``."""
        ...

    def refuse(self, connection: Connection) -> None:
        """Close a connection because of an error of ours; what is owed there is refused first."""

    def send_last(self, event: Event, frame: bytes) -> None:
        """Send a PDK call that no step answers."""

    def too_late(self, event: Event) -> NoReturn:
        """End an event whose PDK call comes when Kong does not wait for an answer any more."""
        ...

    def drop_late(self, event: Event) -> None:
        """Note that an event has ended when Kong does not wait for its end any more."""


def new_events(config: ServerConfig, index: int = 0, stride: int = 1) -> Events:
    """The table of a process that begins.

    A restarted server must not know the ids of the one before: Kong may still step to those.

    Args:
        config: the server's settings.
        index: of this process among those of the server, see :func:`owner_of`.
        stride: how many processes there can be.
    """
    first = (secrets.randbits(ID_BITS) // stride + 1) * stride + index
    return Events(
        first << 1,  # the lowest bit is _wire.CLOSED_BIT
        stride << 1,
        config.lua_style,
        config.pdk_checks,
        LEVELS.index(config.kong_log_level),
        config.answer_timeout or math.inf,
        track=config.handler_timeout > 0 or config.answer_timeout > 0,
    )


def owner_of(event_id: int, stride: int) -> int:
    """The index of the process that an event belongs to; see :func:`new_events`."""
    return (event_id >> 1) % stride
