"""The two codecs, and the PDK's run time on either of them."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from types import ModuleType
from typing import Any, Optional

import pytest

from kong_pdk import _codec, _kinds
from kong_pdk.pdk import proxy
from kong_pdk.pdk.functions import FunctionSpec, Parameter

PURE_ONLY = os.environ.get("KONG_PDK_TEST_PURE_ONLY", "0") not in ("", "0")


def load_codec(name: str) -> ModuleType:
    """The codec "compiled" or "pure"; a compiled one that is missing is a failure."""
    if name == "pure":
        return importlib.import_module("kong_pdk._fallback")
    if PURE_ONLY:
        pytest.skip("KONG_PDK_TEST_PURE_ONLY=1: the compiled codec is not tested")
    try:
        return importlib.import_module("kong_pdk._speedups")
    except ImportError as exc:
        pytest.fail(
            f"the compiled codec is missing ({exc}); if that is meant, set "
            f"KONG_PDK_TEST_PURE_ONLY=1",
            pytrace=False,
        )


class Caller:
    """Notes the PDK calls, and answers them with what it is told to.

    Args:
        codec: whose ``Events`` hold the settings.
        phase: of the event; None if it has none.
        lua_style: calls return ``(data, err)``.
        checks: calls are checked.
        log_level: lines below are dropped.
    """

    def __init__(
        self, codec: ModuleType, phase: Optional[str] = None, lua_style: bool = False,
        checks: bool = True, log_level: int = _kinds.ALL_LEVELS,
    ) -> None:  # fmt: skip
        self.phase = phase
        self.events = codec.Events(1, 1, lua_style, checks, log_level)
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.answer: Any = None
        self.error: Optional[str] = None

    def call(self, function: str, args: tuple[Any, ...]) -> Any:
        assert type(args) is tuple
        self.calls.append((function, args))
        return (self.answer, self.error) if self.events.lua_style else self.answer

    @property
    def sent(self) -> tuple[Any, ...]:
        """The arguments of the only call."""
        ((_, args),) = self.calls
        return args


class Pdk:
    """What handlers get as ``kong``, made of one codec.

    Attributes:
        codec: that one.
        proxy: a copy of the module ``kong_pdk.pdk.proxy``.
    """

    def __init__(self, name: str) -> None:
        self.codec = load_codec(name)
        used = {each: getattr(_codec, each) for each in ("Child", "Function", "Namespace")}
        try:
            for each in used:
                setattr(_codec, each, getattr(self.codec, each))
            self.proxy = _copy_of(proxy, f"kong_pdk.pdk.proxy_{name}")
        finally:
            for each, value in used.items():
                setattr(_codec, each, value)

    def caller(self, phase: Optional[str] = None, **settings: Any) -> Caller:
        """A stand-in for an event; arguments as for :class:`Caller`."""
        return Caller(self.codec, phase, **settings)

    def kong(self, caller: Any) -> Any:
        """The root of the PDK."""
        return self.proxy.root_class()(caller)

    def function(self, name: str) -> Any:
        """The codec's object for a function."""
        return self.proxy._function(name)

    def method(self, name: str, caller: Any) -> Any:
        """A function, found by its full name from the root."""
        return reach(self.kong(caller), name)


def _copy_of(module: ModuleType, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, module.__file__)
    assert spec is not None and spec.loader is not None
    copy = importlib.util.module_from_spec(spec)
    sys.modules[name] = copy
    try:
        spec.loader.exec_module(copy)
    finally:
        del sys.modules[name]
    return copy


def reach(kong: Any, name: str) -> Any:
    """The attribute of that full name."""
    for part in name.split(".")[1:]:
        kong = getattr(kong, part)
    return kong


# --- values that are right or wrong for a kind of parameter ---------------------------------------

UUID = "5f4dcc3b-5aa7-4d61-9d83-27deb882cf99"

RIGHT: dict[str, Any] = {
    "string": "text",
    "number": 7.5,
    "integer": 7,
    "boolean": True,
    "flag": True,
    "key": "key",
    "table": {"a": [1, None, "b"]},
    "body": {"a": 1},
    "header": ["a", "b"],
    "line": "line",
    "headers": {"a": "b", "c": ["d", "e"], "f": 1, "g": True, "h": 1.5},
    "query": {"a": "b", "c": ["d", True], "f": 1, "g": True},
    "any": {"a": 1},
}

#: None is for those that are not optional.
WRONG: dict[str, tuple[Any, ...]] = {
    "string": (None, 5, 1.5, True, [], {}, object(), {1}, ("a", None)),
    "number": (None, "5", b"5", True, False, [], {}, 1j, object()),
    "integer": (None, "5", True, 1.5, float("nan"), float("inf"), [], object()),
    "boolean": (None, 0, 1, "true", [], object()),
    "flag": (),  # Kong asks only whether it is true
    "key": (None, [], {}, ("a", None), 1j, object()),
    "table": (None, "a", b"a", 5, True, {1}, object()),
    "body": (None, 5, 1.5, True, {1}, object()),
    "header": (None, {}, {"a": 1}, object(), {1}, [5], [True], ("a", None), [["a"]]),
    "line": (None, [], ["a"], ("a",), {}, object()),
    "headers": (
        None, "a", 5, ["a"], object(), {5: "x"}, {None: "x"}, {"a": (None, "b")}, {"a": {}},
        {"a": [5]},
        {"a": [True]}, {"a": object()},
    ),
    "query": (None, "a", 5, ["a"], object(), {5: "x"}, {"a": {}}, {"a": [{}]}),
    "any": (),
}  # fmt: skip


def right_value(spec: FunctionSpec, parameter: Parameter) -> Any:
    """A value that Kong takes for a parameter, in each phase."""
    if spec.rule == parameter.name == "mimetype":
        return "application/json"
    if spec.rule == "mimetype":
        return {"a": "b"}  # fits each of them
    if spec.rule == parameter.name == "consumer_id":
        return UUID
    if spec.rule == "stream_status" and parameter.name == "status":
        return 403
    if parameter.choices:
        return parameter.choices[-1]
    if parameter.begins:
        return parameter.begins + "x"
    if parameter.low is not None:
        return parameter.low
    return RIGHT[parameter.kind]


def right_arguments(spec: FunctionSpec) -> tuple[Any, ...]:
    """All arguments of a function, optional ones too."""
    if spec.variadic:
        return ("a", "b")
    return tuple(right_value(spec, parameter) for parameter in spec.params)
