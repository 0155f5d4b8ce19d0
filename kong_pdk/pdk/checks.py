"""PDK calls that are not plainly right: converted where Kong would take them, else refused.

A Lua error in a PDK function ends the event inside Kong without a word to the plugin, and with
status 500 for the client. So what would raise there raises here, in the handler. The codec's
``Function`` lets everything pass that is plainly right; :func:`settle` gets the rest.
"""

from __future__ import annotations

import enum
import numbers
from collections.abc import Mapping
from typing import Any, Callable, NoReturn, Optional

from .._codec import Function
from ..exception import ArgumentError, ArgumentValueError, PhaseError
from .functions import KINDS, PHASES, FunctionSpec, Parameter, close_matches

#: Longest text that an error shows of an argument, characters.
SHOWN = 40


def settle(
    function: Function, args: tuple[Any, ...], kwargs: dict[str, Any], phase: Optional[str],
    checked: bool,
) -> tuple[Any, ...]:  # fmt: skip
    """Make the arguments of a call what can be sent.

    Args:
        function: what is called.
        args: positional arguments.
        kwargs: keyword arguments.
        phase: the event's, if the function cannot be called in it, or a rule looks at it.
        checked: whether the arguments are checked, or only put in order.

    Returns:
        The arguments in the order of the parameters.

    Raises:
        PhaseError: Kong does not take the call in ``phase``.
        ArgumentError: an argument is missing, is one too many, or has the wrong type.
        ArgumentValueError: an argument has a value that Kong does not take.
    """
    spec: FunctionSpec = function.spec
    if phase is not None and phase not in spec.phases:
        allowed = ", ".join(each for each in PHASES if each in spec.phases)
        raise PhaseError(f"{spec.name} cannot be called in the {phase} phase, only in: {allowed}")
    if spec.variadic:
        return _texts(spec, args, kwargs)
    if kwargs:
        args = _in_order(spec, args, kwargs)
        if checked and phase is None and function.fits(args):
            return args
    if not checked:
        return args
    if not spec.least <= len(args) <= len(spec.params):
        _refuse_count(spec, len(args))
    settled = args
    for value, free in zip(args, spec.free):
        if type(value) not in free:
            settled = tuple([_accept(spec, *pair) for pair in zip(spec.params, args)])
            break
    if spec.rule:
        RULES[spec.rule](spec, phase, *settled)
    return settled


#: Stands for an argument that is there, but not known yet.
UNKNOWN = object()


