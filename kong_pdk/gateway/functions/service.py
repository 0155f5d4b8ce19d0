"""``kong.service``: where the request goes, what is sent there and what came back."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from .. import body
from ..exchange import Exchange, Response
from ..headers import normal
from ..values import as_map, is_number, is_table, to_bytes, to_string, type_name
from .checks import header_map, header_values, limit, need_integer, need_string
from .registry import PdkError, check, pdk

_METHODS = frozenset(
    [
        "GET",
        "HEAD",
        "PUT",
        "POST",
        "DELETE",
        "OPTIONS",
        "MKCOL",
        "COPY",
        "MOVE",
        "PROPFIND",
        "PROPPATCH",
        "LOCK",
        "UNLOCK",
        "PATCH",
        "TRACE",
    ]
)
_MAX_TIMEOUT = 2**31 - 2
# What may stand in a path as it is; the percent sign too, so that an escape is not escaped again.
_PATH_SAFE = "/%:@!$&'()*+,;=-._~"


@pdk("kong.service.set_upstream")
def set_upstream(exchange: Exchange, host: Any) -> bool | None:
    name = need_string("host", host)
    if name not in exchange.upstreams:
        exchange.log("notice", f"there is no Upstream entity named {name!r} in this gateway")
        return None
    exchange.service.host, exchange.service.port = exchange.upstreams[name]
    return True


@pdk("kong.service.set_target")
def set_target(exchange: Exchange, host: Any, port: Any) -> None:
    name = need_string("host", host)
    number = need_integer("port", port, 0, 65535)
    exchange.upstream_host = name
    exchange.service.host, exchange.service.port = exchange.upstreams.get(name, (name, number))


@pdk("kong.service.set_retries")
def set_retries(exchange: Exchange, retries: Any) -> None:
    exchange.service.retries = need_integer("retries", retries, 0, 32767)


@pdk("kong.service.set_timeouts")
def set_timeouts(exchange: Exchange, connect: Any, write: Any, read: Any) -> None:
    service = exchange.service
    service.connect_timeout = need_integer("connect_timeout", connect, 1, _MAX_TIMEOUT)
    service.write_timeout = need_integer("write_timeout", write, 1, _MAX_TIMEOUT)
    service.read_timeout = need_integer("read_timeout", read, 1, _MAX_TIMEOUT)


@pdk("kong.service.set_tls_verify")
def set_tls_verify(exchange: Exchange, on: Any) -> bool:
    check(isinstance(on, bool), f"the argument must be a boolean, not {type_name(on)}")
    exchange.service.tls_verify = bool(on)
    return True


@pdk("kong.service.set_tls_verify_depth")
def set_tls_verify_depth(exchange: Exchange, depth: Any) -> bool:
    check(is_number(depth), f"the depth must be a number, not {type_name(depth)}")
    check(depth >= 0, f"the depth must not be negative, and is {depth}")
    return True


@pdk("kong.service.request.disable_tls")
def disable_tls(exchange: Exchange) -> bool:
    return True


@pdk("kong.service.request.enable_buffering")
def enable_buffering(exchange: Exchange) -> None:
    exchange.buffered = True


@pdk("kong.service.request.set_scheme")
def set_scheme(exchange: Exchange, scheme: Any) -> None:
    name = need_string("scheme", scheme)
    check(name in ("http", "https"), f"the scheme must be http or https, not {name!r}")
    if exchange.phase != "rewrite":  # the route's service sets it after that phase
        exchange.service.scheme = name


@pdk("kong.service.request.set_path")
def set_path(exchange: Exchange, path: Any) -> None:
    text = need_string("path", path)
    check(text.startswith("/"), "path must start with /")
    if exchange.phase != "rewrite":  # the route sets it after that phase
        exchange.upstream_path = quote(to_bytes(text), safe=_PATH_SAFE)


@pdk("kong.service.request.set_raw_query")
def set_raw_query(exchange: Exchange, query: Any) -> None:
    exchange.request.query = need_string("query", query)


@pdk("kong.service.request.set_method")
def set_method(exchange: Exchange, method: Any) -> None:
    name = need_string("method", method)
    check(name in _METHODS, f"{name!r} is no method that Kong can send")
    exchange.request.method = name


@pdk("kong.service.request.set_query")
def set_query(exchange: Exchange, args: Any) -> None:
    check(is_table(args), f"args must be a table, not {type_name(args)}")
    try:
        exchange.request.query = body.encode_query(args)
    except ValueError as problem:
        raise PdkError(str(problem)) from problem


@pdk("kong.service.request.clear_query_arg")
def clear_query_arg(exchange: Exchange, name: Any) -> None:
    wanted = need_string("the name of a query argument", name)
    kept = []
    for item in exchange.request.query.split("&"):
        parsed = body.parse_query(item)
        if not parsed or parsed[0][0] != wanted:
            kept.append(item)
    exchange.request.query = "&".join(kept).replace("+", "%20")


@pdk("kong.service.request.set_header")
def set_header(exchange: Exchange, header: Any, value: Any) -> None:
    name, values = header_values(header, value)
    if name == ":authority":
        return  # Kong sets it for gRPC only
    if normal(name) == "host":
        values = _single(exchange, name, value)
        exchange.upstream_host = values[0]
    exchange.request.headers.set(name, *values)


@pdk("kong.service.request.add_header")
def add_header(exchange: Exchange, header: Any, value: Any) -> None:
    name, _ = header_values(header, value)
    if normal(name) == "host":
        set_header(exchange, header, value)
    else:
        exchange.request.headers.add(name, *_single(exchange, name, value))


@pdk("kong.service.request.clear_header")
def clear_header(exchange: Exchange, header: Any) -> None:
    exchange.request.headers.remove(need_string("header", header))


@pdk("kong.service.request.set_headers")
def set_headers(exchange: Exchange, headers: Any) -> None:
    header_map(headers)
    for name, value in as_map(headers).items():
        set_header(exchange, name, value)


def _single(exchange: Exchange, name: str, value: Any) -> list[str]:
    """Return the one line that a value gives where Kong does not make lines of a list."""
    if is_table(value):
        exchange.log("warn", f"Kong does not make lines out of a list for {name} in this call")
        return [to_string(value)]
    return header_values(name, value)[1]


@pdk("kong.service.request.set_raw_body")
def set_raw_body(exchange: Exchange, data: Any) -> None:
    exchange.request.body = to_bytes(need_string("body", data))


@pdk("kong.service.request.set_body")
def set_body(exchange: Exchange, args: Any, mimetype: Any) -> bool | None:
    check(is_table(args), f"args must be a table, not {type_name(args)}")
    if mimetype is not None:
        need_string("mimetype", mimetype)
    content_type = mimetype or exchange.request.headers.get("content-type")
    if content_type is None:
        return None
    try:
        encoded = body.encode(content_type, args)
    except ValueError as problem:
        raise PdkError(str(problem)) from problem
    if encoded is None:
        raise PdkError(f"Kong cannot write a body of type {content_type!r}")
    exchange.request.body, announced = encoded
    exchange.request.headers.set("Content-Type", announced)
    return True


def _came(exchange: Exchange) -> Response:
    """Return what the upstream answered.

    Raises:
        PdkError: it is not there, or not any more.
    """
    if exchange.phase == "log" and not exchange.buffered:
        raise PdkError("the request it asks about is over when the log phase runs")
    return exchange.service_response or Response(0)


@pdk("kong.service.response.get_status")
def get_status(exchange: Exchange) -> int | None:
    return _came(exchange).status or None


@pdk("kong.service.response.get_header")
def get_header(exchange: Exchange, name: Any) -> str | None:
    wanted = need_string("name", name)
    return _came(exchange).headers.get(wanted)


@pdk("kong.service.response.get_headers")
def get_headers(exchange: Exchange, max_headers: Any) -> dict[str, list[str]]:
    """Return an empty map: a buffered response's headers do not cross from Kong.

    Kong has them in a table that looks them up when they are asked for by name, so that none is
    found when the table is sent. ``kong.service.response.get_header`` works.
    """
    limit("max_headers", max_headers)
    _came(exchange)
    exchange.log(
        "warn",
        "kong.service.response.get_headers gives nothing when the response is buffered, as in "
        "Kong; use kong.service.response.get_header or kong.response.get_headers",
    )
    return {}


@pdk("kong.service.response.get_raw_body")
def get_raw_body(exchange: Exchange) -> bytes:
    return _buffered_body(exchange)


@pdk("kong.service.response.get_body")
def get_body(exchange: Exchange, mimetype: Any, max_args: Any) -> Any | None:
    data = _buffered_body(exchange)
    content_type = mimetype or _came(exchange).headers.get("content-type")
    count = limit("max_args", max_args)
    if content_type is None:
        return None
    table = body.decode(str(content_type), data, count)
    return as_map(table) if isinstance(table, dict) else table


def _buffered_body(exchange: Exchange) -> bytes:
    check(
        exchange.buffered,
        "the upstream's body is there only with buffering: call "
        "kong.service.request.enable_buffering before, or give the plugin a response phase",
    )
    return exchange.service_response.body if exchange.service_response else b""
