"""Values on the way in, through the handler, and out again; and the trap of ``_method``."""

from __future__ import annotations

import math
from typing import Any

import pytest
from failures import refused
from kongwire import ABSENT, Connection, Kong, RemoteError, nested, pack
from servers import Start

#: Tells what it got, and sends it back.
MIRROR = """
def access(self, kong):
    value, err = kong.ctx.shared.get("k")
    kong.response.set_header("type", type(value).__name__)
    kong.response.set_header("repr", repr(value)[:2000])
    kong.response.set_header("err", repr(err))
    kong.ctx.shared.set("k", value)
"""
#: Sends what its configuration says, evaluated.
SENDER = """
def access(self, kong):
    kong.ctx.shared.set("k", eval(self.config["value"]))
"""

#: Value, what the handler must see of it.
ARRIVING = [
    (ABSENT, None),
    (None, None),
    (True, True),
    (False, False),
    (0, 0),
    (-1, -1),
    (2**53, 2**53),
    (2**64 - 1, 2**64 - 1),
    (-(2**63), -(2**63)),
    (1.5, 1.5),
    (math.inf, math.inf),
    ("", ""),
    ("text", "text"),
    ("ä€😀", "ä€😀"),
    ("\udcff\udc80 not UTF-8", "\udcff\udc80 not UTF-8"),
    ("\ud83d".encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape"),) * 2,
    ("nul\0in it", "nul\0in it"),
    (b"", b""),
    (b"\x00\xff raw", b"\x00\xff raw"),
    ("x" * 300, "x" * 300),
    ([], []),
    ({}, {}),
    ([1, [2, [3]]], [1, [2, [3]]]),
    ({"a": {"b": [1, None, {"c": b"\xff"}]}}, {"a": {"b": [1, None, {"c": b"\xff"}]}}),
    ({1: "one", 3: "three"}, {1: "one", 3: "three"}),
    ({1.5: "x", True: "y", b"\xff": "z"}, {1.5: "x", True: "y", b"\xff": "z"}),
    ({"\udcff": ["\udcfe"]}, {"\udcff": ["\udcfe"]}),
    ([None, None], [None, None]),
    (list(range(1000)), list(range(1000))),
    ({str(n): n for n in range(1000)}, {str(n): n for n in range(1000)}),
    ("ret", "ret"),
    ({"Data": "ret", "EventId": 7}, {"Data": "ret", "EventId": 7}),
]


@pytest.mark.parametrize(("value", "expected"), ARRIVING)
@pytest.mark.parametrize("method", ["plugin.Step", "plugin.StepMultiMap"])
def test_a_value_arrives_and_goes_out_again(
    kong: Kong, value: Any, expected: Any, method: str
) -> None:
    instance = kong.start_author(MIRROR)
    turn = kong.handle_event(instance)
    headers = {}
    turn = kong.step(turn.event_id, value, method)
    while turn.function == "kong.response.set_header":
        headers[turn.args[0]] = turn.args[1]
        turn = kong.step(turn.event_id)
    assert headers["type"] == type(expected).__name__
    assert headers["repr"] == repr(expected)[:2000]
    assert headers["err"] == "None"
    (back,) = turn.args[1:] or [None]
    assert type(back) is type(expected)
    assert back == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("(1, (2, ()))", [1, [2, []]]),
        ("{'a': (1,)}", {"a": [1]}),
        ("bytearray(b'\\xff')", b"\xff"),
        ("b'\\xff'.decode('utf-8', 'surrogateescape')", "\udcff"),
        ("__import__('os').fsdecode(b'\\xff')", "\udcff"),
        ("type('Text', (str,), {})('sub')", "sub"),
        ("type('Number', (int,), {})(7)", 7),
        ("type('Map', (dict,), {})(a=1)", {"a": 1}),
        ("__import__('collections').OrderedDict(a=1)", {"a": 1}),
        ("__import__('http').HTTPStatus.FORBIDDEN", 403),
        ("__import__('enum').IntEnum('E', 'a').a", 1),
        ("{1: 2, None: 3}", {1: 2, None: 3}),
        ("2 ** 64 - 1", 2**64 - 1),
        ("-2 ** 63", -(2**63)),
        ("1e300", 1e300),
        ("memoryview(b'view')", b"view"),
        ("__import__('enum').Enum('E', {'a': ('x',)}).a", ["x"]),
        ("[__import__('types').MappingProxyType({'a': 1})]", [{"a": 1}]),
        ("__import__('fractions').Fraction(1, 2)", 0.5),
    ],
)
def test_what_a_handler_may_send(kong: Kong, value: str, expected: Any) -> None:
    instance = kong.start_author(SENDER, value=value)
    (args,) = [args for _, args in kong.run_event(instance).calls]
    assert type(args[1]) is type(expected)
    assert args[1] == expected


