"""Decoder: bytes in any portions become the same requests, whatever MessagePack says in them."""

from __future__ import annotations

import array
import datetime
import struct
from typing import Any, Callable

import msgpack
import pytest

from kong_pdk import _wire

#: A request of Kong, to be put behind others.
NEXT = msgpack.packb([0, 77, "plugin.GetStatus", []])
NEXT_FIELDS = (_wire.CALL, 77, "plugin.GetStatus", [])


def step_with(encoded: bytes) -> bytes:
    """A step whose Data is a value that is encoded already."""
    return b"\x94\x00\x01\xabplugin.Step\x91\x82\xa7EventId\x07\xa4Data" + encoded


def call_with(encoded: bytes) -> bytes:
    """The same value as the argument of a call, which is decoded in another way."""
    return b"\x94\x00\x01\xa8plugin.X\x91" + encoded


def drain(decoder: Any) -> list[Any]:
    """All requests that are complete."""
    return list(iter(decoder.next, None))


def test_golden_request(codec: Any, golden_request: Any, fields: Callable[[Any], Any]) -> None:
    decoder = codec.Decoder()
    decoder.feed(golden_request.data)
    request = decoder.next()
    assert repr(fields(request)) == repr(golden_request.fields)
    assert decoder.consumed == len(golden_request.data)
    assert decoder.pending == 0
    assert decoder.next() is None


def test_golden_request_byte_by_byte(
    codec: Any, golden_request: Any, fields: Callable[[Any], Any]
) -> None:
    decoder = codec.Decoder()
    for index, byte in enumerate(golden_request.data):
        assert decoder.next() is None
        assert (decoder.consumed, decoder.pending) == (0, index)
        decoder.feed(bytes((byte,)))
    assert repr(fields(decoder.next())) == repr(golden_request.fields)
    assert (decoder.consumed, decoder.pending) == (len(golden_request.data), 0)


def test_golden_request_cut_at_every_point(
    codec: Any, golden_request: Any, fields: Callable[[Any], Any]
) -> None:
    data, expected = golden_request.data, repr(golden_request.fields)
    decoder = codec.Decoder()
    for cut in range(1, len(data)):
        decoder.feed(data[:cut])
        assert decoder.next() is None
        assert decoder.pending == cut
        decoder.feed(data[cut:])
        assert repr(fields(decoder.next())) == expected
        assert decoder.next() is None
        assert (decoder.consumed, decoder.pending) == (cut * len(data), 0)


def test_golden_request_with_the_next_one_behind_cut_at_every_point(
    codec: Any, golden_request: Any, fields: Callable[[Any], Any]
) -> None:
    data = golden_request.data + NEXT
    expected = [repr(golden_request.fields), repr(NEXT_FIELDS)]
    for cut in range(1, len(data)):
        decoder = codec.Decoder()
        decoder.feed(data[:cut])
        seen = drain(decoder)
        assert len(seen) == (cut >= len(golden_request.data))
        assert decoder.pending == cut - len(seen) * len(golden_request.data)
        decoder.feed(data[cut:])
        seen += drain(decoder)
        assert [repr(fields(request)) for request in seen] == expected
        assert (decoder.consumed, decoder.pending) == (len(data), 0)


def test_all_golden_requests_in_one_feed(
    codec: Any, golden_requests: list[Any], fields: Callable[[Any], Any]
) -> None:
    decoder = codec.Decoder()
    rounds = 20
    decoder.feed(b"".join(frame.data for frame in golden_requests) * rounds)
    total = decoder.pending
    expected = [repr(frame.fields) for frame in golden_requests] * rounds
    assert [repr(fields(request)) for request in drain(decoder)] == expected
    assert (decoder.consumed, decoder.pending) == (total, 0)


@pytest.mark.parametrize("portion", [1, 7, 100, 4096])
def test_all_golden_requests_in_equal_portions(
    codec: Any, golden_requests: list[Any], fields: Callable[[Any], Any], portion: int
) -> None:
    decoder, seen = codec.Decoder(), []
    stream = b"".join(frame.data for frame in golden_requests) * 2
    for start in range(0, len(stream), portion):
        decoder.feed(stream[start : start + portion])
        seen += drain(decoder)
        assert decoder.consumed + decoder.pending == min(start + portion, len(stream))
    assert [repr(fields(r)) for r in seen] == [repr(f.fields) for f in golden_requests] * 2


