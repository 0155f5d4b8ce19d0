"""PDK functions that a test replaces."""

from __future__ import annotations

import copy
from types import TracebackType
from typing import Any, Callable, Optional

from .._wire import TERMINAL
from ..gateway.functions import PdkError
from ..gateway.functions.registry import SPECS
from ..pdk.functions import close_matches

_MISSING: Any = object()


class Fake:
    """A PDK function that does what the test wants instead of what Kong does.

    It is in force from its making; :meth:`remove` or the end of a ``with`` block ends that.

    Attributes:
        function: the function's full name.
        calls: the arguments of each call.
    """

    def __init__(
        self,
        fakes: dict[str, list[Fake]],
        function: str,
        returns: Any,
        raises: Optional[str],
        calls: Optional[Callable[..., Any]],
    ) -> None:
        self.function = function
        self.calls: list[list[Any]] = []
        self._fakes = fakes
        self._returns, self._raises, self._function = returns, raises, calls
        fakes.setdefault(function, []).append(self)

    def __call__(self, exchange: Any, *args: Any) -> Any:
        """Answer a call as the gateway's own function would."""
        self.calls.append(list(args))
        if self._raises is not None:
            raise PdkError(self._raises)
        if self._function is not None:
            value = self._function(exchange, *args)
            _check(self.function, value)
            return value
        return copy.deepcopy(self._returns)

    def remove(self) -> None:
        """Let Kong's function be in force again, or the fake before this one."""
        stack = self._fakes.get(self.function, [])
        if self in stack:
            stack.remove(self)
        if not stack:
            self._fakes.pop(self.function, None)

    def __enter__(self) -> Fake:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        return f"<Fake {self.function}, called {len(self.calls)} times>"


def make_fake(
    fakes: dict[str, list[Fake]],
    function: str,
    returns: Any = _MISSING,
    raises: Optional[str] = None,
    calls: Optional[Callable[..., Any]] = None,
) -> Fake:
    """Put a fake in force.

    Raises:
        LookupError: plugin servers cannot call such a function; says which name is near.
        TypeError: not one of ``returns``, ``raises`` and ``calls`` is given.
    """
    if function not in SPECS:
        near = close_matches(function, SPECS, 3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise LookupError(f"plugin servers can call no PDK function {function!r}{hint}")
    if sum((returns is not _MISSING, raises is not None, calls is not None)) != 1:
        raise TypeError(f"the fake of {function} wants one of returns=, raises= and calls=")
    if raises is not None and not isinstance(raises, str):
        raise TypeError(
            f"raises= wants the text of Kong's error, got {type(raises).__name__}: "
            "a plugin gets no exception from Kong"
        )
    if calls is not None and not callable(calls):
        raise TypeError(f"calls= wants a function, got {type(calls).__name__}")
    if function in TERMINAL and raises is None:
        raise TypeError(
            f"{function} can be faked with raises= only: what it does is what the client gets"
        )
    if returns is not _MISSING:
        _check(function, returns)
    return Fake(fakes, function, returns, raises, calls)


def _check(function: str, value: Any) -> None:
    """See that Kong could send a value.

    Raises:
        TypeError: it could not; says what is in it.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            _check(function, key)
            _check(function, item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check(function, item)
    elif value is not None and not isinstance(value, (bool, int, float, str, bytes)):
        raise TypeError(
            f"the fake of {function} returns what Kong cannot send: {type(value).__name__}"
        )
