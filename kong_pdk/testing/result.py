"""What came of a request."""

from __future__ import annotations

import json
from typing import Any, NamedTuple, Optional, Union

from ..config import LEVELS
from ..gateway.exchange import Call, Exchange, LogLine, ServiceRequest
from ..gateway.headers import Headers

#: How Kong's log tells of an instance that does not start.
NOT_STARTED = "the plugin's instance cannot be started: "

#: The longest text in a repr, characters.
_SHOWN = 120


class Failure(NamedTuple):
    """What a handler has raised; equal to the pair of its phase and text."""

    phase: str
    text: str


class Result:
    """One request, from what the client sent to what the log phase did.

    Attributes:
        exchange: all that the gateway knows of the request.
        phases: those in which the plugin has run, in order.
        status: what the client got; 0 if it got no answer, because the certificate phase has broken
            the TLS handshake.
        headers: what the client got: looked up in any case, each with all its values.
        body: what the client got, bytes.
        service_request: what the service got; ``None`` if the request did not come so far.
        logs: the lines of Kong's log, oldest first; each has ``level`` and ``message``.
        shared: ``kong.ctx.shared`` at the end.
        calls: the PDK calls that were made, in order.
        failures: what handlers have raised.
    """

    def __init__(
        self,
        exchange: Exchange,
        service_request: Optional[ServiceRequest],
        failures: list[Failure],
    ) -> None:
        self.exchange = exchange
        self.service_request = service_request
        self.failures = failures
        self.phases = tuple(run.name for run in exchange.runs)
        self.status: int = exchange.response.status
        self.headers: Headers = exchange.response.headers
        self.body: bytes = exchange.response.body
        self.logs: list[LogLine] = exchange.logs
        self.shared: dict[str, Any] = exchange.shared
        self.calls: list[Call] = [call for run in exchange.runs for call in run.calls]

    @property
    def text(self) -> str:
        """The body as text; bytes that are not UTF-8 are surrogate escapes."""
        return self.body.decode("utf-8", "surrogateescape")

    def json(self) -> Any:
        """The body, read as JSON.

        Raises:
            ValueError: it is none; says what it is.
        """
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise ValueError(f"{self!r}: the body is no JSON: {_cut(self.text)!r}") from error

    @property
    def ended(self) -> Optional[str]:
        """The phase in which the plugin ended the request, or ``None``.

        It did so by an answer to the client, or by a failure for which Kong answers.
        """
        exchange = self.exchange
        return exchange.exited or (exchange.aborted if exchange.aborted != "log" else None)

    @property
    def source(self) -> str:
        """Who made the answer: ``exit``, ``service`` or ``error``, as ``kong.response.get_source``
        says it.
        """
        return self.exchange.source

    def messages(self, level: Union[str, None] = None) -> list[str]:
        """The texts of the log, those of one level or all.

        Args:
            level: a name of Kong's: debug, info, notice, warn, err, crit, alert or emerg.

        Raises:
            ValueError: there is no such level.
        """
        if level is not None and level not in LEVELS:
            raise ValueError(f"there is no level {level!r}, only {', '.join(LEVELS)}")
        return [line.message for line in self.logs if level in (None, line.level)]

    @property
    def round_trips(self) -> int:
        """How many PDK calls were made; each is a round trip between plugin server and Kong."""
        return len(self.calls)

    def round_trips_of(self, phase: str) -> int:
        """How many PDK calls were made in one phase."""
        return sum(call.phase == phase for call in self.calls)

    @property
    def functions(self) -> list[str]:
        """The full names of the PDK functions that were called, in order."""
        return [call.function for call in self.calls]

    def calls_of(self, function: str) -> list[Call]:
        """The calls of one PDK function, given by its full name."""
        return [call for call in self.calls if call.function == function]

    def __repr__(self) -> str:
        exchange = self.exchange
        text = f"<Result {self.status or 'without an answer'}"
        if self.ended is not None:
            text += f" {'broken' if exchange.aborted else 'ended'} in {self.ended}"
        # pytest cuts long ones in the middle: what went wrong comes first.
        notes = [f"{phase} raised {_cut(each)}" for phase, each in self.failures]
        grave, known = LEVELS.index("warn"), [failure.text for failure in self.failures]
        notes += [
            f'{line.level}: "{_cut(line.message)}"'
            for line in self.logs
            if LEVELS.index(line.level) <= grave and not any(text in line.message for text in known)
        ]
        if self.body and not self.failures:
            notes.append(f"body: {_cut(self.text)!r}")
        return "; ".join([text, *notes]) + ">"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
