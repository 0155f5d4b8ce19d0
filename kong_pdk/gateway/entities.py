"""Kong's entities: consumers, credentials, routes and services, with what is not given."""

from __future__ import annotations

import difflib
import functools
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from .exchange import Exchange, Service

Entity = Mapping[str, Any]

#: Namespace of the ids of entities for which none is given: the same ones in each run.
_IDS = uuid.UUID("6f6bd8a5-6c3c-4ac4-a93e-5e3b6b2b0d57")

_DEFAULT_PORTS = {"http": 80, "https": 443, "tcp": 80, "tls": 443, "udp": 80}
#: Fields of Kong's entities, beside those that have a default here.
_COMMON = ("id", "name", "tags", "created_at", "updated_at", "ws_id")
_SERVICE = (
    *_COMMON, "protocol", "host", "port", "path", "retries", "connect_timeout", "write_timeout",
    "read_timeout", "enabled", "client_certificate", "tls_verify", "tls_verify_depth",
    "ca_certificates",
)  # fmt: skip
_ROUTE = (
    *_COMMON, "protocols", "methods", "hosts", "paths", "headers", "snis", "sources",
    "destinations", "expression", "priority", "service", "strip_path", "preserve_host",
    "request_buffering", "response_buffering", "https_redirect_status_code", "regex_priority",
    "path_handling",
)  # fmt: skip
_CONSUMER = (*_COMMON, "username", "custom_id")


@functools.lru_cache(1024)
def id_of(*names: str) -> str:
    """Return the id that stands for something, the same in each run."""
    return str(uuid.uuid5(_IDS, "/".join(names)))


