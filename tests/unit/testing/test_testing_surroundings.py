"""The harness: what stands around a request, and Kong's semantics of it."""

from __future__ import annotations

import re
from typing import Any, Callable

import pytest

from kong_pdk.testing import Gateway, Response, echo

Seen = dict[str, Any]


def seeing(calls: Callable[[Any], Any], phase: str = "access") -> type:
    """A plugin that notes in ``kong.ctx.shared`` what a function of ``kong`` gives it."""

    def handler(self: Any, kong: Any) -> None:
        kong.ctx.shared.set("seen", calls(kong))

    members: Seen = {"__init__": lambda self, config: None, phase: handler}
    return type("Plugin", (), members)


def seen(calls: Callable[[Any], Any], phase: str = "access", **settings: Any) -> Any:
    request = settings.pop("request", {})
    gateway = Gateway(seeing(calls, phase), python_style=True, **settings)
    result = gateway.connect() if phase == "preread" else gateway.request("GET", **request)
    assert result.failures == []
    return result.shared.get("seen")


# --- who the client is ----------------------------------------------------------------------------


def test_consumers_and_credentials() -> None:
    settings: Seen = {
        "consumer": {"username": "ada"},
        "credential": {"key": "k"},
        "consumers": [{"username": "bob", "id": "7a6b0d3e-7d4c-4b8c-9f39-6a2f5b0f9f10"}],
    }
    assert seen(lambda kong: kong.client.get_consumer(), **settings)["username"] == "ada"
    ada = seen(lambda kong: kong.client.load_consumer("ada", True), **settings)
    credential = seen(lambda kong: kong.client.get_credential(), **settings)
    assert credential["consumer"] == {"id": ada["id"]}
    by_id = seen(lambda kong: kong.client.load_consumer(settings["consumers"][0]["id"]), **settings)
    assert by_id["username"] == "bob"
    assert seen(lambda kong: kong.client.get_consumer()) is None


def test_forwarded_headers_are_believed_of_trusted_clients_only() -> None:
    request = {"target": "/", "headers": {"X-Forwarded-Proto": "HTTPS", "X-Real-IP": "9.9.9.9"}}
    both = lambda kong: [kong.request.get_forwarded_scheme(), kong.client.get_forwarded_ip()]  # noqa: E731
    assert seen(both, request=request, client_ip="10.1.2.3") == ["http", "10.1.2.3"]
    assert seen(
        both, request=request, client_ip="10.1.2.3", trusted_ips=["10.0.0.0/8"]
    ) == ["https", "9.9.9.9"]  # fmt: skip


def test_surroundings_can_be_changed_between_requests() -> None:
    gateway = Gateway(seeing(lambda kong: kong.client.get_ip()), python_style=True)
    assert gateway.get().shared["seen"] == "127.0.0.1"
    gateway.client_ip = "192.0.2.1"
    assert gateway.get().shared["seen"] == "192.0.2.1"
    assert gateway.get(client_ip="::1").shared["seen"] == "::1"


# --- what it asks for -----------------------------------------------------------------------------


def test_headers_and_query() -> None:
    request: Seen = {
        "target": "/a%20b?x=1&x=2&flag&y=%C3%A9",
        "headers": {"X-Many": ["a", "b"], "x-one": 7},
    }
    assert seen(lambda kong: kong.request.get_header("X_MANY"), request=request) == "a"
    headers = seen(lambda kong: kong.request.get_headers(), request=request)
    assert (headers["x-many"], headers["x-one"]) == (["a", "b"], ["7"])
    assert seen(lambda kong: kong.request.get_query(), request=request) == {
        "x": ["1", "2"],
        "flag": [],
        "y": ["é"],
    }
    assert seen(lambda kong: kong.request.get_query_arg("flag"), request=request) is True
    assert seen(lambda kong: kong.request.get_path(), request=request) == "/a b"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"json": {"a": [1, None]}}, {"a": [1]}),
        ({"form": {"a": ["1", "2"], "b": "x y"}}, {"a": ["1", "2"], "b": "x y"}),
        ({"form": [("a", "1")]}, {"a": "1"}),
        ({"body": "no table", "headers": {"Content-Type": "application/json"}}, None),
        ({"body": b"plain"}, None),
    ],
)
def test_bodies_by_content_type(given: Seen, expected: Any) -> None:
    assert seen(lambda kong: kong.request.get_body(), request=given) == expected


