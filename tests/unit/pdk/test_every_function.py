"""Every function of the table: right calls go out as they are, wrong ones raise and do not."""

from __future__ import annotations

import inspect
import math
import pydoc
from typing import Any

import pytest
from pdkcalls import UUID, WRONG, Caller, Pdk, right_arguments

from kong_pdk import _kinds, _wire
from kong_pdk.exception import (
    ArgumentError,
    ArgumentValueError,
    CallError,
    PDKException,
    PhaseError,
)
from kong_pdk.pdk._table import FUNCTIONS, RECORDS
from kong_pdk.pdk.functions import KINDS, PHASES, SHAPES, FunctionSpec

every = pytest.mark.parametrize("spec", FUNCTIONS, ids=lambda spec: spec.name)
fixed = pytest.mark.parametrize(
    "spec", [spec for spec in FUNCTIONS if not spec.variadic], ids=lambda spec: spec.name
)
with_parameters = pytest.mark.parametrize(
    "spec", [spec for spec in FUNCTIONS if spec.params], ids=lambda spec: spec.name
)

#: Functions that cannot be called without any of their arguments, though each may be missing.
NEEDS_ONE = "kong.client.authenticate"


def names(spec: FunctionSpec) -> list[str]:
    return [parameter.name for parameter in spec.params]


def refused(caller: Caller, method: Any, /, *args: Any, **kwargs: Any) -> CallError:
    """The error of a call that is not made."""
    with pytest.raises(CallError) as caught:
        method(*args, **kwargs)
    error = caught.value
    assert caller.calls == []
    assert isinstance(error, PDKException)
    assert isinstance(error, TypeError if type(error) is ArgumentError else ValueError)
    str(error).encode()  # it will be written to a log
    return error


# --- right calls ----------------------------------------------------------------------------------


@every
def test_positional_arguments_go_out_in_order(pdk: Pdk, spec: FunctionSpec) -> None:
    args = right_arguments(spec)
    for count in range(spec.least, len(args) + 1):
        if not count and (spec.name == NEEDS_ONE or spec.variadic):
            continue
        caller = pdk.caller()
        assert pdk.method(spec.name, caller)(*args[:count]) is None
        assert caller.calls == [(spec.name, args[:count])]
        assert all(sent is given for sent, given in zip(caller.sent, args))


@fixed
def test_what_is_right_takes_the_short_way(pdk: Pdk, spec: FunctionSpec) -> None:
    assert pdk.function(spec.name).fits(right_arguments(spec))


@fixed
def test_keyword_arguments_go_out_in_order(pdk: Pdk, spec: FunctionSpec) -> None:
    args = right_arguments(spec)
    given = dict(zip(names(spec), args))
    for positional in range(len(args) + 1):
        caller = pdk.caller()
        rest = dict(reversed(list(given.items())[positional:]))
        pdk.method(spec.name, caller)(*args[:positional], **rest)
        assert caller.calls == [(spec.name, args)]


@with_parameters
def test_what_is_left_out_in_between_is_none(pdk: Pdk, spec: FunctionSpec) -> None:
    args = right_arguments(spec)
    for index in range(spec.least, len(args)):
        caller = pdk.caller()
        pdk.method(spec.name, caller)(*args[: spec.least], **{names(spec)[index]: args[index]})
        between = (None,) * (index - spec.least)
        assert caller.sent == (*args[: spec.least], *between, args[index])


@with_parameters
def test_none_is_the_same_as_left_out(pdk: Pdk, spec: FunctionSpec) -> None:
    args = right_arguments(spec)
    for index in range(spec.least, len(args)):
        if spec.name == NEEDS_ONE:
            continue
        caller = pdk.caller()
        with_none = (*args[:index], None, *args[index + 1 :])
        pdk.method(spec.name, caller)(*with_none)
        assert caller.sent == with_none


@every
def test_through_the_class(pdk: Pdk, spec: FunctionSpec) -> None:
    caller = pdk.caller()
    space: Any = pdk.kong(caller)
    for part in spec.name.split(".")[1:-1]:
        space = getattr(space, part)
    function = getattr(type(space), spec.name.rpartition(".")[2])
    if spec.name in pdk.proxy.NAMESPACES:  # kong.log and kong.log.inspect
        space = pdk.method(spec.name, caller)
        function = type(space).__call__
    assert function is pdk.function(spec.name)
    function(space, *right_arguments(spec))
    assert caller.sent == right_arguments(spec)


# --- wrong calls ----------------------------------------------------------------------------------