def test_requests_are_taken_one_at_a_time(codec: Any) -> None:
    decoder = codec.Decoder()
    decoder.feed(NEXT * 3 + NEXT[:5])
    for taken in range(1, 4):
        assert decoder.next().msgid == 77
        assert decoder.consumed == taken * len(NEXT)
        assert decoder.pending == (3 - taken) * len(NEXT) + 5
    assert decoder.next() is None
    assert decoder.consumed == 3 * len(NEXT)


# Sizes around those at which the buffers of either codec grow, shrink or are read in parts.
@pytest.mark.parametrize(
    "size", [511, 512, 513, 16383, 16384, 16385, 65535, 65536, 262144, 262145, 3 << 20]
)
@pytest.mark.parametrize("kind", [str, bytes])
def test_a_value_larger_than_the_buffers(codec: Any, size: int, kind: type) -> None:
    value: Any = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    if kind is str:
        value = value.decode()
    data = msgpack.packb([0, 1, "plugin.Step", [{"EventId": 7, "Data": value}]])
    decoder = codec.Decoder()
    stream = NEXT + data + NEXT + data
    values = []
    for start in range(0, len(stream), 60_001):
        decoder.feed(stream[start : start + 60_001])
        values += [request.value for request in drain(decoder)]
    assert values == [[], value, [], value]
    assert (decoder.consumed, decoder.pending) == (len(stream), 0)


def test_small_requests_after_a_large_one(codec: Any) -> None:
    large = msgpack.packb([0, 1, "plugin.Step", [{"EventId": 7, "Data": b"x" * 1_000_000}]])
    decoder = codec.Decoder()
    for _ in range(3):
        decoder.feed(large)
        assert len(decoder.next().value) == 1_000_000
        decoder.feed(NEXT[:3])
        assert decoder.next() is None
        decoder.feed(NEXT[3:])
        assert decoder.next().msgid == 77
    assert decoder.consumed == 3 * (len(large) + len(NEXT))


def test_values_do_not_change_when_the_buffer_is_used_again(codec: Any) -> None:
    decoder = codec.Decoder()
    first = msgpack.packb([0, 1, "plugin.Step", [{"EventId": 7, "Data": b"a" * 100}]])
    second = msgpack.packb([0, 1, "plugin.Step", [{"EventId": 7, "Data": b"b" * 100}]])
    decoder.feed(first)
    value = decoder.next().value
    decoder.feed(second)
    assert decoder.next().value == b"b" * 100
    assert value == b"a" * 100


@pytest.mark.parametrize(
    "data",
    [NEXT, bytearray(NEXT), memoryview(NEXT), memoryview(b"xx" + NEXT)[2:], array.array("B", NEXT)],
    ids=["bytes", "bytearray", "memoryview", "slice", "array"],
)
def test_feed_takes_any_bytes(codec: Any, data: Any, fields: Callable[[Any], Any]) -> None:
    decoder = codec.Decoder()
    decoder.feed(data)
    assert fields(decoder.next()) == NEXT_FIELDS


def test_feed_copies(codec: Any) -> None:
    decoder, data = codec.Decoder(), bytearray(NEXT)
    decoder.feed(data)
    data[:] = b"\xc1" * len(data)
    data.extend(b"not locked")
    assert decoder.next().msgid == 77


def test_nothing_fed(codec: Any) -> None:
    decoder = codec.Decoder()
    assert decoder.next() is None
    decoder.feed(b"")
    assert decoder.next() is None
    assert (decoder.consumed, decoder.pending) == (0, 0)


# --- every type of MessagePack, in the shortest form and in longer ones ---------------------------

