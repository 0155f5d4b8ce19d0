"""encode_*: the bytes of replies, and errors that name the argument which cannot be sent."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import fractions
import numbers
import types
from typing import Any

import msgpack
import pytest

from kong_pdk import _wire
from kong_pdk.exception import ArgumentError, PDKException


class Text(str):
    """A str of a subclass."""


class Number(int):
    """An int of a subclass."""


class Real(float):
    """A float of a subclass."""


class Raw(bytes):
    """A bytes of a subclass."""


class Color(enum.IntEnum):
    """Numbers with names."""

    RED = 3


class Mode(str, enum.Enum):
    """Texts with names."""

    ON = "on"


class Plain(enum.Enum):
    """An enum of no type that MessagePack has."""

    ONE = 1
    MANY = (1, "a")
    SET = frozenset("s")


class Foreign:
    """A number as a library for arrays has them, of no type of Python's own."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __int__(self) -> int:
        return int(self.value)

    def __float__(self) -> float:
        return float(self.value)


class ForeignInt(Foreign):
    """A whole one."""


numbers.Real.register(Foreign)
numbers.Integral.register(ForeignInt)


Pair = collections.namedtuple("Pair", "a b")


def unpack(data: bytes) -> Any:
    """What a reader of MessagePack finds; every byte of it."""
    return msgpack.unpackb(data, unicode_errors=_wire.ERRORS, strict_map_key=False)


def sent(codec: Any, *args: Any) -> list[Any]:
    """The arguments of a PDK call as they arrive."""
    kind, msgid, error, result = unpack(codec.encode_call(1, 2, "kong.f", args))
    assert (kind, msgid, error, list(result)) == (1, 1, None, ["Data", "EventId"])
    assert result["Data"]["Method"] == "kong.f"
    return list(result["Data"]["Args"])


def test_golden_reply(codec: Any, golden_reply: Any) -> None:
    arguments = list(golden_reply.arguments)
    if golden_reply.function == "encode_call":
        arguments[-1] = tuple(arguments[-1])
    assert getattr(codec, golden_reply.function)(*arguments) == golden_reply.data


@pytest.mark.parametrize(
    "number",
    [
        0, 1, 127, 128, 255, 256, 65535, 65536, 2**31, 2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63,
        2**64 - 1, -1, -32, -33, -128, -129, -32768, -32769, -(2**31), -(2**31) - 1, -(2**63),
    ],
)  # fmt: skip
def test_integers(codec: Any, number: int) -> None:
    assert sent(codec, number) == [number]
    shortest = msgpack.packb(number)
    assert codec.encode_return(number, number) == (
        b"\x94\x01" + shortest + b"\xc0\x82\xa4Data\xa3ret\xa7EventId" + shortest
    )


@pytest.mark.parametrize("size", [0, 1, 31, 32, 255, 256, 511, 512, 65535, 65536, 1_000_000])
def test_lengths(codec: Any, size: int) -> None:
    for value in ("x" * size, b"x" * size, bytearray(size), [0] * size):
        data = codec.encode_result(1, value)
        assert data == b"\x94\x01\x01\xc0" + msgpack.packb(value)


