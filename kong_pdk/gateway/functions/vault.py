"""``kong.vault``: secrets. There is one vault, ``env``: the environment of the gateway."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from .. import body
from ..exchange import Exchange
from ..values import as_map, is_table, type_name
from .registry import check, pdk

_REFERENCE = re.compile(
    r"\{vault://(?P<name>[a-z][a-z0-9-]*)/(?P<path>[^?#{}]+)(\?(?P<query>[^#{}]*))?(#(?P<version>\d+))?\}"
)


@pdk("kong.vault.is_reference")
def is_reference(exchange: Exchange, reference: Any) -> bool:
    return isinstance(reference, str) and bool(re.fullmatch(r"\{vault://.*\}", reference))


@pdk("kong.vault.parse_reference")
def parse_reference(exchange: Exchange, reference: Any) -> dict[str, Any] | None:
    found = _REFERENCE.fullmatch(reference) if isinstance(reference, str) else None
    if found is None:
        return None
    resource, _, key = found["path"].rpartition("/")
    result: dict[str, Any] = {"name": found["name"], "resource": resource or key}
    if resource and key:
        result["key"] = key
    if found["query"]:
        result["config"] = body.simple_map(body.parse_query(found["query"]))
    if found["version"]:
        result["version"] = int(found["version"])
    return result


@pdk("kong.vault.get")
def get(exchange: Exchange, reference: Any) -> str | None:
    secret = _secret(exchange, reference)
    if secret is None:
        exchange.log("notice", f"{reference} has no value; this gateway knows the vault env only")
    return secret


def _secret(exchange: Exchange, reference: Any) -> str | None:
    """Return what a reference stands for, or nil."""
    parsed = parse_reference(exchange, reference)
    if parsed is None or parsed["name"] != "env":
        return None
    prefix = parsed.get("config", {}).get("prefix", "")
    name = f"{prefix if isinstance(prefix, str) else ''}{parsed['resource']}"
    environment = os.environ if exchange.environment is None else exchange.environment
    secret = environment.get(name.upper().replace("-", "_"))
    if secret is None or "key" not in parsed:
        return secret
    try:
        inner = json.loads(secret).get(parsed["key"])
    except (ValueError, AttributeError):  # no JSON, or no object
        return None
    return inner if isinstance(inner, str) else None


@pdk("kong.vault.update")
def update(exchange: Exchange, options: Any) -> Any:
    """Return the options with the secrets that their ``$refs`` name."""
    if not is_table(options):
        return options
    filled = {
        name: update(exchange, value) if isinstance(value, dict) and name != "$refs" else value
        for name, value in as_map(options).items()
    }
    references = filled.get("$refs")
    for name, reference in as_map(references).items() if is_table(references) else ():
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
