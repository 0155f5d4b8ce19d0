"""Function, Method, Namespace and Child of both codecs: what fits, and what is left to settle."""

from __future__ import annotations

import contextlib
import gc
import inspect
import sys
import tracemalloc
from types import ModuleType, SimpleNamespace
from typing import Any, Optional

import pytest
from pdkcalls import Caller

from kong_pdk import _kinds

Both = tuple[ModuleType, ModuleType]

SPEC = SimpleNamespace(
    doc="What it is.", signature=lambda bound: inspect.Signature() if bound else None
)


class Settled:
    """Notes what is left to it, and hands on what it is told to."""

    def __init__(self, answer: tuple[Any, ...] = ("settled",)) -> None:
        self.answer = answer
        self.asked: list[tuple[Any, ...]] = []

    def __call__(self, *given: Any) -> tuple[Any, ...]:
        self.asked.append(given)
        return self.answer


def make(codec: ModuleType, *parameters: Any, **changes: Any) -> Any:
    """A function with these parameters; each a tuple, or the bits of its types alone."""
    given: dict[str, Any] = {
        "name": "kong.some.function",
        "phases": frozenset(("access",)),
        "parameters": tuple(
            one if isinstance(one, tuple) else (one, None, None, None, 0) for one in parameters
        ),
        "least": len(parameters),
        "level": -1,
        "variadic": False,
        "result": _kinds.AS_IT_IS,
        "settle": Settled(),
        "convert": None,
        "spec": SPEC,
    }
    return codec.Function(**{**given, **changes})


# --- fits -----------------------------------------------------------------------------------------

TYPES = {
    _kinds.STR: "x", _kinds.BYTES: b"x", _kinds.INT: 5, _kinds.FLOAT: 1.5, _kinds.BOOL: True,
    _kinds.NONE: None, _kinds.DICT: {}, _kinds.LIST: [], _kinds.OTHER: (),
}  # fmt: skip


@pytest.mark.parametrize("bit", TYPES)
def test_types(codec: ModuleType, bit: int) -> None:
    for other, value in TYPES.items():
        assert make(codec, bit).fits((value,)) is (bit == other)
        assert make(codec, _kinds.ANY & ~bit).fits((value,)) is (bit != other)
        assert make(codec, _kinds.ANY).fits((value,)) is True


@pytest.mark.parametrize(
    "value", [type("S", (str,), {})("x"), type("I", (int,), {})(5), type("D", (dict,), {})(),
              type("L", (list,), {})(), bytearray(b"x"), (1,), object()], ids=repr,
)  # fmt: skip
def test_only_exact_types_are_plain(codec: ModuleType, value: Any) -> None:
    assert make(codec, _kinds.ANY & ~_kinds.OTHER).fits((value,)) is False
    assert make(codec, _kinds.OTHER).fits((value,)) is True


def test_number_of_arguments(codec: ModuleType) -> None:
    function = make(codec, *[_kinds.ANY] * 3, least=1)
    assert [function.fits((1,) * count) for count in range(5)] == [False, True, True, True, False]
    assert make(codec).fits(()) is True
    assert make(codec, _kinds.ANY, least=2).fits((1,)) is False  # each call is to be settled


@pytest.mark.parametrize(
    ("low", "high", "right", "wrong"),
    [
        (1, 1000, (1, 1000, 1.0, 999.9), (0, 1001, 0.9, 1000.1, float("nan"), float("inf"))),
        (0, None, (0, -0.0, 10**400, 1e300, float("inf")), (-1, -(10**400), float("nan"))),
        (None, 5, (5, -(10**400), -float("inf")), (6, 10**400, float("inf"), float("nan"))),
        (None, None, (0, 10**400, float("nan"), float("inf")), ()),
        (0, 2147483646, (2147483646,), (2147483647, 2**63, -(2**63) - 1)),
    ],
)
def test_bounds(codec: ModuleType, low: Any, high: Any, right: Any, wrong: Any) -> None:
    function = make(codec, (_kinds.NUMBER, low, high, None, 0))
    assert [value for value in right if not function.fits((value,))] == []
    assert [value for value in wrong if function.fits((value,))] == []


def test_texts(codec: ModuleType) -> None:
    choices = make(codec, (_kinds.STR | _kinds.BYTES | _kinds.NONE, None, None, frozenset("ab"), 0))
    begins = make(codec, (_kinds.STR | _kinds.BYTES | _kinds.NONE, None, None, "/", 0))
    for function, right, wrong in ((choices, "a", "c"), (begins, "/x", "x/")):
        assert function.fits((right,)) and function.fits((None,))
        for value in (wrong, "", "\ud800", right.encode(), b""):  # bytes are looked at elsewhere
            assert not function.fits((value,))


