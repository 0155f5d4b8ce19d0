"""What a handler gets as ``kong``: one object per event, whose methods make PDK calls.

A class is made for each namespace of the PDK when the first server starts, with an attribute for
each function. So a chain such as ``kong.service.request.set_header`` is plain attribute access in
the codec's types, and nothing but the call at its end goes to Kong.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, Callable, Optional, Protocol, cast

from .. import _codec, _kinds, _wire
from .._codec import Child, Function
from ..exception import PDKException, UnreachableError
from ._table import FUNCTIONS, RECORDS, UNREACHABLE
from .checks import RULE_PHASES, settle
from .functions import SHAPES, FunctionSpec, class_name, close_matches, restorer


class Caller(Protocol):
    """Whatever can make PDK calls: an event, or a test's stand-in.

    It may have a ``phase``, which the calls are checked against, and ``events``, whose settings say
    how calls are checked and returned.
    """

    def call(self, function: str, args: tuple[Any, ...]) -> Any:
        """Have Kong run the PDK function of that full name."""


#: Every function by its full name.
SPECS: dict[str, FunctionSpec] = {spec.name: spec for spec in FUNCTIONS}


def _namespaces(names: Iterable[str]) -> frozenset[str]:
    """Full names of all places that hold one of these."""
    return frozenset(
        name.rsplit(".", depth)[0] for name in names for depth in range(1, name.count(".") + 1)
    )


#: Full names of all namespaces, also of those in which nothing can be used: each name there has a
#: reason of its own.
NAMESPACES = _namespaces((*SPECS, *UNREACHABLE))


class Namespace(_codec.Namespace):
    """One place in the ``kong`` tree, bound to an event."""

    __slots__ = ()
    _path = "kong"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Python itself asks for such names
            raise AttributeError(name)
        full = f"{self._path}.{name}"
        if full in UNREACHABLE:
            raise UnreachableError(
                f"{full} cannot be used from a plugin server: {UNREACHABLE[full]}"
            )
        raise AttributeError(explain(full))

    def __repr__(self) -> str:
        return f"<{self._path}>"


def explain(full: str) -> str:
    """What to say of a name that the PDK does not have: which ones are near."""
    known = sorted({*SPECS, *_namespaces(SPECS), *ITEMS})
    close = close_matches(full, known, 3)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return f"there is no {full} in Kong's PDK{hint}"


def data_of(result: Any, where: str = "") -> Any:
    """The data of a PDK call's result, in either style; only Lua style returns tuples.

    Args:
        result: what the call returned.
        where: what stands before the text of an error.

    Raises:
        PDKException: Kong 2.8 reports a failure.
    """
    if type(result) is not tuple:
        return result
    data, err = result
    if err is not None:
        raise PDKException(f"{where}{err}")
    return data


class Items(Namespace):
    """Values of Kong's by name, as Python's mappings give them; each access is a PDK call."""

    __slots__ = ()
    _get = ""  # full names of the functions
    _set: Optional[str] = None

    def __getitem__(self, key: str) -> Any:
        """The value of that name, bare in both styles.

        Raises:
            KeyError: there is none.
            PDKException: Kong reports a failure.
        """
        value = self._call(self._get, key)
        if value is None:
            raise KeyError(key)
        return value

    def __contains__(self, key: str) -> bool:
        return self._call(self._get, key) is not None

    def _call(self, function: str, *args: Any) -> Any:
        return data_of(_function(function).invoke(self._caller, args, {}), f"{function}: ")

    __iter__ = None  # Kong has no list of the names; without this Python would try numbers


class MutableItems(Items):
    """Such values that can be set; None and ``del`` remove one."""

    __slots__ = ()

    def __setitem__(self, key: str, value: Any) -> None:
        assert self._set is not None
        self._call(self._set, key, value)

    def __delitem__(self, key: str) -> None:
        """Remove the value of that name.

        Raises:
            KeyError: there is none.
        """
        self[key]
        self[key] = None


#: Places with access by item: class, and the functions that it calls.
ITEMS: dict[str, tuple[type[Items], str, Optional[str]]] = {
    "kong.ctx.shared": (MutableItems, "kong.ctx.shared.get", "kong.ctx.shared.set"),
    "kong.nginx.ctx": (MutableItems, "kong.nginx.get_ctx", "kong.nginx.set_ctx"),
    "kong.nginx.var": (Items, "kong.nginx.get_var", None),
}


@functools.cache
def _function(name: str) -> Function:
    """The codec's object for a function."""
    spec = SPECS[name]
    _wire.parameter_names[name] = tuple(parameter.name for parameter in spec.params)
    shape = SHAPES.get(spec.shape, _kinds.RECORD)
    plain, least = [parameter.plain for parameter in spec.params], spec.least
    if spec.rule == "one_given":  # the usual call gives the first one; the others are settled
        plain[0], least = (plain[0][0] & ~_kinds.NONE, *plain[0][1:]), 1
    return Function(
        spec.name,
        frozenset(spec.phases) - RULE_PHASES.get(spec.rule, frozenset()),
        tuple(plain),
        least,
        spec.level,
        spec.variadic,
        shape,
        settle,
        restorer(spec.shape, RECORDS) if shape == _kinds.RECORD else None,
        spec,
    )


@functools.cache
def namespace_class(path: str) -> type[Namespace]:
    """The class of a namespace, with everything in it."""
    base: type[Namespace] = Namespace
    members: dict[str, Any] = {
        "__slots__": (),
        "__module__": "kong_pdk.pdk.kong",
        "__doc__": f"{path} of Kong's PDK.",
        "_path": path,
    }
    if path in ITEMS:
        base, members["_get"], members["_set"] = ITEMS[path]
    if path in SPECS:  # kong.log is a function and holds functions
        members["__call__"] = _function(path)
    prefix = path + "."
    for name in sorted({*SPECS, *NAMESPACES, *ITEMS}):
        if name.startswith(prefix) and "." not in (last := name[len(prefix) :]):
            space = name in NAMESPACES or name in ITEMS
            members[last] = Child(namespace_class(name)) if space else _function(name)
    return cast("type[Namespace]", type(class_name(path), (base,), members))


def root_class() -> Callable[[Caller], Any]:
    """The class of the ``kong`` that a handler gets; called with an event or the like."""
    return cast("Callable[[Caller], Any]", namespace_class("kong"))
