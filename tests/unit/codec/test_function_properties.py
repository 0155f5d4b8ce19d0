"""Whatever arguments come: both codecs judge alike, and what fits the slow way takes too."""

from __future__ import annotations

import collections
import enum
import types
from types import ModuleType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pdkcalls import RIGHT, WRONG, Caller, Pdk, right_arguments, right_value

from kong_pdk.exception import CallError
from kong_pdk.pdk._table import FUNCTIONS
from kong_pdk.pdk.functions import PHASES, FunctionSpec

Both = tuple[ModuleType, ModuleType]
Pdks = tuple[Pdk, Pdk]


@pytest.fixture(scope="session")
def pdks(both: Both) -> Pdks:
    """The PDK, made of the compiled codec and of the pure one."""
    return Pdk("compiled"), Pdk("pure")


# --- what is tried --------------------------------------------------------------------------------


class Text(str):
    """A str of a subclass."""


class Name(enum.Enum):
    A = "a"
    ONE = 1
    LIST = ["a"]


CHOICES = sorted({
    text
    for spec in FUNCTIONS
    for parameter in spec.params
    for text in (*parameter.choices, parameter.begins)
})  # fmt: skip
BOUNDS = sorted({
    bound + near
    for spec in FUNCTIONS
    for parameter in spec.params
    for bound in (parameter.low, parameter.high)
    if bound is not None
    for near in (-1, 0, 1)
})  # fmt: skip

texts = st.sampled_from(CHOICES) | st.text(max_size=5) | st.just("\ud800")
numbers = (
    st.sampled_from(BOUNDS)
    | st.integers()
    | st.integers(0, 700)
    | st.floats()
    | st.sampled_from(BOUNDS).map(float)
)
scalars = st.none() | st.booleans() | numbers | texts | st.binary(max_size=5)
odd = (
    st.sampled_from((object(), {1}, 1j, Name.A, Name.ONE, Name.LIST, range(3)))
    | st.text(max_size=5).map(Text)
    | st.binary(max_size=5).map(bytearray)
    | st.fractions()
    | st.integers(600, 5000).map(lambda power: 2**power)
)
items = scalars | odd | st.lists(texts | st.booleans() | scalars, max_size=3)
maps = st.dictionaries(texts | scalars.filter(lambda key: key == key), items, max_size=3)
containers = (
    st.lists(items, max_size=3)
    | maps
    | st.dictionaries(texts, texts | st.lists(texts, max_size=2), max_size=3)
    | st.lists(items, max_size=3).map(tuple)
    | maps.map(types.MappingProxyType)
    | maps.map(collections.OrderedDict)
)
values = scalars | odd | containers
right_or_wrong = st.sampled_from(
    [*RIGHT.values(), *(one for kind in WRONG.values() for one in kind)]
)


@st.composite
def calls(draw: st.DrawFn) -> tuple[FunctionSpec, tuple[Any, ...]]:
    """A function, and arguments that are often nearly right."""
    spec = draw(st.sampled_from(FUNCTIONS))
    args: list[Any] = []
    for parameter in spec.params:
        right = st.just(right_value(spec, parameter))
        args.append(draw(st.one_of(right, right, values, right_or_wrong, st.none())))
    if spec.variadic:
        return spec, tuple(draw(st.lists(values, max_size=4)))
    count = draw(st.sampled_from([*range(len(args) + 1), *[len(args)] * 3]))
    surplus = draw(st.lists(values, max_size=1)) if draw(st.integers(0, 9)) == 0 else []
    return spec, (*args[:count], *surplus)


def outcome(
    pdk: Pdk, spec: FunctionSpec, phase: Any, args: Any, kwargs: Any, **settings: Any
) -> Any:
    """What a call sends, or its error."""
    caller = Caller(pdk.codec, phase, **settings)
    try:
        pdk.method(spec.name, caller)(*args, **kwargs)
    except CallError as exc:
        assert caller.calls == []
        return type(exc), str(exc)
    return repr(caller.sent) if caller.calls else "dropped"


# --- properties -----------------------------------------------------------------------------------


@given(call=calls())
@example(call=(FUNCTIONS[0], ()))
def test_what_fits_is_what_the_slow_way_takes(
    pdks: Pdks, call: tuple[FunctionSpec, tuple[Any, ...]]
) -> None:
    spec, args = call
    compiled, pure = (pdk.function(spec.name) for pdk in pdks)
    fits = compiled.fits(args)
    assert fits is pure.fits(args)
    if fits:
        settle = pdks[0].proxy.settle
        for phase in (None, *spec.phases) if spec.rule != "stream_status" else (None, "access"):
            settled = settle(compiled, args, {}, phase, True)
            assert repr(settled) == repr(args)
            assert all(type(one) is type(two) for one, two in zip(settled, args))


@given(call=calls(), phase=st.none() | st.sampled_from(PHASES), data=st.data())
def test_both_send_the_same_or_raise_the_same(
    pdks: Pdks, call: tuple[FunctionSpec, tuple[Any, ...]], phase: Any, data: st.DataObject
) -> None:
    spec, args = call
    names = [parameter.name for parameter in spec.params]
    positional = data.draw(st.integers(0, len(args)))
    kwargs = dict(zip(names[positional:], args[positional:]))
    if spec.variadic or len(args) > len(names):
        positional, kwargs = len(args), {}
    settings = {
        "checks": data.draw(st.booleans()),
        "lua_style": data.draw(st.booleans()),
        "log_level": data.draw(st.integers(0, 7)),
    }
    found = [outcome(pdk, spec, phase, args[:positional], kwargs, **settings) for pdk in pdks]
    assert found[0] == found[1]
    if kwargs:  # the way in which they are given makes no difference
        by_position = outcome(pdks[0], spec, phase, args, {}, **settings)
        if settings["checks"] and isinstance(found[0], str):
            assert by_position == found[0]


@given(call=calls())
def test_what_goes_out_can_be_encoded_or_is_named(
    pdks: Pdks, call: tuple[FunctionSpec, tuple[Any, ...]]
) -> None:
    spec, args = call
    found = []
    for pdk in pdks:
        caller = Caller(pdk.codec)
        try:
            pdk.method(spec.name, caller)(*args)
            found.append(pdk.codec.encode_call(1, 2, spec.name, caller.sent))
        except CallError as exc:
            assert spec.name in str(exc)
            str(exc).encode()
            found.append(str(exc))
    assert found[0] == found[1]


def test_right_arguments_are_right(pdks: Pdks) -> None:
    """Else these properties would say little."""
    fitting = [
        spec
        for spec in FUNCTIONS
        if not spec.rule and pdks[0].function(spec.name).fits(right_arguments(spec))
    ]
    assert len(fitting) == sum(not spec.rule for spec in FUNCTIONS)
