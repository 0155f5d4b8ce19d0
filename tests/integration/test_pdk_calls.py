"""PDK calls from the handler to the wire: keywords, checks, levels, items and results."""

from __future__ import annotations

from typing import Any

import pytest
from kongwire import Kong
from servers import Start

FAILURE = [
    500,
    '{"message":"An unexpected error occurred"}',
    {"Content-Type": "application/json; charset=utf-8"},
]


def source_of(*statements: str, phase: str = "access") -> str:
    """A handler that does this."""
    return f"def {phase}(self, kong):\n" + "".join(f"    {each}\n" for each in statements)


def calls_of(kong: Kong, *statements: str, **answers: Any) -> list[tuple[str, list[Any]]]:
    """The PDK calls of a handler; answers by the last part of the functions' names."""
    phase = answers.pop("phase", "access")
    instance = kong.start_author(source_of(*statements, phase=phase))
    full = {f"kong.{name.replace('__', '.')}": value for name, value in answers.items()}
    return kong.run_event(instance, phase, full).calls


def without_padding(args: list[Any]) -> list[Any]:
    """The arguments without what stands behind those with a hole."""
    return args[: args.index(False)] if False in args else args


# --- right calls ----------------------------------------------------------------------------------


def test_keyword_arguments_arrive_in_order(kong: Kong) -> None:
    assert calls_of(
        kong,
        "kong.response.set_header(value='v', name='n')",
        "kong.service.set_timeouts(read_timeout=3, connect_timeout=1, write_timeout=2)",
        "kong.service.set_target('host', port=8080)",
        "kong.ctx.shared.set(v={'a': [1]}, k='key')",
        "kong.request.get_headers(max_headers=5)",
        "kong.response.exit(body='b', headers={'h': 'v'}, status=403)",
    ) == [
        ("kong.response.set_header", ["n", "v"]),
        ("kong.service.set_timeouts", [1, 2, 3]),
        ("kong.service.set_target", ["host", 8080]),
        ("kong.ctx.shared.set", ["key", {"a": [1]}]),
        ("kong.request.get_headers", [5]),
        ("kong.response.exit", [403, "b", {"h": "v"}]),
    ]


@pytest.mark.parametrize(
    "call", ["exit(403, None, {'h': 'v'})", "exit(403, headers={'h': 'v'})",
             "error(403, None, {'h': 'v'})", "error(status=403, headers={'h': 'v'})"],
)  # fmt: skip
def test_headers_behind_no_body(kong: Kong, call: str) -> None:
    ((function, args),) = calls_of(kong, f"kong.response.{call}")
    assert function == f"kong.response.{call.partition('(')[0]}"
    assert without_padding(args) == [403, None, {"h": "v"}]
    assert len(args) > 8 and args[-1] is False


@pytest.mark.parametrize(
    ("body", "arrives"),
    [
        ("{'a': {'b': [1, None]}}", {"a": {"b": [1, None]}}),
        ("['a', ('b',)]", ["a", ["b"]]),
        ("b'\\xff'", b"\xff"),
        ("bytearray(b'x')", b"x"),
        ("'text'", "text"),
        ("__import__('types').MappingProxyType({'a': 1})", {"a": 1}),
        ("{'a': __import__('http').HTTPStatus.OK}", {"a": 200}),
        ("{'a': __import__('enum').Enum('E', {'B': 'b'}).B}", {"a": "b"}),
    ],
)
def test_bodies(kong: Kong, body: str, arrives: Any) -> None:
    ((_, args),) = calls_of(kong, f"kong.response.exit(200, {body}, {{'h': ('a', 'b')}})")
    assert args == [200, arrives, {"h": ["a", "b"]}]
    assert type(args[1]) is type(arrives)


def test_numbers_of_other_types(kong: Kong) -> None:
    calls = calls_of(
        kong,
        "from http import HTTPStatus",
        "kong.service.set_retries(5.0)",
        "kong.response.set_status(HTTPStatus.NOT_FOUND)",
        "kong.response.set_header('n', HTTPStatus.OK)",
    )
    assert [args[-1] for _, args in calls] == [5, 404, 200]
    assert all(type(args[-1]) is int for _, args in calls)


