"""What kind of request a message is: events, steps, step errors, calls, and what is none."""

from __future__ import annotations

from typing import Any, Callable

import msgpack
import pytest

from kong_pdk import _wire
from kong_pdk.exception import ProtocolError

STEP_METHODS = (
    "plugin.Step",
    "plugin.StepMultiMap",
    "plugin.StepCredential",
    "plugin.StepConsumer",
    "plugin.StepRoute",
    "plugin.StepService",
    "plugin.StepMemoryStats",
    "plugin.StepPlugin",
)


@pytest.fixture
def decode(codec: Any, fields: Callable[[Any], Any]) -> Callable[..., Any]:
    """A function: what a message decodes to, with the whole message consumed."""

    def decode_one(message: Any) -> Any:
        data = message if isinstance(message, bytes) else msgpack.packb(message)
        decoder = codec.Decoder()
        decoder.feed(data)
        request = decoder.next()
        assert decoder.consumed == len(data)
        return fields(request)

    return decode_one


def step(method: Any, argument: Any, msgid: int = 1) -> list[Any]:
    return [0, msgid, method, [argument]]


@pytest.mark.parametrize("method", STEP_METHODS)
@pytest.mark.parametrize(
    "argument",
    [{"EventId": 7, "Data": "x"}, {"Data": "x", "EventId": 7}],
    ids=["id_first", "data_first"],
)
def test_step(decode: Callable[..., Any], method: str, argument: Any) -> None:
    assert decode(step(method, argument)) == (_wire.STEP, 1, 7, "x")


@pytest.mark.parametrize("method", STEP_METHODS)
def test_step_without_data(decode: Callable[..., Any], method: str) -> None:
    assert decode(step(method, {"EventId": 7})) == (_wire.STEP, 1, 7, None)


@pytest.mark.parametrize("value", [{"a": [1, {"b": None}]}, [[]], "", 0, False, None, b"x", -1.5])
@pytest.mark.parametrize("first", ["EventId", "Data"])
def test_step_with_any_data_in_both_orders(
    decode: Callable[..., Any], value: Any, first: str
) -> None:
    argument = (
        {"EventId": 7, "Data": value} if first == "EventId" else {"Data": value, "EventId": 7}
    )
    assert repr(decode(step("plugin.Step", argument))) == repr((_wire.STEP, 1, 7, value))


@pytest.mark.parametrize("number", [0, 127, 128, 255, 65535, 2**32 - 1, 2**32, 2**53, 2**64 - 1])
def test_ids_of_every_size(decode: Callable[..., Any], number: int) -> None:
    assert decode(step("plugin.Step", {"EventId": number}, number)) == (
        _wire.STEP, number, number, None,
    )  # fmt: skip
    event = {"InstanceId": number, "EventName": "log"}
    assert decode(step("plugin.HandleEvent", event, number)) == (
        _wire.HANDLE_EVENT, number, number, "log",
    )  # fmt: skip


@pytest.mark.parametrize("number", [-1, -(2**63)])
def test_negative_ids_are_taken_as_they_are(decode: Callable[..., Any], number: int) -> None:
    assert decode(step("plugin.Step", {"EventId": number})) == (_wire.STEP, 1, number, None)
    assert decode([0, number, "plugin.X", []]) == (_wire.CALL, number, "plugin.X", [])


@pytest.mark.parametrize(
    "event_id", ["7", 7.0, None, True, [7], b"7"], ids=lambda value: type(value).__name__
)
def test_a_step_needs_an_integer_for_its_event(decode: Callable[..., Any], event_id: Any) -> None:
    argument = {"EventId": event_id, "Data": "x"}
    assert repr(decode(step("plugin.Step", argument))) == repr(
        (_wire.CALL, 1, "plugin.Step", [argument])
    )


def test_step_with_further_keys(decode: Callable[..., Any]) -> None:
    for argument in (
        {"EventId": 7, "Data": "x", "More": 1},
        {"More": 1, "EventId": 7, "Data": "x"},
        {"Data": "x", "More": {"EventId": 8}, "EventId": 7},
    ):
        assert decode(step("plugin.Step", argument)) == (_wire.STEP, 1, 7, "x")