def entity(what: str, value: Optional[Entity]) -> Optional[dict[str, Any]]:
    """Return a copy of an entity.

    Raises:
        TypeError: it is no dict.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise TypeError(f"{what} must be a dict, got {type(value).__name__}")
    return dict(value)


def _known(what: str, value: Optional[Entity], fields: tuple[str, ...]) -> dict[str, Any] | None:
    """Return a copy of an entity; fields of newer Kongs and of others may be in it.

    Raises:
        TypeError: it is no dict.
        ValueError: a field is misspelt, so that what is meant by it would not be noticed.
    """
    found = entity(what, value)
    for name in found or ():
        near = difflib.get_close_matches(str(name), fields, 1, 0.75) if name not in fields else ()
        if near:
            raise ValueError(f"{what} has no field {name!r}; did you mean {near[0]!r}?")
    return found


def consumer(value: Optional[Entity]) -> Optional[dict[str, Any]]:
    """Return a consumer with what every consumer has: an id.

    Raises:
        TypeError: it is no dict.
        ValueError: a field is misspelt.
    """
    found = _known("a consumer", value, _CONSUMER)
    if found is not None:
        name = found.get("username") or found.get("custom_id") or "consumer"
        found.setdefault("id", id_of("consumers", str(name)))
    return found


def credential(value: Optional[Entity], owner: Optional[Entity]) -> Optional[dict[str, Any]]:
    """Return a credential with its id, and that of the consumer whose it is.

    Raises:
        TypeError: it is no dict.
    """
    found = entity("credential", value)
    if found is not None:
        found.setdefault("id", id_of("credentials", str(sorted(map(str, found)))))
        if owner is not None:
            found.setdefault("consumer", {"id": owner["id"]})
    return found


def service(value: Optional[Entity]) -> dict[str, Any]:
    """Return a service entity as Kong has it, with what is not given.

    Raises:
        TypeError: it is no dict.
        ValueError: a field is misspelt.
    """
    given = _known("a service", value, _SERVICE) or {}
    protocol = str(given.get("protocol", "http"))
    defaults = {
        "id": id_of("services", str(given.get("name", "service"))),
        "name": "service",
        "protocol": protocol,
        "host": "service.test",
        "port": _DEFAULT_PORTS.get(protocol, 80),
        "connect_timeout": 60000,
        "write_timeout": 60000,
        "read_timeout": 60000,
        "retries": 5,
        "enabled": True,
        "ws_id": id_of("workspaces", "default"),
    }
    return {**defaults, **given}


def route(value: Optional[Entity], of: Entity, stream: bool) -> dict[str, Any]:
    """Return a route entity as Kong has it, with what is not given.

    Args:
        value: its fields, as far as they are given.
        of: the service that it leads to.
        stream: it takes stream connections, not HTTP requests.

    Raises:
        TypeError: it is no dict.
        ValueError: a field is misspelt.
    """
    given = _known("a route", value, _ROUTE) or {}
    defaults: dict[str, Any] = {
        "id": id_of("routes", str(given.get("name", "route"))),
        "name": "route",
        "protocols": ["tcp", "tls"] if stream else ["http", "https"],
        "service": {"id": of["id"]},
        "strip_path": True,
        "preserve_host": False,
        "request_buffering": True,
        "response_buffering": True,
        "https_redirect_status_code": 426,
        "regex_priority": 0,
        "path_handling": "v0",
        "ws_id": id_of("workspaces", "default"),
    }
    if not stream:
        defaults["paths"] = ["/"]
    return {**defaults, **given}


def address_of(given: Entity) -> Service:
    """Return where the requests for a service entity go."""
    return Service(
        scheme=str(given["protocol"]),
        host=str(given["host"]),
        port=int(given["port"]),
        path=str(given.get("path") or ""),
        connect_timeout=int(given["connect_timeout"]),
        write_timeout=int(given["write_timeout"]),
        read_timeout=int(given["read_timeout"]),
        retries=int(given["retries"]),
        tls_verify=bool(given.get("tls_verify")),
    )


def consumers(values: Iterable[Entity]) -> tuple[dict[str, Any], ...]:
    """Return consumers with their ids.

    Raises:
        TypeError: one is no dict.
    """
    return tuple(found for value in values if (found := consumer(value)) is not None)


@dataclass(frozen=True)
class Match:
    """What comes of a path by the route that it has matched.

    Attributes:
        stripped: what is taken off in front; ``None`` if that is nothing, or the slash alone.
        upstream_path: the path for the service.
        captures: groups of a regular expression, as ``kong.request.get_uri_captures`` has them.
    """

    stripped: Optional[str]
    upstream_path: str
    captures: dict[str, Any]


def match(route: Entity, path: str, base: str) -> Optional[Match]:
    """Match a path with those of a route, the longest first; one with a tilde is a pattern.

    Args:
        route: the route.
        path: the request's.
        base: the service's own path.

    Returns:
        ``None`` if none of them fits: nobody need say which route a request has come by.

    Raises:
        ValueError: a pattern is no regular expression.
    """
    paths = sorted(
        map(str, route.get("paths") or ()), key=lambda each: (each[0] != "~", -len(each))
    )
    for each in paths:
        found = _pattern(each).match(path)
        if found is None:
            continue
        named: dict[str, Any] = found.groupdict(False)
        groups = dict(enumerate((found[0], *found.groups(False)))) if found.re.groups else {}
        captures = {"named": named, "unnamed": groups}
        if not route.get("strip_path"):
            return Match(None, _join(base, path), captures)
        rest = path[found.end() :]
        stripped = found[0] if found[0] != "/" else None
        if rest:
            return Match(stripped, _join(base, rest), captures)
        bare = base.rstrip("/")
        slash = "/" if not bare or (path.endswith("/") and len(path) > 1) else ""
        return Match(stripped, bare + slash, captures)
    return None


def follow_route(exchange: Exchange) -> None:
    """Give a request what comes of the route by which it has come: its path, and the host.

    Raises:
        ValueError: a path of the route is no regular expression.
    """
    route = exchange.route or {}
    matched = match(route, exchange.request.path, exchange.service.path)
    if matched is not None:
        exchange.stripped, exchange.captures = matched.stripped, matched.captures
        exchange.upstream_path = matched.upstream_path
    if route.get("preserve_host"):
        exchange.upstream_host = exchange.request.headers.get("host")


@functools.lru_cache(256)
def _pattern(path: str) -> re.Pattern[str]:
    if not path.startswith("~"):
        return re.compile(re.escape(path))
    try:
        return re.compile(re.sub(r"\(\?<(?=[A-Za-z_])", "(?P<", path[1:]))
    except re.error as error:
        raise ValueError(f"the route's path {path!r} is no regular expression: {error}") from error


def _join(base: str, rest: str) -> str:
    return base.rstrip("/") + (rest if rest.startswith("/") else f"/{rest}")