HOLDS: dict[int, tuple[list[Any], list[Any]]] = {
    0: ([{}, {1: object()}, [], [object()]], []),
    _kinds.HEADER_VALUES: ([[], ["a"], ["a", "b"]], [[1], ["a", None], [True], [b"a"], [["a"]]]),
    _kinds.HEADERS: (
        [{}, {"a": "b"}, {"a": b"b", "c": 1, "d": 1.5, "e": True}, {"a": []}, {"a": ["b"]}],
        [{1: "a"}, {"a": None}, {"a": {}}, {"a": ("b",)}, {"a": [1]}, {"a": [True]}, {b"a": "b"}],
    ),
    _kinds.QUERY: (
        [{}, {"a": ["b", True]}, {"a": [False]}, {"a": True}],
        [{"a": [1]}, {"a": [None]}, {"a": None}, {True: "a"}],
    ),
}


@pytest.mark.parametrize("holds", HOLDS)
def test_what_containers_hold(codec: ModuleType, holds: int) -> None:
    bits = _kinds.LIST if holds == _kinds.HEADER_VALUES else _kinds.DICT
    if not holds:
        bits |= _kinds.LIST
    function = make(codec, (bits, None, None, None, holds))
    right, wrong = HOLDS[holds]
    assert [value for value in right if not function.fits((value,))] == []
    assert [value for value in wrong if function.fits((value,))] == []


def test_any_number_of_texts(codec: ModuleType) -> None:
    function = make(codec, variadic=True)
    assert function.fits(("a",) * 1000 + (b"x",))
    for wrong in ((), (1,), ("a", None), ("a", bytearray(b"a")), (type("S", (str,), {})("x"),)):
        assert not function.fits(wrong)


@pytest.mark.parametrize("wrong", [None, 5], ids=repr)
def test_fits_wants_a_tuple(codec: ModuleType, wrong: Any) -> None:
    with pytest.raises(TypeError):
        make(codec, _kinds.ANY).fits(wrong)


def test_more_parameters_than_there_may_be(codec: ModuleType) -> None:
    make(codec, *[_kinds.ANY] * _kinds.MAX_PARAMETERS)
    with pytest.raises(ValueError, match=r"^kong\.some\.function: more than 8 parameters$"):
        make(codec, *[_kinds.ANY] * (_kinds.MAX_PARAMETERS + 1))


# --- what is left to settle -----------------------------------------------------------------------


def ask(
    codec: ModuleType, args: tuple[Any, ...], kwargs: dict[str, Any], phase: Optional[str],
    **changes: Any,
) -> tuple[list[Any], tuple[Any, ...]]:  # fmt: skip
    """What ``settle`` was asked, and what went out."""
    settle = Settled()
    checks = changes.pop("checks", True)
    function = make(codec, *changes.pop("parameters", (_kinds.STR,)), settle=settle, **changes)
    caller = Caller(codec, phase, checks=checks)
    codec.Method(function, caller)(*args, **kwargs)
    assert all(asked[0] is function for asked in settle.asked)
    return [asked[1:] for asked in settle.asked], caller.sent


def test_what_fits_goes_out_as_it_is(codec: ModuleType) -> None:
    for phase in ("access", None):
        assert ask(codec, ("x",), {}, phase) == ([], ("x",))


def test_what_does_not_fit_is_settled(codec: ModuleType) -> None:
    assert ask(codec, (5,), {}, "access") == ([((5,), {}, None, True)], ("settled",))
    assert ask(codec, (), {}, None) == ([((), {}, None, True)], ("settled",))


def test_keyword_arguments_are_settled(codec: ModuleType) -> None:
    asked, sent = ask(codec, ("x",), {"k": 1}, "access")
    assert (asked, sent) == ([(("x",), {"k": 1}, None, True)], ("settled",))
    asked, sent = ask(codec, ("x",), {"k": 1}, "log", checks=False)
    assert (asked, sent) == ([(("x",), {"k": 1}, None, False)], ("settled",))


def test_a_wrong_phase_is_settled(codec: ModuleType) -> None:
    assert ask(codec, ("x",), {}, "log") == ([(("x",), {}, "log", True)], ("settled",))


def test_without_checks_only_texts_and_keywords_are_settled(codec: ModuleType) -> None:
    for args in ((5,), (), (1,) * 20):
        assert ask(codec, args, {}, "log", checks=False) == ([], args)
    asked, sent = ask(codec, (5,), {}, "log", checks=False, variadic=True, parameters=())
    assert (asked, sent) == ([((5,), {}, None, False)], ("settled",))
    assert ask(codec, ("a",), {}, "log", checks=False, variadic=True, parameters=()) == (
        [], ("a",),
    )  # fmt: skip


def test_what_settle_raises_is_raised(codec: ModuleType) -> None:
    def settle(*_: Any) -> Any:
        raise LookupError("no")

    caller = Caller(codec)
    with pytest.raises(LookupError):
        codec.Method(make(codec, settle=settle), caller)(1)
    assert caller.calls == []


@pytest.mark.parametrize("keyword", ["self", "instance", "args", "kwargs", "function", "caller"])
def test_a_keyword_may_have_any_name(codec: ModuleType, keyword: str) -> None:
    settle = Settled()
    function = make(codec, settle=settle)
    codec.Method(function, Caller(codec))(**{keyword: 1})
    function(codec.Namespace(Caller(codec)), **{keyword: 1})
    assert [asked[2] for asked in settle.asked] == [{keyword: 1}] * 2


