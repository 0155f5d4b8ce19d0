"""Whatever bytes come: both codecs agree, and nothing but ProtocolError escapes.

Runs are the same each time, unless KONG_PDK_HYPOTHESIS_EXAMPLES asks for more of them.
"""

from __future__ import annotations

import socket
from types import ModuleType
from typing import Any

import msgpack
from hypothesis import example, given
from hypothesis import strategies as st

from kong_pdk import _wire
from kong_pdk.exception import (
    ArgumentError,
    ConnectionClosed,
    MessageTooLarge,
    NestingTooDeep,
    ProtocolError,
)

Both = tuple[ModuleType, ModuleType]

# --- what is tried --------------------------------------------------------------------------------

not_utf8 = st.binary(max_size=40).map(lambda data: data.decode("utf-8", _wire.ERRORS))
texts = st.text(max_size=40) | not_utf8
integers = st.integers(-(2**63), 2**64 - 1)
scalars = (
    st.none()
    | st.booleans()
    | integers
    | st.floats()
    | texts
    | st.binary(max_size=300)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=40))
)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=20) | st.dictionaries(texts | integers, inner, max_size=5)


values = st.recursive(scalars, containers, max_leaves=25)
methods = st.sampled_from((
    "plugin.Step", "plugin.StepMultiMap", "plugin.StepError", "plugin.HandleEvent",
    "plugin.StartInstance", "plugin.GetStatus", "plugin.Ste", "",
)) | values  # fmt: skip
keys = st.sampled_from(("EventId", "Data", "InstanceId", "EventName")) | texts
ids = st.integers(0, 2**64 - 1) | st.integers(-40, 300) | values
arguments = st.one_of(
    st.fixed_dictionaries({"EventId": ids}, optional={"Data": values}),
    st.fixed_dictionaries({"Data": values, "EventId": ids}),
    st.fixed_dictionaries({"InstanceId": ids, "EventName": texts | values}),
    st.dictionaries(keys, ids, max_size=4),
    values,
)
requests = st.one_of(
    st.tuples(st.just(0), ids, methods, arguments.map(lambda one: [one])),
    st.tuples(st.just(0), ids, methods, st.lists(values, max_size=4)),
    st.lists(values, max_size=6),
    st.tuples(st.just(2), texts, values),
)
# Bytes that look like MessagePack more often than any bytes do.
type_bytes = st.sampled_from((
    0x00, 0x01, 0x80, 0x81, 0x82, 0x90, 0x91, 0x92, 0x94, 0xA0, 0xA7, 0xC0, 0xC1, 0xC4, 0xC7, 0xCA,
    0xCB, 0xCC, 0xCF, 0xD0, 0xD3, 0xD4, 0xD8, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD, 0xDE, 0xDF, 0xFF,
))  # fmt: skip
noise = st.binary(max_size=60) | st.lists(type_bytes, max_size=60).map(bytes)
cuts = st.lists(st.integers(0, 2000), max_size=8)


def pack(message: Any) -> bytes:
    return msgpack.packb(message, unicode_errors=_wire.ERRORS)


def portions(data: bytes, points: list[int]) -> list[bytes]:
    """The data, cut at the points that lie in it."""
    ends = sorted({point for point in points if point < len(data)} | {0, len(data)})
    return [data[start:end] for start, end in zip(ends, ends[1:])]


def decode(module: ModuleType, parts: list[bytes], *bounds: int) -> list[Any]:
    """All that a decoder says: requests, the error, and its counters after each step."""
    decoder, said = module.Decoder(*bounds), []
    for part in parts:
        decoder.feed(part)
        while True:
            try:
                request = decoder.next()
            except ProtocolError as exc:
                said.append((type(exc), str(exc)))
                break
            if request is None:
                break
            said.append(repr((request.kind, request.msgid, request.target, request.value)))
            said.append((decoder.consumed, decoder.pending))
        said.append((decoder.consumed, decoder.pending))
    return said


def assert_agreement(both: Both, data: bytes, points: list[int], *bounds: int) -> list[Any]:
    """Both say the same of the bytes, whole and in portions; returns what they say of the whole."""
    compiled, pure = both
    whole = decode(compiled, [data], *bounds)
    assert whole == decode(pure, [data], *bounds)
    parts = portions(data, points)
    in_parts = decode(compiled, parts, *bounds)
    assert in_parts == decode(pure, parts, *bounds)
    results = [[one for one in said if isinstance(one, str)] for said in (whole, in_parts)]
    assert results[0] == results[1]
    return whole


# --- decoding -------------------------------------------------------------------------------------


@given(messages=st.lists(requests, min_size=1, max_size=4), points=cuts)
def test_any_requests_in_any_portions(both: Both, messages: list[Any], points: list[int]) -> None:
    assert_agreement(both, b"".join(map(pack, messages)), points)