def test_raw_bodies_are_bytes() -> None:
    gateway = Gateway(
        seeing(lambda kong: kong.request.get_raw_body() == b"\xff\x00"), python_style=True
    )
    assert gateway.post(body=b"\xff\x00").shared["seen"] is True
    # nginx has put a larger one into a file, and Kong ends the phase.
    result = gateway.post(body=b"x" * 10_000)
    assert (result.status, result.ended, result.failures) == (500, "access", [])
    assert "10000 bytes" in result.messages("err")[0]


def test_a_url_in_place_of_a_path() -> None:
    request = {"target": "https://api.example.com:9443/v1?a=b"}
    assert seen(
        lambda kong: [kong.request.get_scheme(), kong.request.get_host(), kong.request.get_port()],
        request=request,
    ) == ["https", "api.example.com", 9443]


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        ({"target": "orders"}, ValueError, "must be a path like '/orders?page=2' or a URL"),
        ({"body": {"a": 1}}, TypeError, "give json= or form= for a table"),
        ({"body": "a", "json": 1}, TypeError, "give one of body, json and form"),
        ({"headers": {"a": None}}, TypeError, "header"),
        ({"headers": {"a": "x\r\ny"}}, ValueError, "line break"),
        ({"phase": "rewrite"}, ValueError, "has no phase 'rewrite' here; it has access"),
    ],
)
def test_requests_that_make_no_sense(wrong: Seen, error: type[Exception], text: str) -> None:
    gateway = Gateway(seeing(lambda kong: None))
    with pytest.raises(error, match=re.escape(text)):
        gateway.request("GET", **wrong)


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        ({"client_ip": "here"}, ValueError, "client_ip must be an IP address, got 'here'"),
        ({"trusted_ips": ["10.0.0.0/99"]}, ValueError, "trusted_ips must be addresses or networks"),
        ({"consumer": "ada"}, TypeError, "a consumer must be a dict, got str"),
        ({"nginx": {"a": None}}, TypeError, "nginx variable 'a' must be a str, got None"),
        ({"mode": "thread"}, ValueError, "there is no mode 'thread', only in-process, threads"),
        ({"on_error": "shut"}, ValueError, "on_error must be one of closed, open, got 'shut'"),
    ],
)
def test_surroundings_that_make_no_sense(wrong: Seen, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=re.escape(text)):
        Gateway(seeing(lambda kong: None), **wrong)


# --- where it goes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("route", "service", "path", "upstream", "prefix"),
    [
        (None, None, "/x/y", "/x/y", None),
        (None, {"path": "/base/"}, "/", "/base", None),
        (None, {"path": "/base"}, "/x/", "/base/x/", None),
        ({"paths": ["/a"]}, None, "/a/x", "/x", "/a"),
        ({"paths": ["/a"]}, None, "/a", "/", "/a"),
        ({"paths": ["/a"]}, {"path": "/b"}, "/a/", "/b/", "/a"),
        ({"paths": ["/a"]}, {"path": "/b"}, "/ax", "/b/x", "/a"),
        ({"paths": ["/a", "/a/b"]}, None, "/a/b/c", "/c", "/a/b"),
        ({"paths": ["/a"], "strip_path": False}, {"path": "/b"}, "/a/x", "/b/a/x", None),
        ({"paths": [r"~/v\d+"]}, None, "/v12/x", "/x", "/v12"),
        ({"paths": ["/other"]}, {"path": "/b"}, "/x", "/b/x", None),
    ],
)
def test_paths_by_route_and_service(
    route: Any, service: Any, path: str, upstream: str, prefix: Any
) -> None:
    gateway = Gateway(
        seeing(lambda kong: kong.request.get_forwarded_prefix()),
        python_style=True, route=route, service=service,
    )  # fmt: skip
    result = gateway.get(f"{path}?q=1")
    assert result.service_request is not None
    assert result.service_request.target == f"{upstream}?q=1"
    assert result.service_request.headers.get("x-forwarded-prefix") == prefix
    assert result.shared.get("seen") == prefix


def test_captures_of_a_routes_pattern() -> None:
    assert seen(
        lambda kong: kong.request.get_uri_captures(),
        route={"paths": [r"~/users/(?<id>\d+)(/x)?"]}, request={"target": "/users/12"},
    ) == {"named": {"id": "12"}, "unnamed": {0: "/users/12", 1: "12", 2: False}}  # fmt: skip
    with pytest.raises(ValueError, match="the route's path '~/\\(' is no regular expression"):
        Gateway(seeing(lambda kong: None), route={"paths": ["~/("]}).get()


