"""What a handler gets as ``kong``: one object per event, whose methods make PDK calls.

A class is made for each namespace of the PDK when the first server starts, with a method for each
function. So an attribute chain such as ``kong.service.request.set_header`` is plain attribute
access, and nothing but the call at its end goes to Kong.
"""

from __future__ import annotations

import difflib
import functools
from typing import Any, Callable, Protocol, cast

from .. import _codec
from .._codec import Child
from .functions import FUNCTIONS, LOGGING, NAMESPACES

#: Types that a log line carries as they are; everything else goes as its ``str()``.
_LOGGED_AS_IS = (str, int, float, bytes)


class Caller(Protocol):
    """Whatever can make PDK calls: an event, or a test's stand-in."""

    def call(self, function: str, args: tuple[Any, ...]) -> Any:
        """Have Kong run the PDK function of that full name."""


class Namespace(_codec.Namespace):
    """One place in the ``kong`` tree, bound to an event."""

    __slots__ = ()
    _path = "kong"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Python itself asks for such names
            raise AttributeError(name)
        raise AttributeError(_explain(self._path, name))

    def __repr__(self) -> str:
        return f"<{self._path}>"


def _explain(path: str, name: str) -> str:
    full = f"{path}.{name}"
    known = sorted(FUNCTIONS | set(NAMESPACES))
    close = difflib.get_close_matches(full, known, n=3, cutoff=0.6)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return f"there is no {full} in Kong's PDK{hint}"


def _method(function: str) -> Callable[..., Any]:
    if function in LOGGING:

        def method(self: Namespace, *args: Any) -> Any:
            return self._caller.call(
                function,
                tuple([arg if isinstance(arg, _LOGGED_AS_IS) else str(arg) for arg in args]),
            )
    else:

        def method(self: Namespace, *args: Any) -> Any:
            return self._caller.call(function, args)

    method.__name__ = method.__qualname__ = function.rpartition(".")[2]
    method.__doc__ = f"Call {function}."
    return method


def _namespace_class(path: str, base: type[Namespace] = Namespace) -> type[Namespace]:
    members: dict[str, Any] = {"__slots__": (), "_path": path}
    if path in FUNCTIONS:  # kong.log is a function and holds functions
        members["__call__"] = _method(path)
    for name in NAMESPACES.get(path, "").split():
        members[name] = _method(f"{path}.{name}")
    prefix = path + "."
    for other in NAMESPACES:
        if other.startswith(prefix):
            name = other[len(prefix) :].partition(".")[0]
            if name not in members or not isinstance(members[name], Child):
                members[name] = Child(_namespace_class(prefix + name))
    return type(path.rpartition(".")[2], (base,), members)


@functools.cache
def root_class() -> Callable[[Caller], Any]:
    """The class of the ``kong`` that a handler gets; called with an event or the like."""
    from .kong import kong

    return cast("Callable[[Caller], Any]", _namespace_class("kong", kong))