LONG = "x" * 31
TYPES: list[tuple[str, bytes, Any]] = [
    ("nil", b"\xc0", None),
    ("false", b"\xc2", False),
    ("true", b"\xc3", True),
    ("fixint", b"\x7f", 127),
    ("negative_fixint", b"\xe0", -32),
    ("uint8", b"\xcc\xff", 255),
    ("uint8_small", b"\xcc\x05", 5),
    ("uint16", b"\xcd\x01\x02", 0x0102),
    ("uint32", b"\xce\x01\x02\x03\x04", 0x01020304),
    ("uint64", b"\xcf" + b"\xff" * 8, 2**64 - 1),
    ("uint64_small", b"\xcf" + bytes(7) + b"\x05", 5),
    ("int8", b"\xd0\x80", -128),
    ("int8_positive", b"\xd0\x05", 5),
    ("int16", b"\xd1\x80\x00", -32768),
    ("int32", b"\xd2\x80\x00\x00\x00", -(2**31)),
    ("int64", b"\xd3\x80" + bytes(7), -(2**63)),
    ("float32", b"\xca" + struct.pack(">f", 0.5), 0.5),
    ("float64", b"\xcb" + struct.pack(">d", 1.1), 1.1),
    ("float_nan", b"\xcb" + struct.pack(">d", float("nan")), float("nan")),
    ("float_infinity", b"\xcb" + struct.pack(">d", float("-inf")), float("-inf")),
    ("float_negative_zero", b"\xcb" + struct.pack(">d", -0.0), -0.0),
    ("fixstr_empty", b"\xa0", ""),
    ("fixstr", b"\xbf" + LONG.encode(), LONG),
    ("str8", b"\xd9\x1f" + LONG.encode(), LONG),
    ("str8_empty", b"\xd9\x00", ""),
    ("str16", b"\xda\x00\x1f" + LONG.encode(), LONG),
    ("str32", b"\xdb\x00\x00\x00\x1f" + LONG.encode(), LONG),
    ("str_utf8", b"\xa6\xc3\xa4\xe2\x82\xac!", "ä€!"),
    ("str_astral", b"\xa4\xf0\x9f\x98\x80", "\U0001f600"),
    ("str_zero_byte", b"\xa3a\x00b", "a\x00b"),
    ("str_not_utf8", b"\xa3a\xffb", "a\udcffb"),
    ("str_cut_utf8", b"\xa2\xe2\x82", "\udce2\udc82"),
    ("str_encoded_surrogate", b"\xa3\xed\xa0\x80", "\udced\udca0\udc80"),
    ("str_overlong", b"\xa2\xc0\x80", "\udcc0\udc80"),
    ("bin8", b"\xc4\x02\x00\xff", b"\x00\xff"),
    ("bin8_empty", b"\xc4\x00", b""),
    ("bin16", b"\xc5\x00\x02\x00\xff", b"\x00\xff"),
    ("bin32", b"\xc6\x00\x00\x00\x02\x00\xff", b"\x00\xff"),
    ("fixarray_empty", b"\x90", []),
    ("fixarray", b"\x93\x01\xa1a\xc0", [1, "a", None]),
    ("fixarray_15", b"\x9f" + b"\x01" * 15, [1] * 15),
    ("array16", b"\xdc\x00\x02\x01\x02", [1, 2]),
    ("array16_empty", b"\xdc\x00\x00", []),
    ("array32", b"\xdd\x00\x00\x00\x02\x01\x02", [1, 2]),
    ("array32_empty", b"\xdd\x00\x00\x00\x00", []),
    ("fixmap_empty", b"\x80", {}),
    ("fixmap", b"\x82\xa1a\x01\xa1b\x90", {"a": 1, "b": []}),
    ("map16", b"\xde\x00\x01\xa1a\x01", {"a": 1}),
    ("map16_empty", b"\xde\x00\x00", {}),
    ("map32", b"\xdf\x00\x00\x00\x01\xa1a\x01", {"a": 1}),
    ("map32_empty", b"\xdf\x00\x00\x00\x00", {}),
    ("map_any_keys", b"\x83\x01\x02\xc0\x03\xc4\x01a\xc2", {1: 2, None: 3, b"a": False}),
    ("map_key_not_utf8", b"\x81\xa1\xff\xa1\xfe", {"\udcff": "\udcfe"}),
    ("map_key_twice", b"\x82\xa1a\x01\xa1a\x02", {"a": 2}),
    ("fixext1", b"\xd4\x05a", msgpack.ExtType(5, b"a")),
    ("fixext2", b"\xd5\x05ab", msgpack.ExtType(5, b"ab")),
    ("fixext4", b"\xd6\x05abcd", msgpack.ExtType(5, b"abcd")),
    ("fixext8", b"\xd7\x05abcdefgh", msgpack.ExtType(5, b"abcdefgh")),
    ("fixext16", b"\xd8\x05abcdefghijklmnop", msgpack.ExtType(5, b"abcdefghijklmnop")),
    ("ext8", b"\xc7\x03\x05abc", msgpack.ExtType(5, b"abc")),
    ("ext8_empty", b"\xc7\x00\x05", msgpack.ExtType(5, b"")),
    ("ext16", b"\xc8\x00\x03\x05abc", msgpack.ExtType(5, b"abc")),
    ("ext32", b"\xc9\x00\x00\x00\x03\x05abc", msgpack.ExtType(5, b"abc")),
    ("timestamp32", b"\xd6\xff\x00\x00\x00\x01", msgpack.Timestamp(1, 0)),
    ("timestamp96", b"\xc7\x0c\xff" + bytes(11) + b"\x01", msgpack.Timestamp(1, 0)),
    ("nested", b"\x91\x81\xa1a\x92\x91\x90\x81\xa1b\xc4\x01c", [{"a": [[[]], {"b": b"c"}]}]),
]  # fmt: skip
every_type = pytest.mark.parametrize(
    ("encoded", "value"), [row[1:] for row in TYPES], ids=[row[0] for row in TYPES]
)


