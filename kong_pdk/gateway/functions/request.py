"""``kong.request``: what the client sent."""

from __future__ import annotations

import posixpath
import re
from typing import Any

from .. import body
from ..exchange import Exchange
from ..headers import normal
from ..values import is_number, to_bytes, to_text, type_name
from .checks import limit, need_string
from .registry import PdkError, check, pdk

_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_RESERVED = b"!#$%&'()*+,/:;=?@[]"  # RFC 3986, and the percent sign


def _need_access(exchange: Exchange) -> None:
    """Refuse what the log phase knows only if it was saved in the access phase."""
    check(
        exchange.phase != "log" or exchange.reached_access,
        "the request it asks about is over, and has ended before the access phase",
    )


@pdk("kong.request.get_scheme")
def get_scheme(exchange: Exchange) -> str:
    _need_access(exchange)
    return exchange.request.scheme


@pdk("kong.request.get_host")
def get_host(exchange: Exchange) -> str:
    _need_access(exchange)
    return exchange.request.host


@pdk("kong.request.get_port")
def get_port(exchange: Exchange) -> int:
    return exchange.server_port


@pdk("kong.request.get_forwarded_scheme")
def get_forwarded_scheme(exchange: Exchange) -> str:
    given = _forwarded(exchange, "x-forwarded-proto")
    return given.lower() if given else exchange.request.scheme


@pdk("kong.request.get_forwarded_host")
def get_forwarded_host(exchange: Exchange) -> str:
    given = _forwarded(exchange, "x-forwarded-host")
    return given.split(":", 1)[0].lower() if given else exchange.request.host


@pdk("kong.request.get_forwarded_port")
def get_forwarded_port(exchange: Exchange) -> int:
    for given in (
        _forwarded(exchange, "x-forwarded-port"),
        (_forwarded(exchange, "x-forwarded-host") or "").rpartition(":")[2],
    ):
        if given and given.isdigit() and 1 <= int(given) <= 65535:
            return int(given)
    return exchange.server_port


@pdk("kong.request.get_forwarded_path")
def get_forwarded_path(exchange: Exchange) -> str:
    return _forwarded(exchange, "x-forwarded-path") or get_path(exchange)


@pdk("kong.request.get_forwarded_prefix")
def get_forwarded_prefix(exchange: Exchange) -> str | None:
    """Return the header where it is believed, else what the route has stripped."""
    own = exchange.stripped if exchange.phase != "rewrite" else None  # routes come after that
    return _forwarded(exchange, "x-forwarded-prefix") or own


def _forwarded(exchange: Exchange, name: str) -> str | None:
    return exchange.request.headers.get(name) if exchange.trusts_client else None


@pdk("kong.request.get_http_version")
def get_http_version(exchange: Exchange) -> float:
    return exchange.request.version


@pdk("kong.request.get_method")
def get_method(exchange: Exchange) -> str:
    return exchange.request.method


@pdk("kong.request.get_path")
def get_path(exchange: Exchange) -> str:
    """Return the path with its escapes undone, no dot segments and no doubled slashes."""
    path = to_text(_ESCAPE.sub(_unescape, to_bytes(get_raw_path(exchange))))
    clean = posixpath.normpath(re.sub("/+", "/", path)) if path else ""
    slash = path.endswith(("/", "/.", "/..")) and not clean.endswith("/")
    return clean + "/" if slash else clean


def _unescape(escape: re.Match[bytes]) -> bytes:
    """Return the byte of an escape; a reserved one, such as a slash, stays escaped."""
    byte = bytes.fromhex(escape[1].decode("ascii"))
    return escape[0].upper() if byte in _RESERVED else byte


@pdk("kong.request.get_raw_path")
def get_raw_path(exchange: Exchange) -> str:
    _need_access(exchange)
    return exchange.request.target.partition("?")[0]


@pdk("kong.request.get_path_with_query")
def get_path_with_query(exchange: Exchange) -> str:
    _need_access(exchange)
    return exchange.request.target


@pdk("kong.request.get_raw_query")
def get_raw_query(exchange: Exchange) -> str:
    return exchange.request.query


@pdk("kong.request.get_query_arg")
def get_query_arg(exchange: Exchange, name: Any) -> body.Value | None:
    need_string("the name of a query argument", name)
    for found, value in body.parse_query(exchange.request.query, 100):
        if found == name:
            return value
    return None


@pdk("kong.request.get_query")
def get_query(exchange: Exchange, max_args: Any) -> dict[str, list[body.Value]]:
    count = limit("max_args", max_args)
    return body.multimap(body.parse_query(exchange.request.query, count))


@pdk("kong.request.get_header")
def get_header(exchange: Exchange, name: Any) -> str | None:
    return exchange.request.headers.get(need_string("a header's name", name))


@pdk("kong.request.get_headers")
def get_headers(exchange: Exchange, max_headers: Any) -> dict[str, list[str]]:
    if exchange.phase == "log":
        max_headers = None
    return exchange.request.headers.as_map(limit("max_headers", max_headers))


@pdk("kong.request.get_raw_body")
def get_raw_body(exchange: Exchange, max_allowed_file_size: Any) -> bytes:
    data, problem = _stored_body(exchange, max_allowed_file_size)
    if data is None:
        raise PdkError(problem)
    return data


@pdk("kong.request.get_body")
def get_body(
    exchange: Exchange, mimetype: Any, max_args: Any, max_allowed_file_size: Any
) -> Any | None:
    content_type = mimetype or exchange.request.headers.get("content-type")
    if content_type is None:
        return None
    count = limit("max_args", max_args)
    if body.kind_of(str(content_type)).startswith(body.FORM):
        max_allowed_file_size = None  # nginx's own parser does not look at files
    data, problem = _stored_body(exchange, max_allowed_file_size)
    if data is None:
        exchange.log("debug", f"kong.request.get_body gives nil: {problem}")
        return None
    return body.decode(_full_type(exchange, str(content_type)), data, count)


def _stored_body(exchange: Exchange, max_file: Any) -> tuple[bytes | None, str]:
    """Return the body if nginx would show it, or what keeps it from being seen."""
    data = exchange.request.body
    if len(data) <= exchange.body_buffer:
        return data, ""
    if max_file is None:
        return None, (
            f"the body has {len(data)} bytes, more than nginx keeps in memory "
            f"({exchange.body_buffer}); give max_allowed_file_size, or raise "
            "nginx_http_client_body_buffer_size"
        )
    check(is_number(max_file), f"max_allowed_file_size must be a number, not {type_name(max_file)}")
    if max_file < 0 or 0 < max_file < len(data):
        return None, f"the body has {len(data)} bytes, more than max_allowed_file_size ({max_file})"
    return data, ""


def _full_type(exchange: Exchange, content_type: str) -> str:
    """Return the request's own type where it is of the kind asked for: it has the boundary."""
    own = exchange.request.headers.get("content-type") or ""
    same = normal(own.split(";", 1)[0].strip()) == normal(content_type.split(";", 1)[0].strip())
    return own if same else content_type


@pdk("kong.request.get_start_time")
def get_start_time(exchange: Exchange) -> float:
    """Return when the request began, in milliseconds since the epoch."""
    return round(exchange.started * 1000)


@pdk("kong.request.get_uri_captures")
def get_uri_captures(exchange: Exchange) -> dict[str, Any]:
    return exchange.captures
