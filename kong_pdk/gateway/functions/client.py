"""``kong.client`` and ``kong.ip``: who sent the request."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from ..exchange import Exchange, is_address, is_trusted, split_port
from ..values import as_map, is_table, type_name
from .checks import need_string
from .registry import check, pdk


@pdk("kong.client.get_ip")
def get_ip(exchange: Exchange) -> str:
    return exchange.client_ip


@pdk("kong.client.get_forwarded_ip")
def get_forwarded_ip(exchange: Exchange) -> str:
    return _forwarded_address(exchange)[0]


@pdk("kong.client.get_port")
def get_port(exchange: Exchange) -> int | None:
    return exchange.client_port or None


@pdk("kong.client.get_forwarded_port")
def get_forwarded_port(exchange: Exchange) -> int | None:
    return _forwarded_address(exchange)[1]


def _forwarded_address(exchange: Exchange) -> tuple[str, int | None]:
    """Return address and port of ``X-Real-IP`` where it is believed; it may lack the port."""
    given = exchange.request.headers.get("x-real-ip") if exchange.trusts_client else None
    address, port = split_port(given) if given else ("", None)
    return (address, port) if is_address(address) else (exchange.client_ip, get_port(exchange))


@pdk("kong.client.get_protocol")
def get_protocol(exchange: Exchange, allow_terminated: Any) -> str | None:
    if exchange.route is None:
        return None
    protocols = exchange.route.get("protocols") or []
    if len(protocols) == 1:
        return str(protocols[0])
    check(
        exchange.phase != "log",
        "the route has several protocols, and the connection is over when the log phase runs",
    )
    if exchange.request.scheme == "http" and allow_terminated and exchange.trusts_client:
        given = exchange.request.headers.get_all("x-forwarded-proto")
        if len(given) > 1:
            return None
        return "https" if given and given[0].lower() == "https" else "http"
    return exchange.request.scheme


@pdk("kong.client.get_credential")
def get_credential(exchange: Exchange) -> dict[str, Any] | None:
    return exchange.credential


@pdk("kong.client.get_consumer")
def get_consumer(exchange: Exchange) -> dict[str, Any] | None:
    return exchange.consumer


@pdk("kong.client.load_consumer")
def load_consumer(
    exchange: Exchange, consumer_id: Any, search_by_username: Any
) -> dict[str, Any] | None:
    wanted = need_string("consumer_id", consumer_id)
    is_uuid = _is_uuid(wanted)
    by_name = search_by_username not in (None, False)
    check(is_uuid or by_name, "a consumer's id must be a UUID")
    keys = (["id"] if is_uuid else []) + (["username"] if by_name else [])
    for key in keys:
        for consumer in exchange.consumers:
            if consumer.get(key) == wanted:
                return consumer
    return None


@pdk("kong.client.authenticate")
def authenticate(exchange: Exchange, consumer: Any, credential: Any) -> None:
    for what, value in (("consumer", consumer), ("credential", credential)):
        check(
            value is None or is_table(value),
            f"{what} must be a table or nil, not {type_name(value)}",
        )
    check(
        consumer is not None or credential is not None, "a consumer or a credential must be given"
    )
    exchange.consumer = None if consumer is None else as_map(consumer)
    exchange.credential = None if credential is None else as_map(credential)


@pdk("kong.client.tls.request_client_certificate")
def request_client_certificate(exchange: Exchange) -> bool:
    return True


@pdk("kong.client.tls.disable_session_reuse")
def disable_session_reuse(exchange: Exchange) -> bool:
    return True


@pdk("kong.client.tls.get_full_client_certificate_chain")
def get_full_client_certificate_chain(exchange: Exchange) -> str | None:
    check(exchange.phase != "log", "the connection is over when the log phase runs")
    return exchange.client_chain


@pdk("kong.client.tls.set_client_verify")
def set_client_verify(exchange: Exchange, value: Any) -> None:
    text = need_string("the verification result", value)
    known = text in ("SUCCESS", "NONE") or text.startswith("FAILED:")
    check(known, f"the verification result must be SUCCESS, NONE or FAILED:<reason>, not {text!r}")
    exchange.client_verify = text


@pdk("kong.ip.is_trusted")
def ip_is_trusted(exchange: Exchange, address: Any) -> bool:
    if {"0.0.0.0/0", "::/0"} <= set(exchange.trusted_ips):
        return True  # whatever it is
    return isinstance(address, str) and is_trusted(address, exchange.trusted_ips)


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
