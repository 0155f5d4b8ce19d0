"""The table of PDK functions, and the one way to call them.

A function is registered with the phases in which Kong lets a plugin server call it and with the way
its result crosses the wire. :func:`call` is what every driver uses, whatever carried the call.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Callable, TypeVar

from ..exchange import Exchange
from ..values import arguments, to_bytes, to_wire

ANY = "certificate rewrite access response log"
REQUEST = "rewrite access response log"
BEFORE_LOG = "rewrite access response"
BEFORE_UPSTREAM = "rewrite access"
ANSWERED = "response log"
IDENTIFIED = "access response log"

F = TypeVar("F", bound=Callable[..., Any])


class PdkError(Exception):
    """A PDK function refused its call, which in Kong is a Lua error that ends the phase."""


class PhaseEnded(BaseException):
    """A PDK function has answered the client, so that the handler is not heard any more."""


@dataclass(frozen=True)
class Function:
    """How one PDK function is called and how its result travels."""

    name: str
    run: Callable[..., Any]
    #: Phases in which it may be called.
    phases: frozenset[str]
    #: RPC method that carries its result.
    step: str
    #: The result is binary data.
    raw: bool
    #: It asks nginx about the request itself, which is gone when the log phase runs.
    live: bool
    #: How many arguments it takes; the rest is dropped, as Lua does. ``None``: all of them.
    arity: int | None


@dataclass(frozen=True)
class Reply:
    """What a PDK call gives back: the RPC method of the step and its data.

    ``step`` is ``None`` where Kong sends no step: the phase is over for the plugin.
    """

    step: str | None
    value: Any = None


#: Every PDK function by its full name.
TABLE: dict[str, Function] = {}


def pdk(
    name: str,
    phases: str = ANY,
    *,
    step: str = "plugin.Step",
    raw: bool = False,
    live: bool = False,
) -> Callable[[F], F]:
    """Register a function of the PDK.

    Args:
        name: its full name, such as ``kong.request.get_method``.
        phases: names of the phases in which it may be called, separated by spaces.
        step: the RPC method that carries its result.
        raw: its result is binary data; one that is nil ends the phase, as in Kong.
        live: it cannot be called in the log phase, whatever its phases say.

    Returns:
        A decorator that leaves the function as it is.
    """

    def register(function: F) -> F:
        parameters = list(inspect.signature(function).parameters.values())[1:]
        rest = any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters)
        TABLE[name] = Function(
            name,
            function,
            frozenset(phases.split()),
            step,
            raw,
            live,
            None if rest else len(parameters),
        )
        return function

    return register


def call(exchange: Exchange, name: object, args: object) -> Reply:
    """Call a PDK function on an exchange, as Kong does when a plugin server asks for it.

    A function that refuses aborts the exchange's phase (see :meth:`.Exchange.abort`); one that Kong
    does not know is logged and gives nil.

    Args:
        exchange: the request that the plugin is handling.
        name: the function's full name.
        args: its arguments as they came from the wire.

    Returns:
        The step that answers the plugin, or a reply without one if the phase is over.
    """
    label = str(name)
    if exchange.runs:
        exchange.runs[-1].calls.append(label)
    function = TABLE.get(label)
    if function is None:
        if any(known.startswith(label + ".") for known in TABLE):
            exchange.abort(f"{label} is a part of the PDK, not a function, and cannot be called")
            return Reply(None)
        exchange.log("err", f"the PDK has no function called {label}")
        return Reply("plugin.Step")
    try:
        value = _run(exchange, function, arguments(args))
    except PhaseEnded:
        return Reply(None)
    except PdkError as error:
        exchange.abort(f"{label}: {error}")
        return Reply(None)
    if isinstance(value, dict) and value.get("_method") not in (None, False):
        # Kong takes this key of any result for the name of the step's method.
        return Reply(value["_method"], value)
    return Reply(function.step, value)


def _run(exchange: Exchange, function: Function, args: list[Any]) -> Any:
    phase = exchange.phase
    if phase not in function.phases:
        allowed = ", ".join(p for p in ANY.split() if p in function.phases)
        raise PdkError(f"cannot be called in the {phase} phase, only in: {allowed}")
    if phase == "log" and function.live:
        raise PdkError("the request it asks about is over when the log phase runs")
    if function.arity is not None:
        args = args[: function.arity] + [None] * (function.arity - len(args))
    result = function.run(exchange, *args)
    if function.raw:
        if result is None:
            raise PdkError("there is no value, and Kong cannot send nil as binary data")
        return result if isinstance(result, bytes) else to_bytes(result)
    if function.step == "plugin.StepMultiMap":
        return result  # a map even when it is empty
    return to_wire(result)


def check(condition: bool, message: str) -> None:
    """Raise PdkError with a message unless the condition holds."""
    if not condition:
        raise PdkError(message)