# --- wrong calls ----------------------------------------------------------------------------------

CATCHES = """
from kong_pdk.exception import ArgumentError, ArgumentValueError, PDKException, PhaseError

def {phase}(self, kong):
    try:
        {call}
    except {kind} as exc:
        assert type(exc).__name__ == {name!r} and isinstance(exc, PDKException)
        kong.ctx.shared.set("text", str(exc))
"""
WRONG = [
    ("kong.response.set_status('200')", "TypeError", "ArgumentError",
     "kong.response.set_status: status must be a number, got str of length 3"),
    ("kong.response.set_header('x', kong.ctx)", "TypeError", "ArgumentError",
     "kong.response.set_header: value must be a string, a number, a boolean or a list of strings, "
     "got an object of type Ctx"),
    ("kong.response.exit()", "TypeError", "ArgumentError",
     "kong.response.exit: status is missing; it is called as kong.response.exit(status, body=None, "
     "headers=None)"),
    ("kong.response.exit(200, heders={})", "TypeError", "ArgumentError",
     "kong.response.exit has no argument 'heders', did you mean headers?; it is called as "
     "kong.response.exit(status, body=None, headers=None)"),
    ("kong.response.set_status(99)", "ValueError", "ArgumentValueError",
     "kong.response.set_status: status must be between 100 and 599, got 99"),
    ("kong.service.set_timeouts(1, 2, 10 ** 400)", "ValueError", "ArgumentValueError",
     "kong.service.set_timeouts: read_timeout must be between 1 and 2147483646, got an integer of "
     "1329 bits"),
    ("kong.service.request.set_scheme('htps')", "ValueError", "ArgumentValueError",
     "kong.service.request.set_scheme: scheme must be one of http, https, got 'htps' (str); did "
     "you mean 'https'?"),
    ("kong.response.get_status()", "ValueError", "PhaseError",
     "kong.response.get_status cannot be called in the access phase, only in: response, log"),
    ("kong.ctx.shared.set('k', {1})", "TypeError", "ArgumentError", "kong.ctx.shared.set: v, of "
     "type set, cannot be sent to Kong: there is no such type as set in MessagePack (strings, "
     "bytes, numbers up to 64 bits, booleans, None, lists, tuples and dicts of these can)"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "name", "text"), WRONG, ids=[one[0] for one in WRONG])
def test_a_wrong_call_raises_and_nothing_goes_out(
    kong: Kong, call: str, kind: str, name: str, text: str
) -> None:
    for each in (kind, name, "PDKException"):
        source = CATCHES.format(phase="access", call=call, kind=each, name=name)
        calls = kong.run_event(kong.start_author(source)).calls
        assert calls == [("kong.ctx.shared.set", ["text", text])]


@pytest.mark.parametrize("phase", ["rewrite", "access", "response", "preread"])
@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("kong.log.serialize()", "cannot be called in the {phase} phase, only in: log"),
        (
            "kong.ctx.shared.get([])",
            "k must be a string, a number or a boolean, got list of length 0",
        ),
    ],
)
def test_what_a_handler_lets_escape_refuses_its_request(
    kong: Kong, phase: str, call: str, text: str
) -> None:
    first, second = calls_of(kong, call, phase=phase)
    assert first[0] == "kong.log.err"
    assert text.format(phase=phase) in first[1][0]
    assert first[1][0].startswith(f"{phase} failed, the request is refused: kong.")
    assert second == ("kong.response.exit", FAILURE)


def test_a_name_that_cannot_be_used(kong: Kong) -> None:
    calls = calls_of(
        kong,
        "for name in ('tracing', 'cache', 'ctx'):",
        "    kong.log(hasattr(kong, name))",
        "try: kong.tracing.start_span('x')",
        "except AttributeError as exc: kong.log(exc)",
    )
    texts = [args[0] for _, args in calls]
    assert texts[:3] == ["True", "False", "True"]
    assert texts[3].startswith("kong.tracing.start_span cannot be used from a plugin server: It")