def examine(spec: FunctionSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Check a call that is only written, as far as its arguments are known.

    Args:
        spec: of the function.
        args: positional arguments, :data:`UNKNOWN` for those that only a run can tell.
        kwargs: keyword arguments, likewise.

    Raises:
        ArgumentError: an argument is missing, is one too many, or has the wrong type.
        ArgumentValueError: an argument has a value that Kong does not take.
    """
    if spec.variadic:
        if kwargs or not args:
            _texts(spec, args, kwargs)
        return
    if kwargs:
        args = _in_order(spec, args, kwargs)
    if not spec.least <= len(args) <= len(spec.params):
        _refuse_count(spec, len(args))
    for parameter, value in zip(spec.params, args):
        if value is not UNKNOWN:
            _accept(spec, parameter, value)
    if spec.rule and not any(each is UNKNOWN for each in args):
        RULES[spec.rule](spec, None, *args)


# --- the call as a whole --------------------------------------------------------------------------


def _refuse_count(spec: FunctionSpec, given: int) -> NoReturn:
    most = len(spec.params)
    if given < spec.least:
        missing = spec.params[given].name
        raise ArgumentError(f"{spec.name}: {missing} is missing; {_usage(spec)}")
    takes = {0: "no argument", 1: "one argument"}.get(most, f"{most} arguments at the most")
    raise ArgumentError(f"{spec.name} takes {takes}, got {given}; {_usage(spec)}")


def _usage(spec: FunctionSpec) -> str:
    shown = []
    for one in spec.params:
        shown.append(f"{one.name}={one.default!r}" if one.optional else one.name)
    return f"it is called as {spec.name}({', '.join(shown)})"


def _in_order(spec: FunctionSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Positional arguments for keyword ones; what is left out in between is None, Kong's nil."""
    names = [parameter.name for parameter in spec.params]
    for name in kwargs:
        if name not in names:
            close = close_matches(name, names)
            hint = f", did you mean {close[0]}?" if close else ""
            raise ArgumentError(f"{spec.name} has no argument {name!r}{hint}; {_usage(spec)}")
    for name in names[: len(args)]:
        if name in kwargs:
            raise ArgumentError(f"{spec.name}: {name} is given twice; {_usage(spec)}")
    last = max(names.index(name) for name in kwargs)
    ordered = list(args)
    for parameter in spec.params[len(args) : last + 1]:
        if parameter.name not in kwargs and not parameter.optional:
            raise ArgumentError(f"{spec.name}: {parameter.name} is missing; {_usage(spec)}")
        ordered.append(kwargs.get(parameter.name))
    return tuple(ordered)


def _texts(spec: FunctionSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """What a log function sends: the text of each argument."""
    if kwargs:
        raise ArgumentError(f"{spec.name} takes no keyword arguments, got {', '.join(kwargs)}")
    if not args:
        raise ArgumentError(f"{spec.name}: there is nothing to log; give it at least one argument")
    texts: list[Any] = []
    for index, value in enumerate(args):
        if type(value) is str or isinstance(value, (bytes, bytearray)):
            texts.append(value)
        elif spec.rule == "deprecation" and isinstance(value, Mapping) and index == len(args) - 1:
            texts.append(dict(value))  # says since when, and until when
        else:
            try:
                texts.append(str(value))
            except Exception as exc:
                raise ArgumentError(
                    f"{spec.name}: argument {index + 1}, of type {type(value).__name__}, has no "
                    f"text: its __str__ raised {type(exc).__name__}"
                ) from exc
    return tuple(texts)


# --- one argument ---------------------------------------------------------------------------------


def _accept(spec: FunctionSpec, parameter: Parameter, value: Any) -> Any:
    """The value to send for an argument.

    Raises:
        ArgumentError: it has the wrong type.
        ArgumentValueError: Kong does not take this value.
    """
    value = _plain(value)
    if value is None and parameter.optional:
        return None
    accepted = _KINDS[parameter.kind](value)
    if type(accepted) is _Unfit:
        where, wanted = f"{spec.name}: {parameter.name}", KINDS[parameter.kind][2] + accepted.detail
        raise ArgumentError(f"{where} must be {wanted}, got {_shown(value)}{_advice(value)}")
    if parameter.low is not None or parameter.high is not None:
        _check_bounds(spec, parameter, accepted)
    if parameter.limited:
        _check_text(spec, parameter, accepted)
    return accepted


def _shown(value: Any) -> str:
    """A value as an error shows it: errors are logged, and texts and containers may be secrets."""
    kind = type(value).__name__
    if value is None:
        return "None"
    if isinstance(value, (bool, int, float)):
        return f"{_written(value)} ({kind})"
    if isinstance(value, (str, bytes, bytearray, list, tuple, dict, set, frozenset)):
        return f"{kind} of length {len(value)}"
    return f"an object of type {kind}"


def _shown_word(value: Any) -> str:
    """The same where one of a few known words is wanted, or a name: a text is shown as it is."""
    if not isinstance(value, str):
        return _shown(value)
    text = value if len(value) <= SHOWN else value[:SHOWN] + "..."
    return f"{text!r} ({type(value).__name__})"


def _written(number: Any) -> str:
    """A number as an error shows it; Python itself refuses to write very long ones."""
    if isinstance(number, int) and number.bit_length() > 64:
        return f"an integer of {number.bit_length()} bits"
    return repr(number)


def _advice(value: Any) -> str:
    if isinstance(value, tuple) and len(value) == 2 and (value[1] is None or value[0] is None):
        return "; a PDK call returns data and error, and only the data is wanted here"
    return ""


def _check_bounds(spec: FunctionSpec, parameter: Parameter, value: Any) -> None:
    low, high = parameter.low, parameter.high
    if (low is None or value >= low) and (high is None or value <= high):
        return
    wanted = f"at least {low}" if high is None else f"between {low} and {high}"
    given = _written(value)
    raise ArgumentValueError(f"{spec.name}: {parameter.name} must be {wanted}, got {given}")


def _text_of(value: Any) -> str:
    """What a string or bytes say."""
    return value if isinstance(value, str) else bytes(value).decode("utf-8", "surrogateescape")


def _check_text(spec: FunctionSpec, parameter: Parameter, value: Any) -> None:
    text = _text_of(value)
    where = f"{spec.name}: {parameter.name}"
    if parameter.begins and not text.startswith(parameter.begins):
        raise ArgumentValueError(f"{where} must begin with {parameter.begins}, got {_shown(text)}")
    if parameter.choices and text not in parameter.choices and not spec.rule:
        close = []
        if len(text) <= SHOWN:  # else it takes long, and nothing is near
            close = close_matches(text, parameter.choices)
        if not close:
            close = [each for each in parameter.choices if each.lower() == text.lower()]
        hint = f"; did you mean {close[0]!r}?" if close else ""
        choices = ", ".join(parameter.choices)
        raise ArgumentValueError(f"{where} must be one of {choices}, got {_shown_word(text)}{hint}")


class _Unfit:
    """What a converter returns for a value that Kong does not take.

    Args:
        detail: what else to say than that the kind of the parameter is wanted.
    """

    def __init__(self, detail: str = "") -> None:
        self.detail = detail


_UNFIT = _Unfit()

# Converters take a value of a type that is not plainly right, and return the value to send.


def _is_text(value: Any) -> bool:
    return isinstance(value, (str, bytes, bytearray))


def _string(value: Any) -> Any:
    return value if _is_text(value) else _UNFIT


def _number(value: Any) -> Any:
    if isinstance(value, (bool, str)) or not isinstance(value, numbers.Real):
        return _UNFIT
    try:
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    except (TypeError, ValueError, OverflowError):  # a fraction may be too large for a float
        return _UNFIT


def _integer(value: Any) -> Any:
    number = _number(value)
    if type(number) is int or (type(number) is float and number.is_integer()):
        return int(number)
    return _UNFIT


def _boolean(value: Any) -> Any:
    return value if type(value) is bool else _UNFIT


def _flag(value: Any) -> Any:
    try:
        return bool(value)
    except (TypeError, ValueError):  # an array of numbers may be neither true nor false
        return _UNFIT


def _scalar(value: Any) -> Any:
    return value if type(value) is bool or _is_text(value) else _number(value)


def _table(value: Any) -> Any:
    if isinstance(value, (dict, list, tuple)):
        return value
    return dict(value) if isinstance(value, Mapping) else _UNFIT


def _body(value: Any) -> Any:
    return value if _is_text(value) else _table(value)


def _header(value: Any, any_scalar: bool = False) -> Any:
    """A header's or query argument's value; ``any_scalar``: lists may hold more than text."""
    value = _plain(value)
    if not isinstance(value, (list, tuple)):
        return _scalar(value)
    items = [_plain(each) for each in value]
    if isinstance(value, list):  # a tuple with None is most likely a call's data and error
        items = [each for each in items if each is not None]
    items = [_scalar(each) if any_scalar else _string(each) for each in items]
    return _UNFIT if any(each is _UNFIT for each in items) else items


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def _named_values(value: Any, any_scalar: bool = False) -> Any:
    """A dict of headers or query arguments; the error names the one that is wrong.

    What is None is left out: Lua has no key without a value, so Kong would never see it.
    """
    if isinstance(value, (list, tuple)) and not value:
        return {}
    if not isinstance(value, Mapping):
        return _UNFIT
    accepted = {}
    for name, item in value.items():
        name = _plain(name)
        if not _is_text(name):
            return _Unfit(f" (one name is {_shown(name)})")
        if item is None:
            continue
        accepted[name] = _header(item, any_scalar)
        if accepted[name] is _UNFIT:
            shown = f"{_shown(item)}{_advice(item)}"
            return _Unfit(f" (the value of {_shown_word(name)} is {shown})")
    return accepted


_KINDS: dict[str, Callable[[Any], Any]] = {
    "string": _string,
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "flag": _flag,
    "key": _scalar,
    "table": _table,
    "body": _body,
    "header": _header,
    "line": _scalar,
    "headers": _named_values,
    "query": lambda value: _named_values(value, any_scalar=True),
    "any": lambda value: value,
}


# --- rules of single functions --------------------------------------------------------------------


def _client_verify(spec: FunctionSpec, phase: Optional[str], v: Any) -> None:
    text = _text_of(v)
    if text not in ("SUCCESS", "NONE") and not text.startswith("FAILED:"):
        raise ArgumentValueError(
            f"{spec.name}: v must be SUCCESS, NONE or FAILED:<reason>, got {_shown_word(text)}"
        )


def _consumer_id(
    spec: FunctionSpec, phase: Optional[str], consumer_id: Any, search_by_username: Any = None
) -> None:
    if search_by_username:
        return
    text = consumer_id if isinstance(consumer_id, str) else bytes(consumer_id).decode("latin-1")
    import uuid  # takes a while to import, and few plugins ask

    try:
        if str(uuid.UUID(text)) == text.lower():
            return
    except ValueError:
        pass
    raise ArgumentValueError(
        f"{spec.name}: consumer_id must be a UUID, got {_shown(text)}; pass "
        f"search_by_username=True to look for a name"
    )


def _one_given(
    spec: FunctionSpec, phase: Optional[str], consumer: Any = None, credential: Any = None
) -> None:
    if consumer is None and credential is None:
        raise ArgumentValueError(f"{spec.name}: a consumer or a credential must be given")


#: Of a stream connection (Kong: kong/pdk/response.lua).
STREAM_STATUSES = (200, 400, 403, 500, 502, 503)


def _stream_status(spec: FunctionSpec, phase: Optional[str], status: Any, *others: Any) -> None:
    if phase == "preread" and status not in STREAM_STATUSES:
        raise ArgumentValueError(
            f"{spec.name}: status must be one of {', '.join(map(str, STREAM_STATUSES))} in "
            f"preread, got {_shown(status)}"
        )


#: What Kong can write (Kong: kong/pdk/service/request.lua).
FORM, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"
MIME_TYPES = (FORM, "application/json", MULTIPART)


def _mimetype(spec: FunctionSpec, phase: Optional[str], args: Any, mimetype: Any = None) -> None:
    if mimetype is None:
        return
    text = mimetype if isinstance(mimetype, str) else bytes(mimetype).decode("latin-1")
    kind = text.partition(";")[0]
    if kind not in MIME_TYPES:
        raise ArgumentValueError(
            f"{spec.name}: mimetype must be one of {', '.join(MIME_TYPES)}, which parameters may "
            f"follow, got {_shown_word(text)}"
        )
    if kind in (FORM, MULTIPART):
        _check_form(spec, kind, args)


def _check_form(spec: FunctionSpec, kind: str, args: Any) -> None:
    """Whether Kong can write a table as a form: names are text, and values do not nest."""
    named, problem = _named_values(args, any_scalar=True), None
    if type(named) is _Unfit:
        problem = KINDS["query"][2] + named.detail
    elif kind == MULTIPART:
        for value in dict(args).values():
            if isinstance(_plain(value), (bool, list, tuple)):
                problem = f"a dict of names to strings and numbers (one of them is {_shown(value)})"
    if problem is not None:
        raise ArgumentError(f"{spec.name}: args must be {problem} for {kind}, got {_shown(args)}")


#: What Kong has an error page for, with charset=utf-8 or without (Kong: kong/tools/http.lua).
PAGES = ("application/json", "text/html", "application/xml", "text/plain")


def _error_type(
    spec: FunctionSpec, phase: Optional[str], status: Any, message: Any = None, headers: Any = None
) -> None:
    """Kong looks its page up by the header of exactly this name, and fails if it has none."""
    value = (headers or {}).get("Content-Type")
    if value is None:
        return
    first = value[0] if isinstance(value, (list, tuple)) and value else value
    text = first if isinstance(first, str) else None
    if isinstance(first, (bytes, bytearray)):
        text = bytes(first).decode("latin-1")
    known = ("", "application/grpc", *PAGES, *(f"{page}; charset=utf-8" for page in PAGES))
    if text not in known:
        raise ArgumentValueError(
            f"{spec.name}: Content-Type in headers must be one of {', '.join(PAGES)}, got "
            f"{_shown(first)}; kong.response.exit takes any"
        )


#: Decide about arguments that have the right types, but did not fit.
RULES: dict[str, Callable[..., None]] = {
    "client_verify": _client_verify,
    "consumer_id": _consumer_id,
    "one_given": _one_given,
    "stream_status": _stream_status,
    "mimetype": _mimetype,
    "error_type": _error_type,
    "deprecation": lambda *args: None,  # see _texts
}

#: Phases in which no call goes out without its rule.
RULE_PHASES = {"stream_status": frozenset(("preread",)), "error_type": frozenset(PHASES)}
