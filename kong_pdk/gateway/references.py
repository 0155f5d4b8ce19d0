"""References to vaults, ``{vault://env/token}``, and what they stand for.

There is one vault, ``env``: the environment of the gateway.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

from ..schema.validators import is_reference
from ..schema.values import named
from . import body

_REFERENCE = re.compile(
    r"\{vault://(?P<name>[a-z][a-z0-9-]*)/(?P<path>[^?#{}]+)(\?(?P<query>[^#{}]*))?(#(?P<version>\d+))?\}"
)


def parse(reference: Any) -> dict[str, Any] | None:
    """The parts of a reference, as ``kong.vault.parse_reference`` gives them, or None."""
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


def secret_of(reference: Any, environment: Mapping[str, str] | None) -> str | None:
    """What a reference stands for; None if there is nothing.

    Args:
        reference: anything.
        environment: where the vault looks; None: this process's own.
    """
    parsed = parse(reference)
    if parsed is None or parsed["name"] != "env":
        return None
    prefix = parsed.get("config", {}).get("prefix", "")
    name = f"{prefix if isinstance(prefix, str) else ''}{parsed['resource']}"
    secret = (os.environ if environment is None else environment).get(
        name.upper().replace("-", "_")
    )
    if secret is None or "key" not in parsed:
        return secret
    try:
        inner = json.loads(secret).get(parsed["key"])
    except (ValueError, AttributeError):  # no JSON, or no object
        return None
    return inner if isinstance(inner, str) else None


def resolve(
    config: Mapping[str, Any], fields: Any, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Put secrets in place of the references in a configuration, as Kong does for an instance.

    A reference that stands for nothing becomes an empty text, as in Kong.

    Args:
        config: the configuration, completed.
        fields: the schema's fields: only those that are ``referenceable`` are looked at.
        environment: where the vault looks; None: this process's own.
    """
    result = dict(config)
    for name, definition in named(fields):
        if name in result:
            result[name] = _resolved(result[name], definition, environment)
    return result


def _resolved(value: Any, definition: Any, environment: Mapping[str, str] | None) -> Any:
    kind = definition.get("type")
    if kind == "string" and definition.get("referenceable") and is_reference(value):
        return secret_of(value, environment) or ""
    if kind == "record" and isinstance(value, Mapping):
        return resolve(value, definition.get("fields"), environment)
    if kind in ("array", "set") and isinstance(value, list):
        elements = definition.get("elements") or {}
        return [_resolved(each, elements, environment) for each in value]
    if kind == "map" and isinstance(value, Mapping):
        values = definition.get("values") or {}
        return {name: _resolved(each, values, environment) for name, each in value.items()}
    return value
