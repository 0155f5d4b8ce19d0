"""Bounds and garbage: a named error, at once, and the same one ever after."""

from __future__ import annotations

import struct
from typing import Any

import msgpack
import pytest

from kong_pdk import _wire
from kong_pdk.exception import KongPDKError, MessageTooLarge, NestingTooDeep, ProtocolError

GOOD = msgpack.packb([0, 77, "plugin.GetStatus", []])
STEP_HEAD = b"\x94\x00\x01\xabplugin.Step\x91\x82\xa7EventId\x07\xa4Data"


def fail(decoder: Any, data: bytes = b"") -> ProtocolError:
    """The error that comes when ``data`` is fed; checks that nothing was consumed by it."""
    before = decoder.consumed
    decoder.feed(data)
    with pytest.raises(ProtocolError) as caught:
        decoder.next()
    assert decoder.consumed == before
    return caught.value


def assert_dead(decoder: Any, error: ProtocolError) -> None:
    """The stream has no meaning any more: the same error, whatever comes."""
    consumed = decoder.consumed
    for data in (b"", GOOD, b"\xc1", b"\x91" * 2000, GOOD * 1000):
        decoder.feed(data)
        for _ in range(2):
            with pytest.raises(ProtocolError) as caught:
                decoder.next()
            assert caught.value is error
    assert decoder.consumed == consumed


def test_golden_refused(codec: Any, golden_refused: Any) -> None:
    decoder = codec.Decoder()
    error = fail(decoder, golden_refused.data)
    assert type(error).__name__ == golden_refused.error
    if golden_refused.text.endswith("..."):
        assert str(error).startswith(golden_refused.text[:-3])
    else:
        assert str(error) == golden_refused.text
    assert_dead(decoder, error)


def test_golden_refused_byte_by_byte(codec: Any, golden_refused: Any) -> None:
    decoder = codec.Decoder()
    with pytest.raises(ProtocolError) as caught:
        for byte in golden_refused.data:
            decoder.feed(bytes((byte,)))
            assert decoder.next() is None
    assert type(caught.value).__name__ == golden_refused.error
    assert_dead(decoder, caught.value)


def test_golden_refused_behind_good_requests(codec: Any, golden_refused: Any) -> None:
    decoder = codec.Decoder()
    decoder.feed(GOOD + GOOD + golden_refused.data + GOOD)
    assert [decoder.next().msgid, decoder.next().msgid] == [77, 77]
    with pytest.raises(ProtocolError) as caught:
        decoder.next()
    assert decoder.consumed == 2 * len(GOOD)
    assert_dead(decoder, caught.value)


@pytest.mark.parametrize("byte", range(256))
def test_first_byte(codec: Any, byte: int) -> None:
    decoder = codec.Decoder()
    decoder.feed(bytes((byte,)))
    if byte in (0xDC, 0xDD) or 0x91 <= byte <= 0x9F:
        assert decoder.next() is None
        return
    with pytest.raises(ProtocolError) as caught:
        decoder.next()
    if byte != 0x90:
        assert f"begins with byte 0x{byte:02x}" in str(caught.value)


def test_errors_are_named_and_fit_a_builtin(codec: Any) -> None:
    error = fail(codec.Decoder(), b"\xc1")
    assert isinstance(error, KongPDKError)
    assert isinstance(error, ValueError)


@pytest.mark.parametrize("where", ["msgid", "method", "key", "value", "behind"])
def test_reserved_byte_anywhere(codec: Any, where: str) -> None:
    data = {
        "msgid": b"\x94\x00\xc1",
        "method": b"\x94\x00\x01\xc1",
        "key": b"\x94\x00\x01\xa1x\x91\x81\xc1",
        "value": STEP_HEAD + b"\xc1",
        "behind": GOOD[:-1] + b"\x91\xc1",
    }[where]
    decoder = codec.Decoder()
    error = fail(decoder, data)
    assert str(error) == "byte 0xc1 is no MessagePack type"
    assert_dead(decoder, error)


def test_the_reserved_byte_inside_of_a_text_is_a_byte(codec: Any) -> None:
    decoder = codec.Decoder()
    decoder.feed(STEP_HEAD + b"\xc4\x03\xc1\xc1\xc1" + STEP_HEAD + b"\xa1\xc1")
    assert decoder.next().value == b"\xc1\xc1\xc1"
    assert decoder.next().value == "\udcc1"