@given(
    msgid=st.integers(0, 2**32 - 1),
    event_id=st.integers(0, 2**64 - 1),
    value=values,
    swapped=st.booleans(),
    points=cuts,
)
def test_the_result_of_a_pdk_call_arrives_as_it_was_sent(
    both: Both, msgid: int, event_id: int, value: Any, swapped: bool, points: list[int]
) -> None:
    argument = {"EventId": event_id, "Data": value}
    if swapped:
        argument = dict(reversed(list(argument.items())))
    said = assert_agreement(both, pack([0, msgid, "plugin.Step", [argument]]), points)
    assert said[0] == repr((_wire.STEP, msgid, event_id, value))


@given(message=requests, limit=st.integers(1, 200), depth=st.integers(1, 8), points=cuts)
def test_any_request_with_tight_bounds(
    both: Both, message: Any, limit: int, depth: int, points: list[int]
) -> None:
    data = pack(message)
    said = assert_agreement(both, data, points, limit, depth)
    if len(data) > limit:
        assert isinstance(said[0][0], type), "over the bound, but taken"


@given(data=noise, points=cuts)
@example(data=b"\x94\x00\x01\xabplugin.Step\x91\x81\xa7EventId", points=[])
@example(data=b"\xdd\xff\xff\xff\xff", points=[1, 3])
def test_any_bytes(both: Both, data: bytes, points: list[int]) -> None:
    assert_agreement(both, data, points)
    assert_agreement(both, data, points, 30, 3)


@given(tail=noise, points=cuts)
def test_any_bytes_for_the_result_of_a_pdk_call(both: Both, tail: bytes, points: list[int]) -> None:
    head = b"\x94\x00\x01\xabplugin.Step\x91\x82\xa7EventId\x07\xa4Data"
    assert_agreement(both, head + tail, points)
    swapped = b"\x94\x00\x01\xabplugin.Step\x91\x82\xa4Data"
    assert_agreement(both, swapped + tail + b"\xa7EventId\x07", points)


@given(data=st.data(), points=cuts)
def test_mutated_golden_requests(
    both: Both, golden_requests: list[Any], data: st.DataObject, points: list[int]
) -> None:
    frame = bytearray(data.draw(st.sampled_from(golden_requests)).data)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(frame)))
        end = data.draw(st.integers(at, min(at + 4, len(frame))))
        new = data.draw(st.lists(type_bytes | st.integers(0, 255), max_size=4).map(bytes))
        frame[at:end] = new
    behind = data.draw(st.sampled_from(golden_requests)).data
    assert_agreement(both, bytes(frame) + behind, points)


@given(message=requests, points=cuts)
def test_a_message_of_exactly_the_bound(both: Both, message: Any, points: list[int]) -> None:
    data = pack(message)
    said = assert_agreement(both, data, points, len(data))
    # What it says may be that this is no request; but not that it is too large.
    assert not (isinstance(said[0], tuple) and said[0][0] is MessageTooLarge)
    if len(data) > 1:
        said = assert_agreement(both, data, points, len(data) - 1)
        assert said[0][0] is MessageTooLarge


@given(depth=st.integers(1, 60), limit=st.integers(1, 60), in_maps=st.booleans(), points=cuts)
def test_a_message_nested_around_the_bound(
    both: Both, depth: int, limit: int, in_maps: bool, points: list[int]
) -> None:
    around = b"\x81\x01" if in_maps else b"\x91"
    data = b"\x94\x00\x01\xa1x\x91" + around * depth + b"\xc0"
    said = assert_agreement(both, data, points, _wire.MAX_MESSAGE, limit)
    assert (said[0][0] is NestingTooDeep) == (depth + 2 > limit)


@given(
    code=st.sampled_from(b"\xc4\xc5\xc6\xc7\xc8\xc9\xd9\xda\xdb\xdc\xdd\xde\xdf"),
    length=st.integers(0, 2**32 - 1) | st.sampled_from((0, 1, 90, 100, 2**31 - 1, 2**31)),
    limit=st.integers(20, 200) | st.just(_wire.MAX_MESSAGE),
    points=cuts,
)
def test_any_claimed_length(
    both: Both, code: int, length: int, limit: int, points: list[int]
) -> None:
    """A claim alone makes nobody wait for more than the bound, and takes no memory."""
    width = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4,
             0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}[code]  # fmt: skip
    length %= 1 << 8 * width
    head = b"\x94\x00\x01\xa1x\x91" + bytes((code,)) + length.to_bytes(width, "big")
    size = len(head) + length * (2 if code >= 0xDE else 1) + (code in b"\xc7\xc8\xc9")
    said = assert_agreement(both, head, points, limit)
    if size > limit:
        assert said[0][0] is MessageTooLarge
    elif size > len(head):
        assert said == [(0, len(head))]


