"""examples/trace-context.py: one trace for the service, the log, other plugins and the client."""

from __future__ import annotations

import json
import re
from typing import Any, Callable

import pytest

from kong_pdk.testing import Gateway

TRACE = "examples/trace-context.py"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
Make = Callable[..., Gateway]


@pytest.mark.kong_modes("all")
def test_the_trace_of_a_client_is_joined(kong_gateway: Make) -> None:
    result = kong_gateway(TRACE).get("/", headers={"traceparent": TRACEPARENT})
    assert result.failures == [] and result.service_request is not None
    (sent,) = result.service_request.headers.get_all("traceparent")
    version, trace_id, span_id, flags = sent.split("-")
    assert (version, trace_id, flags) == ("00", "4bf92f3577b34da6a3ce929d0e0e4736", "00")
    assert re.fullmatch("[0-9a-f]{16}", span_id) and span_id != "00f067aa0ba902b7"
    assert result.headers.get_all("x-trace-id") == [trace_id]
    # The log phase, in another event, knows all of it.
    (line,) = result.messages("notice")
    expected = f"trace {trace_id} span {span_id} parent 00f067aa0ba902b7: [0-9]+ ms"
    assert re.fullmatch(expected, line)
    trace = result.shared["trace"]
    assert (trace["trace_id"], trace["span_id"]) == (trace_id, span_id)


def test_each_request_without_one_begins_a_trace(kong_gateway: Make) -> None:
    gateway = kong_gateway(TRACE)
    traces = [gateway.get("/").shared["trace"] for _ in range(3)]
    assert len({trace["trace_id"] for trace in traces}) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", trace["trace_id"]) for trace in traces)
    assert {trace["parent_id"] for trace in traces} == {""}


def test_a_client_may_be_kept_from_joining(kong_gateway: Make) -> None:
    gateway = kong_gateway(TRACE, {"join": False})
    result = gateway.get("/", headers={"traceparent": TRACEPARENT})
    assert result.shared["trace"]["trace_id"] not in TRACEPARENT


@pytest.mark.parametrize(
    "header",
    [
        "", "00", TRACEPARENT.upper(), TRACEPARENT[:-1], f"{TRACEPARENT}-more", f" {TRACEPARENT}x",
        TRACEPARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
        TRACEPARENT.replace("00f067aa0ba902b7", "0" * 16), "ff" + TRACEPARENT[2:], "\udcff",
    ],
)  # fmt: skip
def test_a_malformed_header_counts_as_none(kong_gateway: Make, header: str) -> None:
    result = kong_gateway(TRACE).get("/", headers={"traceparent": header})
    assert result.failures == [] and result.service_request is not None
    (sent,) = result.service_request.headers.get_all("traceparent")
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", sent)
    assert result.shared["trace"]["trace_id"] not in TRACEPARENT


def test_a_later_version_is_joined(kong_gateway: Make) -> None:
    later = "cc" + TRACEPARENT[2:] + "-what-comes"
    result = kong_gateway(TRACE).get("/", headers={"traceparent": later})
    assert result.shared["trace"]["trace_id"] in TRACEPARENT


class Reader:
    """Another plugin of the same request, later in the phase."""

    def __init__(self, config: dict[str, Any]) -> None:
        """There is nothing to configure."""

    def access(self, kong: Any) -> None:
        kong.log.warn("trace ", kong.ctx.shared["trace"]["trace_id"])


def test_another_plugin_reads_it(kong_gateway: Make) -> None:
    first = kong_gateway(TRACE).run("access")
    second = kong_gateway(Reader, shared=first.shared).get("/")
    assert second.messages("warn") == [f"trace {first.shared['trace']['trace_id']}"]


def test_a_request_that_has_ended_before_access(kong_gateway: Make) -> None:
    result = kong_gateway(TRACE).run("log")
    assert (result.failures, result.messages()) == ([], [])


def test_it_is_no_reason_to_refuse_a_request(kong_gateway: Make) -> None:
    gateway = kong_gateway(TRACE)
    with gateway.fake("kong.request.get_header", returns=7):
        result = gateway.get("/")
    assert result.failures != []
    assert (result.status, result.service_request is not None) == (200, True)


class Logger:
    """A logging plugin, for the request of another one.

    Attributes:
        value: key and value that the other one has added to the record.
    """

    value: tuple[str, str]

    def __init__(self, config: dict[str, Any]) -> None:
        """There is nothing to configure."""

    def access(self, kong: Any) -> None:
        kong.log.set_serialize_value(*self.value)

    def log(self, kong: Any) -> None:
        record, _ = kong.log.serialize()
        kong.log.warn(record)


@pytest.mark.kong_modes("in-process")
def test_loggers_have_the_trace_in_their_records(
    kong_gateway: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = kong_gateway(TRACE).get("/")
    (call,) = result.calls_of("kong.log.set_serialize_value")
    key, value, *_ = call.args
    assert (key, value) == ("trace_id", result.shared["trace"]["trace_id"])
    monkeypatch.setattr(Logger, "value", (key, value), raising=False)
    (line,) = kong_gateway(Logger).get("/").messages("warn")
    assert json.loads(line)["trace_id"] == value