def test_without_checks_it_is_sent_as_it_is(start: Start) -> None:
    with start("--no-pdk-checks").kong() as kong:
        assert calls_of(
            kong,
            "kong.response.set_status('200')",
            "kong.response.set_header('x', ('data', None))",
            "kong.log.serialize(1, 2, 3)",
            "kong.response.set_header(value=5, name=True)",
            "kong.log({'a': 1}, 5)",
            "kong.response.exit()",
        ) == [
            ("kong.response.set_status", ["200"]),
            ("kong.response.set_header", ["x", ["data", None]]),
            ("kong.log.serialize", [1, 2, 3]),
            ("kong.response.set_header", [True, 5]),
            ("kong.log", ["{'a': 1}", "5"]),
            ("kong.response.exit", []),
        ]
        first, second = calls_of(kong, "kong.ctx.shared.set('k', {1})")  # it cannot be sent at all
        assert "v, of type set, cannot be sent" in first[1][0]
        assert second == ("kong.response.exit", FAILURE)


# --- what is logged -------------------------------------------------------------------------------

LINES = [
    "kong.log({0})", "kong.log.debug({0})", "kong.log.info({0})", "kong.log.notice({0})",
    "kong.log.trace({0})", "kong.log.inspect({0})", "kong.log.warn({0})", "kong.log.err({0})",
    "kong.log.crit({0})", "kong.log.alert({0})", "kong.log.emerg({0})",
    "kong.log.deprecation({0})",
]  # fmt: skip


