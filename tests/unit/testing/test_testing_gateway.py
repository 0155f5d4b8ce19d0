"""The harness in this process: what goes in, what comes out, and what fails as in Kong."""

from __future__ import annotations

from typing import Any, Callable

import pytest

from kong_pdk.testing import Failure, Gateway, Response, UpstreamError

SCHEMA = ({"message": {"type": "string", "default": "hello"}},)


class Handling:
    """Runs what the test gives."""

    bodies: dict[str, Callable[[Any, Any], Any]] = {}

    def __init__(self, config: Any) -> None:
        self.config = config


def plugin_with(**bodies: Callable[[Any, Any], Any]) -> type:
    """A plugin with a handler for each phase named; each gets the instance and kong."""
    return type("Plugin", (Handling,), bodies)


def make(config: Any = None, **settings: Any) -> Callable[..., Gateway]:
    def build(**bodies: Callable[[Any, Any], Any]) -> Gateway:
        return Gateway(plugin_with(**bodies), config, schema=SCHEMA, **settings)

    return build


def test_a_request_from_the_client_to_the_service_and_back() -> None:
    def access(self: Any, kong: Any) -> None:
        key, _ = kong.request.get_header("x-key")
        kong.service.request.set_header("X-Message", f"{self.config['message']} {key}")
        kong.response.set_header("X-Early", "1")

    gateway = make()(access=access)
    gateway.respond(201, {"Set-Cookie": ["a=1", "b=2"]}, json={"id": 7})
    result = gateway.post("/orders?page=2", headers={"X-Key": "k"}, json={"a": [1]})
    assert result.status == 201
    assert result.json() == {"id": 7}
    assert result.headers["content-TYPE"] == "application/json"
    assert result.headers.get_all("set-cookie") == ["a=1", "b=2"]
    assert result.headers["x-early"] == "1"
    sent = result.service_request
    assert sent is not None
    assert (sent.method, sent.path, sent.query) == ("POST", "/orders", "page=2")
    assert sent.target == "/orders?page=2"
    assert sent.headers["x-message"] == "hello k"
    assert sent.headers["x-forwarded-for"] == "127.0.0.1"
    assert sent.json() == {"a": [1]}
    assert (result.ended, result.source) == (None, "service")
    assert result.functions == [
        "kong.request.get_header",
        "kong.service.request.set_header",
        "kong.response.set_header",
    ]
    assert result.calls[1].args == ["X-Message", "hello k"]
    assert result.round_trips == result.round_trips_of("access") == 3
    assert result.failures == []


def test_a_request_that_the_plugin_ends() -> None:
    def access(self: Any, kong: Any) -> None:
        kong.response.exit(403, {"message": "no"}, {"X-Why": "key"})

    def log(self: Any, kong: Any) -> None:
        kong.log.notice("status ", kong.response.get_status()[0])

    result = make()(access=access, log=log).get()
    assert (result.status, result.json(), result.headers["x-why"]) == (
        403,
        {"message": "no"},
        "key",
    )
    assert (result.ended, result.source, result.service_request) == ("access", "exit", None)
    assert result.messages("notice") == ["status 403"]
    assert repr(result) == '<Result 403 ended in access; body: \'{"message":"no"}\'>'


@pytest.mark.parametrize(("policy", "status"), [("closed", 500), ("open", 200), (None, 500)])
def test_a_handler_that_raises(policy: str, status: int, caplog: Any) -> None:
    def access(self: Any, kong: Any) -> None:
        raise ValueError("boom")

    result = make(on_error=policy)(access=access).get()
    assert result.status == status
    assert result.failures == [("access", "ValueError: boom")]
    assert isinstance(result.failures[0], Failure)
    assert "ValueError: boom" in repr(result)
    assert any(record.exc_info for record in caplog.records)
    assert (result.service_request is None) == (status == 500)


def test_an_instance_that_cannot_be_started() -> None:
    class Plugin:
        def __init__(self, config: Any) -> None:
            raise OSError("no database")

        def access(self, kong: Any) -> None: ...

    result = Gateway(Plugin).get()
    assert result.status == 500
    assert "no database" in result.failures[0].text


def test_the_service_as_a_function() -> None:
    gateway = make()(log=lambda self, kong: None)
    gateway.upstream = lambda request: Response(418, {"X-Path": request.path}, "tea")
    result = gateway.get("/pot")
    assert (result.status, result.text, result.headers["x-path"]) == (418, "tea", "/pot")

    def down(request: Any) -> Any:
        raise UpstreamError(504, "nobody is there")

    gateway.upstream = down
    result = gateway.get("/pot")
    assert (result.status, result.source) == (504, "error")
    assert result.messages("err") == ["nobody is there"]


def test_what_goes_wrong_in_the_tests_own_code_comes_out() -> None:
    def access(self: Any, kong: Any) -> None:
        kong.client.get_ip()

    gateway = make()(access=access)
    gateway.upstream = lambda request: {"status": 200}  # type: ignore[assignment,return-value]
    with pytest.raises(TypeError, match=r"upstream must return a kong_pdk\.testing\.Response"):
        gateway.get()
    gateway.respond()

    def wrong(exchange: Any) -> Any:
        raise AssertionError("not this one")

    fake = gateway.fake("kong.client.get_ip", calls=wrong)
    with pytest.raises(AssertionError, match="not this one"):
        gateway.get()
    fake.remove()
    with gateway.fake("kong.client.get_ip", calls=lambda exchange: {1, 2}):  # noqa: SIM117
        with pytest.raises(
            TypeError, match=r"kong\.client\.get_ip returns what Kong cannot send: set"
        ):
            gateway.get()
    assert gateway.get().status == 200