@every_type
def test_type_as_the_result_of_a_pdk_call(codec: Any, encoded: bytes, value: Any) -> None:
    data = step_with(encoded)
    for cut in range(len(data)):
        decoder = codec.Decoder()
        decoder.feed(data[:cut])
        assert decoder.next() is None
        decoder.feed(data[cut:] + NEXT)
        request = decoder.next()
        assert (request.kind, request.msgid, request.target) == (_wire.STEP, 1, 7)
        assert repr(request.value) == repr(value)
        assert decoder.next().msgid == 77


@every_type
def test_type_as_the_argument_of_a_call(codec: Any, encoded: bytes, value: Any) -> None:
    data = call_with(encoded)
    for cut in range(len(data)):
        decoder = codec.Decoder()
        decoder.feed(data[:cut])
        assert decoder.next() is None
        decoder.feed(data[cut:] + NEXT)
        request = decoder.next()
        assert (request.kind, request.msgid, request.target) == (_wire.CALL, 1, "plugin.X")
        assert repr(request.value) == repr([value])
        assert decoder.next().msgid == 77


def test_every_type_byte_is_tried() -> None:
    first = {row[1][0] for row in TYPES}
    missing = {byte for byte in range(0xC0, 0xE0) if byte not in first}
    assert missing == {0xC1}


@pytest.mark.parametrize("count", [15, 16, 65535, 65536, 70000])
def test_arrays_and_maps_of_many_values(codec: Any, count: int) -> None:
    numbers = list(range(count))
    fields = {str(number): number for number in numbers}
    decoder = codec.Decoder()
    decoder.feed(step_with(msgpack.packb(numbers)) + step_with(msgpack.packb(fields)))
    assert decoder.next().value == numbers
    assert decoder.next().value == fields


def test_a_timestamp_is_not_taken_for_a_date(codec: Any) -> None:
    decoder = codec.Decoder()
    decoder.feed(step_with(msgpack.packb(msgpack.Timestamp(1, 0))))
    assert not isinstance(decoder.next().value, datetime.datetime)


@pytest.mark.parametrize("text", ["caf\udce9", "\udc80\udcff", "ä\udced\udca0\udc80"])
def test_bytes_that_are_no_utf8_survive_both_ways(codec: Any, text: str) -> None:
    raw = text.encode("utf-8", "surrogateescape")
    decoder = codec.Decoder()
    decoder.feed(step_with(bytes((0xA0 | len(raw),)) + raw))
    value = decoder.next().value
    assert value == text
    sent = codec.encode_call(1, 2, "kong.log", (value, [value], {value: value}))
    assert sent.count(raw) == 4
