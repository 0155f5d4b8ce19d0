"""Where spans go, and what of a client's and an author's texts goes there."""

from __future__ import annotations

import threading
from typing import Optional

import pytest
from opentelemetry.trace import TraceState

from kong_pdk.exception import ConfigError
from kong_pdk.observing import tracing
from kong_pdk.observing.tracing import Tracing, describe, endpoint_of, state_of


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
        ("https://[::1]", "https://[::1]/v1/traces"),
        ("https://collector/own/path", "https://collector/own/path"),
        ("http://collector:4318?key=x", "http://collector:4318/v1/traces?key=x"),
        ("env", None),
    ],
)
def test_the_path_is_added_where_there_is_none(given: str, endpoint: object) -> None:
    assert endpoint_of(given) == endpoint


@pytest.mark.parametrize("given", ["", "collector", "grpc://collector", "http://:80", "http://a:0"])
def test_what_is_no_address(given: str) -> None:
    with pytest.raises(ConfigError, match=r"--tracing .* http://127.0.0.1:4318") as caught:
        endpoint_of(given)
    assert repr(given) in str(caught.value)


# --- what comes from clients and authors ----------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("vendor=1", "vendor=1"),
        (" a=1 ,\tt@v=two words,, ", "a=1,t@v=two words"),
        ("a=" + "x" * 256, "a=" + "x" * 256),
        ("", None),
        (",", None),
        ("secret", None),
        ("a=1,B=2", None),
        ("a=1\x0b", None),
        ("a=é", None),
        ("a=\udc80", None),
        ("a=" + "x" * 257, None),
        (",".join(f"a{number}=1" for number in range(33)), None),
        ("a=1," * 3000, None),
    ],
)
def test_what_is_taken_of_a_tracestate(
    given: str, taken: Optional[str], caplog: pytest.LogCaptureFixture
) -> None:
    """OpenTelemetry would write what it does not take into the log, for each request."""
    assert state_of(given) == taken
    if taken is not None:
        found = TraceState.from_header([taken])
        assert found.to_header() == taken
    assert not caplog.records


class Strange(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


def raised(exc: BaseException) -> BaseException:
    try:
        raise exc
    except BaseException as caught:
        return caught


def test_an_exception_is_described_in_the_words_of_opentelemetry() -> None:
    described = describe(raised(ValueError("oops")))
    assert (described["exception.type"], described["exception.message"]) == ("ValueError", "oops")
    assert described["exception.stacktrace"].startswith("Traceback (most recent call last):\n")
    assert described["exception.stacktrace"].endswith("ValueError: oops\n")
    assert describe(ConfigError("x"))["exception.type"] == "kong_pdk.exception.ConfigError"


def test_an_exception_whose_text_cannot_be_had() -> None:
    described = describe(raised(Strange()))
    assert described["exception.type"] == f"{__name__}.Strange"
    assert described["exception.message"] == "(its text cannot be had)"
    assert all(isinstance(value, str) for value in described.values())


def test_an_exception_whose_text_cannot_be_sent() -> None:
    described = describe(raised(type("E", (ValueError,), {"__module__": "\udc80"})("a\udc80b")))
    assert described["exception.message"] == "a\\udc80b"
    for value in described.values():
        value.encode()


def test_the_text_of_an_exception_is_not_of_any_size() -> None:
    described = describe(raised(ValueError("x" * 1_000_000 + "end")))
    assert described["exception.message"].endswith("xend")
    assert described["exception.stacktrace"].endswith("xend\n")
    assert all(len(value) < 20_000 for value in described.values())


# --- the end --------------------------------------------------------------------------------------


def test_a_collector_that_hangs_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracing, "END_PATIENCE", 0.01)
    monkeypatch.setattr(tracing.trace, "set_tracer_provider", lambda provider: None)
    one, leave = Tracing("http://127.0.0.1:1"), threading.Event()
    assert one._own is not None
    shutdown = one._own.shutdown
    monkeypatch.setattr(one._own, "shutdown", lambda: leave.wait(60) and shutdown())
    one.close()
    leave.set()
    assert [record.getMessage() for record in caplog.records] == [
        "tracing: the collector takes the last spans too slowly: they are lost"
    ]
