"""``kong.vault``: secrets. There is one vault, ``env``: the environment of the gateway."""

from __future__ import annotations

import re
from typing import Any

from .. import references
from ..exchange import Exchange
from ..values import as_map, is_table, type_name
from .registry import check, pdk


@pdk("kong.vault.is_reference")
def is_reference(exchange: Exchange, reference: Any) -> bool:
    return isinstance(reference, str) and bool(re.fullmatch(r"\{vault://.*\}", reference))


@pdk("kong.vault.parse_reference")
def parse_reference(exchange: Exchange, reference: Any) -> dict[str, Any] | None:
    return references.parse(reference)


@pdk("kong.vault.get")
def get(exchange: Exchange, reference: Any) -> str | None:
    secret = _secret(exchange, reference)
    if secret is None:
        exchange.log("notice", f"{reference} has no value; this gateway knows the vault env only")
    return secret


def _secret(exchange: Exchange, reference: Any) -> str | None:
    """Return what a reference stands for, or nil."""
    return references.secret_of(reference, exchange.environment)


@pdk("kong.vault.update")
def update(exchange: Exchange, options: Any) -> Any:
    """Return the options with the secrets that their ``$refs`` name."""
    if not is_table(options):
        return options
    filled = {
        name: update(exchange, value) if isinstance(value, dict) and name != "$refs" else value
        for name, value in as_map(options).items()
    }
    refs = filled.get("$refs")
    for name, reference in as_map(refs).items() if is_table(refs) else ():
        if is_table(reference):
            inner = as_map(reference).items()
            filled[name] = {key: _cached(exchange, each) for key, each in inner}
        else:
            filled[name] = _cached(exchange, reference)
    return filled


def _cached(exchange: Exchange, reference: Any) -> str:
    secret = _secret(exchange, reference)
    if secret is None:
        exchange.log("warn", f"{reference} has no value and becomes an empty string")
    return secret or ""


@pdk("kong.vault.flush")
def flush(exchange: Exchange) -> None:
    """Do nothing: no secret is kept."""


@pdk("kong.vault.init_worker")
def init_worker(exchange: Exchange) -> None:
    """Do nothing: no secret is kept."""


@pdk("kong.vault.warmup")
def warmup(exchange: Exchange, options: Any) -> None:
    """Check the argument; no secret is kept."""
    check(is_table(options), f"the argument must be a table, not {type_name(options)}")