def converse(module: ModuleType, parts: list[bytes], closes: bool) -> list[Any]:
    """All that a connection says of bytes that arrive on its socket."""
    said: list[Any] = []
    peer, ours = socket.socketpair()
    connection = module.Connection(ours, 100, 8)
    try:
        for part in parts:
            peer.sendall(part)
            request = connection.receive()
            while request is not None:
                said.append(repr((request.kind, request.msgid, request.target, request.value)))
                request = connection.receive()
        if closes:
            peer.close()
        said.append(connection.receive())
    except (ConnectionClosed, ProtocolError) as exc:
        said.append((type(exc), str(exc)))
    finally:
        said.append((connection.consumed, connection.pending))
        connection.close()
        peer.close()
    return said


@given(messages=st.lists(requests.map(pack) | noise, max_size=3), points=cuts, closes=st.booleans())
def test_any_bytes_on_a_socket(
    both: Both, messages: list[bytes], points: list[int], closes: bool
) -> None:
    parts = portions(b"".join(messages), points)
    said = converse(both[0], parts, closes)
    assert said == converse(both[1], parts, closes)
    assert said[-2] is None or isinstance(said[-2], tuple)


# --- encoding -------------------------------------------------------------------------------------


@given(
    msgid=st.integers(0, 2**32 - 1),
    event_id=st.integers(0, 2**63),
    function=st.text(max_size=40),
    args=st.lists(values, max_size=20).map(tuple),
)
def test_a_call_arrives_as_it_was_made(
    both: Both, msgid: int, event_id: int, function: str, args: tuple[Any, ...]
) -> None:
    compiled, pure = both
    frame = compiled.encode_call(msgid, event_id, function, args)
    assert frame == pure.encode_call(msgid, event_id, function, args)
    last = max((at for at, value in enumerate(args) if value is not None), default=-1)
    if any(value is None for value in args[: last + 1]):  # a hole
        args = _wire.pad_holes(args)
    message = [1, msgid, None, {"Data": {"Method": function, "Args": list(args)}}]
    message[3]["EventId"] = event_id
    assert frame == pack(message)
    read = msgpack.unpackb(frame, unicode_errors=_wire.ERRORS, strict_map_key=False)
    assert repr(read) == repr(message)


@given(msgid=integers, text=texts, value=values)
def test_other_replies_are_the_same_bytes(both: Both, msgid: int, text: str, value: Any) -> None:
    for name, args, message in (
        ("encode_return", (msgid, 7), [1, msgid, None, {"Data": "ret", "EventId": 7}]),
        ("encode_result", (msgid, value), [1, msgid, None, value]),
        ("encode_error", (msgid, text), [1, msgid, text, None]),
        ("encode_notification", (text, value), [2, text, value]),
    ):
        compiled, pure = (getattr(module, name)(*args) for module in both)
        assert compiled == pure == pack(message)


unsendable = (
    st.sampled_from((object(), {1}, 1j, 2**64, -(2**63) - 1, range(3), Ellipsis, ArgumentError))
    | st.text(st.characters(categories=["Cs"]), min_size=1, max_size=3)
    | st.integers()
)


@given(
    args=st.lists(scalars | unsendable | st.lists(unsendable, max_size=2), max_size=6).map(tuple)
)
def test_unsendable_arguments_are_the_same_error(both: Both, args: tuple[Any, ...]) -> None:
    found: list[Any] = []
    for module in both:
        try:
            found.append(module.encode_call(1, 2, "kong.f", args))
        except ArgumentError as exc:
            found.append((str(exc), type(exc.__cause__)))
    assert found[0] == found[1]


@given(value=unsendable | st.lists(scalars | unsendable, max_size=3))
def test_other_unsendable_replies_are_the_same_error(both: Both, value: Any) -> None:
    for name, args in (
        ("encode_result", (1, value)),
        ("encode_error", (1, value)),
        ("encode_notification", ("label", value)),
        ("encode_notification", (value, 1)),
        ("encode_return", (value, 1)),
        ("encode_return", (1, value)),
    ):
        found: list[Any] = []
        for module in both:
            try:
                found.append(getattr(module, name)(*args))
            except (ValueError, TypeError, OverflowError) as exc:
                found.append((type(exc), str(exc)))
        assert found[0] == found[1], name


@given(args=st.lists(st.none() | st.integers(0, 3) | st.booleans(), max_size=8).map(tuple))
def test_padding_keeps_every_argument(args: tuple[Any, ...]) -> None:
    padded = _wire.pad_holes(args)
    kept = len(args)
    while kept and args[kept - 1] is None:
        kept -= 1
    assert repr(padded[:kept]) == repr(args[:kept])
    assert set(map(repr, padded[kept:])) <= {"False"}
    has_hole = any(value is None for value in args[:kept])
    assert len(padded) == (_wire.HOLE_PADDED_LENGTH if has_hole else kept)
