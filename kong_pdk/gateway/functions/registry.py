"""The table of PDK functions, and the one way to call them.

In which phases a function may be called, and how its result crosses the wire, is what the PDK's own
table says. :func:`call` is what every driver uses, whatever carried the call.
"""

from __future__ import annotations

import inspect
import time
from dataclasses import dataclass
from typing import Any, Callable, TypeVar

from ...pdk._table import FUNCTIONS
from ...pdk.functions import PHASES, FunctionSpec
from ..exchange import Call, Exchange
from ..values import arguments, to_bytes, to_wire

#: Every function that plugin servers can call, those of Kong Enterprise included.
SPECS = {spec.name: spec for spec in FUNCTIONS}

F = TypeVar("F", bound=Callable[..., Any])


class PdkError(Exception):
    """A PDK function refused its call, which in Kong is a Lua error that ends the phase."""


class PhaseEnded(BaseException):
    """A PDK function has answered the client, so that the handler is not heard any more."""


@dataclass(frozen=True)
class Function:
    """How one PDK function is called and how its result travels."""

    spec: FunctionSpec
    run: Callable[..., Any]
    #: How many arguments it looks at; the rest is dropped, as Lua does. ``None``: all of them.
    arity: int | None


@dataclass(frozen=True)
class Reply:
    """What a PDK call gives back: the RPC method of the step and its data.

    ``step`` is ``None`` where Kong sends no step: the phase is over for the plugin.
    """

    step: str | None
    value: Any = None


# What Kong's PDK leaves out of nginx's stream subsystem, and what it keeps of that.
_HTTP_ONLY = (
    "kong.client.authenticate",
    "kong.client.tls.",
    "kong.request.",
    "kong.response.",
    "kong.service.request.",
    "kong.service.response.",
    "kong.service.set_retries",
    "kong.service.set_timeouts",
    "kong.service.set_upstream",
)
_ALSO_STREAM = frozenset(
    [
        "kong.request.get_port",
        "kong.response.exit",
        "kong.response.get_source",
        "kong.response.get_status",
        "kong.service.request.disable_tls",
        "kong.service.response.get_status",
    ]
)

#: Every PDK function of Kong without Enterprise, by its full name.
TABLE: dict[str, Function] = {}


def pdk(name: str) -> Callable[[F], F]:
    """Register a function of the PDK.

    Args:
        name: its full name, such as ``kong.request.get_method``.

    Returns:
        A decorator that leaves the function as it is.

    Raises:
        KeyError: the PDK's table has no such function.
    """
    spec = SPECS[name]

    def register(function: F) -> F:
        parameters = list(inspect.signature(function).parameters.values())[1:]
        rest = any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters)
        TABLE[name] = Function(spec, function, None if rest else len(parameters))
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
    given = arguments(args)
    made = Call(exchange.phase, str(name), _without_padding(str(name), given))
    if exchange.runs:
        run = exchange.runs[-1]
        run.calls.append(made)
        made.at = time.monotonic() - run.began
    began = time.perf_counter()
    try:
        return _answer(exchange, made, given)
    finally:
        made.seconds = time.perf_counter() - began


def _without_padding(name: str, args: list[Any]) -> list[Any]:
    """The arguments as the plugin has given them.

    Where one of them is nil, servers fill up what follows with false: Kong would drop the arguments
    behind it otherwise.
    """
    spec = SPECS.get(name)
    if spec is None or spec.variadic or len(args) <= len(spec.params):
        return args
    given = args[: len(spec.params)]
    while given and given[-1] is False:
        given.pop()
    return given


def _answer(exchange: Exchange, made: Call, given: list[Any]) -> Reply:
    """Run the function that a call is for, and note in it what came of that.

    Args:
        exchange: the request.
        made: the call.
        given: its arguments, all that came.
    """
    label = made.function
    function = TABLE.get(label)
    if label in exchange.fakes and label in SPECS:
        given = made.args
        function = Function(SPECS[label], exchange.fakes[label][-1], None)
    if exchange.stream and label.startswith(_HTTP_ONLY) and label not in _ALSO_STREAM:
        exchange.log("err", f"the PDK has no function called {label} for stream connections")
        return Reply("plugin.Step")
    if function is None:
        if any(known.startswith(label + ".") for known in TABLE):
            made.error = f"{label} is a part of the PDK, not a function, and cannot be called"
            exchange.abort(made.error)
            return Reply(None)
        exchange.log("err", f"the PDK has no function called {label}")
        return Reply("plugin.Step")
    try:
        value = made.result = _run(exchange, function, given)
    except PhaseEnded:
        return Reply(None)
    except PdkError as error:
        made.error = f"{label}: {error}"
        exchange.abort(made.error)
        return Reply(None)
    if isinstance(value, dict) and value.get("_method") not in (None, False):
        # Kong takes this key of any result for the name of the step's method.
        return Reply(value["_method"], value)
    return Reply(function.spec.step, value)


def _run(exchange: Exchange, function: Function, args: list[Any]) -> Any:
    spec, phase = function.spec, exchange.phase
    if phase not in spec.phases:
        allowed = ", ".join(each for each in PHASES if each in spec.phases)
        raise PdkError(f"cannot be called in the {phase} phase, only in: {allowed}")
    if function.arity is not None:
        args = args[: function.arity] + [None] * (function.arity - len(args))
    result = function.run(exchange, *args)
    if spec.shape == "bytes":
        if result is None:
            raise PdkError("there is no value, and Kong cannot send nil as binary data")
        return result if isinstance(result, bytes) else to_bytes(result)
    if spec.step == "plugin.StepMultiMap":
        return result  # a map even when it is empty
    return to_wire(result)


def check(condition: bool, message: str) -> None:
    """Raise PdkError with a message unless the condition holds."""
    if not condition:
        raise PdkError(message)