@with_parameters
def test_a_required_argument_is_missing(pdk: Pdk, caller: Caller, spec: FunctionSpec) -> None:
    method, args = pdk.method(spec.name, caller), right_arguments(spec)
    for index in range(spec.least):
        missing = names(spec)[index]
        text = f"{spec.name}: {missing} is missing; it is called as {spec.name}("
        error = refused(caller, method, *args[:index])
        assert type(error) is ArgumentError and str(error).startswith(text)
        others = {name: arg for name, arg in zip(names(spec), args) if name != missing}
        if others:
            error = refused(caller, method, **others)
            assert type(error) is ArgumentError and str(error).startswith(text)


@fixed
def test_one_argument_too_many(pdk: Pdk, caller: Caller, spec: FunctionSpec) -> None:
    args = (*right_arguments(spec), "surplus")
    error = refused(caller, pdk.method(spec.name, caller), *args)
    assert type(error) is ArgumentError
    takes = {0: "no argument", 1: "one argument"}.get(len(args) - 1, f"{len(args) - 1} arguments")
    assert str(error).startswith(f"{spec.name} takes {takes}")
    assert f", got {len(args)}; it is called as {spec.name}(" in str(error)
    assert all(name in str(error) for name in names(spec))


@every
def test_an_unknown_keyword(pdk: Pdk, caller: Caller, spec: FunctionSpec) -> None:
    method = pdk.method(spec.name, caller)
    error = refused(caller, method, *right_arguments(spec), unheard_of=1)
    assert type(error) is ArgumentError
    assert str(error).startswith(f"{spec.name} ") and "unheard_of" in str(error)
    for name in names(spec):
        error = refused(caller, method, **{name + "z": 1})
        assert f"has no argument '{name}z', did you mean" in str(error)


@with_parameters
def test_an_argument_given_twice(pdk: Pdk, caller: Caller, spec: FunctionSpec) -> None:
    args = right_arguments(spec)
    for name in names(spec):
        error = refused(caller, pdk.method(spec.name, caller), *args, **{name: 1})
        assert str(error).startswith(f"{spec.name}: {name} is given twice; it is called as ")


@with_parameters
def test_values_of_wrong_types(pdk: Pdk, caller: Caller, spec: FunctionSpec) -> None:
    method, args = pdk.method(spec.name, caller), right_arguments(spec)
    for index, parameter in enumerate(spec.params):
        for value in WRONG[parameter.kind]:
            if value is None and parameter.optional:
                continue
            if parameter.kind == "headers" and value in ([], ()):
                continue
            wrong = (*args[:index], value, *args[index + 1 :])
            error = refused(caller, method, *wrong)
            assert type(error) is ArgumentError, value
            text = f"{spec.name}: {parameter.name} must be {KINDS[parameter.kind][2]}"
            assert str(error).startswith(text)
            assert ", got " in str(error)
            assert type(value).__name__ in str(error) or value is None
            assert str(refused(caller, method, **dict(zip(names(spec), wrong)))) == str(error)


@with_parameters
def test_numbers_just_outside(pdk: Pdk, spec: FunctionSpec) -> None:
    args = right_arguments(spec)
    for index, parameter in enumerate(spec.params):
        low, high = parameter.low, parameter.high
        inside = [value for value in (low, high) if value is not None]
        outside = [*([] if low is None else [low - 1]), *([] if high is None else [high + 1])]
        if parameter.kind == "number":
            inside += [float(value) for value in inside]
            outside += [] if low is None else [math.nextafter(low, -math.inf), -math.inf]
            outside += [] if high is None else [math.nextafter(high, math.inf), math.inf]
            outside += [math.nan] if inside else []
        for value in inside:
            caller = pdk.caller("access" if "access" in spec.phases else spec.phases[0])
            pdk.method(spec.name, caller)(*args[:index], value, *args[index + 1 :])
            assert caller.sent[index] == value
        caller = pdk.caller()
        for value in outside:
            wrong = (*args[:index], value, *args[index + 1 :])
            error = refused(caller, pdk.method(spec.name, caller), *wrong)
            assert type(error) is ArgumentValueError
            wanted = f"at least {low}" if high is None else f"between {low} and {high}"
            text = f"{spec.name}: {parameter.name} must be {wanted}, got {value!r}"
            assert str(error) == text


