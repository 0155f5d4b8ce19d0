"""What is printed about requests, and how."""

from __future__ import annotations

import io
import json

import pytest

from kong_pdk.commands.console import ConsoleTrace, JsonTrace, show
from kong_pdk.commands.terminal import Screen, clean, wants_colour
from kong_pdk.gateway import Call, Exchange, LogLine, PhaseRun, Request


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.mark.parametrize(
    ("stream", "choice", "variables", "wanted"),
    [
        (Terminal(), "auto", {}, True),
        (io.StringIO(), "auto", {}, False),
        (Terminal(), "auto", {"NO_COLOR": "1"}, False),
        (Terminal(), "auto", {"NO_COLOR": ""}, True),
        (Terminal(), "auto", {"TERM": "dumb"}, False),
        (io.StringIO(), "auto", {"FORCE_COLOR": "1"}, True),
        (Terminal(), "auto", {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        (Terminal(), "always", {"NO_COLOR": "1"}, True),
        (Terminal(), "never", {"FORCE_COLOR": "1"}, False),
    ],
)
def test_who_gets_colours(
    monkeypatch: pytest.MonkeyPatch,
    stream: io.StringIO,
    choice: str,
    variables: dict[str, str],
    wanted: bool,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert wants_colour(stream, choice) is wanted


def test_nothing_reaches_the_terminal_but_text() -> None:
    assert clean("a\tb\x1b[0m\r\n\x7f\u202e\udcff") == "a\tb\\x1b[0m\\r\\n\\x7f\\u202e\\udcff"
    out = io.StringIO()
    screen = Screen(out, colour=True)
    screen.line(screen.paint("a\x1b", "bold", "red"), screen.paint("b"), screen.paint("", "red"))
    assert out.getvalue() == "\x1b[1;31ma\\x1b\x1b[0mb\n"


def test_what_the_encoding_lacks_is_written_out() -> None:
    raw = io.BytesIO()
    screen = Screen(io.TextIOWrapper(raw, encoding="ascii"), colour=False)
    screen.line(screen.paint("Gr\u00fc\u00dfe"))
    assert raw.getvalue() == b"Gr\\xfc\\xdfe\n"


@pytest.mark.parametrize(
    ("value", "limit", "text"),
    [
        (None, None, "nil"),
        (True, None, "true"),
        (1.5, None, "1.5"),
        (b"\xff1", None, 'b"\\\\xff1"'),
        ("abcdef", 3, '"abc"... (6 characters)'),
        ({"a": [1, None]}, 9, '{"a": [1, nil]}'),
        ([1, 2, 3, 4, 5, 6, 7, 8], 9, "[1, 2, 3, 4, 5, 6, ... 2 more]"),
        ([1, 2, 3, 4, 5, 6, 7, 8], None, "[1, 2, 3, 4, 5, 6, 7, 8]"),
    ],
)
def test_values_in_a_line(value: object, limit: int | None, text: str) -> None:
    assert show(value, limit) == text


def exchange() -> Exchange:
    calls = [
        Call("access", "kong.request.get_header", ["x"], at=0.001, seconds=0.00001),
        Call("access", "kong.response.exit", [403, "no"], at=0.1234, seconds=0.002),
    ]
    run = PhaseRun("access", seconds=0.2, calls=calls, waits=[0.001, 0.1])
    made = Exchange(request=Request(target="/a?token=x"), runs=[run], exited="access")
    made.response.status = 403
    return made


def traced(level: int, **more: bool) -> list[str]:
    out = io.StringIO()
    ConsoleTrace(Screen(out, False), Screen(out, False), level, **more).exchange_done(exchange())
    return out.getvalue().splitlines()


def test_a_request_is_one_line() -> None:
    assert traced(0) == ["GET /a?token=REDACTED -> 403  access 200.0 ms (2 calls)"]
    assert traced(0, secrets=True)[0].startswith("GET /a?token=x -> 403")


def test_its_calls_are_a_line_each() -> None:
    assert traced(1)[1:] == [
        "  access  200 ms, of which 101 ms in the plugin",
        '     1.00 ms  +1.00 ms      kong.request.get_header("x") -> nil  0.01 ms',
        '      123 ms  +100 ms       kong.response.exit(403, "no")  ends the request  2.00 ms',
    ]


def test_details_are_for_those_who_want_them() -> None:
    out = io.StringIO()
    trace = ConsoleTrace(Screen(out, False), Screen(out, False), 1)
    trace.note("a", "shown", detail=1)
    trace.note("a", "hidden", detail=2)
    trace.server_died(-9)
    trace.server_line("serving p (pid 1, threads, pure-Python codec)")
    trace.log_line(LogLine("err", "bad\n"))
    assert out.getvalue().splitlines() == [
        "shown",
        "plugin server ended with signal 9; it is started again",
        "[server] serving p (pid 1, threads, pure-Python codec)",
        "[err] bad\\n",
    ]
    assert trace.codec == "pure-Python"


def test_json_lines_hold_plain_data() -> None:
    out = io.StringIO()
    trace = JsonTrace(out)
    made = exchange()
    made.runs[0].calls[0].result = {1: b"\xff", "long": "x" * 20_000}
    trace.exchange_done(made)
    trace.note("start", "text", detail=1, number=2)
    request, note = map(json.loads, out.getvalue().splitlines())
    assert out.getvalue().isascii()
    assert request["target"] == "/a?token=REDACTED"
    assert request["ended_in"] == "access" and request["status"] == 403
    result = request["phases"][0]["calls"][0]["result"]
    assert result["1"] == "\\xff" and result["long"].endswith("x... (20000 characters)")
    assert (note["event"], note["message"], note["number"]) == ("start", "text", 2)
    assert "detail" not in note