def test_entities_have_what_kong_gives_them() -> None:
    route, service = seen(
        lambda kong: [kong.router.get_route(), kong.router.get_service()],
        route={"name": "orders", "protocols": ["https"]},
        service={"name": "shop", "protocol": "https", "host": "shop.internal"},
    )
    assert (route["name"], route["protocols"], route["strip_path"]) == ("orders", ["https"], True)
    assert route["service"] == {"id": service["id"]}
    assert (service["port"], service["read_timeout"]) == (443, 60000)


def test_the_address_of_the_service() -> None:
    def access(self: Any, kong: Any) -> None:
        kong.service.set_target("other.internal", 8080)
        kong.service.set_timeouts(1, 2, 3000)

    members: Seen = {"__init__": lambda self, config: None, "access": access}
    result = Gateway(type("Plugin", (), members), service={"host": "a", "protocol": "https"}).get()
    sent = result.service_request
    assert sent is not None
    assert (sent.scheme, sent.host, sent.port) == ("https", "other.internal", 8080)
    assert sent.read_timeout == 3
    kept = Gateway(seeing(lambda kong: None), route={"preserve_host": True}).get()
    assert kept.service_request is not None
    assert kept.service_request.headers["host"] == "localhost:8000"


def test_upstreams() -> None:
    found = lambda kong: kong.service.set_upstream("pool")  # noqa: E731
    assert seen(found) is None
    assert seen(found, upstreams={"pool": ("10.0.0.1", 80)}) is True


def test_an_echo() -> None:
    gateway = Gateway(seeing(lambda kong: None))
    gateway.upstream = echo
    result = gateway.post("/", body="hello", headers={"X-A": "b"})
    assert (result.text, result.headers["x-a"]) == ("hello", "b")


def test_answers_are_not_shared_between_requests() -> None:
    """What a plugin does to one must not show in the next."""

    def response(self: Any, kong: Any) -> None:
        kong.response.add_header("X-N", "1")

    members: Seen = {"__init__": lambda self, config: None, "response": response}
    gateway = Gateway(type("Plugin", (), members))
    gateway.respond(200, {"X-N": "0"}, "body")
    kept = Response(200, {"X-N": "0"}, "body")
    for upstream in (gateway.upstream, lambda request: kept):
        gateway.upstream = upstream
        for _ in range(2):
            assert gateway.get().headers.get_all("x-n") == ["0", "1"]


# --- Kong itself ----------------------------------------------------------------------------------


def test_nginx_variables() -> None:
    names = ["request_uri", "mine", "ssl_protocol"]
    ask = lambda kong: [kong.nginx.get_var(name) for name in names]  # noqa: E731
    assert seen(ask, nginx={"mine": 7, "request_uri": "/given"}) == ["/given", "7"]
    assert seen(ask, tls=True, nginx={"mine": "x"}) == ["/", "x", "TLSv1.3"]


def test_shared_context() -> None:
    gateway = Gateway(
        seeing(lambda kong: kong.ctx.shared.get("list")), python_style=True, shared={"list": [1, 2]}
    )
    assert gateway.get().shared == {"list": [1, 2], "seen": [1, 2]}
    assert gateway.get().shared == {"list": [1, 2], "seen": [1, 2]}


def test_secrets_of_the_environment() -> None:
    get = lambda kong: kong.vault.get("{vault://env/my-secret}")  # noqa: E731
    assert seen(get, env={"MY_SECRET": "s3"}) == "s3"
    assert seen(get, env={}) is None


def test_tls_and_the_clients_certificate() -> None:
    chain = "-----BEGIN CERTIFICATE-----"
    result = Gateway(
        seeing(lambda kong: kong.client.tls.request_client_certificate(), "certificate"),
        python_style=True, tls=True,
    ).get()  # fmt: skip
    assert result.phases == ("certificate",)
    assert result.shared["seen"] is True
    get = lambda kong: kong.client.tls.get_full_client_certificate_chain()  # noqa: E731
    assert seen(get, client_certificate=chain) == chain
    assert seen(get, tls=True) is None
    plain = Gateway(seeing(lambda kong: None, "certificate"))
    assert plain.get().phases == ()
    assert plain.run("certificate").phases == ("certificate",)


