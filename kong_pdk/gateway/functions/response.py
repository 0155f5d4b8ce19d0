"""``kong.response``: the answer that the client gets."""

from __future__ import annotations

from typing import Any, NoReturn

from .. import error_pages
from ..exchange import Exchange
from ..headers import Headers, normal
from ..values import as_map, is_number, is_table, to_bytes, to_json, type_name
from .checks import header_map, header_values, limit, need_string
from .registry import PdkError, PhaseEnded, check, pdk

_STREAM_STATUSES = (200, 400, 403, 500, 502, 503)


@pdk("kong.response.get_status")
def get_status(exchange: Exchange) -> int:
    return exchange.response.status


@pdk("kong.response.get_header")
def get_header(exchange: Exchange, name: Any) -> str | None:
    return exchange.response.headers.get(need_string("a header's name", name))


@pdk("kong.response.get_headers")
def get_headers(exchange: Exchange, max_headers: Any) -> dict[str, list[str]]:
    if exchange.phase == "log":
        max_headers = None
    return exchange.response.headers.as_map(limit("max_headers", max_headers))


@pdk("kong.response.get_source")
def get_source(exchange: Exchange) -> str:
    return exchange.source


@pdk("kong.response.set_status")
def set_status(exchange: Exchange, status: Any) -> None:
    exchange.response.status = _status(status, 100)


@pdk("kong.response.set_header")
def set_header(exchange: Exchange, name: Any, value: Any) -> None:
    header, values = header_values(name, value)
    if not _is_framing(exchange, header):
        exchange.response.headers.set(header, *values)


@pdk("kong.response.add_header")
def add_header(exchange: Exchange, name: Any, value: Any) -> None:
    header, values = header_values(name, value)
    if not _is_framing(exchange, header):
        exchange.response.headers.add(header, *values)


@pdk("kong.response.clear_header")
def clear_header(exchange: Exchange, name: Any) -> None:
    exchange.response.headers.remove(need_string("a header's name", name))


@pdk("kong.response.set_headers")
def set_headers(exchange: Exchange, headers: Any) -> None:
    _apply(exchange, header_map(headers))


@pdk("kong.response.exit")
def exit_(exchange: Exchange, status: Any, body: Any, headers: Any) -> NoReturn:
    """Answer the client; nothing more of this phase is run.

    Without a body the answer is empty, but for the statuses that Kong has a text for.
    """
    code = _status(status, 100)
    if body is not None and not isinstance(body, str) and not is_table(body):
        raise PdkError(f"body must be nil, a string or a table, not {type_name(body)}")
    lines = header_map(headers, required=False)
    if is_table(body):
        asked = exchange.request.headers.get("content-type") or ""
        check(not asked.startswith("application/grpc"), "a table cannot be the body for gRPC")
        body = _json(body)
        if exchange.phase != "preread" and lines.get("content-type") is None:
            lines.set("Content-Type", error_pages.JSON_TYPE)
    if exchange.phase == "preread":
        _close_stream(exchange, code, body)
    elif body is None and code in error_pages.WITH_PAGE:
        page, headers_of_page = exchange.error_page(code)
        for name, value in headers_of_page:
            lines.set(name, value)
        _finish(exchange, code, page, lines)
    _finish(exchange, code, None if body is None else to_bytes(body), lines)


def _close_stream(exchange: Exchange, status: int, body: str | None) -> NoReturn:
    """End a stream connection, to which a status other than 200 is only a sign in the log."""
    known = ", ".join(map(str, _STREAM_STATUSES))
    check(status in _STREAM_STATUSES, f"the status of a stream must be one of {known}")
    if body is not None and status != 200:
        exchange.log("err", f"the stream connection is refused with status {status}: {body}")
        body = None
    _finish(exchange, status, None if body is None else to_bytes(body), Headers())


@pdk("kong.response.error")
def error(exchange: Exchange, status: Any, message: Any, headers: Any) -> NoReturn:
    """Answer the client with an error in the format that it accepts."""
    code = _status(status, 400)
    if is_table(message):
        message = _json(message)
    if message is not None and not isinstance(message, str):
        raise PdkError(f"message must be nil, a string or a table, not {type_name(message)}")
    lines = header_map(headers, required=False)
    # Only this spelling counts in Kong, which looks the header up in the table as it was given.
    content_type = next((value for name, value in lines if name == "Content-Type"), None)
    if content_type is None:
        content_type = error_pages.accepted_type(exchange.request.headers.get("accept"))
    check(error_pages.has_page(content_type), f"there is no error page of type {content_type!r}")
    lines.set("Content-Type", content_type)
    text = error_pages.message_for(code) if message is None else message
    _finish(exchange, code, exchange.page(text, content_type), lines)


def _finish(exchange: Exchange, status: int, body: bytes | None, headers: Headers) -> NoReturn:
    kept = Headers(line for line in headers if not _is_framing(exchange, line[0]))
    exchange.exited = exchange.phase
    exchange.answer(status, body, kept)
    raise PhaseEnded


def _apply(exchange: Exchange, headers: Headers) -> None:
    for name in dict.fromkeys(name for name, _ in headers):
        if not _is_framing(exchange, name):
            exchange.response.headers.set(name, *headers.get_all(name))


def _is_framing(exchange: Exchange, name: str) -> bool:
    """Say whether a header is nginx's own affair; setting it is ignored with a warning."""
    if normal(name) != "transfer-encoding":
        return False
    exchange.log("warn", "Transfer-Encoding cannot be set by a plugin; it was ignored")
    return True


def _status(value: Any, low: int) -> int:
    check(is_number(value), f"the status must be a number, not {type_name(value)}")
    check(low <= value <= 599, f"the status must be a number between {low} and 599, not {value}")
    return int(value)


def _json(value: Any) -> str:
    try:
        return to_json(value if isinstance(value, list) else as_map(value))
    except ValueError as problem:
        raise PdkError(f"the table cannot be sent as JSON: {problem}") from problem
