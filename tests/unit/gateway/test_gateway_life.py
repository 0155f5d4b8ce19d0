"""The phases of a request: their order, and what ends them."""

from __future__ import annotations

from typing import Any

import pytest

from kong_pdk.gateway import (
    CallUpstream,
    Exchange,
    Headers,
    Request,
    Respond,
    Response,
    RunPhase,
    Service,
    call,
    life,
)
from kong_pdk.gateway.functions.registry import Reply

ALL = ("certificate", "rewrite", "access", "response", "log")


def run(
    exchange: Exchange,
    calls: dict[str, tuple[str, list[Any]]] | None = None,
    phases: tuple[str, ...] = ALL,
    upstream: Response | None = None,
) -> list[str]:
    """Take an exchange through its life; in each phase named in ``calls`` one PDK call is made."""
    seen = []
    for action in life(exchange, phases):
        if isinstance(action, RunPhase):
            seen.append(action.name)
            if calls and action.name in calls:
                call(exchange, *calls[action.name])
        elif isinstance(action, CallUpstream):
            seen.append("upstream")
            if upstream is None:
                upstream = Response(200, Headers([("Content-Type", "text/plain")]), b"up")
            exchange.service_response = upstream
        else:
            assert isinstance(action, Respond)
            seen.append("send")
    return seen


def test_phases_come_in_kongs_order() -> None:
    exchange = Exchange()
    assert run(exchange) == ["rewrite", "access", "upstream", "response", "send", "log"]
    assert exchange.source == "service"
    assert [r.name for r in exchange.runs] == ["rewrite", "access", "response", "log"]
    assert exchange.response.headers.get("content-length") == "2"
    assert exchange.response_size == 2
    assert exchange.received == "GET /"


def test_certificate_is_run_with_tls_only() -> None:
    assert run(Exchange(tls=True), phases=("certificate",)) == ["certificate", "upstream", "send"]


def test_phases_without_a_handler_are_left_out() -> None:
    exchange = Exchange()
    assert run(exchange, phases=()) == ["upstream", "send"]
    assert not exchange.buffered


@pytest.mark.parametrize("phase", ["rewrite", "access"])
def test_exit_keeps_the_request_from_the_upstream(phase: str) -> None:
    exchange = Exchange()
    seen = run(exchange, {phase: ("kong.response.exit", [403, {"message": "no"}])})
    assert seen == [*["rewrite", "access"][: 1 + (phase == "access")], "send", "log"]
    assert exchange.response.status == 403
    assert exchange.response.body == b'{"message":"no"}'
    assert exchange.response.headers.get("content-type") == "application/json; charset=utf-8"
    assert exchange.source == "exit"
    assert exchange.service_response is None


def test_exit_in_the_response_phase_replaces_the_answer() -> None:
    exchange = Exchange()
    seen = run(exchange, {"response": ("kong.response.exit", [200, "new", {"X-A": ["1", "2"]}])})
    assert seen == ["rewrite", "access", "upstream", "response", "send", "log"]
    assert exchange.response.body == b"new"
    assert exchange.response.headers.get_all("x-a") == ["1", "2"]
    assert exchange.response.headers.get("content-length") == "3"


@pytest.mark.parametrize("phase", ["rewrite", "access"])
def test_a_refused_call_answers_500(phase: str) -> None:
    exchange = Exchange()
    seen = run(exchange, {phase: ("kong.response.set_status", ["x"])})
    assert "upstream" not in seen and seen[-2:] == ["send", "log"]
    assert exchange.response.status == 500
    assert exchange.response.body == b'{"message":"An unexpected error occurred"}'
    assert exchange.source == "error"
    assert [line.level for line in exchange.logs] == ["err"]
    assert "kong.response.set_status" in exchange.logs[0].message


def test_a_refused_call_in_the_log_phase_is_only_logged() -> None:
    exchange = Exchange()
    run(exchange, {"log": ("kong.response.set_status", [200])})
    assert exchange.response.status == 200
    assert exchange.aborted == "log"
    assert "log phase" in exchange.logs[0].message


