#!/usr/bin/env python3
"""Removes, renames and masks fields of the service's JSON, and adds headers to the answer.

A field is named by its path, ``customer.card.number``; lists on the way are gone through, so that
``orders.total`` is the field of each order. Fields are removed first, then renamed, then masked.

PDK round trips:

- no JSON, 2: service.request.clear_header; response.get_headers
- JSON without such fields, 3: service.request.clear_header; response.get_headers,
  service.response.get_raw_body
- JSON with such fields, 6: service.request.clear_header; response.get_headers,
  service.response.get_raw_body, response.get_status, response.clear_header, response.exit
- JSON that cannot be read, 5: service.request.clear_header; response.get_headers,
  service.response.get_raw_body, log.err, response.exit

The first one, in access, asks the service not to compress its answer, which nobody could look into.
All headers come with one call, because two of them matter, and the last three are those of
helpers.replace_response_body. Headers that are added go along with the last call; where there is
none, one more sets them.

The phase ``response`` makes Kong buffer each answer, which costs memory and the time until it is
whole: bind the plugin to routes that need it.

Fails closed: an answer that says it is JSON and cannot be read as such, because it is broken or
compressed all the same, may hold what is to be hidden. The client gets a 502 in its place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import kong_pdk.pdk.kong as kong
from kong_pdk.pdk import helpers
from kong_pdk.schema import field, schema_of

version = "1.0.0"
priority = 790
on_error = "closed"


@dataclass
class Config:
    #: Paths of fields that clients do not get.
    remove: list[str] = field([])
    #: New names of fields, by their paths: ``{"customer.nm": "name"}``.
    rename: dict[str, str] = field({})
    #: Paths of fields of which clients get the last characters only.
    mask: list[str] = field([])
    #: How many characters that is; none are shown of a text that is not three times as long.
    shown: int = field(4, between=(0, 32))
    #: Headers that answers get, in place of those of the same name.
    headers: dict[str, str] = field({})


Schema = schema_of(Config)


class Plugin:
    def __init__(self, config: Config) -> None:
        self.config = config
        self.removed = [path.split(".") for path in config.remove]
        self.renamed = [(path.split("."), name) for path, name in config.rename.items()]
        self.masked = [path.split(".") for path in config.mask]

    def access(self, kong: kong.kong) -> None:
        kong.service.request.clear_header("accept-encoding")

    def response(self, kong: kong.kong) -> None:
        headers, _ = kong.response.get_headers()
        if is_json(headers):
            body, _ = kong.service.response.get_raw_body()
            try:
                document = json.loads(body) if body else None
            except (ValueError, RecursionError) as error:
                kong.log.err("transform-response: the answer cannot be read: ", error)
                kong.response.exit(502, {"message": "the service's answer cannot be passed on"})
            if self.transform(document):
                changed = json.dumps(document, separators=(",", ":")).encode()
                ours = dict(self.config.headers)
                if "etag" in headers:  # which was that of the other body
                    ours["ETag"] = f'"{hashlib.sha256(changed).hexdigest()[:32]}"'
                helpers.replace_response_body(kong, changed, ours)
        if self.config.headers:
            kong.response.set_headers(self.config.headers)

    def transform(self, document: Any) -> bool:
        """Change a document in place; say whether there was anything to change."""
        changed = False
        for path in self.removed:
            for owner in owners(document, path):
                del owner[path[-1]]
                changed = True
        for path, name in self.renamed:
            for owner in owners(document, path):
                owner[name] = owner.pop(path[-1])
                changed = True
        for path in self.masked:
            for owner in owners(document, path):
                owner[path[-1]] = self.mask(owner[path[-1]])
                changed = True
        return changed

    def mask(self, value: Any) -> str:
        """What clients get of a value: never its length, and nothing of a short one."""
        shown = self.config.shown
        if isinstance(value, str) and 0 < 3 * shown <= len(value):
            return "****" + value[-shown:]
        return "****"


def is_json(headers: dict[str, list[str]]) -> bool:
    """Whether an answer says of itself that it is JSON, such as ``application/problem+json``."""
    content_type = "".join(headers.get("content-type", [])).partition(";")[0].strip().lower()
    return content_type == "application/json" or content_type.endswith("+json")


def owners(value: Any, path: list[str]) -> Iterator[dict[str, Any]]:
    """The objects that have the field at the end of a path."""
    if isinstance(value, list):
        for each in value:
            yield from owners(each, path)
    elif isinstance(value, dict) and path[0] in value:
        if len(path) == 1:
            yield value
        else:
            yield from owners(value[path[0]], path[1:])


if __name__ == "__main__":
    from kong_pdk.cli import start_dedicated_server

    start_dedicated_server("transform-response", Plugin, version, priority, Schema)