def test_the_last_of_equal_keys_counts(decode: Callable[..., Any]) -> None:
    head = b"\x94\x00\x01\xabplugin.Step\x91"
    assert decode(head + b"\x82\xa7EventId\x07\xa7EventId\x08") == (_wire.STEP, 1, 8, None)
    call = decode(head + b"\x82\xa4Data\x01\xa4Data\x02")
    assert call == (_wire.CALL, 1, "plugin.Step", [{"Data": 2}])
    head = b"\x94\x00\x01\xb2plugin.HandleEvent\x91"
    twice = decode(head + b"\x82\xaaInstanceId\x01\xaaInstanceId\x02")
    assert twice == (_wire.CALL, 1, "plugin.HandleEvent", [{"InstanceId": 2}])


def test_lengths_in_long_form(decode: Callable[..., Any]) -> None:
    argument = b"\xdf\0\0\0\2\xd9\7EventId\xcf" + bytes(7) + b"\7\xdb\0\0\0\4Data\xda\0\1x"
    method = b"\xda\0\x0bplugin.Step"
    for msgid in (b"\xcc\1", b"\xcd\0\1", b"\xce\0\0\0\1", b"\xcf" + bytes(7) + b"\1"):
        for head in (b"\x94", b"\xdc\0\4", b"\xdd\0\0\0\4"):
            for kind in (b"\x00", b"\xcc\x00", b"\xd0\x00"):
                for array in (b"\x91", b"\xdc\0\1", b"\xdd\0\0\0\1"):
                    data = head + kind + msgid + method + array + argument
                    assert decode(data) == (_wire.STEP, 1, 7, "x")
    event = b"\x82\xd9\x0aInstanceId\xcd\0\7\xda\0\x09EventName\xd9\6access"
    data = b"\x94\0\1\xd9\x12plugin.HandleEvent\x91" + event
    assert decode(data) == (_wire.HANDLE_EVENT, 1, 7, "access")


def test_keys_as_bin_are_other_keys(decode: Callable[..., Any]) -> None:
    data = b"\x94\x00\x01\xabplugin.Step\x91\x81\xc4\x07EventId\x07"
    assert decode(data) == (_wire.CALL, 1, "plugin.Step", [{b"EventId": 7}])


# --- the _method trap -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    ["plugin.StartInstance", "plugin.HandleEvent", "", "x", ["x"], {"a": 1}, None, True, 5, b"x"],
    ids=repr,
)
@pytest.mark.parametrize("data", ["x", {"_method": "x"}, None])
def test_whatever_names_an_event_is_a_step(
    decode: Callable[..., Any], method: Any, data: Any
) -> None:
    message = step(method, {"EventId": 7, "Data": data})
    assert decode(message) == (_wire.STEP, 1, 7, data)
    assert decode(step(method, {"EventId": 7})) == (_wire.STEP, 1, 7, None)


def test_an_event_that_also_names_an_instance_is_a_step(decode: Callable[..., Any]) -> None:
    argument = {"EventId": 7, "InstanceId": 8, "EventName": "access"}
    assert decode(step("plugin.HandleEvent", argument)) == (_wire.STEP, 1, 7, None)


def test_step_error_is_believed_with_a_text_only(decode: Callable[..., Any]) -> None:
    for argument in ({"EventId": 7, "Data": "no"}, {"Data": "no", "EventId": 7}):
        assert decode(step("plugin.StepError", argument)) == (_wire.STEP_ERROR, 1, 7, "no")
    for data in ({"_method": "plugin.StepError"}, ["no"], b"no", None, 1):
        message = step("plugin.StepError", {"EventId": 7, "Data": data})
        assert decode(message) == (_wire.STEP, 1, 7, data)
    assert decode(step("plugin.StepError", {"EventId": 7})) == (_wire.STEP, 1, 7, None)


def test_step_error_may_be_no_utf8(decode: Callable[..., Any]) -> None:
    data = b"\x94\x00\x01\xb0plugin.StepError\x91\x82\xa7EventId\x07\xa4Data\xa1\xff"
    assert decode(data) == (_wire.STEP_ERROR, 1, 7, "\udcff")


@pytest.mark.parametrize("method", ["plugin.StepErrors", "plugin.StepErro", "plugin.steperror"])
def test_only_step_error_is_one(decode: Callable[..., Any], method: str) -> None:
    assert decode(step(method, {"EventId": 7, "Data": "x"})) == (_wire.STEP, 1, 7, "x")


