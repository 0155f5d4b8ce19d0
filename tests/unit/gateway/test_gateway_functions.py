"""PDK functions, called as a plugin server calls them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from gatewaycalls import ask, refuse

from kong_pdk.gateway import TABLE, Exchange, Headers, Request, Response, Service, call

CONSUMER = {"id": "b7a3b5de-7c43-4a3c-9f0d-1f0c8c1c8a11", "username": "ann"}


def make(phase: str = "access", **options: Any) -> Exchange:
    """Return an exchange in a phase, with a request that has a bit of everything."""
    request = Request(
        method="POST",
        target="/a/%62/../c%2fd?q=1&q=2&flag&x=%FF",
        headers=Headers(
            [
                ("Host", "Example.com:8000"),
                ("X-Multi", "one"),
                ("X-Multi", "two"),
                ("Content-Type", "application/json"),
                ("Authorization", "secret"),
                ("X-Raw", "\udcff"),
            ]
        ),
        body=b'{"a": 1.0, "n": null, "e": {}}',
    )
    options.setdefault("request", request)
    return Exchange(phase=phase, service=Service("http", "up", 80), **options)


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("get_scheme", [], "http"),
        ("get_host", [], "example.com"),
        ("get_port", [], 8000),
        ("get_method", [], "POST"),
        ("get_http_version", [], 1.1),
        ("get_path", [], "/a/c%2Fd"),
        ("get_raw_path", [], "/a/%62/../c%2fd"),
        ("get_path_with_query", [], "/a/%62/../c%2fd?q=1&q=2&flag&x=%FF"),
        ("get_raw_query", [], "q=1&q=2&flag&x=%FF"),
        ("get_query_arg", ["q"], "1"),
        ("get_query_arg", ["flag"], True),
        ("get_query_arg", ["x"], "\udcff"),
        ("get_query_arg", ["none"], None),
        ("get_query", [], {"q": ["1", "2"], "flag": [], "x": ["\udcff"]}),
        ("get_query", [1], {"q": ["1"]}),
        ("get_header", ["x_MULTI"], "one"),
        ("get_header", ["x-raw"], "\udcff"),
        ("get_header", ["none"], None),
        ("get_body", [], {"a": 1, "e": []}),
        ("get_raw_body", [], b'{"a": 1.0, "n": null, "e": {}}'),
        ("get_forwarded_host", [], "example.com"),
        ("get_forwarded_port", [], 8000),
        ("get_forwarded_scheme", [], "http"),
        ("get_forwarded_path", [], "/a/c%2Fd"),
        ("get_forwarded_prefix", [], None),
        ("get_uri_captures", [], {"named": [], "unnamed": []}),
    ],
)
def test_request(name: str, args: list[Any], expected: object) -> None:
    assert ask(make(), f"kong.request.{name}", *args) == expected


def test_maps_of_headers_and_arguments_come_by_their_own_step() -> None:
    reply = call(make(), "kong.request.get_headers", [])
    assert reply.step == "plugin.StepMultiMap"
    assert reply.value["x-multi"] == ["one", "two"] and reply.value["host"] == ["Example.com:8000"]
    empty = call(make(request=Request()), "kong.request.get_query", [])
    assert empty.value == {} and isinstance(empty.value, dict)


def test_a_client_can_hijack_the_steps_name() -> None:
    exchange = make(request=Request(target="/?_method=x"))
    assert call(exchange, "kong.request.get_query", []).step == ["x"]  # type: ignore[comparison-overlap]


def test_forwarded_values_of_a_trusted_client() -> None:
    lines = [
        ("X-Forwarded-Host", "Other:444"),
        ("X-Forwarded-Proto", "HTTPS"),
        ("X-Forwarded-Prefix", "/p"),
        ("X-Real-IP", "9.9.9.9"),
    ]
    exchange = make(request=Request(headers=Headers(lines)), trusted_ips=("127.0.0.1",))
    assert ask(exchange, "kong.request.get_forwarded_host") == "other"
    assert ask(exchange, "kong.request.get_forwarded_port") == 444
    assert ask(exchange, "kong.request.get_forwarded_scheme") == "https"
    assert ask(exchange, "kong.request.get_forwarded_prefix") == "/p"
    assert ask(exchange, "kong.client.get_forwarded_ip") == "9.9.9.9"


@pytest.mark.parametrize(
    ("path", "expected"), [("/", "/"), ("/a//b/", "/a/b/"), ("/a/./", "/a/"), ("/a/..", "/")]
)
def test_paths_are_normalised(path: str, expected: str) -> None:
    assert ask(make(request=Request(target=path)), "kong.request.get_path") == expected


def test_a_body_that_nginx_spooled_to_disk() -> None:
    exchange = make(request=Request(method="POST", body=b"x" * 9000))
    assert ask(exchange, "kong.request.get_raw_body", 0) == b"x" * 9000
    assert ask(exchange, "kong.request.get_raw_body", 9000) == b"x" * 9000
    assert "max_allowed_file_size" in refuse(exchange, "kong.request.get_raw_body", 8999)
    assert "nginx" in refuse(make(request=exchange.request), "kong.request.get_raw_body")
    assert ask(make(request=exchange.request), "kong.request.get_body", "application/json") is None


@pytest.mark.parametrize(
    ("name", "args", "word"),
    [
        ("kong.request.get_header", [5], "string"),
        ("kong.request.get_query", ["x"], "number"),
        ("kong.request.get_query", [0], "1000"),
        ("kong.request.get_query_arg", [], "string"),
        ("kong.response.set_status", [99], "100"),
        ("kong.response.set_status", [True], "boolean"),
        ("kong.response.set_header", [1, "x"], "name"),
        ("kong.response.set_header", ["a"], "nil"),
        ("kong.response.set_header", ["a", [1]], "strings"),
        ("kong.response.set_headers", ["a"], "table"),
        ("kong.response.clear_header", [], "string"),
        ("kong.response.exit", ["x"], "number"),
        ("kong.response.exit", [200, True], "body"),
        ("kong.response.exit", [200, "x", "y"], "headers"),
        ("kong.response.error", [200], "400"),
        ("kong.response.error", [400, True], "message"),
        ("kong.service.request.set_path", ["x"], "/"),
        ("kong.service.request.set_method", ["get"], "get"),
        ("kong.service.request.set_scheme", ["ftp"], "ftp"),
        ("kong.service.request.set_query", ["a=1"], "table"),
        ("kong.service.request.set_body", ["a"], "table"),
        ("kong.service.request.set_body", [{}, "image/png"], "image/png"),
        ("kong.service.request.set_body", [{}, "Application/JSON"], "JSON"),
        ("kong.service.request.set_body", [["a"], "multipart/form-data"], "names"),
        ("kong.response.error", [400, "x", {"Content-Type": "text/csv"}], "text/csv"),
        ("kong.service.request.set_raw_body", [{}], "string"),
        ("kong.service.set_target", ["h", 65536], "65535"),
        ("kong.service.set_target", ["h", 1.5], "integer"),
        ("kong.service.set_timeouts", [1, 2], "read_timeout"),
        ("kong.service.set_tls_verify", [1], "boolean"),
        ("kong.client.authenticate", [], "consumer"),
        ("kong.client.authenticate", ["x"], "consumer"),
        ("kong.client.load_consumer", ["ann"], "UUID"),
        ("kong.client.tls.set_client_verify", ["MAYBE"], "MAYBE"),
        ("kong.ctx.shared.set", [], "key"),
        ("kong.log.info", [], "nothing"),
        ("kong.log.set_serialize_value", ["k", 1, {"mode": "x"}], "mode"),
        ("kong.log.serialize", [], "log"),
        ("kong.node.get_memory_stats", ["q"], "unit"),
        ("kong.response.get_status", [], "access"),
        ("kong.service.response.get_status", [], "access"),
    ],
)
def test_what_kong_refuses_is_refused(name: str, args: list[Any], word: str) -> None:
    assert word in refuse(make(), name, *args)


def test_most_questions_about_the_request_are_too_late_in_the_log_phase() -> None:
    for name in ("kong.request.get_method", "kong.client.get_ip", "kong.nginx.get_var"):
        assert "log phase" in refuse(make("log"), name, "scheme")
    for name in ("kong.request.get_header", "kong.response.get_header"):
        ask(make("log"), name, "host")


def test_response_headers_and_status() -> None:
    exchange = make("response")
    ask(exchange, "kong.response.set_status", 201.0)
    ask(exchange, "kong.response.set_header", "A", "")
    ask(exchange, "kong.response.add_header", "a", 1)
    ask(exchange, "kong.response.set_headers", {"B": True, "C": ["x", "y"]})
    ask(exchange, "kong.response.set_header", "Transfer-Encoding", "chunked")
    assert ask(exchange, "kong.response.get_status") == 201
    assert ask(exchange, "kong.response.get_header", "b") == "true"
    got = ask(exchange, "kong.response.get_headers")
    assert got == {"a": [" ", "1"], "b": ["true"], "c": ["x", "y"]}
    ask(exchange, "kong.response.clear_header", "A")
    assert ask(exchange, "kong.response.get_header", "A") is None
    assert exchange.logs[-1].level == "warn"
    assert ask(exchange, "kong.response.get_source") == "error"


def test_error_uses_the_format_that_the_client_accepts() -> None:
    exchange = make(request=Request(headers=Headers([("Accept", "text/html")])))
    assert call(exchange, "kong.response.error", [404, "gone"]).step is None
    assert exchange.response.status == 404 and b"<p>gone.</p>" in exchange.response.body
    exchange = make()
    call(exchange, "kong.response.error", [418, {"a": 1}, {"Content-Type": "text/plain"}])
    assert exchange.response.body.startswith(b'{"a":1}\n')


def test_service_request_is_seen_by_the_request_too() -> None:
    exchange = make()
    ask(exchange, "kong.service.set_target", "there", 444)
    assert exchange.service_request().headers.get("host") == "there"
    for name, args in (
        ("set_scheme", ["https"]),
        ("set_path", ["/new path/%41"]),
        ("set_query", [{"b": True, "a": ["1", "2"]}]),
        ("set_method", ["PUT"]),
        ("set_header", ["X-One", 1]),
        ("add_header", ["X-One", "2"]),
        ("clear_header", ["X-Multi"]),
        ("set_headers", [{"Host": "other", "X-Raw": "\udcfe"}]),
        ("set_raw_body", [b"\xff\x00"]),
    ):
        ask(exchange, f"kong.service.request.{name}", *args)
    sent = exchange.service_request()
    assert (sent.method, sent.scheme, sent.host, sent.port) == ("PUT", "https", "there", 444)
    assert sent.target == "/new%20path/%41?a=1&a=2&b"
    assert sent.headers.get_all("x-one") == ["1", "2"]
    assert sent.headers.get("host") == "other" and sent.headers.get("x-raw") == "\udcfe"
    assert "x-multi" not in sent.headers
    assert sent.body == b"\xff\x00" and sent.headers.get("content-length") == "2"
    assert ask(exchange, "kong.request.get_header", "x-one") == "1"
    assert ask(exchange, "kong.request.get_method") == "PUT"
    ask(exchange, "kong.service.request.clear_query_arg", "a")
    assert ask(exchange, "kong.request.get_raw_query") == "b"
    ask(exchange, "kong.service.request.set_raw_query", "z")
    assert exchange.service_request().target.endswith("?z")


def test_service_bodies_and_settings() -> None:
    exchange = make()
    assert ask(exchange, "kong.service.request.set_body", {"a": {}}) is True
    assert exchange.request.body == b'{"a":{}}'
    ask(exchange, "kong.service.request.set_body", {"a": 1}, "application/x-www-form-urlencoded")
    assert exchange.request.body == b"a=1"
    assert ask(make(request=Request()), "kong.service.request.set_body", {}) is None
    assert ask(exchange, "kong.service.set_upstream", "nowhere") is None
    exchange.upstreams["there"] = ("10.0.0.1", 81)
    assert ask(exchange, "kong.service.set_upstream", "there") is True
    ask(exchange, "kong.service.set_timeouts", 1000, 2000, 3000)
    ask(exchange, "kong.service.set_retries", 2)
    sent = exchange.service_request()
    assert (sent.host, sent.connect_timeout, sent.read_timeout) == ("10.0.0.1", 1.0, 3.0)


def test_service_response() -> None:
    came = Response(201, Headers([("Content-Type", "application/json"), ("A", "1")]), b'{"x":[]}')
    exchange = make("response", buffered=True, service_response=came)
    assert ask(exchange, "kong.service.response.get_status") == 201
    assert ask(exchange, "kong.service.response.get_header", "a") == "1"
    assert ask(exchange, "kong.service.response.get_headers") == {}
    assert exchange.logs[-1].level == "warn"
    assert ask(exchange, "kong.service.response.get_raw_body") == b'{"x":[]}'
    assert ask(exchange, "kong.service.response.get_body") == {"x": []}
    assert "buffering" in refuse(make("log"), "kong.service.response.get_raw_body")


def test_client() -> None:
    exchange = make(consumers=(CONSUMER,), client_port=1234, route={"protocols": ["https"]})
    assert ask(exchange, "kong.client.get_ip") == "127.0.0.1"
    assert ask(exchange, "kong.client.get_port") == 1234
    assert ask(exchange, "kong.client.get_protocol") == "https"
    assert ask(exchange, "kong.client.load_consumer", CONSUMER["id"]) == CONSUMER
    assert ask(exchange, "kong.client.load_consumer", "ann", True) == CONSUMER
    assert ask(exchange, "kong.client.load_consumer", "bob", True) is None
    assert ask(exchange, "kong.client.get_consumer") is None
    reply = call(exchange, "kong.client.authenticate", [CONSUMER, {"id": "c"}])
    assert reply.step == "plugin.StepCredential" and reply.value is None
    assert call(exchange, "kong.client.get_consumer", []).step == "plugin.StepConsumer"
    assert ask(exchange, "kong.client.get_consumer") == CONSUMER
    assert ask(exchange, "kong.client.get_credential") == {"id": "c"}
    ask(exchange, "kong.client.authenticate", None, {"id": "d"})
    assert ask(exchange, "kong.client.get_consumer") is None
    assert ask(exchange, "kong.ip.is_trusted", "127.0.0.1") is False
    trusting = make(trusted_ips=("10.0.0.0/8",))
    assert ask(trusting, "kong.ip.is_trusted", "10.1.2.3") is True
    assert ask(trusting, "kong.ip.is_trusted", "nonsense") is False


def test_log_lines_have_levels() -> None:
    heard: list[Any] = []
    exchange = make(on_log=heard.append)
    for level in ("debug", "info", "notice", "warn", "err", "crit", "alert", "emerg"):
        ask(exchange, f"kong.log.{level}", "a", 1.0, None, True)
    ask(exchange, "kong.log", "plain")
    ask(exchange, "kong.log.inspect", {"a": 1}, "b")
    ask(exchange, "kong.log.deprecation", "old", {"after": "1.0"})
    levels = [line.level for line in heard]
    assert levels[:8] == ["debug", "info", "notice", "warn", "err", "crit", "alert", "emerg"]
    assert heard[0].message == "a1niltrue"
    assert [line.message for line in heard[8:]] == ["plain", '{"a":1} b', "old (after: 1.0)"]
    assert exchange.logs == heard


def test_serialize_is_json_with_the_plugins_own_values() -> None:
    exchange = make(credential={"id": "c"}, consumer=CONSUMER, proxied=True)
    for args in (
        ["mine.deep", [1]],
        ["a\\.b", "dot"],
        ["request.method", "REPLACED", {"mode": "replace"}],
        ["none.x", 1, {"mode": "replace"}],
        ["response.status", 1, {"mode": "add"}],
        ["client_ip", None],
    ):
        call(exchange, "kong.log.set_serialize_value", args)
    exchange.phase = "log"
    ask(exchange, "kong.log.set_serialize_value", "late", 1)
    record = json.loads(ask(exchange, "kong.log.serialize"))
    assert record["mine"] == {"deep": [1]} and record["a.b"] == "dot"
    assert record["request"]["method"] == "REPLACED" and record["response"]["status"] == 200
    assert "none" not in record and "late" not in record and "client_ip" not in record
    assert record["request"]["headers"]["authorization"] == "REDACTED"
    assert record["request"]["headers"]["x-multi"] == ["one", "two"]
    assert record["request"]["url"].startswith("http://example.com:8000/a")
    assert record["authenticated_entity"] == {"id": "c", "consumer_id": CONSUMER["id"]}
    assert record["tries"] == [{"ip": "up", "port": 80}] and record["source"] == "upstream"


def test_context_values_are_kept_and_removed() -> None:
    exchange = make()
    for space in ("kong.ctx.shared", "kong.nginx"):
        getter, setter = ("get", "set") if space.endswith("shared") else ("get_ctx", "set_ctx")
        ask(exchange, f"{space}.{setter}", "k", {"a": None, "b": 1})
        assert ask(exchange, f"{space}.{getter}", "k") == {"b": 1}
        ask(exchange, f"{space}.{setter}", "k")
        assert ask(exchange, f"{space}.{getter}", "k") is None


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("request_method", "POST"),
        ("host", "example.com"),
        ("http_x_multi", "one"),
        ("arg_q", "1"),
        ("arg_none", None),
        ("server_protocol", "HTTP/1.1"),
        ("upstream_uri", "/a/%62/../c%2fd?q=1&q=2&flag&x=%FF"),
        ("no_such", None),
    ],
)
def test_nginx_variables(variable: str, expected: object) -> None:
    assert ask(make(), "kong.nginx.get_var", variable) == expected


def test_the_rest_of_the_pdk() -> None:
    exchange = make(plugin_id="p", route={"id": "r"}, service_entity={"id": "s"})
    assert ask(exchange, "kong.plugin.get_id") == "p"
    assert call(exchange, "kong.router.get_route", []).step == "plugin.StepRoute"
    assert ask(exchange, "kong.router.get_route") == {"id": "r"}
    assert ask(exchange, "kong.router.get_service") == {"id": "s"}
    assert ask(exchange, "kong.node.get_id") == exchange.node_id
    assert isinstance(ask(exchange, "kong.node.get_hostname"), str)
    assert call(exchange, "kong.node.get_memory_stats", []).step == "plugin.StepMemoryStats"
    stats = ask(exchange, "kong.node.get_memory_stats", "M", 1)
    assert stats["workers_lua_vms"][0]["http_allocated_gc"] == "32.0 MiB"
    assert ask(exchange, "kong.nginx.get_subsystem") == "http"
    assert ask(exchange, "kong.nginx.get_tls1_version_str") is None
    assert ask(exchange, "kong.nginx.get_statistics")["connections_active"] == 0
    assert ask(exchange, "kong.table.merge", {"a": 1}, {"b": 2}) == {"a": 1, "b": 2}
    assert ask(exchange, "kong.request.get_start_time") == round(exchange.started * 1000)


def test_an_unknown_function_is_logged_and_gives_nil() -> None:
    exchange = make()
    assert ask(exchange, "kong.request.get_colour") is None
    assert exchange.logs[-1].level == "err" and "get_colour" in exchange.logs[-1].message
    assert exchange.aborted is None


def test_every_function_takes_too_many_arguments_and_too_few() -> None:
    """Lua drops the one and fills up the other; only a function's own checks may refuse."""
    for name in TABLE:
        for phase in ("access", "response", "log"):
            args: list[Any]
            for args in ([], ["x"] * 9, [5] * 9, [{}] * 9):
                call(make(phase), name, args)