def test_str_and_bytes_are_told_apart_on_the_wire(kong: Kong) -> None:
    instance = kong.start_author(SENDER, value="['text', b'bytes']")
    with kong.connect() as connection:
        connection.send_event(instance)
        data = b""
        while not data.endswith(b"bytes") and b"bytes" not in data:
            data += connection.sock.recv(4096)
    assert b"\xa4text\xc4\x05bytes" in data


HOLES = [
    ("kong.response.exit(403, None, {'a': 'b'})", [403, None, {"a": "b"}]),
    ("kong.response.exit(403, headers={'a': 'b'})", [403, None, {"a": "b"}]),
    ("kong.request.get_body(None, 1)", [None, 1]),
    ("kong.request.get_body(None, None, 2)", [None, None, 2]),
    ("kong.client.authenticate(credential={'id': 'x'})", [None, {"id": "x"}]),
    ("kong.telemetry.log('p', {}, 'm', None, {'a': 'b'})", ["p", {}, "m", None, {"a": "b"}]),
]


@pytest.mark.parametrize(("call", "expected"), HOLES)
def test_arguments_with_holes_are_padded(kong: Kong, call: str, expected: list[Any]) -> None:
    """LuaJIT would lose what comes behind a hole; further arguments, not nil, keep it."""
    source = f"def access(self, kong): {call}"
    ((_, args),) = kong.run_event(kong.start_author(source)).calls
    assert args[: len(expected)] == expected
    assert len(args) > 8
    assert args[-1] is not None
    assert all(value is False for value in args[len(expected) :])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [("'a', None", ["a"]), ("None", []), ("None, None", []), ("'a', None, None", ["a"])],
)
def test_trailing_nones_are_the_same_as_no_argument(
    kong: Kong, arguments: str, expected: list[Any]
) -> None:
    source = f"def access(self, kong): kong.request.get_body({arguments})"
    ((_, args),) = kong.run_event(kong.start_author(source)).calls
    assert [value for value in args if value is not None] == expected
    assert len(args) <= arguments.count(",") + 1


def test_every_argument_of_a_log_line_counts(kong: Kong) -> None:
    source = """
def access(self, kong):
    kong.log("a", None, 1, 1.5, b"x", True, ["list"], {"k": None}, ValueError("e"), "z")
    kong.log.err(None)
"""
    calls = kong.run_event(kong.start_author(source)).calls
    line = ["a", "None", "1", "1.5", b"x", "True", "['list']", "{'k': None}", "e", "z"]
    assert calls == [("kong.log", line), ("kong.log.err", ["None"])]


@pytest.mark.parametrize("count", [15, 16, 300])
def test_many_arguments(kong: Kong, count: int) -> None:
    source = f"def access(self, kong): kong.log(*range({count}))"
    assert kong.run_event(kong.start_author(source)).calls == [
        ("kong.log", list(map(str, range(count))))
    ]


# --- the trap of _method: a client plants the name of the method, and Kong takes it ---------------

TRAPS = [
    ["x"], [], True, 7, "x", "plugin.HandleEvent", "plugin.StepError", "plugin.StartInstance",
    "plugin.CloseInstance", "plugin.GetStatus", "plugin.SetPluginDir", "__init__", "", "\udcff",
    {"a": 1}, None, 1.5, b"plugin.Step", ["plugin.StepError"],
]  # fmt: skip


@pytest.mark.parametrize("method", TRAPS)
@pytest.mark.parametrize("value", [{"_method": ["x"], "a": "b"}, {"_method": "plugin.StepError"}])
def test_a_planted_method_is_the_step_that_it_is(
    kong: Kong, method: Any, value: dict[str, Any]
) -> None:
    instance = kong.start_author("def access(self, kong): kong.log(repr(kong.request.get_query()))")
    with kong.connect() as connection:
        turn = connection.handle_event(instance)
        turn = connection.step(turn.event_id, value, method)
        assert turn.args == [repr((value, None))]
        assert connection.step(turn.event_id).is_return


@pytest.mark.parametrize("method", TRAPS)
def test_a_planted_method_without_data(kong: Kong, method: Any) -> None:
    instance = kong.start_author("def access(self, kong): kong.log(repr(kong.request.get_query()))")
    with kong.connect() as connection:
        turn = connection.handle_event(instance)
        assert connection.step(turn.event_id, method=method).args == ["(None, None)"]