# --- events and calls -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argument",
    [
        {"InstanceId": 5, "EventName": "access"},
        {"EventName": "access", "InstanceId": 5},
        {"EventName": "access", "InstanceId": 5, "More": None},
    ],
)
def test_handle_event(decode: Callable[..., Any], argument: Any) -> None:
    message = step("plugin.HandleEvent", argument)
    assert decode(message) == (_wire.HANDLE_EVENT, 1, 5, "access")


@pytest.mark.parametrize(
    "argument",
    [
        {"InstanceId": 5},
        {"EventName": "access"},
        {"InstanceId": "5", "EventName": "access"},
        {"InstanceId": True, "EventName": "access"},
        {"InstanceId": 5.0, "EventName": "access"},
        {"InstanceId": 5, "EventName": b"access"},
        {"InstanceId": 5, "EventName": None},
        {"InstanceId": 5, "EventName": ["access"]},
        {"instanceid": 5, "EventName": "access"},
        {},
        [5, "access"],
        5,
    ],
    ids=repr,
)
def test_malformed_events_are_calls_to_be_refused(
    decode: Callable[..., Any], argument: Any
) -> None:
    message = step("plugin.HandleEvent", argument)
    assert repr(decode(message)) == repr((_wire.CALL, 1, "plugin.HandleEvent", [argument]))


def test_a_phase_may_be_any_text(decode: Callable[..., Any]) -> None:
    head = b"\x94\x00\x01\xb2plugin.HandleEvent\x91\x82\xaaInstanceId\x05\xa9EventName"
    assert decode(head + b"\xa0") == (_wire.HANDLE_EVENT, 1, 5, "")
    assert decode(head + b"\xa1\xff") == (_wire.HANDLE_EVENT, 1, 5, "\udcff")


@pytest.mark.parametrize("method", ["plugin.GetStatus", "plugin.Steps", "", None, 5, [], {"a": 1}])
@pytest.mark.parametrize("params", [[], [None], [1, 2], ["x"], [[{"EventId": 7}]], [{"a": 1}]])
def test_everything_else_is_a_call(decode: Callable[..., Any], method: Any, params: Any) -> None:
    assert decode([0, 9, method, params]) == (_wire.CALL, 9, method, params)


def test_two_arguments_are_no_step(decode: Callable[..., Any]) -> None:
    params = [{"EventId": 7, "Data": "x"}, 1]
    assert decode([0, 9, "plugin.Step", params]) == (_wire.CALL, 9, "plugin.Step", params)


@pytest.mark.parametrize("message", [[2], [2, "serverPid", 1], [2, 1, 2, 3], [2, None, None]])
def test_a_notification_is_ignored(decode: Callable[..., Any], message: Any) -> None:
    assert decode(message) == (_wire.IGNORE, 0, None, None)


@pytest.mark.parametrize(
    "message",
    [
        [],
        [0],
        [0, 1, "plugin.X"],
        [0, 1, "plugin.X", [], None],
        [1, 1, None, None],
        [3, 1, "plugin.X", []],
        [-1, 1, "plugin.X", []],
        [None, 1, "plugin.X", []],
        [False, 1, "plugin.X", []],
        [0.0, 1, "plugin.X", []],
        [2.0, 1, 2],
        ["0", 1, "plugin.X", []],
        [[0], 1, "plugin.X", []],
        [0, None, "plugin.X", []],
        [0, "1", "plugin.X", []],
        [0, 1.0, "plugin.X", []],
        [0, True, "plugin.X", []],
        [0, 1, "plugin.X", None],
        [0, 1, "plugin.X", {}],
        [0, 1, "plugin.Step", {"EventId": 1}],
        [0, 1, "plugin.X", "ab"],
    ],
    ids=repr,
)
def test_what_is_no_request(codec: Any, message: Any) -> None:
    decoder = codec.Decoder()
    decoder.feed(msgpack.packb(message))
    with pytest.raises(ProtocolError, match="request"):
        decoder.next()
    assert decoder.consumed == 0


def test_request_shows_what_it_is_but_not_what_it_carries(codec: Any) -> None:
    request = codec.Request(_wire.STEP, 1, 7, "secret")
    assert repr(request) == "<Request kind=2 msgid=1 target=7>"
    assert (request.kind, request.msgid, request.target, request.value) == (2, 1, 7, "secret")
