"""The gateway's functions are those of the PDK's table, and do what its texts say of Kong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from gatewaycalls import ask, refuse

from kong_pdk.gateway import (
    TABLE,
    Exchange,
    Headers,
    PhaseRun,
    Request,
    Response,
    Service,
    call,
)
from kong_pdk.pdk._table import FUNCTIONS
from kong_pdk.pdk.functions import PHASES

ENTERPRISE = [spec.name for spec in FUNCTIONS if spec.since == "Enterprise"]


def make(phase: str = "access", *headers: tuple[str, str], **options: Any) -> Exchange:
    """Return an exchange in a phase, with a request that has these headers."""
    request = Request(target=options.pop("target", "/"), headers=Headers(headers))
    request.body = options.pop("body", b"")
    return Exchange(request=request, phase=phase, service=Service("http", "up", 80), **options)


# --- the table ------------------------------------------------------------------------------------


def test_every_function_is_here_but_those_of_enterprise() -> None:
    assert len(ENTERPRISE) == 8
    assert set(TABLE) == {spec.name for spec in FUNCTIONS} - set(ENTERPRISE)


@pytest.mark.parametrize("name", ENTERPRISE)
def test_a_kong_without_enterprise_does_not_know_its_functions(name: str) -> None:
    exchange = make()
    reply = call(exchange, name, [])
    assert (reply.step, reply.value) == ("plugin.Step", None)
    assert name in exchange.logs[-1].message and exchange.aborted is None


@pytest.mark.parametrize("name", TABLE)
def test_a_function_is_refused_in_all_other_phases(name: str) -> None:
    allowed = TABLE[name].spec.phases
    for phase in PHASES:
        exchange = make(phase)
        call(exchange, name, ["/x"] * TABLE[name].spec.least)
        told = any(f"in the {phase} phase, only in: " in line.message for line in exchange.logs)
        assert told == (phase not in allowed)


@pytest.mark.parametrize("spec", FUNCTIONS, ids=lambda spec: spec.name)
def test_no_function_looks_at_more_arguments_than_it_has(spec: Any) -> None:
    if spec.name in TABLE and not spec.variadic:
        arity = TABLE[spec.name].arity
        assert arity is not None and arity <= len(spec.params)


# --- what Kong does -------------------------------------------------------------------------------


def test_the_log_phase_knows_what_the_access_phase_has_saved() -> None:
    for name in ("get_scheme", "get_host", "get_path", "get_raw_path", "get_path_with_query"):
        ask(make("log"), f"kong.request.{name}")
        ask(make("log", exited="access"), f"kong.request.{name}")
        early = make("log", exited="rewrite")
        assert "before the access phase" in refuse(early, f"kong.request.{name}")


def test_the_protocol_of_a_route_with_several() -> None:
    route = {"protocols": ["http", "https"]}
    proto = ("X-Forwarded-Proto", "HTTPS")
    trust = {"trusted_ips": ("127.0.0.1",), "route": route}
    name = "kong.client.get_protocol"
    assert ask(make(), name) is None
    assert ask(make("access", proto, route=route), name, True) == "http"
    assert ask(make("access", proto, **trust), name) == "http"
    assert ask(make("access", proto, **trust), name, True) == "https"
    assert ask(make("access", proto, proto, **trust), name, True) is None
    assert "log phase" in refuse(make("log", route=route), name)
    assert ask(make("log", route={"protocols": ["grpc"]}), name) == "grpc"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("9.9.9.9", ("9.9.9.9", None)),
        ("9.9.9.9:81", ("9.9.9.9", 81)),
        ("[::9]:81", ("::9", 81)),
        ("::9", ("::9", None)),
        ("nonsense", ("127.0.0.1", 5)),
    ],
)
def test_the_address_that_a_trusted_proxy_names(given: str, expected: tuple[str, Any]) -> None:
    exchange = make("access", ("X-Real-IP", given), trusted_ips=("127.0.0.1",), client_port=5)
    found = tuple(ask(exchange, f"kong.client.get_forwarded_{what}") for what in ("ip", "port"))
    assert found == expected
    exchange.trusted_ips = ()
    assert ask(exchange, "kong.client.get_forwarded_ip") == "127.0.0.1"


def test_everything_may_be_trusted() -> None:
    all_of_them = make(trusted_ips=("0.0.0.0/0", "::/0"))
    assert ask(all_of_them, "kong.ip.is_trusted", "nonsense") is True


def test_reserved_characters_stay_escaped_in_a_path() -> None:
    exchange = make(target="/%61%2f%3f%25%20%c3%a9//%7e")
    assert ask(exchange, "kong.request.get_path") == "/a%2F%3F%25 é/~"


def test_a_name_that_occurs_twice_in_a_multipart_body() -> None:
    part = '--b\r\nContent-Disposition: form-data; name="{}"\r\n\r\n{}\r\n'
    data = "".join(part.format(*each) for each in ("a1", "a2", "b3")) + "--b--\r\n"
    exchange = make(
        "access", ("Content-Type", "multipart/form-data; boundary=b"), body=data.encode()
    )
    assert ask(exchange, "kong.request.get_body") == {"a": ["1", "2"], "b": "3"}


def test_a_form_is_not_read_from_disk() -> None:
    exchange = make(body=b"a=" + b"x" * 9000)
    form = "application/x-www-form-urlencoded"
    assert ask(exchange, "kong.request.get_body", form, None, 0) is None


def test_a_list_of_header_lines() -> None:
    exchange = make()
    ask(exchange, "kong.service.request.set_headers", {"A": ["1", "2"], "B": 3})
    ask(exchange, "kong.service.request.set_header", "C", ["4", "5"])
    headers = exchange.request.headers
    assert [headers.get_all(name) for name in "ABC"] == [["1", "2"], ["3"], ["4", "5"]]
    ask(exchange, "kong.service.request.add_header", "A", ["6", "7"])
    assert len(headers.get_all("A")) == 3 and headers.get_all("A")[-1].startswith("table: ")
    assert exchange.logs[-1].level == "warn"
    ask(exchange, "kong.service.request.add_header", "Host", "other")
    ask(exchange, "kong.service.request.set_header", ":authority", "grpc")
    assert exchange.service_request().headers.get("host") == "other"
    assert ":authority" not in headers


def test_what_the_route_sets_after_the_rewrite_phase() -> None:
    exchange = make("rewrite")
    ask(exchange, "kong.service.request.set_path", "/new")
    ask(exchange, "kong.service.request.set_scheme", "https")
    sent = exchange.service_request()
    assert (sent.target, sent.scheme) == ("/", "http")


def test_a_target_that_is_the_name_of_an_upstream() -> None:
    exchange = make(upstreams={"there": ("10.0.0.1", 81)})
    ask(exchange, "kong.service.set_target", "there", 80)
    sent = exchange.service_request()
    assert (sent.host, sent.port, sent.headers.get("host")) == ("10.0.0.1", 81, "there")


@pytest.mark.parametrize(
    ("status", "body"), [(404, "Not found"), (500, "An unexpected error occurred"), (403, "")]
)
def test_kong_has_a_text_for_some_answers_without_a_body(status: int, body: str) -> None:
    exchange = make("access", ("Accept", "text/plain"))
    call(exchange, "kong.response.exit", [status, None])
    assert exchange.response.body.decode().startswith(body) and exchange.source == "exit"
    assert bool(exchange.response.body) == bool(body)
    exchange = make()
    call(exchange, "kong.response.exit", [status, ""])
    assert exchange.response.body == b""


def test_exit_closes_a_stream() -> None:
    assert "one of 200, 400" in refuse(make("preread"), "kong.response.exit", 401)
    exchange = make("preread")
    call(exchange, "kong.response.exit", [200, {"a": 1}, {"X": "y"}])
    assert exchange.response.body == b'{"a":1}' and "x" not in exchange.response.headers
    exchange = make("preread")
    call(exchange, "kong.response.exit", [403, "not you"])
    assert exchange.response.body == b"" and "not you" in exchange.logs[-1].message
    assert exchange.exited == "preread" and exchange.response.status == 403


def test_a_stream_connection() -> None:
    exchange = make("preread")
    assert ask(exchange, "kong.nginx.get_subsystem") == "stream"
    assert ask(exchange, "kong.service.request.disable_tls") is True
    assert ask(make("certificate"), "kong.nginx.req_start_time") == 0


def test_inspection_can_be_switched_off() -> None:
    exchange = make()
    for name in ("inspect.off", "inspect", "inspect.on", "inspect"):
        ask(exchange, f"kong.log.{name}", name)
    assert len(exchange.logs) == 1


def test_the_record_of_a_request_with_tls() -> None:
    exchange = make("access", tls=True)
    ask(exchange, "kong.client.tls.set_client_verify", "FAILED:expired")
    ask(exchange, "kong.log.set_serialize_value", "a.b", 1, {"mode": "add"})
    exchange.phase = "log"
    record = json.loads(ask(exchange, "kong.log.serialize"))
    assert record["request"]["tls"]["client_verify"] == "FAILED:expired"
    assert record["a"] == {"b": 1}


def test_a_key_through_what_is_no_table_breaks_the_record() -> None:
    exchange = make()
    ask(exchange, "kong.log.set_serialize_value", "response.status.text", "x")
    exchange.phase = "log"
    assert "response.status.text" in refuse(exchange, "kong.log.serialize")


def test_tables_that_kong_checks() -> None:
    assert ask(make(), "kong.table.new", 1, 2) == []
    assert "narr" in refuse(make(), "kong.table.new")
    ask(make(), "kong.table.clear", {"a": 1})
    assert "table" in refuse(make(), "kong.table.clear", 1)


def test_the_configuration_fits_the_gateway() -> None:
    settings = ask(make(trusted_ips=("10.0.0.0/8",)), "kong.configuration.remove_sensitive")
    assert settings["database"] == "off" and settings["trusted_ips"] == ["10.0.0.0/8"]


# --- vaults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("{vault://env/x}", {"name": "env", "resource": "x"}),
        ("{vault://env/x/y}", {"name": "env", "resource": "x", "key": "y"}),
        ("{vault://env/x/y/z}", {"name": "env", "resource": "x/y", "key": "z"}),
        (
            "{vault://my-v/x?prefix=a&b#2}",
            {"name": "my-v", "resource": "x", "config": {"prefix": "a", "b": True}, "version": 2},
        ),
        ("{vault://env}", None),
        ("x", None),
    ],
)
def test_references(reference: str, expected: object) -> None:
    assert ask(make(), "kong.vault.parse_reference", reference) == expected
    looks_like_one = ask(make(), "kong.vault.is_reference", reference)
    assert looks_like_one == reference.startswith("{")


def test_secrets_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GW_TEST_PLAIN", "secret")
    monkeypatch.setenv("GW_TEST_JSON", '{"user": "ann", "n": 1}')
    for reference, expected in (
        ("{vault://env/gw-test-plain}", "secret"),
        ("{vault://env/test-plain?prefix=gw_}", "secret"),
        ("{vault://env/gw-test-json/user}", "ann"),
        ("{vault://env/gw-test-json/n}", None),
        ("{vault://env/gw-test-plain/user}", None),
        ("{vault://env/gw-test-none}", None),
        ("{vault://aws/gw-test-plain}", None),
        ("nonsense", None),
    ):
        assert ask(make(), "kong.vault.get", reference) == expected
    exchange = make()
    plain, none = "{vault://env/gw-test-plain}", "{vault://env/gw-test-none}"
    given = {
        "a": "", "inner": {"b": 1, "$refs": {"b": plain}},
        "$refs": {"a": plain, "l": [plain, none], "none": none},
    }  # fmt: skip
    filled = ask(exchange, "kong.vault.update", given)
    assert (filled["a"], filled["l"], filled["none"]) == ("secret", ["secret", ""], "")
    assert filled["inner"]["b"] == "secret" and given["a"] == ""
    assert [line.level for line in exchange.logs] == ["warn", "warn"]
    assert ask(make(), "kong.vault.update", "x") == "x"
    assert "table" in refuse(make(), "kong.vault.warmup")


def test_what_the_service_has_answered_is_kept_if_it_was_buffered() -> None:
    came = Response(201, Headers([("A", "1")]), b"x")
    kept = make("log", buffered=True, service_response=came)
    assert ask(kept, "kong.service.response.get_raw_body") == b"x"
    assert ask(kept, "kong.service.response.get_status") == 201
    lost = make("log", service_response=came)
    assert "log phase" in refuse(lost, "kong.service.response.get_status")


def test_a_call_is_recorded_as_the_plugin_has_made_it() -> None:
    """Not with what servers add where an argument is nil."""
    exchange = make()
    exchange.runs.append(PhaseRun("access"))
    padding = [False] * 10
    ask(exchange, "kong.client.authenticate", None, {"id": "alice"}, *padding)
    ask(exchange, "kong.request.get_body", None, 5, *padding)
    ask(exchange, "kong.ctx.shared.set", "k", False)
    assert [call.args for call in exchange.runs[-1].calls] == [
        [None, {"id": "alice"}], [None, 5], ["k", False],
    ]  # fmt: skip
    assert exchange.credential == {"id": "alice"}
