"""``kong.response``: the answer that the client gets."""

from __future__ import annotations

from typing import Any, NoReturn

from .. import error_pages
from ..exchange import Exchange
from ..headers import Headers, normal
from ..values import as_map, is_number, is_table, to_bytes, to_json, type_name
from .checks import header_map, header_values, limit, need_string
from .registry import ANSWERED, BEFORE_LOG, PdkError, PhaseEnded, check, pdk


@pdk("kong.response.get_status", ANSWERED)
def get_status(exchange: Exchange) -> int:
    return exchange.response.status


@pdk("kong.response.get_header", ANSWERED)
def get_header(exchange: Exchange, name: Any) -> str | None:
    return exchange.response.headers.get(need_string("a header's name", name))


@pdk("kong.response.get_headers", ANSWERED, step="plugin.StepMultiMap")
def get_headers(exchange: Exchange, max_headers: Any) -> dict[str, list[str]]:
    if exchange.phase == "log":
        max_headers = None
    return exchange.response.headers.as_map(limit("max_headers", max_headers))


@pdk("kong.response.get_source", ANSWERED)
def get_source(exchange: Exchange) -> str:
    return exchange.source


@pdk("kong.response.set_status", BEFORE_LOG)
def set_status(exchange: Exchange, status: Any) -> None:
    exchange.response.status = _status(status, 100)


@pdk("kong.response.set_header", BEFORE_LOG)
def set_header(exchange: Exchange, name: Any, value: Any) -> None:
    header, values = header_values(name, value)
    if not _is_framing(exchange, header):
        exchange.response.headers.set(header, *values)


@pdk("kong.response.add_header", BEFORE_LOG)
def add_header(exchange: Exchange, name: Any, value: Any) -> None:
    header, values = header_values(name, value)
    if not _is_framing(exchange, header):
        exchange.response.headers.add(header, *values)


@pdk("kong.response.clear_header", BEFORE_LOG)
def clear_header(exchange: Exchange, name: Any) -> None:
    exchange.response.headers.remove(need_string("a header's name", name))


@pdk("kong.response.set_headers", BEFORE_LOG)
def set_headers(exchange: Exchange, headers: Any) -> None:
    _apply(exchange, header_map(headers))


@pdk("kong.response.exit", BEFORE_LOG)
def exit_(exchange: Exchange, status: Any, body: Any, headers: Any) -> NoReturn:
    """Answer the client; nothing more of this phase is run.

    Without a body the answer is empty here; nginx puts in a page of its own for some codes.
    """
    code = _status(status, 100)
    if body is not None and not isinstance(body, str) and not is_table(body):
        raise PdkError(f"body must be nil, a string or a table, not {type_name(body)}")
    lines = header_map(headers, required=False)
    if is_table(body):
        body = _json(body)
        if lines.get("content-type") is None:
            lines.set("Content-Type", error_pages.JSON_TYPE)
    _finish(exchange, code, body, lines)


@pdk("kong.response.error", BEFORE_LOG)
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
    lines.set("Content-Type", content_type)
    text = error_pages.message_for(code) if message is None else message
    page = error_pages.render(text, content_type, exchange.request_id)
    _finish(exchange, code, page, lines)


def _finish(exchange: Exchange, status: int, body: str | None, headers: Headers) -> NoReturn:
    kept = Headers(line for line in headers if not _is_framing(exchange, line[0]))
    exchange.exited = exchange.phase
    exchange.answer(status, None if body is None else to_bytes(body), kept)
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
