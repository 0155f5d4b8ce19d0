"""Configurations without what may be a secret in them."""

from __future__ import annotations

from typing import Any

#: Stands for a value.
REDACTED = "REDACTED"

#: Keys that Kong adds to a configuration, and that tell whose it is.
KONGS_OWN = frozenset(
    (
        "__key__",
        "__plugin_id",
        "__seq__",
        "consumer_id",
        "plugin_instance_name",
        "route_id",
        "service_id",
    )
)


def redact(config: Any) -> Any:
    """A configuration to be shown: its fields, of which only those that Kong adds have values.

    Which of a plugin's fields are secrets only its author knows. So all are: but for None, which
    says that there is nothing, each value is replaced. What is in it is not shown either, for the
    keys of a map may be secrets too.

    Args:
        config: as Kong sent it.
    """
    if not isinstance(config, dict):
        return REDACTED
    return {
        key: value
        if value is None or (key in KONGS_OWN and isinstance(value, (str, int, float)))
        else REDACTED
        for key, value in config.items()
    }
