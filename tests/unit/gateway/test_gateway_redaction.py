"""What is a secret in a PDK call, and what is none."""

from __future__ import annotations

from typing import Any

import pytest

from kong_pdk.gateway import Call
from kong_pdk.gateway.redaction import REDACTED, is_secret, redact, redact_call, redact_target


@pytest.mark.parametrize(
    "name",
    [
        "Authorization", "proxy-authorization", "Cookie", "set-cookie", "X-Api-Key", "apikey",
        "api_key", "key", "X-Auth-Token", "access_token", "password", "client_secret", "jwt",
        "session", "X-Signature",
    ],
)  # fmt: skip
def test_names_of_secrets(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize(
    "name", ["host", "x-request-id", "keyword", "tokens_used", "monkey", "path", "", 7, None]
)
def test_names_of_what_is_none(name: object) -> None:
    assert not is_secret(name)


@pytest.mark.parametrize(
    ("function", "args", "result", "shown"),
    [
        ("kong.request.get_header", ["Authorization"], "x", (["Authorization"], REDACTED)),
        ("kong.request.get_header", ["cookie"], None, (["cookie"], None)),
        ("kong.request.get_header", ["host"], "x", (["host"], "x")),
        ("kong.nginx.get_var", ["http_authorization"], "x", (["http_authorization"], REDACTED)),
        ("kong.nginx.get_var", ["cookie_id"], "x", (["cookie_id"], REDACTED)),
        ("kong.response.set_header", ["set-cookie", ["a=b"]], None,
         (["set-cookie", REDACTED], None)),
        ("kong.response.set_headers", [{"x-api-key": "a", "b": ["c"]}], None,
         ([{"x-api-key": REDACTED, "b": ["c"]}], None)),
        ("kong.request.get_headers", [], {"cookie": ["a"], "host": ["h"]},
         ([], {"cookie": REDACTED, "host": ["h"]})),
        ("kong.response.exit", [200, {"user": {"password": "a", "id": 1}}], None,
         ([200, {"user": {"password": REDACTED, "id": 1}}], None)),
        ("kong.vault.get", ["{vault://env/x}"], "y", (["{vault://env/x}"], REDACTED)),
        ("kong.client.get_credential", [], {"id": "1", "hash": "h"},
         ([], {"id": "1", "hash": REDACTED})),
        ("kong.client.authenticate", [{"id": "a"}, {"id": "b", "data": "c"}], None,
         ([{"id": "a"}, {"id": "b", "data": REDACTED}], None)),
        ("kong.log.notice", ["token", "kept"], None, (["token", "kept"], None)),
        ("kong.log.notice", ["got Bearer abc.def"], None, (["got Bearer REDACTED"], None)),
        ("kong.request.get_path_with_query", [], "/a?b=1&api_key=x&c",
         ([], "/a?b=1&api_key=REDACTED&c")),
        ("kong.service.request.set_raw_body", [b"raw"], True, ([b"raw"], True)),
    ],
)  # fmt: skip
def test_calls(function: str, args: list[Any], result: Any, shown: tuple[Any, Any]) -> None:
    call = Call("access", function, args, result=result)
    assert redact_call(call) == shown
    assert call.args == args and call.result == result  # what was recorded stays as it is


def test_targets_and_values() -> None:
    assert redact_target("GET /?token=a&x=b&key=") == "GET /?token=REDACTED&x=b&key=REDACTED"
    assert redact(({"secret": 1}, "Basic YTpi", 3)) == [{"secret": REDACTED}, "Basic REDACTED", 3]
