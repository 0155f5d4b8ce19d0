"""A plugin in Python style that type checkers must pass; it is not run.

``assert_type`` pins the types that an author meets. Files beside this one hold the same in Lua
style, and mistakes.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, Literal, NoReturn, Optional, Union

from typing_extensions import assert_type

import kong_pdk.pdk.python_style as kong
from kong_pdk.exception import ArgumentError, PDKException
from kong_pdk.pdk import helpers, types


class Plugin:
    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    def certificate(self, kong: kong.kong) -> None:
        try:
            assert_type(kong.client.tls.request_client_certificate(), Optional[bool])
        except PDKException as exc:
            kong.log.err("no certificate: ", exc)

    def rewrite(self, kong: kong.kong) -> None:
        host = kong.request.get_header("host")
        assert_type(host, Optional[str])
        headers = kong.request.get_headers()
        assert_type(headers, dict[str, list[str]])
        kong.service.request.set_headers(headers)
        kong.service.request.set_header("x-host", kong.request.get_header("host") or "")
        if kong.request.get_header("x-debug") == "1" and kong.ip.is_trusted(kong.client.get_ip()):
            kong.log(kong.request.get_headers(max_headers=10))
        query = kong.request.get_query(max_args=1000)
        assert_type(query, dict[str, list[Union[str, bool]]])
        kong.service.request.set_query(query)
        kong.service.request.set_query({"page": 2, "tag": ["a", b"b", True], "debug": True})
        page = kong.request.get_query_arg("page")
        assert_type(page, Union[str, bool, None])
        if isinstance(page, str):
            kong.log("page ", int(page))
        path = kong.request.get_path()
        assert_type(path, str)
        kong.service.request.set_path(path)
        captures = kong.request.get_uri_captures()
        assert_type(captures["unnamed"], dict[int, Union[str, bool]])
        assert_type(captures["named"].get("id"), Union[str, bool, None])

    def access(self, kong: kong.kong) -> None:
        raw = kong.request.get_raw_body(max_allowed_file_size=0)
        assert_type(raw, bytes)
        assert_type(json.loads(raw), Any)
        body = kong.request.get_body(mimetype="application/json")
        assert_type(body, Optional[types.Body])
        if isinstance(body, dict):
            body["seen"] = True
            kong.service.request.set_body(body, mimetype="application/json")
        kong.service.request.set_raw_body(b"\xff")
        kong.service.request.set_raw_body(bytearray(b"\xff"))
        kong.service.request.set_raw_body("text")
        kong.service.request.set_header("x-one", b"bytes")
        kong.service.request.set_header(header="x-number", value=1.5)
        kong.service.request.set_header("x-flag", True)
        kong.service.request.add_header("x-more", "value")
        kong.service.set_target(host="orders.internal", port=8080)
        kong.service.set_timeouts(1000, write_timeout=1000, read_timeout=2000)
        self.entities(kong)
        token = kong.request.get_header("authorization")
        if token is None:
            kong.response.exit(HTTPStatus.UNAUTHORIZED, {"message": "no token"}, {"x-a": ["b"]})
        assert_type(token, str)

    def entities(self, kong: kong.kong) -> None:
        route = kong.router.get_route()
        assert_type(route, Optional[types.Route])
        if route is not None:
            assert_type(route["id"], str)
            assert_type(route.get("paths"), Optional[list[str]])
        service = kong.router.get_service()
        assert_type(service, Optional[types.Service])
        if service is not None:
            assert_type(service["port"], int)
            assert_type(service.get("name"), Optional[str])
        consumer = kong.client.load_consumer("alice", search_by_username=True)
        assert_type(consumer, Optional[types.Consumer])
        credential = kong.client.get_credential()
        assert_type(credential, Optional[types.Credential])
        kong.client.authenticate(consumer, credential)
        kong.client.authenticate(consumer=None, credential={"id": "key"})
        memory = kong.node.get_memory_stats(unit="k", scale=2)
        assert_type(memory, types.MemoryStats)
        statistics = kong.nginx.get_statistics()
        assert_type(statistics["total_requests"], int)
        subsystem = kong.nginx.get_subsystem()
        assert_type(subsystem, Literal["http", "stream"])

    def items(self, kong: kong.kong) -> None:
        kong.ctx.shared["user"] = {"name": "alice"}
        assert_type(kong.ctx.shared["user"], Any)
        if "user" in kong.ctx.shared:
            del kong.ctx.shared["user"]
        kong.nginx.ctx["mine"] = 1
        assert_type(kong.nginx.var["request_id"], str)
        kong.ctx.shared.set("k", 1)
        value = kong.ctx.shared.get("k")
        assert_type(value, Any)

    def response(self, kong: kong.kong) -> None:
        status = kong.response.get_status()
        assert_type(status, int)
        upstream = kong.service.response.get_status()
        assert_type(upstream, Optional[int])
        body = kong.service.response.get_raw_body()
        assert_type(body, bytes)
        kong.response.set_status(HTTPStatus.OK)
        kong.response.set_headers({"a": "1", "b": 2, "c": ["x", b"y"], "d": bytearray(b"z")})
        headers: types.Headers = {"a": "1", "b": 2}
        kong.response.set_headers(headers)
        kong.response.clear_header("server")
        try:
            kong.response.add_header("set-cookie", ("a=1", "b=2"))
        except (ArgumentError, PDKException) as exc:
            kong.log.err(exc)
        kong.response.exit(status, body, {"content-type": "text/plain"})

    def log(self, kong: kong.kong) -> None:
        kong.log("text", 1, None, self, {"a": 1})
        kong.log.debug(b"bytes", [1])
        kong.log.inspect({"a": 1})
        kong.log.inspect.off()
        kong.log.set_serialize_value("request.user", {"id": 1}, options={"mode": "add"})
        record = kong.log.serialize()
        assert_type(record, Optional[str])


def helped(kong: kong.kong) -> None:
    assert_type(helpers.bearer_token(kong), Optional[str])
    assert_type(helpers.json_body(kong, max_allowed_file_size=0), Any)
    helpers.replace_response_body(kong, {"message": "new"}, headers={"x-a": "b"})


def refuse(kong: kong.kong, why: str) -> NoReturn:
    """Both of them end the handler, so this function never returns."""
    if why:
        kong.response.error(403, message=why)
    kong.response.exit(403, body=[1, (2, 3)])
