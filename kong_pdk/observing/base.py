"""What an observer is told, and what it may say of an event."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Optional

from .._codec import Event
from ..exception import HandlerExit, HandlerTimeout, PDKException
from ..pdk._table import FUNCTIONS

logger = logging.getLogger("kong_pdk.server")

#: How an event has come out: its handler has returned; has answered the client itself; has raised;
#: was not done in time; Kong has given it up; there was no room for it; its instance cannot be had.
OK, EXIT, ERROR, TIMEOUT, ABANDONED, SHED, UNSTARTED = (
    "ok", "exit", "error", "timeout", "abandoned", "shed", "unstarted",
)  # fmt: skip

#: Those that nobody needs to look at.
GOOD = frozenset((OK, EXIT))


class Record:
    """What observers keep of an event while it runs, as ``Event.record``.

    Attributes:
        error: the name of the exception that the handler has raised; "" if it has not.
        late: it has had its time by then.
        request: Kong's id of the request; "" if it is not known.
        trace: the id of the trace, in hexadecimal digits; "" if there is none.
        span: the span; None if there is none.
        token: undoes that the span is the current one.
    """

    __slots__ = ("error", "late", "request", "span", "token", "trace")

    def __init__(self) -> None:
        self.error = self.request = self.trace = ""
        self.late = False
        self.span: Any = None
        self.token: Any = None


def outcome_of(event: Event, failed: bool) -> str:
    """How an event has come out, one of the words above.

    Args:
        event: one that has ended.
        failed: as the codec tells it.
    """
    record: Record = event.record
    if event.abandoned:
        return ABANDONED
    if event.expired or record.late:
        return TIMEOUT
    if failed:
        return ERROR
    return OK if event.exited is None else EXIT


def status_of(event: Event) -> Optional[int]:
    """The status with which the event has answered the client; None if it has not."""
    return event.exited if type(event.exited) is int else None


def phases_of(function: str) -> tuple[str, ...]:
    """The phases in which a PDK function may be called.

    Args:
        function: its full name.
    """
    return next(each.phases for each in FUNCTIONS if each.name == function)


def ask(event: Event, function: str, argument: str) -> Optional[str]:
    """Make a PDK call in front of a handler; it costs what one of the plugin's costs.

    Args:
        event: whose handler is about to be called, in a phase that has this function.
        function: its full name.
        argument: its only one.

    Returns:
        The text that comes back; None if there is none, or Kong does not know it.

    Raises:
        HandlerExit: the event is over, as in a handler.
    """
    try:
        result = event.call(function, (argument,))
    except PDKException:
        return None
    if type(result) is tuple:
        result = result[0]
    return result if type(result) is str else None


class Observer:
    """Told of events; each method may be left out."""

    def begin(self, event: Event) -> None:
        """An event's handler is about to be called, in its thread or greenlet.

        Raises:
            HandlerExit: a PDK call has found the event over; the handler is not called.
        """

    def fail(self, event: Event, exc: BaseException) -> None:
        """A handler has raised; its request has not been closed yet."""

    def end(self, event: Event, seconds: float, failed: bool) -> None:
        """An event has ended, in the thread or greenlet of its handler; its answer goes out next.

        Args:
            event: told of to :meth:`begin` before.
            seconds: since it has arrived.
            failed: its handler has, or has had its time.
        """

    def turn_away(self, plugin: str, phase: str, instance: int, outcome: str) -> None:
        """An event is refused before it has begun.

        Args:
            plugin: its name, "" if that is not known.
            phase: of the event.
            instance: its id, as Kong has given it.
            outcome: :data:`SHED` or :data:`UNSTARTED`.
        """

    def tick(self) -> None:
        """About once a second, in the thread of the loop."""

    def close(self) -> None:
        """No event will follow: see that what is kept goes out. Takes a few seconds at most."""


class Observers(Observer):
    """Several as one, none of which can do any harm to an event.

    Args:
        observers: in the order in which they are told; of an end, in the reverse one.
    """

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._forth = tuple(observers)
        self._back = self._forth[::-1]
        self._troubled = False  # said once: it would be said for each event

    def begin(self, event: Event) -> None:
        """As :meth:`Observer.begin`."""
        event.record = Record()
        for observer in self._forth:
            try:
                observer.begin(event)
            except HandlerExit:
                raise
            except Exception:
                self._note_trouble()

    def fail(self, event: Event, exc: BaseException) -> None:
        """As :meth:`Observer.fail`; raises nothing at all: the request must be closed next."""
        record: Record = event.record
        record.error = type(exc).__name__
        # It may have turned the error into another one; and a library may have one of that name.
        record.late = event.expired or isinstance(exc, HandlerTimeout)
        self._tell("fail", event, exc)

    def end(self, event: Event, seconds: float, failed: bool) -> None:
        """As :meth:`Observer.end`; raises nothing at all."""
        for observer in self._back:
            try:
                observer.end(event, seconds, failed)
            except BaseException:  # a gevent.Timeout of the plugin's, say
                self._note_trouble()

    def turn_away(self, plugin: str, phase: str, instance: int, outcome: str) -> None:
        """As :meth:`Observer.turn_away`."""
        self._tell("turn_away", plugin, phase, instance, outcome)

    def tick(self) -> None:
        """As :meth:`Observer.tick`."""
        self._troubled = False
        self._tell("tick")

    def close(self) -> None:
        """As :meth:`Observer.close`."""
        self._tell("close")

    def _tell(self, name: str, *args: Any) -> None:
        for observer in self._forth:
            try:
                getattr(observer, name)(*args)
            except BaseException:  # the __str__ of an author's exception may raise anything
                self._note_trouble()

    def _note_trouble(self) -> None:
        if self._troubled:
            return
        self._troubled = True
        text = "an event could not be told of to the event log or to tracing"
        try:
            logger.exception(text)
        except BaseException:  # as above
            logger.error("%s; the traceback cannot be shown", text)