# --- attributes -----------------------------------------------------------------------------------


def test_through_an_instance_and_its_class(codec: ModuleType) -> None:
    function = make(codec, _kinds.STR)

    class Below(codec.Namespace):  # type: ignore[misc, name-defined]
        __slots__ = ()
        call = function

    class Space(codec.Namespace):  # type: ignore[misc, name-defined]
        __slots__ = ()
        below = codec.Child(Below)

    caller = Caller(codec)
    space = Space(caller)
    assert type(space.below) is Below and space.below is not space.below
    assert type(space.below.call) is codec.Method
    assert space.below.call.function is function
    assert Space.below.kind is Below and Below.call is function
    space.below.call("a")
    Below.call(space.below, "b")
    assert [args for _, args in caller.calls] == [("a",), ("b",)]
    for change in (lambda: setattr(space, "below", 1), lambda: delattr(space, "below")):
        with pytest.raises(AttributeError):
            change()


def test_what_is_no_namespace(codec: ModuleType) -> None:
    function = make(codec, _kinds.STR)
    for wrong in (5, "x", object(), None):
        with pytest.raises((TypeError, AttributeError)):
            function(wrong, "a")
    with pytest.raises(TypeError):
        function()


def test_what_they_say_of_themselves(codec: ModuleType) -> None:
    function = make(codec, _kinds.STR)
    method = codec.Method(function, None)
    assert (repr(function), repr(method)) == (
        "<function kong.some.function>", "<method kong.some.function>",
    )  # fmt: skip
    for one in (function, method):
        assert (one.__name__, one.__doc__) == ("function", "What it is.")
    assert inspect.isroutine(method)
    assert method.__get__(5) is method
    assert (function.name, function.phases, function.level) == (
        "kong.some.function", frozenset(("access",)), -1,
    )  # fmt: skip
    assert (function.variadic, function.spec) == (False, SPEC)


def test_what_was_never_initialised(codec: ModuleType) -> None:
    """As a broken copy leaves them: errors, and no crash."""
    method, child = codec.Method.__new__(codec.Method), codec.Child.__new__(codec.Child)
    for use in (
        method,
        lambda: repr(method),
        lambda: method.__name__,
        lambda: method.__doc__,
        lambda: method.__signature__,
        lambda: child.__get__(codec.Namespace(None), None),
        lambda: codec.Event.__new__(codec.Event).call("kong.log", ()),
    ):
        with pytest.raises((AttributeError, TypeError)):
            use()


def test_what_was_initialised_in_part(codec: ModuleType) -> None:
    function = make(codec, *[_kinds.STR] * 8)
    settings = ("x", frozenset(("access",)), ((_kinds.STR, None, None, None, 0), *[(1,)] * 7))
    with pytest.raises(ValueError, match="unpack"):
        function.__init__(*settings, 0, -1, False, _kinds.AS_IT_IS, None, None, SPEC)
        function.fits(("x",) * 8)
    with contextlib.suppress(ValueError):
        assert function.fits(("x",) * 8) is False


def test_a_namespace_whose_class_makes_something_else(codec: ModuleType) -> None:
    other = object()
    kind = type("Odd", (codec.Namespace,), {"__new__": lambda cls, *_: other})
    root = type("Root", (codec.Namespace,), {"odd": codec.Child(kind)})
    assert root(None).odd is other


def test_a_caller_that_returns_an_odd_tuple(codec: ModuleType) -> None:
    class Odd:
        def call(self, function: str, args: tuple[Any, ...]) -> Any:
            return ()

    function = codec.Function(
        "kong.some.function", frozenset(("access",)), (), 0, -1, False, _kinds.MAP, None, None, SPEC
    )
    with pytest.raises(IndexError):
        function.invoke(Odd(), (), {})


# --- memory ---------------------------------------------------------------------------------------


class Silent:
    """Keeps nothing."""

    phase = "access"

    def call(self, function: str, args: tuple[Any, ...]) -> Any:
        return None


def test_calls_leave_nothing_behind(codec: ModuleType) -> None:
    function = make(codec, _kinds.STR, _kinds.ANY, settle=lambda *_: ("x",))
    refused = make(codec, _kinds.INT, settle=lambda *_: 1 / 0)

    class Space(codec.Namespace):  # type: ignore[misc, name-defined]
        __slots__ = ()
        call = function
        refused_ = refused

    Space.below = codec.Child(Space)
    caller = Silent()
    space, value, key = Space(caller), object(), {"some": "keyword"}

    def run(count: int) -> None:
        for _ in range(count):
            space.below.call("x", value)
            space.call("x", **key)
            Space.call(space, "x", value)
            try:
                space.refused_("x")
            except ZeroDivisionError:
                pass

    run(1000)
    gc.collect()
    watched = (function, refused, caller, Space, SPEC, value, space)
    before = [sys.getrefcount(one) for one in watched]
    tracemalloc.start()
    try:
        size, _ = tracemalloc.get_traced_memory()
        run(20_000)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [sys.getrefcount(one) for one in watched] == before
    assert after - size < 20_000  # bytes: less than one for each call
