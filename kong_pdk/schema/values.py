"""A plugin's configuration, checked against its schema and completed with the defaults.

As Kong does it when a plugin is configured, and before it hands the configuration to the plugin.
What needs more than the schema is taken as it is: a value of type "json" is not checked against its
JSON schema, and a reference to a vault stays one.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from ..exception import SettingsError
from . import entity_checks as relations
from .validators import (
    Definition,
    Problems,
    a_kind,
    check_limits,
    check_null,
    is_number,
    is_reference,
    is_type,
    same,
)


def config_record(schema: Any) -> Definition:
    """Return the definition of a plugin's own configuration from the schema that the server dumps.

    Args:
        schema: the whole schema, ``{"name": ..., "fields": [..., {"config": {"fields": ...}}]}``.

    Returns:
        A definition of type record; an empty one where there is none.
    """
    for name, definition in named(schema.get("fields") if isinstance(schema, Mapping) else None):
        if name == "config":
            return definition
    return {}


def config_fields(schema: Any) -> Any:
    """Return the fields of a plugin's own configuration, see :func:`config_record`."""
    return config_record(schema).get("fields") or []


def complete(
    config: Any, fields: Any, entity_checks: Any = (), shown: bool = True
) -> dict[str, Any]:
    """Return a configuration with the defaults filled in, as Kong would hand it to the plugin.

    A field that is null, or absent and without a default, is left out, as Kong does.

    Args:
        config: the configuration as it was given.
        fields: the schema's fields, see :func:`config_fields`.
        entity_checks: those of the schema's whole record.
        shown: errors may show values, unless those are marked as secret.

    Raises:
        SettingsError: fields are unknown or missing, or their values are not allowed; the text
            names all of them.
    """
    walk = _Walk(shown)
    result: dict[str, Any] = {}
    if isinstance(config, Mapping) or config == []:
        result = walk.record(config, {"fields": fields, "entity_checks": entity_checks}, "", True)
    else:
        walk.wrong("config", f"expected a record, got {a_kind(config)}")
    if walk.problems:
        raise SettingsError.of(walk.problems)
    return result


def problems_of(value: Any, definition: Definition) -> Problems:
    """Say what is wrong with a value that a field is to have.

    Args:
        value: the value; None for null.
        definition: the field's.

    Returns:
        Where in the value, "" for itself, and what.
    """
    walk = _Walk()
    if value is None:
        check_null(definition, "", walk.problems)
    else:
        walk.value(value, definition, "", False)
    return walk.problems


def named(fields: Any) -> Iterator[tuple[str, Definition]]:
    """Yield each field's name and definition; Kong writes them as a list of one-key maps."""
    items = [fields] if isinstance(fields, Mapping) else fields or []
    for item in items:
        if isinstance(item, Mapping):
            for name, definition in item.items():
                if isinstance(definition, Mapping):
                    yield str(name), definition


class _Walk:
    """One way through a value, which collects what is wrong with it.

    ``at_top`` is true as long as only records have been gone through: a record there is required,
    and so made of its defaults, unless it says that it is not.
    """

    def __init__(self, shown: bool = True) -> None:
        self.problems: Problems = []
        self.shown = shown

    def wrong(self, path: str, text: str) -> None:
        self.problems.append((path, text))

    def record(self, value: Any, definition: Definition, path: str, at_top: bool) -> dict[str, Any]:
        value = value or {}  # an empty list: for Lua there is one kind of empty table
        known = dict(named(definition.get("fields")))
        for name in value:
            if name not in known:
                names = ", ".join(sorted(known)) or "none"
                self.wrong(join(path, name), f"unknown field; the schema has: {names}")
        result: dict[str, Any] = {}
        for name, inner in known.items():
            where = join(path, name)
            item = value[name] if name in value else self._missing(inner, at_top)
            if item is None:
                needed = at_top and inner.get("type") == "record" and inner.get("required") is None
                check_null({**inner, "required": True} if needed else inner, where, self.problems)
            else:
                result[name] = self.value(item, inner, where, at_top)
        relations.run(definition.get("entity_checks") or (), result, known, path, self.problems)
        return result

    def _missing(self, definition: Definition, at_top: bool) -> Any:
        """What stands for a field that is not there."""
        if "default" in definition:
            return copy.deepcopy(definition["default"])
        kind, required = definition.get("type"), definition.get("required")
        if kind == "record" and (required or (required is None and at_top)):
            return {}
        if definition.get("auto") and kind == "string":
            import uuid  # no server needs it, and on Python 3.9 it brings subprocess

            return str(uuid.uuid4()) if definition.get("uuid") else uuid.uuid4().hex
        return None

    def value(self, value: Any, definition: Definition, path: str, at_top: bool) -> Any:
        kind = str(definition.get("type", "any"))
        if definition.get("abstract"):
            self.wrong(path, "an abstract field can have no value")
            return value
        if not is_type(value, kind):
            article = "an" if kind[0] in "aeiou" else "a"
            got = "a number" if is_number(value) and not self.shown else a_kind(value)
            self.wrong(path, f"expected {article} {kind}, got {got}")
            return value
        if kind == "string" and definition.get("referenceable") and is_reference(value):
            return value
        result = self._inner(value, kind, definition, path, at_top)
        if kind == "json":  # for Kong its JSON schema is all that there is
            return result
        check_limits(result, definition, path, self.problems, self.shown)
        return result

    def _inner(self, value: Any, kind: str, definition: Definition, path: str, at_top: bool) -> Any:
        if kind == "record":
            return self.record(value, definition, path, at_top)
        if kind in ("array", "set"):
            items = list(value)
            if kind == "set":
                items = [
                    item
                    for n, item in enumerate(items)
                    if not any(same(item, other) for other in items[:n])
                ]
            elements = definition.get("elements") or {}
            return [self._item(each, elements, f"{path}[{n}]") for n, each in enumerate(items, 1)]
        if kind == "map":
            keys, values = definition.get("keys") or {}, definition.get("values") or {}
            result = {}
            for key, item in dict(value or {}).items():
                where = f"{path}[{key}]"
                self._item(key, keys, where)
                result[key] = self._item(item, values, where)
            return result
        return int(value) if kind == "integer" else value

    def _item(self, value: Any, definition: Definition, path: str) -> Any:
        if value is None:
            check_null({**definition, "required": True}, path, self.problems)
            return None
        return self.value(value, definition, path, False)


def join(path: str, name: object) -> str:
    """Return the path of a field in a record."""
    return f"{path}.{name}" if path else str(name)