def test_headers_set_early_reach_the_client() -> None:
    exchange = Exchange()
    upstream = Response(200, Headers([("X-A", "upstream"), ("Content-Type", "b/c")]))
    exchange.response.headers.set("Content-Type", "a/b")
    call_ = ("kong.response.set_header", ["X-A", "plugin"])
    run(exchange, {"access": call_}, ("access",), upstream)
    assert exchange.response.headers.get_all("x-a") == ["plugin", "upstream"]
    assert exchange.response.headers.get_all("content-type") == ["b/c"]


def test_buffering_lets_the_upstream_replace_early_headers() -> None:
    exchange = Exchange()
    upstream = Response(200, Headers([("X-A", "upstream"), ("Transfer-Encoding", "chunked")]))
    run(exchange, {"access": ("kong.response.set_header", ["X-A", "plugin"])}, ALL, upstream)
    assert exchange.response.headers.get_all("x-a") == ["upstream"]
    assert "transfer-encoding" not in exchange.response.headers


def test_a_lost_upstream_answers_in_the_clients_format() -> None:
    exchange = Exchange(request=Request(headers=Headers([("Accept", "text/plain")])))
    for action in life(exchange, ("response", "log")):
        if isinstance(action, CallUpstream):
            exchange.upstream_failed(504, "too slow")
    assert exchange.response.status == 504
    assert exchange.response.body.startswith(b"The upstream server is timing out")
    assert exchange.source == "error"
    assert [r.name for r in exchange.runs] == ["response", "log"]


def test_an_upstream_that_the_driver_forgot_is_a_502() -> None:
    exchange = Exchange()
    list(life(exchange, ()))
    assert exchange.response.status == 502


def test_head_and_no_content_have_no_body() -> None:
    exchange = Exchange(request=Request(method="HEAD"))
    run(exchange, {"access": ("kong.response.exit", [200, "body"])}, ("access",))
    assert exchange.response.body == b""
    assert exchange.response.headers.get("content-length") == "4"
    exchange = Exchange()
    run(exchange, {"access": ("kong.response.exit", [204, "body"])}, ("access",))
    assert exchange.response.body == b"" and "content-length" not in exchange.response.headers


def test_the_request_for_the_upstream() -> None:
    request = Request(
        method="POST",
        target="/x?a=1",
        headers=Headers([("Host", "Me.example:80"), ("Connection", "close"), ("X", "1")]),
        body=b"abc",
    )
    exchange = Exchange(request=request, service=Service("http", "up", 81, "/base/"))
    sent = exchange.service_request()
    assert (sent.method, sent.scheme, sent.host, sent.port) == ("POST", "http", "up", 81)
    assert sent.target == "/base/x?a=1"
    headers = sent.headers
    assert headers.get("host") == "up:81"
    assert headers.get("content-length") == "3"
    assert headers.get("x-forwarded-host") == "me.example"
    assert headers.get("x-forwarded-for") == "127.0.0.1"
    assert "connection" not in headers and headers.get("x") == "1"


def test_forwarded_headers_are_believed_of_trusted_clients_only() -> None:
    headers = Headers([("X-Forwarded-Proto", "https"), ("X-Forwarded-For", "9.9.9.9")])
    for trusted, proto in (((), "http"), (("127.0.0.0/8",), "https")):
        exchange = Exchange(request=Request(headers=headers), trusted_ips=trusted)
        sent = exchange.service_request().headers
        assert sent.get("x-forwarded-proto") == proto
        assert sent.get("x-forwarded-for") == "9.9.9.9, 127.0.0.1"


def test_no_step_follows_the_end_of_a_phase() -> None:
    exchange = Exchange(phase="access")
    assert call(exchange, "kong.response.exit", [200]) == Reply(None)
    assert call(exchange, "kong.response.exit", ["x"]) == Reply(None)
    assert call(exchange, "kong.request", []) == Reply(None)
    assert call(exchange, "kong.nothing", []) == Reply("plugin.Step")