@pytest.mark.parametrize("method", ["Data first", "extra keys"])
def test_the_keys_of_a_step_in_any_order(kong: Kong, method: str) -> None:
    instance = kong.start_author("def access(self, kong): kong.log(kong.request.get_query()[0])")
    with kong.connect() as connection:
        turn = connection.handle_event(instance)
        argument: dict[str, Any] = {"Data": "value", "EventId": turn.event_id}
        if method == "extra keys":
            argument = {"a": [1, {}], **argument, "b": "EventId", "EventName": "access"}
        assert connection.call("plugin.Step", argument)["Data"]["Args"] == ["value"]


# --- StepError ------------------------------------------------------------------------------------

ERRORS = """
from kong_pdk.exception import PDKException

def access(self, kong):
    try:
        got = kong.request.get_header("x")
    except PDKException as exc:
        got = f"raised {exc}"
    kong.log(repr(got))
"""


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        ((), ["('data', None)", "(None, None)", "(None, 'went wrong')"]),
        (
            ("--no-lua-style",),
            ["'data'", "None", "'raised kong.request.get_header: went wrong'"],
        ),
    ],
)
def test_the_two_styles(start: Start, style: tuple[str, ...], expected: list[str]) -> None:
    answers = [("plugin.Step", "data"), ("plugin.Step", ABSENT), ("plugin.StepError", "went wrong")]
    with start(*style).kong() as kong:
        instance = kong.start_author(ERRORS)
        seen = []
        for method, value in answers:
            turn = kong.handle_event(instance)
            turn = kong.step(turn.event_id, value, method)
            seen += turn.args
            assert kong.step(turn.event_id).is_return
        assert seen == expected


@pytest.mark.parametrize("value", ["no plugin instance", "\udcff", "", "x" * 100_000])
def test_the_text_of_a_step_error(kong: Kong, value: str) -> None:
    instance = kong.start_author("def access(self, kong): kong.log(kong.request.get_query()[1])")
    turn = kong.handle_event(instance)
    assert kong.step(turn.event_id, value, "plugin.StepError").args == [value]


# --- large and deep -------------------------------------------------------------------------------

DEPTH = """
def access(self, kong):
    value, depth = kong.ctx.shared.get("k")[0], 0
    while value is not None:
        (value,), depth = value, depth + 1
    kong.ctx.shared.set('depth', depth)
"""
ENVELOPE = 3  # the request, its arguments, and the map in them
BOUND = 1010


def send_nested(connection: Connection, event_id: int, depth: int) -> None:
    head = pack([0, 9, "plugin.Step", [{"EventId": event_id, "Data": None}]])
    connection.send_raw(head[:-1] + nested(depth))


def test_the_deepest_value_that_is_taken(kong: Kong) -> None:
    instance = kong.start_author(DEPTH)
    with kong.connect() as connection:
        turn = connection.handle_event(instance)
        send_nested(connection, turn.event_id, BOUND - ENVELOPE)
        assert connection.turn(9).args == ["depth", BOUND - ENVELOPE]


@pytest.mark.parametrize("depth", [BOUND - ENVELOPE + 1, 5_000, 1_000_000])
def test_a_deeper_one_is_refused(start: Start, depth: int) -> None:
    server = start()
    with server.kong() as kong:
        instance = kong.start_author(DEPTH)
        with kong.connect() as connection:
            turn = connection.handle_event(instance)
            send_nested(connection, turn.event_id, depth)
            assert refused(connection.turn(9))
            assert connection.call("plugin.GetPluginNames") == ["author", "hello"]
        server.wait_log(f"nested deeper than {BOUND} containers")
        with kong.connect() as other:  # and the event can still be answered
            send_nested(other, turn.event_id, 1)
            assert other.turn(9).args == ["depth", 1]


def test_an_argument_that_nests_too_deep_is_named(kong: Kong) -> None:
    source = """
def log(self, kong):
    value = []
    for _ in range(5000):
        value = [value]
    kong.ctx.shared.set("k", value)
"""
    instance = kong.start_author(source)
    with pytest.raises(RemoteError, match=r"kong\.ctx\.shared\.set: v, of type list, cannot"):
        kong.handle_event(instance, "log")


@pytest.mark.parametrize("depth", [100, 400, 500])  # msgpack before 1.2 ends at 511
def test_a_deep_value_goes_out_as_it_came(kong: Kong, depth: int) -> None:
    source = "def log(self, kong): kong.ctx.shared.set('k', kong.ctx.shared.get('k')[0])"
    instance = kong.start_author(source)
    with kong.connect() as connection:
        turn = connection.handle_event(instance, "log")
        send_nested(connection, turn.event_id, depth)
        data = b""
        while nested(depth) not in data:
            got = connection.sock.recv(1 << 16)
            assert got
            data += got
            assert b"raised" not in data, data
