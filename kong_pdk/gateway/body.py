"""Query strings and bodies: taken apart and put together as Kong does."""

from __future__ import annotations

import email.parser
import email.policy
import json
from typing import Any, Union
from urllib.parse import quote, unquote_plus

from .values import as_map, is_number, is_table, to_bytes, to_json, to_string, to_text

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
MULTIPART = "multipart/form-data"

#: A query argument's value; ``True`` where it has none (``?debug``).
Value = Union[str, bool]

_BOUNDARY = "8fd84e9444e3946c"
# RFC 3986's unreserved characters, which quote() leaves alone beside those of nginx.
_SAFE = "!'()*"


def parse_query(query: str, limit: int | None = None) -> list[tuple[str, Value]]:
    """Return the arguments of a query string in order.

    Args:
        query: the part behind the question mark.
        limit: how many arguments are looked at; ``None`` for all.
    """
    result: list[tuple[str, Value]] = []
    for item in query.split("&"):
        if limit is not None and len(result) >= limit:
            break
        name, equals, value = item.partition("=")
        name = unquote_plus(name, errors="surrogateescape")
        if name:
            result.append((name, unquote_plus(value, errors="surrogateescape") if equals else True))
    return result


def group(arguments: list[tuple[str, Value]]) -> dict[str, list[Value]]:
    """Return arguments by name, each with all its values."""
    result: dict[str, list[Value]] = {}
    for name, value in arguments:
        result.setdefault(name, []).append(value)
    return result


def multimap(arguments: list[tuple[str, Value]]) -> dict[str, list[Value]]:
    """Return arguments as they cross the wire: one without a value is an empty list."""
    grouped = group(arguments)
    return {name: [] if values == [True] else values for name, values in grouped.items()}


def simple_map(arguments: list[tuple[str, Value]]) -> dict[str, Any]:
    """Return arguments, or parts, as Lua has them: one value alone, several as a list."""
    return {name: v[0] if len(v) == 1 else v for name, v in group(arguments).items()}


def encode_query(arguments: Any) -> str:
    """Return a table of arguments as a query string with its names in order.

    Raises:
        ValueError: a name is no string, or a value has a type that cannot be sent.
    """
    parts: list[str] = []
    table = as_map(arguments)
    for name in table:
        if not isinstance(name, str):
            raise ValueError("the names of arguments must be strings")
    for name in sorted(table):
        value = table[name]
        for item in as_map(value).values() if is_table(value) else [value]:
            if not isinstance(item, (str, bool)) and not is_number(item):
                raise ValueError(f"argument {name!r} must be a string, a number or a boolean")
            if item is True:
                parts.append(_escape(name))
            elif item is not False:
                parts.append(f"{_escape(name)}={_escape(to_string(item))}")
    return "&".join(parts)


def _escape(text: str) -> str:
    return quote(to_bytes(text), safe=_SAFE)


def kind_of(content_type: str) -> str:
    """Return a content type without its parameters, in lower case."""
    return content_type.split(";", 1)[0].strip().lower()


def decode(content_type: str, data: bytes, limit: int) -> Any | None:
    """Return a body as a table.

    Args:
        content_type: how it is encoded, parameters included.
        data: the body.
        limit: how many arguments of a form are looked at.

    Returns:
        The table, or ``None`` where the body is not what the content type says, or the content type
        is none that Kong decodes.
    """
    kind = kind_of(content_type)
    # Kong looks at the beginning only: application/json-patch+json is JSON too.
    if kind.startswith(FORM):
        return simple_map(parse_query(to_text(data), limit))
    if kind.startswith(JSON):
        try:
            value = json.loads(to_text(data))
        except ValueError:
            return None
        return value if is_table(value) else None
    if kind.startswith(MULTIPART):
        return _decode_multipart(content_type, data)
    return None


def _decode_multipart(content_type: str, data: bytes) -> dict[str, Any] | None:
    head = b"Content-Type: " + to_bytes(content_type) + b"\r\n\r\n"
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + data)
    if not message.is_multipart():
        return None
    parts: list[tuple[str, Value]] = []
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        payload = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(payload, bytes):
            parts.append((name, to_text(payload)))
    return simple_map(parts)


def encode(content_type: str, table: Any) -> tuple[bytes, str] | None:
    """Return a table as a body, and the content type to announce it with.

    Returns:
        ``None`` where Kong does not encode the content type.

    Raises:
        ValueError: the table holds what the content type cannot carry.
    """
    kind = content_type.partition(";")[0]  # as it is: Kong knows one spelling when it writes
    if kind == FORM:
        return encode_query(table).encode("ascii"), content_type
    if kind == JSON:
        return to_bytes(to_json(table)), content_type
    if kind == MULTIPART:
        return _encode_multipart(content_type, table)
    return None


def _encode_multipart(content_type: str, table: Any) -> tuple[bytes, str]:
    message = email.message_from_string(f"Content-Type: {content_type}\n\n")
    boundary = message.get_boundary()
    if boundary is None:
        boundary, content_type = _BOUNDARY, f"{MULTIPART}; boundary={_BOUNDARY}"
    parts: list[str] = []
    values = as_map(table)
    if not all(isinstance(name, str) for name in values):
        raise ValueError("the names of values must be strings")
    for name, value in sorted(values.items()):
        if not isinstance(value, str) and not is_number(value):
            raise ValueError(f"value {name!r} must be a string or a number")
        head = f'Content-Disposition: form-data; name="{name}"'
        parts.append(f"--{boundary}\r\n{head}\r\n\r\n{to_string(value)}\r\n")
    return to_bytes("".join(parts) + f"--{boundary}--\r\n"), content_type