@pytest.mark.parametrize("value", [0.0, -0.0, 1.1, float("inf"), float("nan"), 1e300, 2**53 + 0.0])
def test_floats_are_doubles(codec: Any, value: float) -> None:
    data = codec.encode_result(1, value)
    assert len(data) == 4 + 9
    assert repr(unpack(data)[3]) == repr(value)


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        (None, None),
        (True, True),
        (False, False),
        ("ä€\U0001f600\x00", "ä€\U0001f600\x00"),
        (b"\x00\xff", b"\x00\xff"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        ((1, (2,)), [1, [2]]),
        ({"a": {"b": [None]}}, {"a": {"b": [None]}}),
        ({1: 2, None: 3}, {1: 2, None: 3}),
        (Text("a"), "a"),
        (Number(5), 5),
        (Real(1.5), 1.5),
        (Raw(b"a"), b"a"),
        (Color.RED, 3),
        (Mode.ON, "on"),
        (Plain.ONE, 1),
        (Plain.MANY, [1, "a"]),
        (ForeignInt(7), 7),
        (Foreign(1.5), 1.5),
        (fractions.Fraction(1, 4), 0.25),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        ({"a": [Plain.ONE, types.MappingProxyType({"b": ForeignInt(2)})]}, {"a": [1, {"b": 2}]}),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.Counter("aa"), {"a": 2}),
        (Pair(1, 2), [1, 2]),
        ([Text("a"), {Text("b"): Number(1)}], ["a", {"b": 1}]),
    ],
    ids=repr,
)
def test_values(codec: Any, value: Any, arrives: Any) -> None:
    expected = repr([1, arrives, "z"])
    assert repr(sent(codec, 1, value, "z")[:3]) == expected  # behind a None, padding follows
    assert repr(unpack(codec.encode_result(1, value))[3]) == repr(arrives)


def test_str_goes_out_as_str_and_bytes_as_bin(codec: Any) -> None:
    assert codec.encode_result(1, "ab").endswith(b"\xa2ab")
    assert codec.encode_result(1, b"ab").endswith(b"\xc4\x02ab")


@pytest.mark.parametrize("raw", [b"\xff", b"caf\xe9", b"\xed\xa0\x80", b"\xc3", b"\x80" * 300])
def test_surrogate_escapes_go_out_as_the_bytes_that_they_stand_for(codec: Any, raw: bytes) -> None:
    text = raw.decode("utf-8", "surrogateescape")
    for data in (
        codec.encode_call(1, 2, "kong.f", (text, {text: [text]})),
        codec.encode_result(1, [text, text, text]),
        codec.encode_error(1, text * 3),
        codec.encode_notification(text, [text, text]),
    ):
        assert data.count(raw) == 3
        assert b"\xed\xb2" not in data  # no encoded surrogate


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 255, 256, 65535])
def test_number_of_arguments(codec: Any, count: int) -> None:
    assert sent(codec, *range(count)) == list(range(count))


def test_too_many_arguments(codec: Any) -> None:
    """A plugin's mistake like any other: it must be one that names the function."""
    with pytest.raises(ArgumentError, match=r"^kong\.table\.merge: .*65536"):
        codec.encode_call(1, 2, "kong.table.merge", (1,) * 65536)


# --- what cannot be sent --------------------------------------------------------------------------


def cyclic() -> list[Any]:
    """A list that contains itself."""
    value: list[Any] = []
    value.append(value)
    return value


def deep(depth: int) -> list[Any]:
    """Lists in each other."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


class Hostile:
    """Nothing of it can be looked at."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no eq")

    __hash__ = object.__hash__


UNSENDABLE = {
    "set": ({1}, "set"),
    "frozenset": (frozenset(), "frozenset"),
    "object": (object(), "object"),
    "function": (len, "builtin_function_or_method"),
    "type": (int, "type"),
    "range": (range(3), "range"),
    "generator": ((x for x in ()), "generator"),
    "complex": (1j, "complex"),
    "decimal": (decimal.Decimal(1), "Decimal"),
    "date": (datetime.date(2025, 1, 1), "date"),
    "datetime": (datetime.datetime(2025, 1, 1), "datetime"),
    "enum": (Plain.SET, "Plain"),
    "mapping_of_set": (types.MappingProxyType({"a": {1}}), "mappingproxy"),
    "foreign_large": (ForeignInt(2**64), "ForeignInt"),
    "fraction_large": (fractions.Fraction(10**400), "Fraction"),
    "exception": (ValueError("x"), "ValueError"),
    "int_too_large": (2**64, "int"),
    "int_too_small": (-(2**63) - 1, "int"),
    "int_subclass_too_large": (Number(2**64), "Number"),
    "lone_surrogate": ("a\ud800b", "str"),
    "other_low_surrogate": ("\udc7f", "str"),
    "surrogate_in_list": (["\ud800"], "list"),
    "surrogate_in_key": ({"\ud800": 1}, "dict"),
    "set_in_list": ([1, [2, {3}]], "list"),
    "set_in_dict": ({"a": {"b": {3}}}, "dict"),
    "large_int_in_tuple": ((2**64,), "tuple"),
    "cyclic": (cyclic(), "list"),
    "deep": (deep(2000), "list"),
    "hostile": (Hostile(), "Hostile"),
}
unsendable = pytest.mark.parametrize(("value", "kind"), UNSENDABLE.values(), ids=UNSENDABLE.keys())