def test_a_certificate_phase_that_breaks_ends_the_handshake() -> None:
    gateway = Gateway(
        seeing(lambda kong: kong.client.tls.disable_session_reuse(), "certificate"), tls=True
    )
    gateway.fake("kong.client.tls.disable_session_reuse", raises="no session")
    result = gateway.get()
    assert (result.status, result.ended, result.service_request) == (0, "certificate", None)
    assert repr(result).startswith("<Result without an answer broken in certificate; err: ")


def test_enterprise_functions_are_unknown_here_unless_faked() -> None:
    get = lambda kong: kong.client.get_consumer_groups()  # noqa: E731
    gateway = Gateway(seeing(get), python_style=True)
    result = gateway.get()
    assert "seen" not in result.shared
    assert "no function called kong.client.get_consumer_groups" in result.messages("err")[0]
    gateway.fake("kong.client.get_consumer_groups", returns=[{"name": "gold"}])
    assert gateway.get().shared["seen"] == [{"name": "gold"}]


# --- streams --------------------------------------------------------------------------------------


def test_a_stream_connection() -> None:
    class Plugin:
        def __init__(self, config: Any) -> None: ...

        def preread(self, kong: Any) -> None:
            kong.ctx.shared.set("subsystem", kong.nginx.get_subsystem())
            kong.ctx.shared.set("ip", kong.client.get_ip())
            kong.ctx.shared.set("protocol", kong.nginx.get_var("protocol"))
            kong.ctx.shared.set("uri", kong.nginx.get_var("uri"))
            kong.ctx.shared.set("trusted", kong.ip.is_trusted("10.0.0.1"))

        def access(self, kong: Any) -> None:
            raise AssertionError("this is no HTTP request")

        def log(self, kong: Any) -> None:
            kong.log.notice(kong.nginx.get_subsystem(), " ", kong.response.get_status())
            # Kong does not have it in that subsystem: it is logged there, and gives nil.
            kong.log.notice(kong.request.get_header("host"))

    gateway = Gateway(Plugin, python_style=True, trusted_ips=["10.0.0.0/8"])
    result = gateway.connect(client_ip="192.0.2.7")
    assert result.failures == []
    assert result.phases == ("preread", "log")
    assert result.shared == {
        "subsystem": "stream",
        "ip": "192.0.2.7",
        "protocol": "TCP",
        "trusted": True,
    }
    assert result.messages("notice") == ["stream 200", "None"]
    assert "kong.request.get_header for stream" in result.messages("err")[0]
    assert (result.ended, result.service_request) == (None, None)
    assert gateway.run("preread").phases == ("preread",)


@pytest.mark.parametrize(("status", "body"), [(403, b""), (200, b"hello")])
def test_a_stream_connection_that_the_plugin_ends(status: int, body: bytes) -> None:
    class Plugin:
        def __init__(self, config: Any) -> None: ...

        def preread(self, kong: Any) -> None:
            kong.response.exit(status, "hello")

    result = Gateway(Plugin).connect()
    assert (result.status, result.body, result.ended) == (status, body, "preread")
    assert result.source == "exit"


def test_a_reference_in_the_configuration_is_a_secret_in_the_plugin() -> None:
    class Sender:
        def __init__(self, config: Any) -> None:
            self.token = config["token"]

        def access(self, kong: Any) -> None:
            kong.service.request.set_header("x-token", self.token)

    schema = ({"token": {"type": "string", "referenceable": True}},)
    config = {"token": "{vault://env/my-token}"}
    with Gateway(Sender, config, schema=schema, env={"MY_TOKEN": "s3cret"}) as gateway:
        request = gateway.get("/").service_request
    assert request is not None and request.headers["x-token"] == "s3cret"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"route": {"pths": ["/a"]}}, "a route has no field 'pths'; did you mean 'paths'"),
        ({"service": {"hots": "a"}}, "a service has no field 'hots'; did you mean 'host'"),
        ({"consumer": {"usrname": "a"}}, "a consumer has no field 'usrname'; did you mean 'user"),
        ({"consumers": [{"custom-id": "a"}]}, "a consumer has no field 'custom-id'; did you"),
    ],
)
def test_a_misspelt_field_of_an_entity(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        seen(lambda kong: None, **settings)


def test_fields_that_only_some_kongs_have() -> None:
    consumer = {"username": "a", "type": "application"}
    found = seen(lambda kong: kong.client.get_consumer(), consumer=consumer)
    assert found["type"] == "application"
