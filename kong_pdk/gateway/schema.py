"""A plugin's configuration, checked against its schema and completed with the defaults."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from .errors import SettingsError

_NUMBERS = ("number", "integer")


def config_fields(schema: Any) -> Any:
    """Return the fields of a plugin's own configuration from the schema that the server dumps.

    Args:
        schema: the whole schema, ``{"name": ..., "fields": [..., {"config": {"fields": ...}}]}``.

    Returns:
        The list of fields; an empty one where there is none.
    """
    for name, definition in _named(schema.get("fields") if isinstance(schema, Mapping) else None):
        if name == "config":
            return definition.get("fields") or []
    return []


def complete(config: Any, fields: Any) -> dict[str, Any]:
    """Return a configuration with the defaults filled in, as Kong would hand it to the plugin.

    A field that is null, or absent and without a default, is left out, as Kong does.

    Args:
        config: the configuration as it was given.
        fields: the schema's fields, see :func:`config_fields`.

    Raises:
        SettingsError: a field is unknown or missing, or its value is not allowed.
    """
    return _record(config, fields, "")


def _named(fields: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each field's name and definition; Kong writes them as a list of one-key maps."""
    items = [fields] if isinstance(fields, Mapping) else fields or []
    for item in items:
        if isinstance(item, Mapping):
            for name, definition in item.items():
                if isinstance(definition, Mapping):
                    yield str(name), definition


def _record(value: Any, fields: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise SettingsError(path or "config", f"expected a record, got {_kind(value)}")
    known = dict(_named(fields))
    for name in value:
        if name not in known:
            names = ", ".join(sorted(known)) or "none"
            raise SettingsError(_join(path, name), f"unknown field; the schema has: {names}")
    result: dict[str, Any] = {}
    for name, definition in known.items():
        where = _join(path, name)
        item = value.get(name)
        if item is None:
            item = copy.deepcopy(definition.get("default"))
        if item is None and definition.get("type") == "record" and definition.get("required"):
            item = {}
        if item is None:
            if definition.get("required"):
                raise SettingsError(where, "required field missing")
            continue
        result[name] = _value(item, definition, where)
    return result


def _value(value: Any, definition: Mapping[str, Any], path: str) -> Any:
    kind = str(definition.get("type", "any"))
    _check_type(value, kind, path)
    _check_limits(value, definition, path)
    if kind == "record":
        return _record(value, definition.get("fields"), path)
    if kind in ("array", "set"):
        inner = definition.get("elements") or {}
        items = [_value(item, inner, f"{path}[{n}]") for n, item in enumerate(value, 1)]
        if kind == "set":
            items = [item for n, item in enumerate(items) if item not in items[:n]]
        return items
    if kind == "map":
        inner = definition.get("values") or {}
        for key in value:
            _value(key, definition.get("keys") or {}, f"{path}[{key}]")
        return {key: _value(item, inner, f"{path}[{key}]") for key, item in value.items()}
    return value


def _check_type(value: Any, kind: str, path: str) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = {
        "string": isinstance(value, str),
        "number": is_number,
        "integer": is_number and float(value).is_integer(),
        "boolean": isinstance(value, bool),
        "array": isinstance(value, (list, tuple)),
        "set": isinstance(value, (list, tuple)),
        "map": isinstance(value, Mapping),
        "record": isinstance(value, Mapping),
        "foreign": isinstance(value, Mapping),
    }
    if not fits.get(kind, True):
        article = "an" if kind[0] in "aeiou" else "a"
        raise SettingsError(path, f"expected {article} {kind}, got {_kind(value)}")


def _check_limits(value: Any, definition: Mapping[str, Any], path: str) -> None:
    allowed = definition.get("one_of")
    if allowed and value not in allowed:
        names = ", ".join(map(str, allowed))
        raise SettingsError(path, f"expected one of: {names}; got {value!r}")
    between = definition.get("between")
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if between and number and not between[0] <= value <= between[1]:
        low, high = between
        raise SettingsError(path, f"expected a value between {low} and {high}, got {value}")
    if definition.get("gt") is not None and number and not value > definition["gt"]:
        raise SettingsError(path, f"expected a value above {definition['gt']}, got {value}")
    if isinstance(value, (str, list, tuple, Mapping)):
        low, high = definition.get("len_min"), definition.get("len_max")
        if low is None and isinstance(value, str) and definition.get("type") == "string":
            low = 1  # Kong takes no empty string unless the schema says len_min = 0
        if low is not None and len(value) < low:
            raise SettingsError(path, f"expected a length of at least {low}, got {len(value)}")
        if high is not None and len(value) > high:
            raise SettingsError(path, f"expected a length of at most {high}, got {len(value)}")


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "an object" if isinstance(value, Mapping) else "a list"


def _join(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)
