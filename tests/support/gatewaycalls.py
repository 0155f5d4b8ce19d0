"""PDK calls of the gateway, one at a time and without a plugin."""

from __future__ import annotations

from typing import Any

from kong_pdk.gateway import Exchange, call


def ask(exchange: Exchange, name: str, *args: Any) -> Any:
    """Call a function that must succeed, and return its value as it crosses the wire."""
    reply = call(exchange, name, list(args))
    assert reply.step is not None, exchange.logs
    return reply.value


def refuse(exchange: Exchange, name: str, *args: Any) -> str:
    """Call a function that must refuse, and return the log line."""
    assert call(exchange, name, list(args)).step is None
    assert exchange.aborted == exchange.phase
    return exchange.logs[-1].message