@unsendable
@pytest.mark.parametrize("position", [0, 1, 20])
def test_unsendable_argument(codec: Any, value: Any, kind: str, position: int) -> None:
    args = ("ok",) * position + (value, "behind", {1})
    with pytest.raises(ArgumentError) as caught:
        codec.encode_call(1, 2, "kong.f", args)
    text = str(caught.value)
    assert text.startswith(f"kong.f: argument {position + 1}, of type {kind}, ")
    text.encode()  # it will be sent to Kong and written to a log
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, PDKException)
    assert caught.value.__cause__ is not None


def test_the_error_says_what_can_be_sent(codec: Any) -> None:
    with pytest.raises(ArgumentError, match=r"strings, bytes, numbers up to 64 bits.*dicts"):
        codec.encode_call(1, 2, "kong.f", ({1},))


@pytest.mark.parametrize("change", ["append", "pop"])
def test_a_list_that_changes_while_it_is_read(codec: Any, change: str) -> None:
    """As another thread may do: what goes out must not break the connection."""
    values: list[Any] = []

    class Changing(collections.UserDict[str, Any]):
        def __iter__(self) -> Any:
            values.append(1) if change == "append" else values.pop()
            return super().__iter__()

    values[:] = [1, Changing(a=1), 2]
    with pytest.raises(ArgumentError, match="it was changed while it was read"):
        codec.encode_call(1, 2, "kong.x", (values,))


def test_the_next_call_after_an_error(codec: Any) -> None:
    with pytest.raises(ArgumentError):
        codec.encode_call(1, 2, "kong.f", ("x" * 2000, {1}))
    assert sent(codec, "fine") == ["fine"]


@unsendable
def test_unsendable_result(codec: Any, value: Any, kind: str) -> None:
    """The server's own results go through no check of arguments: some error, no crash."""
    with pytest.raises((TypeError, ValueError, OverflowError)):
        codec.encode_result(1, value)


def test_deep_but_sendable(codec: Any) -> None:
    value = deep(300)
    assert sent(codec, value) == [value]


# --- holes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "padded"),
    [
        ((), ()),
        ((1,), (1,)),
        ((None,), ()),
        ((None, None), ()),
        ((1, None), (1,)),
        ((1, None, None), (1,)),
        ((1, 2, 3), (1, 2, 3)),
        ((0, False, ""), (0, False, "")),
        ((403, None, {}), (403, None, {}) + (False,) * 9),
        ((None, 1), (None, 1) + (False,) * 10),
        ((None, 1, None), (None, 1) + (False,) * 10),
        ((None,) * 7 + (1,), (None,) * 7 + (1,) + (False,) * 4),
        (([None], {"a": None}), ([None], {"a": None})),
    ],
    ids=repr,
)
def test_pad_holes(args: Any, padded: Any) -> None:
    assert repr(_wire.pad_holes(args)) == repr(padded)


def test_pad_holes_compares_nothing() -> None:
    """None is found by identity: a value with an __eq__ of its own is not asked."""
    value = Hostile()
    assert _wire.pad_holes((value, None))[0] is value
    assert len(_wire.pad_holes((value, None, value))) == _wire.HOLE_PADDED_LENGTH
