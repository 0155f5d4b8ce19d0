"""What a request finds in the gateway beside the plugin: who the client is, and where it goes."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from . import entities
from .errors import GatewayError
from .exchange import Service, is_trusted

#: Of the route and the service that are here if none is given.
_NAME = "try"

_NUMBERS = ("connect_timeout", "write_timeout", "read_timeout", "retries")


@dataclass
class Surroundings:
    """What is the same for every request.

    Attributes:
        service: where requests go.
        route: the route entity.
        service_entity: the service entity.
        consumer: the consumer that a plugin before this one has found.
        credential: the credential with which it has.
        consumers: those that ``kong.client.load_consumer`` finds.
        trusted_ips: addresses and networks whose ``X-Forwarded-*`` headers are believed.
        plugin_id: the id of the plugin entity.
    """

    service: Service
    route: dict[str, Any]
    service_entity: dict[str, Any]
    consumer: dict[str, Any] | None = None
    credential: dict[str, Any] | None = None
    consumers: tuple[dict[str, Any], ...] = ()
    trusted_ips: tuple[str, ...] = ()
    plugin_id: str = field(default_factory=lambda: str(uuid.uuid4()))


def parse_upstream(url: str) -> Service:
    """Return the service that an upstream's URL stands for.

    Raises:
        GatewayError: it is no HTTP URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise GatewayError(f"the upstream {url!r} is no URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise GatewayError(f"the upstream must be an http:// or https:// URL, not {url!r}")
    port = port or (443 if parts.scheme == "https" else 80)
    return Service(parts.scheme, parts.hostname, port, parts.path)


def surroundings(
    upstream: str,
    *,
    consumer: dict[str, Any] | None = None,
    credential: dict[str, Any] | None = None,
    route: dict[str, Any] | None = None,
    service: dict[str, Any] | None = None,
    trusted_ips: tuple[str, ...] = (),
) -> Surroundings:
    """Return what requests find, with what is not given as a fresh Kong would have it.

    Args:
        upstream: the URL where requests go.
        consumer: who the client is known to be; gets an id if it has none.
        credential: the credential that showed it.
        route: fields of the route entity, in place of those that it has here.
        service: the same for the service entity. Its time-outs hold.
        trusted_ips: see :class:`Surroundings`.

    Raises:
        GatewayError: the upstream is no URL, a time-out no number, a network none, a path of the
            route is no regular expression, or a field of an entity is misspelt.
    """
    where = parse_upstream(upstream)
    given = service or {}
    for name in _NUMBERS:
        number = given.get(name, 0)
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise GatewayError(f"the service's {name} must be a number, got {number!r}")
    where = replace(where, **{name: given[name] for name in _NUMBERS if name in given})
    try:
        is_trusted("127.0.0.1", trusted_ips)
    except ValueError as error:
        raise GatewayError(f"a trusted address is none: {error}") from error
    address = {"protocol": where.scheme, "host": where.host, "port": where.port}
    times = {name: getattr(where, name) for name in _NUMBERS}
    fields = {"name": _NAME, **address, **times, "path": where.path or None, **given}
    try:
        service_entity = entities.service(fields)
        route_entity = entities.route({"name": _NAME, **(route or {})}, service_entity, False)
        entities.match(route_entity, "/", "")
        consumer = entities.consumer(consumer)
    except ValueError as error:
        raise GatewayError(str(error)) from error
    return Surroundings(
        service=where,
        route=route_entity,
        service_entity=service_entity,
        consumer=consumer,
        credential=entities.credential(credential, consumer),
        consumers=() if consumer is None else (consumer,),
        trusted_ips=trusted_ips,
    )
