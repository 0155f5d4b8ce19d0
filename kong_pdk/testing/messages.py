"""What a test says of requests and answers, in the form that the gateway has them."""

from __future__ import annotations

import json as json_module
from collections.abc import Iterable, Mapping
from typing import Any, Union
from urllib.parse import urlencode, urlsplit

from .. import gateway as core

#: Headers as a test gives them: a mapping, in which a list gives several lines, or pairs.
HeadersLike = Union[
    core.Headers,
    Mapping[str, Union[str, int, list[str], tuple[str, ...]]],
    Iterable[tuple[str, str]],
    None,
]
Body = Union[str, bytes, None]

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"

_PORTS = {"http": 80, "https": 443}


def make_headers(given: HeadersLike) -> core.Headers:
    """Return headers as the gateway keeps them.

    Raises:
        TypeError: a name or a value is no text.
    """
    if isinstance(given, core.Headers):
        return given.copy()
    lines: list[tuple[str, str]] = []
    source: Any = () if given is None else given
    pairs: Iterable[tuple[Any, Any]] = source.items() if isinstance(given, Mapping) else source
    for name, value in pairs:
        if not isinstance(name, str):
            raise TypeError(f"a header's name must be a str, got {name!r}")
        for each in value if isinstance(value, (list, tuple)) else [value]:
            lines.append((name, _header_text(name, each)))
    return core.Headers(lines)


def _header_text(name: str, value: object) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise TypeError(f"the value of header {name!r} must be a str, got {value!r}")
    if "\n" in value or "\r" in value:
        raise ValueError(f"the value of header {name!r} has a line break: {value!r}")
    return value


def make_body(
    headers: core.Headers,
    body: Body,
    json: Any,
    form: Any = None,
) -> bytes:
    """Return a body's bytes, and set its ``Content-Type`` unless the headers have one.

    Raises:
        TypeError: more than one of the three is given, or the body is no text.
    """
    if sum(each is not None for each in (body, json, form)) > 1:
        raise TypeError("give one of body, json and form")
    if json is not None:
        kind, data = JSON, json_module.dumps(json).encode()
    elif form is not None:
        kind, data = FORM, urlencode(form, doseq=True).encode()
    elif isinstance(body, str):
        return body.encode("utf-8", "surrogateescape")
    elif isinstance(body, (bytes, bytearray)):
        return bytes(body)
    elif body is None:
        return b""
    else:
        raise TypeError(
            f"body must be a str or bytes, got {type(body).__name__}; "
            "give json= or form= for a table"
        )
    if "content-type" not in headers:
        headers.set("Content-Type", kind)
    return data


class Response(core.Response):
    """What the service answers.

    Args:
        status: the HTTP status.
        headers: a mapping, in which a list gives several lines, or pairs.
        body: a text or bytes.
        json: in place of ``body``: sent as JSON, with the content type.
    """

    def __init__(
        self,
        status: int = 200,
        headers: HeadersLike = None,
        body: Body = None,
        *,
        json: Any = None,
    ) -> None:
        lines = make_headers(headers)
        data = make_body(lines, body, json)
        if data and "content-length" not in lines:
            lines.set("Content-Length", str(len(data)))
        super().__init__(status, lines, data)

    @property
    def text(self) -> str:
        """The body as text; bytes that are not UTF-8 are surrogate escapes."""
        return self.body.decode("utf-8", "surrogateescape")


def ready_response(given: object, where: str) -> core.Response:
    """Return what the service's function has returned, made safe to be changed.

    Raises:
        TypeError: it is no Response.
    """
    if not isinstance(given, core.Response):
        raise TypeError(
            f"{where} must return a kong_pdk.testing.Response, got {type(given).__name__}"
        )
    return core.Response(given.status, given.headers.copy(), given.body)


def echo(request: core.ServiceRequest) -> core.Response:
    """Answer a request with its own headers and body: a service for ``gateway.upstream``."""
    return Response(200, request.headers, request.body)


def make_request(
    method: str,
    target: str,
    headers: HeadersLike,
    body: Body,
    json: Any,
    form: Any,
    http_version: float,
    tls: bool,
) -> tuple[core.Request, int]:
    """Return a client's request, with the headers that every client sends, and its port.

    Raises:
        ValueError: the target is neither a path nor a URL.
    """
    scheme, port, host = ("https", 8443, "localhost") if tls else ("http", 8000, "localhost")
    if target.startswith(("http://", "https://")):
        parts = urlsplit(target)
        scheme, host = parts.scheme, parts.hostname or ""
        host = f"[{host}]" if ":" in host else host
        port = parts.port or _PORTS[scheme]
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not target.startswith("/") and target != "*":
        raise ValueError(
            f"the target must be a path like '/orders?page=2' or a URL, got {target!r}"
        )
    lines = make_headers(headers)
    data = make_body(lines, body, json, form)
    if "host" not in lines:
        name = host if port == _PORTS[scheme] else f"{host}:{port}"
        lines = core.Headers([("Host", name), *lines])
    if data and "content-length" not in lines and "transfer-encoding" not in lines:
        lines.set("Content-Length", str(len(data)))
    return core.Request(method.upper(), target, lines, data, http_version, scheme), port