@pytest.mark.parametrize(
    ("level", "sent"),
    [
        ("debug", [one.partition("(")[0] for one in LINES]),
        ("warn", ["kong.log." + one for one in ("warn", "err", "crit", "alert", "emerg",
                                                "deprecation")]),
        ("emerg", ["kong.log.emerg"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("style", [(), ("--no-lua-style",)], ids=["lua_style", "python_style"])
def test_lines_below_the_level_are_not_sent(
    start: Start, level: str, sent: list[str], style: tuple[str, ...]
) -> None:
    with start("--kong-log-level", level, *style).kong() as kong:
        returned = "None" if style else "(None, None)"
        calls = calls_of(
            kong,
            *(f"assert repr({line.format(5)}) == {returned!r}" for line in LINES),
            "kong.log.inspect.on()",
            "kong.log.set_format('x')",
            "kong.log.set_serialize_value('k', 5)",
            "kong.log.serialize()",
            phase="log",
        )
        assert calls == [
            *((function, ["5"]) for function in sent),
            ("kong.log.inspect.on", []),
            ("kong.log.set_format", ["x"]),
            ("kong.log.set_serialize_value", ["k", 5]),
            ("kong.log.serialize", []),
        ]


def test_the_line_of_a_failure_is_sent_whatever_the_level(start: Start) -> None:
    with start("--kong-log-level", "emerg").kong() as kong:
        calls = calls_of(kong, "kong.log.err('dropped')", "raise ValueError('x')")
        assert [function for function, _ in calls] == ["kong.log.err", "kong.response.exit"]
        assert "ValueError: x" in calls[0][1][0]


def test_an_object_that_makes_calls_when_it_is_logged(kong: Kong) -> None:
    source = """
class Client:
    def __init__(self, kong): self.kong = kong
    def __str__(self): return "from " + self.kong.client.get_ip()[0]

def access(self, kong): kong.log.warn("a request ", Client(kong))
"""
    run = kong.run_event(kong.start_author(source), answers={"kong.client.get_ip": "192.0.2.1"})
    assert run.calls == [
        ("kong.client.get_ip", []), ("kong.log.warn", ["a request ", "from 192.0.2.1"]),
    ]  # fmt: skip


def test_a_mapping_that_makes_calls_when_it_is_sent(kong: Kong) -> None:
    source = """
from collections.abc import Mapping

class Headers(Mapping):
    def __init__(self, kong): self.kong = kong
    def __iter__(self): return iter(("host", "via"))
    def __len__(self): return 2
    def __getitem__(self, name): return self.kong.request.get_header(name)[0]

def access(self, kong):
    kong.ctx.shared.set("k", {"headers": Headers(kong)})
    kong.ctx.shared.set("k", Headers(kong))
"""
    run = kong.run_event(
        kong.start_author(source), answers={"kong.request.get_header": lambda name: name.upper()}
    )
    headers = {"host": "HOST", "via": "VIA"}
    asked = [("kong.request.get_header", ["host"]), ("kong.request.get_header", ["via"])]
    assert run.calls == [
        *asked, ("kong.ctx.shared.set", ["k", {"headers": headers}]),
        *asked, ("kong.ctx.shared.set", ["k", headers]),
    ]  # fmt: skip


# --- items, results -------------------------------------------------------------------------------

ITEMS = """
def access(self, kong):
    shared, ctx, var = kong.ctx.shared, kong.nginx.ctx, kong.nginx.var
    shared["a"] = {"n": 1}
    ctx["b"] = [1]
    del shared["there"]
    found = ["there" in shared, "gone" in shared, "gone" in var, var["there"], ctx["there"]]
    for space in (shared, ctx, var):
        try:
            space["gone"]
        except KeyError as exc:
            found.append(exc.args)
    try:
        var["x"] = 1
    except TypeError:
        found.append("read-only")
    kong.response.exit(200, found)
"""


@pytest.mark.parametrize("style", [(), ("--no-lua-style",)], ids=["lua_style", "python_style"])
def test_access_by_item(start: Start, style: tuple[str, ...]) -> None:
    def value(name: str) -> Any:
        return f"value of {name}" if name == "there" else None

    with start(*style).kong() as kong:
        getters = ("kong.ctx.shared.get", "kong.nginx.get_ctx", "kong.nginx.get_var")
        answers = dict.fromkeys(getters, value)
        calls = kong.run_event(kong.start_author(ITEMS), answers=answers).calls
        there = "value of there"
        assert calls == [
            ("kong.ctx.shared.set", ["a", {"n": 1}]),
            ("kong.nginx.set_ctx", ["b", [1]]),
            ("kong.ctx.shared.get", ["there"]),
            ("kong.ctx.shared.set", ["there", None]),
            ("kong.ctx.shared.get", ["there"]),
            ("kong.ctx.shared.get", ["gone"]),
            ("kong.nginx.get_var", ["gone"]),
            ("kong.nginx.get_var", ["there"]),
            ("kong.nginx.get_ctx", ["there"]),
            ("kong.ctx.shared.get", ["gone"]),
            ("kong.nginx.get_ctx", ["gone"]),
            ("kong.nginx.get_var", ["gone"]),
            ("kong.response.exit", [200, [True, False, False, there, there, ["gone"], ["gone"],
                                          ["gone"], "read-only"]]),
        ]  # fmt: skip


@pytest.mark.parametrize("style", [(), ("--no-lua-style",)], ids=["lua_style", "python_style"])
def test_empty_tables_are_what_was_declared(start: Start, style: tuple[str, ...]) -> None:
    statements = [
        "def data(result): return result" + ("" if style else "[0]"),
        "got = [data(kong.request.get_headers()), data(kong.client.get_consumer_groups()),"
        " data(kong.router.get_route()), data(kong.request.get_raw_body()),"
        " data(kong.ctx.shared.get('k')), data(kong.request.get_query())]",
        "kong.ctx.shared.set('repr', repr(got))",
    ]
    with start(*style).kong() as kong:
        calls = calls_of(
            kong,
            *statements,
            request__get_headers=[],
            client__get_consumer_groups={},
            router__get_route={"id": "r", "headers": [], "service": [], "paths": []},
            request__get_raw_body="caf\udce9",
            ctx__shared__get=[],
            request__get_query={"a": []},
        )
        route = {"id": "r", "headers": {}, "service": {}, "paths": []}
        assert calls[-1][1][1] == repr([{}, [], route, b"caf\xe9", [], {"a": []}])


def test_a_text_that_cannot_be_sent_is_logged_anyway(kong: Kong) -> None:
    """A client's JSON may have half of a surrogate pair; to log it must not fail the request."""
    assert calls_of(
        kong,
        "import json",
        """kong.log.err("got ", json.loads('"\\\\ud800 x"'), " ", b"\\xff")""",
        "kong.log.info('and goes on')",
    ) == [
        ("kong.log.err", ["got ", "\\ud800 x", " ", b"\xff"]),
        ("kong.log.info", ["and goes on"]),
    ]
