"""The words of Kong's schema language: types, attributes, and what each takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Optional

#: A release of Kong, its first two numbers.
Release = tuple[int, int]

OLDEST: Release = (2, 8)

#: Every type, and the attributes that it must have.
TYPES: dict[str, tuple[str, ...]] = {
    "string": (),
    "number": (),
    "integer": (),
    "boolean": (),
    "array": ("elements",),
    "set": ("elements",),
    "map": ("keys", "values"),
    "record": ("fields",),
    "foreign": (),
    "function": (),
    "json": ("json_schema",),
}

_NUMBERS = frozenset(("number", "integer"))
_STRINGS = frozenset(("string",))
_LISTS = frozenset(("array", "set"))
_LONG = frozenset(("string", "array", "set", "map"))
_RECORDS = frozenset(("record",))
SCALARS = _STRINGS | _NUMBERS
_UNIQUE = SCALARS | {"foreign"}


class Attribute(NamedTuple):
    """An attribute of a field.

    Attributes:
        takes: what its value must be, a key of ``_TAKES`` or the like.
        types: the types of fields that Kong lets have it; None for all.
        works: those for which it does something; None for all that may have it.
        since: the first release of Kong that knows it.
        until: the first that does not know it any more.
    """

    takes: str
    types: Optional[frozenset[str]] = None
    works: Optional[frozenset[str]] = None
    since: Release = OLDEST
    until: Optional[Release] = None


ATTRIBUTES: dict[str, Attribute] = {
    "type": Attribute("type"),
    "required": Attribute("boolean"),
    "default": Attribute("any"),
    "description": Attribute("description", since=(3, 4)),
    "examples": Attribute("list", since=(3, 6)),
    "err": Attribute("string"),
    "encrypted": Attribute("boolean"),
    "referenceable": Attribute("boolean", works=_STRINGS),
    "deprecation": Attribute("deprecation", since=(3, 7)),
    # What a value must be.
    "eq": Attribute("any"),
    "ne": Attribute("any"),
    "one_of": Attribute("list", SCALARS),
    "not_one_of": Attribute("list", works=SCALARS),
    "between": Attribute("between", _NUMBERS),
    "gt": Attribute("number", works=_NUMBERS),
    "timestamp": Attribute("boolean", _NUMBERS),
    "len_eq": Attribute("integer", _LONG),
    "len_min": Attribute("integer", works=_LONG),
    "len_max": Attribute("integer", works=_LONG),
    "uuid": Attribute("boolean", _STRINGS),
    "is_regex": Attribute("boolean", _STRINGS),
    "starts_with": Attribute("string", works=_STRINGS),
    "match": Attribute("pattern", _STRINGS),
    "not_match": Attribute("pattern", works=_STRINGS),
    "match_all": Attribute("patterns", works=_STRINGS),
    "match_none": Attribute("patterns", works=_STRINGS),
    "match_any": Attribute("any pattern", works=_STRINGS),
    "contains": Attribute("any", _LISTS),
    "mutually_exclusive_subsets": Attribute("subsets", works=_LISTS),
    "custom_validator": Attribute("function"),
    # What it consists of.
    "elements": Attribute("field", works=_LISTS),
    "keys": Attribute("field", works=frozenset(("map",))),
    "values": Attribute("field", works=frozenset(("map",))),
    "fields": Attribute("fields", works=_RECORDS),
    "entity_checks": Attribute("entity_checks", works=_RECORDS),
    "shorthand_fields": Attribute("shorthands", works=_RECORDS),
    "json_schema": Attribute("json_schema", frozenset(("json",)), since=(3, 5)),
    # Of more use to Kong's own entities.
    "auto": Attribute("boolean"),
    "unique": Attribute("boolean", _UNIQUE),
    "unique_across_ws": Attribute("boolean", _UNIQUE),
    "abstract": Attribute("boolean", SCALARS | _LONG | _RECORDS, works=frozenset()),
    "immutable": Attribute("boolean"),
    "transient": Attribute("boolean", SCALARS | _LISTS | {"boolean"}, since=(3, 8)),
    "generate_admin_api": Attribute("boolean"),
    "reference": Attribute("string", works=frozenset(("foreign",))),
    "on_delete": Attribute("on_delete", works=frozenset(("foreign",))),
    "legacy": Attribute("boolean", _STRINGS, until=(3, 0)),
}

#: Keys that Kong puts into the configuration that a plugin gets, over what has been configured.
OWN_KEYS = frozenset(
    (
        "__key__", "__plugin_id", "__seq__", "__ws_id", "$refs", "consumer_id",
        "plugin_instance_name", "route_id", "service_id",
    )
)  # fmt: skip

#: The attributes that hold other fields.
STRUCTURE = ("elements", "keys", "values", "fields", "entity_checks", "shorthand_fields")
#: What attributes that a type needs look like.
EXAMPLES = {
    "elements": ', like {"type": "string"}',
    "keys": ', like {"type": "string"}',
    "values": ', like {"type": "string"}',
    "fields": ', like [{"name": {"type": "string"}}]',
}
#: The arguments of entity checks that name no fields.
MATCHES = {
    "mutually_exclusive_sets": (),
    "conditional": ("if_match", "then_match", "then_err"),
    "conditional_at_least_one_of": ("if_match", "then_err", "else_match", "else_then_err"),
}

#: The first release that takes ``between`` with fractions.
FRACTIONS: Release = (3, 4)


def nearest(name: object, known: Iterable[str]) -> str:
    """Return " (did you mean x?)" for a name that resembles a known one, else ""."""
    import difflib

    found = difflib.get_close_matches(str(name), list(known), 1)
    return f" (did you mean {found[0]!r}?)" if found else ""


def meant_type(kind: object) -> str:
    """Return " (did you mean x?)" for a type that Kong does not have, else ""."""
    meant = {
        "str": "string", "text": "string", "int": "integer", "float": "number", "bool": "boolean",
        "list": "array", "tuple": "array", "dict": "map", "object": "record", "any": "json",
    }  # fmt: skip
    name = kind.__name__ if isinstance(kind, type) else str(kind)
    if name in meant:
        return f" (did you mean {meant[name]!r}?)"
    return nearest(name, TYPES)