# --- max_message ----------------------------------------------------------------------------------


def message_of(size: int, kind: type = bytes) -> bytes:
    """A step of exactly that many bytes."""
    for length in range(size, -1, -1):
        value = b"x" * length if kind is bytes else "x" * length
        data = STEP_HEAD + msgpack.packb(value)
        if len(data) == size:
            return data
    raise AssertionError(f"no message has {size} bytes")


@pytest.mark.parametrize("limit", [60, 1000, 20_000])
def test_max_message(codec: Any, limit: int) -> None:
    for size in (limit - 1, limit):
        decoder = codec.Decoder(max_message=limit)
        decoder.feed(message_of(size) * 3)
        assert [len(decoder.next().value) > 0 for _ in range(3)] == [True] * 3
        assert decoder.consumed == 3 * size
    decoder = codec.Decoder(max_message=limit)
    decoder.feed(GOOD)
    assert decoder.next().msgid == 77
    error = fail(decoder, message_of(limit + 1))
    assert type(error) is MessageTooLarge
    assert str(error) == (
        f"a message of at least {limit + 1} bytes, {limit} are allowed (max_message)"
    )
    assert_dead(decoder, error)


def test_max_message_counts_one_message_not_the_buffer(codec: Any) -> None:
    decoder = codec.Decoder(max_message=len(GOOD))
    decoder.feed(GOOD * 5000)
    for _ in range(5000):
        assert decoder.next().msgid == 77
    assert decoder.next() is None


# Each claims more than 100 bytes or values in its first bytes; nothing of it has arrived.
CLAIMS = [
    b"\xdd\xff\xff\xff\xff",
    b"\xdd\x00\x00\x00\x61",
    b"\xdc\xff\xff",
    STEP_HEAD + b"\xdc\xff\xff",
    STEP_HEAD + b"\xdd\xff\xff\xff\xff",
    STEP_HEAD + b"\xde\xff\xff",
    STEP_HEAD + b"\xdf\xff\xff\xff\xff",
    STEP_HEAD + b"\xdf\x80\x00\x00\x00",
    STEP_HEAD + b"\xd9\xff",
    STEP_HEAD + b"\xda\xff\xff",
    STEP_HEAD + b"\xdb\xff\xff\xff\xff",
    STEP_HEAD + b"\xc4\xff",
    STEP_HEAD + b"\xc5\xff\xff",
    STEP_HEAD + b"\xc6\xff\xff\xff\xff",
    STEP_HEAD + b"\xc7\xff",
    STEP_HEAD + b"\xc8\xff\xff",
    STEP_HEAD + b"\xc9\xff\xff\xff\xff",
    b"\x94\x00\x01\xdb\xff\xff\xff\xff",
]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.hex()[-12:])
def test_a_claim_is_refused_before_its_bytes_come(codec: Any, claim: bytes) -> None:
    decoder = codec.Decoder(max_message=100)
    decoder.feed(claim[:-1])
    assert decoder.next() is None
    error = fail(decoder, claim[-1:])
    assert type(error) is MessageTooLarge
    assert decoder.pending >= len(claim)
    assert_dead(decoder, error)


@pytest.mark.parametrize("claim", CLAIMS[4:], ids=lambda claim: claim.hex()[-12:])
def test_what_is_claimed_is_not_reserved(codec: Any, claim: bytes) -> None:
    """With a bound that allows it, a claim alone is waited for and takes no memory."""
    decoder = codec.Decoder(max_message=2**40)
    for _ in range(10):
        assert decoder.next() is None
        decoder.feed(claim if decoder.pending == 0 else b"\xc0")
    assert decoder.next() is None
    assert decoder.pending == len(claim) + 9


def test_claims_add_up(codec: Any) -> None:
    """No single value is too large; all together are."""
    decoder = codec.Decoder(max_message=1000)
    decoder.feed(b"\x94\x00\x01\xa1x\x9a" + (b"\xc4\xc8" + bytes(200)) * 4)
    assert decoder.next() is None
    assert type(fail(decoder, b"\xc4\xc8")) is MessageTooLarge