@with_parameters
def test_texts_that_are_no_choice(pdk: Pdk, caller: Caller, spec: FunctionSpec) -> None:
    args = right_arguments(spec)
    for index, parameter in enumerate(spec.params):
        for choice in parameter.choices:
            for same in (choice, choice.encode()):
                right = pdk.caller()
                pdk.method(spec.name, right)(*args[:index], same, *args[index + 1 :])
                assert right.sent[index] == same
        if not (parameter.choices or parameter.begins):
            continue
        for value in ("", "nothing-of-that", b"nothing-of-that", " " + args[index]):
            wrong = (*args[:index], value, *args[index + 1 :])
            error = refused(caller, pdk.method(spec.name, caller), *wrong)
            assert type(error) is ArgumentValueError
            assert str(error).startswith(f"{spec.name}: {parameter.name} must be")
            assert all(each in str(error) for each in (*parameter.choices, parameter.begins))
            text = value if isinstance(value, str) else value.decode()
            # A word of a known set is shown; what is only to begin with something may be anything.
            shown = f"{text!r}" if parameter.choices else f"str of length {len(text)}"
            assert f"got {shown}" in str(error)


# --- phases ---------------------------------------------------------------------------------------


@every
def test_phases(pdk: Pdk, spec: FunctionSpec) -> None:
    args = right_arguments(spec)
    for phase in PHASES:
        caller = pdk.caller(phase)
        method = pdk.method(spec.name, caller)
        if phase in spec.phases:
            method(*args)
            assert caller.calls == [(spec.name, args)]
            continue
        error = refused(caller, method, *args)
        assert type(error) is PhaseError
        allowed = ", ".join(each for each in PHASES if each in spec.phases)
        assert str(error) == (
            f"{spec.name} cannot be called in the {phase} phase, only in: {allowed}"
        )
        assert type(refused(caller, method, object(), unheard_of=1)) is PhaseError


@every
def test_without_checks_it_is_sent_in_any_phase(pdk: Pdk, spec: FunctionSpec) -> None:
    for phase in (*PHASES, "no phase", None):
        caller = pdk.caller(phase, checks=False)
        pdk.method(spec.name, caller)(*right_arguments(spec))
        assert caller.sent == right_arguments(spec)


@fixed
def test_without_checks_anything_is_sent(pdk: Pdk, spec: FunctionSpec) -> None:
    thing = object()
    for args in ((), (thing,), (None, thing, -1), (1,) * 20):
        caller = pdk.caller("log", checks=False)
        pdk.method(spec.name, caller)(*args)
        assert caller.calls == [(spec.name, args)]


# --- what it says of itself -----------------------------------------------------------------------


@every
def test_it_describes_itself(pdk: Pdk, caller: Caller, spec: FunctionSpec) -> None:
    method, function = pdk.method(spec.name, caller), pdk.function(spec.name)
    last = spec.name.rpartition(".")[2]
    if spec.name not in ("kong.log", "kong.log.inspect"):  # these are also namespaces
        assert repr(method) == f"<method {spec.name}>"
        assert method.__name__ == last
        assert method.__doc__ == spec.doc
        bound = inspect.signature(method)
        assert bound == spec.signature(True)
        if not spec.variadic:
            assert list(bound.parameters) == names(spec)
        page = pydoc.plain(pydoc.render_doc(method))
        assert f"{last}{bound}" in page
        assert spec.doc.splitlines()[0] in page
    assert repr(function) == f"<function {spec.name}>"
    assert (function.__name__, function.__doc__) == (last, spec.doc)
    assert next(iter(inspect.signature(function).parameters)) == "self"
    assert (function.spec, function.level) == (spec, spec.level)
    assert caller.calls == []


@fixed
def test_the_signature_tells_the_defaults(spec: FunctionSpec) -> None:
    parameters = spec.signature(True).parameters
    for one in spec.params:
        default = parameters[one.name].default
        assert default == (one.default if one.optional else inspect.Parameter.empty)


# --- the table itself -----------------------------------------------------------------------------


def test_the_entries_make_sense() -> None:
    assert len({spec.name for spec in FUNCTIONS}) == len(FUNCTIONS) > 100
    assert {spec.name for spec in FUNCTIONS} >= _wire.TERMINAL
    for spec in FUNCTIONS:
        assert set(spec.phases) <= set(PHASES) and spec.phases
        assert spec.shape in SHAPES or spec.shape in RECORDS
        assert len(spec.params) <= _kinds.MAX_PARAMETERS
        assert not (spec.variadic and spec.params)
        optional = [parameter.optional for parameter in spec.params]
        assert optional == sorted(optional)
        for parameter in spec.params:
            assert parameter.kind in KINDS
            if parameter.begins or parameter.choices:
                assert parameter.kind == "string"
            if parameter.low is not None or parameter.high is not None:
                assert parameter.kind in ("number", "integer")


def test_the_uuid_of_these_tests_is_one() -> None:
    assert len(UUID) == 36
