"""What is known of each PDK function, as ``_table.py`` lists it, and lookups in that."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

from .. import _kinds

#: Phases in which Kong calls a plugin server (Kong: kong/runloop/plugin_servers/).
PHASES = ("certificate", "rewrite", "access", "response", "preread", "log")

#: Kinds of parameters: the types that are right as they are, what containers may hold, and how an
#: error names what is expected.
KINDS: dict[str, tuple[int, int, str]] = {
    "string": (_kinds.STR | _kinds.BYTES, 0, "a string"),
    "number": (_kinds.NUMBER, 0, "a number"),
    "integer": (_kinds.INT, 0, "an integer"),
    "boolean": (_kinds.BOOL, 0, "a boolean"),
    "flag": (_kinds.BOOL, 0, "a boolean"),  # Kong asks only whether it is true
    "key": (_kinds.SCALAR, 0, "a string, a number or a boolean"),
    "table": (_kinds.DICT | _kinds.LIST, 0, "a dict or list"),
    "body": (
        _kinds.STR | _kinds.BYTES | _kinds.DICT | _kinds.LIST, 0,
        "a string, bytes, a dict or a list",
    ),
    "header": (
        _kinds.SCALAR | _kinds.LIST, _kinds.HEADER_VALUES,
        "a string, a number, a boolean or a list of strings",
    ),
    "line": (_kinds.SCALAR, 0, "a string, a number or a boolean; one call for each line"),
    "headers": (
        _kinds.DICT, _kinds.HEADERS,
        "a dict of names to strings, numbers, booleans or lists of strings",
    ),
    "query": (
        _kinds.DICT, _kinds.QUERY,
        "a dict of names to strings, numbers, booleans or lists of these",
    ),
    "any": (_kinds.ANY, 0, "anything that can be sent"),
}  # fmt: skip


#: How near a method's name must be to a phase's to be taken for it, misspelt.
ALIKE = 0.8


def class_name(path: str) -> str:
    """The class of a namespace, "ServiceRequest" for "kong.service.request"."""
    words = path.replace("_", ".").split(".")[1:]
    return "".join(word[:1].upper() + word[1:] for word in words) or "kong"


def close_matches(
    name: str, known: Iterable[str], count: int = 1, cutoff: float = 0.6
) -> list[str]:
    """The names that are nearest to one that is not known; at a cutoff of 1 only the same."""
    import difflib  # takes a while to import, and only errors ask

    return difflib.get_close_matches(name, list(known), count, cutoff)


#: Shapes of results that are no record.
SHAPES = {"": _kinds.AS_IT_IS, "map": _kinds.MAP, "list": _kinds.ARRAY, "bytes": _kinds.RAW}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a PDK function.

    Attributes:
        name: for keyword arguments.
        kind: one of :data:`KINDS`.
        optional: may be left out, or None.
        default: what Kong takes for one that is left out.
        low: least value of a number.
        high: greatest value of a number.
        choices: the texts that Kong takes; any if there are none.
        begins: with what a text must begin.
        pattern: what a text must match, a regular expression; for one that does not the rule of the
            function decides.
    """

    name: str
    kind: str
    optional: bool = False
    default: Any = None
    low: Optional[int] = None
    high: Optional[int] = None
    choices: tuple[str, ...] = ()
    begins: str = ""
    pattern: str = ""

    @property
    def limited(self) -> bool:
        """Whether not all texts are right."""
        return bool(self.choices or self.begins)

    @property
    def free(self) -> frozenset[type]:
        """Types of which each value is right."""
        bits, low, high, _, holds = self.plain
        if low is not None or high is not None or self.limited or holds:
            return frozenset()
        return frozenset(kind for kind, bit in _kinds.TYPE_BITS.items() if bits & bit)

    @property
    def plain(self) -> tuple[int, Optional[float], Optional[float], Any, int]:
        """What the codec's ``Function`` takes for right."""
        bits, holds, _ = KINDS[self.kind]
        if self.optional:
            bits |= _kinds.NONE
        texts: Any = frozenset(self.choices) or self.begins or None
        if self.pattern:
            texts = re.compile(self.pattern).fullmatch
        return bits, self.low, self.high, texts, holds


@dataclass(frozen=True)
class FunctionSpec:
    """One PDK function.

    Attributes:
        name: its full name.
        phases: those in which Kong takes it.
        params: in their order.
        returns: its type in Python, without Lua style's error.
        shape: of what comes back: "map", "list", the name of a record, "bytes", or "".
        level: of the log line that it writes, 0 (emerg) to 7 (debug), as nginx
            counts them; -1 if it writes none.
        variadic: takes any number of anything, and logs it.
        rule: decides, by its name in ``checks.py``, about arguments that do not fit.
        step: the method of the call with which Kong sends the result.
        since: the Kong release that brought it, "" for all that are known, or
            "Enterprise".
        doc: what help() shows.
    """

    name: str
    phases: tuple[str, ...]
    params: tuple[Parameter, ...] = ()
    returns: str = "None"
    shape: str = ""
    level: int = -1
    variadic: bool = False
    rule: str = ""
    step: str = "plugin.Step"
    since: str = ""
    doc: str = field(default="", repr=False)

    @functools.cached_property
    def free(self) -> tuple[frozenset[type], ...]:
        """For each parameter the types of which each value is right."""
        return tuple(parameter.free for parameter in self.params)

    @functools.cached_property
    def least(self) -> int:
        """How many arguments must be given."""
        return sum(not parameter.optional for parameter in self.params)

    def signature(self, bound: bool) -> Any:
        """An ``inspect.Signature``, without ``self`` if bound."""
        import inspect  # takes a while to import, and only help() and editors ask

        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        params = [] if bound else [inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)]
        if self.variadic:
            params.append(inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL))
        for one in self.params:
            default = one.default if one.optional else inspect.Parameter.empty
            params.append(inspect.Parameter(one.name, kind, default=default))
        return inspect.Signature(params)


#: Makes of a member what its declared type says, by shape.
Restore = Callable[[Any], Any]


def _as_map(value: Any) -> Any:
    return {} if value == [] else value


def _as_list(value: Any) -> Any:
    return [] if value == {} else value


def restorer(shape: str, records: dict[str, dict[str, str]]) -> Restore:
    """What makes an empty table of a result, or of a record's field, what its type says.

    Args:
        shape: as :attr:`FunctionSpec.shape`; "list of X" and "map of X" go one level down.
        records: shapes of the fields that need it, by record.
    """
    if shape == "map":
        return _as_map
    if shape == "list":
        return _as_list
    for prefix, outer in (("list of ", _as_list), ("map of ", _as_map)):
        if shape.startswith(prefix):
            return _restore_each(outer, restorer(shape[len(prefix) :], records))
    fields = {name: restorer(inner, records) for name, inner in records[shape].items()}

    def restore(value: Any) -> Any:
        value = _as_map(value)
        if type(value) is dict:
            for name, inner in fields.items():
                if name in value:
                    value[name] = inner(value[name])
        return value

    return restore


def _restore_each(outer: Restore, inner: Restore) -> Restore:
    def restore(value: Any) -> Any:
        value = outer(value)
        if type(value) is list:
            return [inner(each) for each in value]
        if type(value) is dict:
            return {key: inner(each) for key, each in value.items()}
        return value

    return restore