@pytest.mark.parametrize("over", [0, 1])
def test_values_still_to_come_count(codec: Any, over: int) -> None:
    """An array of n values takes n bytes at the least."""
    head = b"\x94\x00\x01\xa1x\xdc"
    count = 500 - len(head) - 2 + over
    decoder = codec.Decoder(max_message=500)
    decoder.feed(head + struct.pack(">H", count))
    if over:
        assert type(fail(decoder)) is MessageTooLarge
    else:
        assert decoder.next() is None
        decoder.feed(b"\x01" * count)
        assert decoder.next().value == [1] * count


def test_default_bound_is_the_one_of_the_wire(codec: Any) -> None:
    room = _wire.MAX_MESSAGE - len(STEP_HEAD) - 5
    decoder = codec.Decoder()
    decoder.feed(STEP_HEAD + b"\xc6" + struct.pack(">I", room))
    assert decoder.next() is None
    decoder = codec.Decoder()
    error = fail(decoder, STEP_HEAD + b"\xc6" + struct.pack(">I", room + 1))
    assert f"at least {_wire.MAX_MESSAGE + 1} bytes" in str(error)


# --- max_depth ------------------------------------------------------------------------------------


def nested(depth: int, opener: bytes = b"\x91", value: bytes = b"\x01") -> bytes:
    """A step whose message nests ``depth`` containers in all: its own three, and those of Data."""
    return STEP_HEAD + opener * (depth - 3) + value


@pytest.mark.parametrize("opener", [b"\x91", b"\x81\xa1a", b"\xdc\x00\x01", b"\xdf\0\0\0\1\1"])
@pytest.mark.parametrize("limit", [3, 4, 20, 1010, _wire.MAX_DEPTH_LIMIT])
def test_max_depth(codec: Any, limit: int, opener: bytes) -> None:
    decoder = codec.Decoder(max_depth=limit)
    decoder.feed(nested(limit, opener))
    value = decoder.next().value
    for _ in range(limit - 3):
        value = value[0] if isinstance(value, list) else value[next(iter(value))]
    assert value == 1
    error = fail(decoder, nested(limit + 1, opener))
    assert type(error) is NestingTooDeep
    assert str(error) == f"nested deeper than {limit} containers"
    assert_dead(decoder, error)


def test_an_empty_container_nests_nothing(codec: Any) -> None:
    for empty in (b"\x90", b"\x80", b"\xdc\0\0", b"\xdf\0\0\0\0"):
        decoder = codec.Decoder(max_depth=10)
        decoder.feed(nested(10, value=empty))
        assert decoder.next().kind == _wire.STEP


def test_depth_is_of_open_containers_only(codec: Any) -> None:
    decoder = codec.Decoder(max_depth=5)
    decoder.feed((STEP_HEAD + b"\xdc\x03\xe8" + b"\x91\x01" * 1000) * 3)
    for _ in range(3):
        assert decoder.next().value == [[1]] * 1000


def test_default_depth_is_the_one_of_the_wire(codec: Any) -> None:
    decoder = codec.Decoder()
    decoder.feed(nested(_wire.MAX_DEPTH))
    assert decoder.next().kind == _wire.STEP
    assert type(fail(decoder, nested(_wire.MAX_DEPTH + 1))) is NestingTooDeep


def test_depth_is_checked_before_the_rest_comes(codec: Any) -> None:
    decoder = codec.Decoder(max_depth=4)
    decoder.feed(b"\x91" * 4)
    assert decoder.next() is None
    assert type(fail(decoder, b"\x91")) is NestingTooDeep


# --- what msgpack refuses -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "encoded",
    [b"\x81\x90\x01", b"\x81\x80\x01", b"\x91\x81\x91\x01\x02", b"\xd4\xff\x00", b"\xc7\x00\xff"],
    ids=["array_key", "map_key", "nested_array_key", "timestamp1", "timestamp0"],
)
def test_values_that_cannot_be_decoded(codec: Any, encoded: bytes) -> None:
    for data in (STEP_HEAD + encoded, b"\x94\x00\x01\xa1x\x91" + encoded):
        decoder = codec.Decoder()
        decoder.feed(GOOD)
        assert decoder.next().msgid == 77
        error = fail(decoder, data)
        assert type(error) is ProtocolError
        assert str(error).startswith("cannot decode a value: ")
        assert error.__cause__ is not None
        assert_dead(decoder, error)
