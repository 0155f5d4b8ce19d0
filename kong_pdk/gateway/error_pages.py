"""The bodies of the answers that Kong makes itself: errors in a format that the client accepts."""

from __future__ import annotations

import re
from http import HTTPStatus

JSON_TYPE = "application/json; charset=utf-8"

_MESSAGES = {
    400: "Bad request",
    404: "Not found",
    405: "Method not allowed",
    408: "Request timeout",
    411: "Length required",
    412: "Precondition failed",
    413: "Payload too large",
    414: "URI too long",
    417: "Expectation failed",
    500: "An unexpected error occurred",
    502: "An invalid response was received from the upstream server",
    503: "The upstream server is currently unavailable",
    504: "The upstream server is timing out",
}

# Where Kong's words are not those of the standard, or not those of each Python.
_OTHER_MESSAGES = {
    416: "Range not satisfiable",
    422: "Unprocessable entity",
    494: "Request header or cookie too large",
    505: "HTTP version not supported",
}

_TYPES: dict[str, str] = {
    "text/html": "text/html; charset=utf-8",
    "application/json": JSON_TYPE,
    "text/plain": "text/plain; charset=utf-8",
    "application/xml": "application/xml; charset=utf-8",
    "application/*": JSON_TYPE,
    "text/*": "text/plain; charset=utf-8",
    "*/*": JSON_TYPE,
}

_FORMATS: dict[str, str] = {
    "application/json": '{{\n  "message":"{message}",\n  "request_id":"{request_id}"\n}}',
    "text/plain": "{message}\nrequest_id: {request_id}\n",
    "application/xml": (
        '<?xml version="1.0" encoding="UTF-8"?>\n<error>\n  <message>{message}</message>\n'
        "  <requestid>{request_id}</requestid>\n</error>\n"
    ),
    "text/html": (
        '<!doctype html>\n<html>\n  <head>\n    <meta charset="utf-8">\n'
        "    <title>Error</title>\n  </head>\n  <body>\n    <h1>Error</h1>\n"
        "    <p>{message}.</p>\n    <p>request_id: {request_id}</p>\n  </body>\n</html>\n"
    ),
}

_QUALITY = re.compile(r";\s*q\s*=\s*([01](?:\.\d{0,3})?)", re.IGNORECASE)


#: Statuses for which nginx asks Kong for a body when an answer has none.
WITH_PAGE = frozenset(_MESSAGES)


def message_for(status: int) -> str:
    """Return what an error of this status says when nobody gave it a text."""
    known = _MESSAGES.get(status) or _OTHER_MESSAGES.get(status)
    if known is None and status in set(HTTPStatus) and status >= 400:
        known = HTTPStatus(status).phrase.capitalize()
    return known or f"The upstream server responded with {status}"


def has_page(content_type: str) -> bool:
    """Say whether there is a format for a content type, which must be written just as Kong does."""
    return content_type in ("", "application/grpc", *_FORMATS) or content_type in _TYPES.values()


def accepted_type(accept: str | None) -> str:
    """Return the content type that an ``Accept`` header likes best; JSON if there is none."""
    best, quality = JSON_TYPE, 0.0
    for item in (accept or "").split(","):
        found = _QUALITY.search(item)
        weight = float(found.group(1)) if found else 1.0
        name = item.split(";", 1)[0].strip().lower()
        if "/" in name and weight > quality:
            best, quality = _TYPES.get(name, JSON_TYPE), weight
    return best


def render(message: str, content_type: str, request_id: str) -> str:
    """Return the body of an error in a content type; JSON where the type has no format."""
    if content_type in ("", "application/grpc"):
        return ""
    name = content_type.split(";", 1)[0].strip().lower()
    template = _FORMATS.get(name, _FORMATS["application/json"])
    return template.format(message=message, request_id=request_id)
