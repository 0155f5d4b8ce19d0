"""Kong's schema language: what it lets a plugin say of its configuration.

Kong looks at a plugin's schema when it starts, and refuses to start over an error in it. What it
looks at is known here, for Kong 2.8 to 3.10, and what it does not look at but is a mistake.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from . import entity_checks, lua_patterns
from .validators import is_number, is_type
from .values import problems_of
from .vocabulary import (
    ATTRIBUTES,
    EXAMPLES,
    FRACTIONS,
    MATCHES,
    OLDEST,
    OWN_KEYS,
    SCALARS,
    STRUCTURE,
    TYPES,
    Release,
    meant_type,
    nearest,
)

#: Kong refuses the plugin, and does not start.
ERROR = "error"
#: Kong starts, but this does not do what it seems to.
WARNING = "warning"
#: Some of the supported releases of Kong refuse the plugin.
NOTE = "note"


@dataclass(frozen=True)
class Problem:
    """Something in a schema.

    Attributes:
        level: :data:`ERROR`, :data:`WARNING` or :data:`NOTE`.
        path: of the field, with dots where it is inside of others; "" for the whole.
        text: what is wrong, and the remedy.
    """

    level: str
    path: str
    text: str

    def __str__(self) -> str:
        return f"Schema: field {self.path!r}: {self.text}" if self.path else f"Schema: {self.text}"


def check_fields(
    fields: Any, entity_checks: Any = None, kong: Optional[Release] = None
) -> list[Problem]:
    """Look for mistakes in the schema of a plugin's configuration.

    Args:
        fields: a list or tuple of fields, each a dict of one key, its name.
        entity_checks: those of the whole configuration.
        kong: the release that is to take it, like ``(3, 9)``; None for any from 2.8 on. What all of
            these refuse is an error then, and what some refuse a note.

    Returns:
        What was found, in the order of the fields.
    """
    check = _Check(kong)
    check.fields(fields, "")
    if entity_checks is not None:
        check.entity_checks(entity_checks, fields, "")
    return check.problems


def _join(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)


def _is_list(value: Any) -> bool:
    """Whether Kong takes a value for a list; it has one kind of empty table."""
    return isinstance(value, (list, tuple)) or value == {}


def _got(value: Any) -> str:
    text = repr(value)
    return f"got {text if len(text) <= 60 else text[:57] + '...'}"


class _Check:
    def __init__(self, kong: Optional[Release]) -> None:
        self.kong = kong
        self.problems: list[Problem] = []

    def add(self, level: str, path: str, text: str) -> None:
        self.problems.append(Problem(level, path, text))

    def error(self, path: str, text: str) -> None:
        self.add(ERROR, path, text)

    def warning(self, path: str, text: str) -> None:
        self.add(WARNING, path, text)

    def refused_by_some(self, path: str, text: str, since: Release) -> None:
        """Note what releases of Kong before one refuse."""
        release = ".".join(map(str, since))
        if self.kong is None:
            self.add(NOTE, path, f"{text} only Kong {release} and newer; older ones refuse it")
        elif self.kong < since:
            self.error(path, f"{text} only Kong {release} and newer: leave it out")

    # --- a list of fields -------------------------------------------------------------------------

    def fields(self, fields: Any, path: str) -> None:
        if isinstance(fields, Mapping) and fields:
            self.error(
                path,
                "fields must be a list with a dict for each field, got one dict: "
                'write [{"a": {...}}, {"b": {...}}]',
            )
            return
        if not _is_list(fields):
            self.error(path, f"fields must be a list with a dict for each field, {_got(fields)}")
            return
        seen: set[str] = set()
        for number, entry in enumerate(fields, 1):
            if not isinstance(entry, Mapping) or len(entry) != 1:
                self.error(
                    path,
                    f"field {number} must be a dict with one key, its name, like "
                    f'{{"message": {{"type": "string"}}}}, {_got(entry)}',
                )
                continue
            ((name, definition),) = entry.items()
            if not isinstance(name, str) or not name:
                self.error(path, f"the name of field {number} must be a text, {_got(name)}")
                continue
            where = _join(path, name)
            if name in seen:  # nothing that Kong refuses, but this server has always done so
                level = WARNING if path else ERROR
                self.add(level, where, "is there twice: Kong would take the last one alone")
            seen.add(name)
            self._name(name, where, at_top=not path)
            self.field(definition, where)

    def _name(self, name: str, where: str, at_top: bool) -> None:
        if name == "$refs" or (at_top and name in OWN_KEYS):
            self.warning(
                where, "Kong puts a value of its own under this name into the configuration: "
                "choose another one",
            )  # fmt: skip
        elif "." in name:
            self.warning(
                where, "a dot in a name stands for a field inside of another one, in forms and "
                "entity checks: write _",
            )  # fmt: skip

    # --- one field --------------------------------------------------------------------------------

    def field(self, field: Any, path: str, inside: str = "") -> None:
        """Check a definition.

        Args:
            inside: "elements", "keys" or "values" if that is what it is.
        """
        if not isinstance(field, Mapping):
            self.error(path, f'must be a dict like {{"type": "string"}}, {_got(field)}')
            return
        before = len(self.problems)
        kind = field.get("type")
        if kind is None:
            self.error(path, f"type is missing: give it one of {', '.join(sorted(TYPES))}")
        elif not isinstance(kind, str) or kind not in TYPES:
            self.error(
                path,
                f"there is no type {kind!r}{meant_type(kind)}: "
                f"it must be one of {', '.join(sorted(TYPES))}",
            )
            kind = None
        for name, value in field.items():
            self._attribute(name, value, kind, field, path)
        for needed in TYPES.get(kind or "", ()):
            if field.get(needed) is None and not (kind == "record" and field.get("abstract")):
                self.error(path, f"type {kind} needs {needed}{EXAMPLES.get(needed, '')}")
        if kind:
            self._kind(kind, field, path, inside)
            self._contradictions(kind, field, path)
        sound = not any(each.level == ERROR for each in self.problems[before:])
        if sound and "default" in field:
            self._default(field, path)

    def _attribute(self, name: Any, value: Any, kind: Any, field: Any, path: str) -> None:
        known = ATTRIBUTES.get(name) if isinstance(name, str) else None
        if known is None:
            self.error(path, f"there is no attribute {name!r}{nearest(name, ATTRIBUTES)}")
            return
        if known.until and (self.kong is None or self.kong >= known.until):
            release = ".".join(map(str, known.until))
            self.add(
                ERROR if self.kong else NOTE, path,
                f"{name} is refused by Kong {release} and newer: leave it out",
            )  # fmt: skip
        if known.since > OLDEST:
            self.refused_by_some(path, f"{name} is known to", known.since)
        if kind and known.types is not None and kind not in known.types:
            types = ", ".join(sorted(known.types))
            self.error(path, f"{name} is for the types {types}, not for {kind}: leave it out")
        elif kind and known.works is not None and kind not in known.works and value is not None:
            self._useless(name, known.works, kind, path)
        if value is None and name not in ("type", "default", "eq", "ne"):
            if name in ("elements", "keys", "values", "fields"):
                self.error(path, f"{name} is null: give it, or leave it out")
            else:
                self.warning(path, f"{name} is null, which Kong takes for a value: leave it out")
        elif value is not None or name in ("eq", "ne"):
            getattr(self, f"_takes_{known.takes.replace(' ', '_')}")(name, value, path, field)

    def _useless(self, name: str, works: frozenset[str], kind: str, path: str) -> None:
        if name == "abstract":
            self.warning(path, "an abstract field can have no value in a configuration")
        elif name in ("referenceable", "reference", "on_delete") or name in STRUCTURE:
            self.warning(path, f"{name} does nothing for type {kind}: leave it out")
        else:
            types = ", ".join(sorted(works))
            self.warning(
                path,
                f"{name} is for the types {types}: a value of type {kind} makes Kong fail "
                f"when it is configured; leave it out",
            )

    def _kind(self, kind: str, field: Any, path: str, inside: str) -> None:
        if kind == "function":
            self.warning(path, "a configuration cannot hold a function: no value fits")
        elif kind == "foreign":
            self.warning(path, "a plugin's configuration cannot refer to other entities of Kong")
        elif kind == "json":
            if inside:
                self.warning(path, "Kong checks type json only for a field of a record")
            self.refused_by_some(path, "type json is known to", (3, 5))
        elif inside == "keys" and kind != "string":
            self.warning(path, "the keys of a map are strings in JSON: give keys the type string")
        if field.get("unique_across_ws") and field.get("unique") is not True and not inside:
            self.error(path, "unique_across_ws needs unique = True")
        if inside and field.get("required") is False:
            self.warning(path, f"Kong takes no null in {inside}, so required = False does nothing")

    # --- what attributes take ---------------------------------------------------------------------

    def _takes_any(self, name: str, value: Any, path: str, field: Any) -> None:
        if name in ("eq", "ne", "contains") and isinstance(value, (Mapping, list, tuple)):
            self.warning(path, f"{name} is a list or dict: Kong finds no value equal to that")

    def _takes_type(self, name: str, value: Any, path: str, field: Any) -> None:
        """That has been looked at."""

    def _takes_boolean(self, name: str, value: Any, path: str, field: Any) -> None:
        if not isinstance(value, bool):
            self.error(path, f"{name} must be True or False, {_got(value)}")
        elif name in ("uuid", "is_regex", "timestamp") and not value:
            self.warning(path, f"{name} = False does the same as True: leave it out")

    def _takes_string(self, name: str, value: Any, path: str, field: Any) -> None:
        if not isinstance(value, str) or not value:
            self.error(path, f"{name} must be a text that is not empty, {_got(value)}")

    def _takes_description(self, name: str, value: Any, path: str, field: Any) -> None:
        if not isinstance(value, str):
            self.error(path, f"description must be a text, {_got(value)}")
            return
        length = len(value.encode("utf-8", "surrogateescape"))
        if not 10 <= length <= 500:
            self.error(path, f"description must have 10 to 500 bytes, it has {length}")

    def _takes_number(self, name: str, value: Any, path: str, field: Any) -> None:
        if not is_number(value):
            self.error(path, f"{name} must be a number, {_got(value)}")

    def _takes_integer(self, name: str, value: Any, path: str, field: Any) -> None:
        if not is_number(value) or not float(value).is_integer():
            self.error(path, f"{name} must be an integer, {_got(value)}")

    def _takes_list(self, name: str, value: Any, path: str, field: Any) -> None:
        if not _is_list(value):
            self.error(path, f"{name} must be a list, {_got(value)}")
            return
        if any(item is None for item in value):
            self.error(path, f"{name} holds None: for null to be allowed leave required out")
        elif name == "one_of" and not value:
            self.warning(path, "one_of is empty: no value fits")
        elif name != "examples":
            self._odd_choices(name, value, path, field)

    def _odd_choices(self, name: str, value: Any, path: str, field: Any) -> None:
        kind = field.get("type")
        odd = [
            item for item in value if not is_type(item, "string" if kind == "string" else "number")
        ]
        if odd and kind in SCALARS:
            self.warning(path, f"{name} holds {odd[0]!r}, which is no {kind}: nothing equals it")

    def _takes_between(self, name: str, value: Any, path: str, field: Any) -> None:
        if not _is_pair(value):
            self.error(path, f"between must be a list of two numbers like [1, 10], {_got(value)}")
            return
        if not all(float(limit).is_integer() for limit in value):
            self.refused_by_some(path, "between with fractions is taken by", FRACTIONS)

    def _takes_pattern(self, name: str, value: Any, path: str, field: Any) -> None:
        if not isinstance(value, str) or not value:
            self.error(path, f"{name} must be a Lua pattern, a text, {_got(value)}")
            return
        try:
            lua_patterns.check(value)
        except lua_patterns.PatternError as exc:
            self.warning(
                path, f"{name} is no Lua pattern: {exc}; Kong fails whenever it checks a value"
            )
        for text in lua_patterns.foreign_parts(value):
            self.warning(path, f"{name} is a Lua pattern, no regular expression: {text}")

    def _takes_patterns(self, name: str, value: Any, path: str, field: Any) -> None:
        if not _is_list(value):
            self.error(path, f'{name} must be a list like [{{"pattern": "^%a"}}], {_got(value)}')
            return
        for entry in value:
            if self._keys(name, entry, {"pattern": "string", "err": "string"}, path):
                if entry.get("pattern") is None:
                    self.error(path, f"{name}: pattern is missing in {entry!r}")
                else:
                    self._takes_pattern(name, entry["pattern"], path, field)

    def _takes_any_pattern(self, name: str, value: Any, path: str, field: Any) -> None:
        if not self._keys(name, value, {"patterns": "strings", "err": "string"}, path):
            return
        if value.get("patterns") is None:
            self.error(path, f"{name} must be a dict like {{'patterns': ['^a', '^b']}}")
            return
        for pattern in value["patterns"]:
            self._takes_pattern(name, pattern, path, field)

    def _takes_subsets(self, name: str, value: Any, path: str, field: Any) -> None:
        if not _is_list(value) or not all(map(_is_strings, value)):
            self.error(path, f"{name} must be a list of lists of texts, {_got(value)}")

    def _takes_function(self, name: str, value: Any, path: str, field: Any) -> None:
        self.error(path, f"{name} is a Lua function, which only plugins in Lua can have")

    def _takes_on_delete(self, name: str, value: Any, path: str, field: Any) -> None:
        if value not in ("restrict", "cascade", "null"):
            self.error(path, f"on_delete must be restrict, cascade or null, {_got(value)}")

    def _takes_field(self, name: str, value: Any, path: str, field: Any) -> None:
        self.field(value, _join(path, name), name)

    def _takes_fields(self, name: str, value: Any, path: str, field: Any) -> None:
        self.fields(value, path)

    def _takes_shorthands(self, name: str, value: Any, path: str, field: Any) -> None:
        if value or not _is_list(value):
            self.error(path, f"{name} need a Lua function, which only plugins in Lua can have")

    def _takes_json_schema(self, name: str, value: Any, path: str, field: Any) -> None:
        allowed = {
            "namespace": "string", "parent_subschema_key": "string", "optional": "boolean",
            "inline": "any", "default": "any",
        }  # fmt: skip
        if self._keys(name, value, allowed, path) and value.get("inline") is None:
            self.warning(path, f'{name} must be like {{"inline": {{"type": "object"}}}}')

    def _takes_deprecation(self, name: str, value: Any, path: str, field: Any) -> None:
        allowed = {
            "message": "string", "removal_in_version": "string", "old_default": "any",
            "replaced_with": "list",
        }  # fmt: skip
        if self._keys(name, value, allowed, path):
            for needed in ("message", "removal_in_version"):
                if value.get(needed) is None:
                    self.error(path, f"{name} needs {needed}, a text")

    def _takes_entity_checks(self, name: str, value: Any, path: str, field: Any) -> None:
        self.entity_checks(value, field.get("fields"), path)

    def _keys(self, name: str, value: Any, allowed: Mapping[str, str], path: str) -> bool:
        """Whether a value is a dict whose keys are known and have what they should have."""
        if not isinstance(value, Mapping):
            self.error(path, f"{name} must be a dict of {', '.join(allowed)}, {_got(value)}")
            return False
        sound = True
        for key, item in value.items():
            takes = allowed.get(key)
            if takes is None:
                self.error(path, f"{name} has no {key!r}{nearest(key, allowed)}")
                sound = False
            elif item is not None and not _TAKES[takes](item):
                self.error(path, f"{name}: {key} must be {_ARTICLES[takes]}, {_got(item)}")
                sound = False
        return sound

    # --- what does not go together ----------------------------------------------------------------

    def _contradictions(self, kind: str, field: Any, path: str) -> None:
        low, high = field.get("len_min"), field.get("len_max")
        if is_number(low) and is_number(high) and low > high:
            self.warning(path, f"len_min {low} is above len_max {high}: no value fits")
        between = field.get("between")
        if _is_pair(between) and between[0] > between[1]:
            self.warning(path, f"between {list(between)}: the lower number comes first")
        if kind == "record" and _is_list(field.get("fields")) and not field["fields"]:
            self.warning(path, "the record has no fields: only an empty one fits")

    def _default(self, field: Any, path: str) -> None:
        for where, text in problems_of(field["default"], field):
            at = f" at {where}" if where else ""
            if field["default"] is None:
                text = "a field that is required cannot be null: leave default out"
            elif field["default"] == "" and "length" in text:
                text = "an empty text needs len_min = 0"
            self.error(path, f"the default does not fit{at}: {text}")

    # --- relations of fields ----------------------------------------------------------------------

    def entity_checks(self, checks: Any, fields: Any, path: str) -> None:
        """Check the entity checks of a record with the given fields."""
        if not _is_list(checks):
            self.error(
                path, f'entity_checks must be a list like [{{"only_one_of": ["a", "b"]}}], '
                f"{_got(checks)}",
            )  # fmt: skip
            return
        for check in checks:
            if not isinstance(check, Mapping) or len(check) != 1:
                self.error(
                    path,
                    f"an entity check must be a dict with one key, its name, {_got(check)}",
                )
                continue
            ((name, argument),) = check.items()
            if name == "custom_entity_check":
                has_function = isinstance(argument, Mapping) and "fn" in argument
                self.add(
                    ERROR if has_function else WARNING, path,
                    f"{name} needs a Lua function, which only plugins in Lua can have",
                )  # fmt: skip
            elif name not in entity_checks.SOURCES:
                known = entity_checks.SOURCES
                self.error(path, f"there is no entity check {name!r}{nearest(name, known)}")
            else:
                self._entity_check(str(name), argument, fields, path)

    def _entity_check(self, name: str, argument: Any, fields: Any, path: str) -> None:
        sources = entity_checks.SOURCES[name]
        if sources == ("",):
            if not _is_strings(argument):
                self.error(path, f"{name} must be a list of names of fields, {_got(argument)}")
                return
        else:
            allowed = {
                source: "string" if source.endswith("_field") else "strings" for source in sources
            }
            for key in MATCHES[name]:
                allowed[key] = "any" if key.endswith("_match") else "string"
            if not self._keys(name, argument, allowed, path):
                return
            for key in sources[:1] if name != "mutually_exclusive_sets" else sources:
                if argument.get(key) is None:
                    self.warning(path, f"{name} needs {key}")
        for each in entity_checks.names_in(name, argument):
            if not _has_field(fields, each):
                self.warning(path, f"{name} names {each!r}, which is none of the record's fields")


def _has_field(fields: Any, name: str) -> bool:
    head, _, rest = name.partition(".")
    for entry in fields if _is_list(fields) else ():
        if isinstance(entry, Mapping) and head in entry:
            inner = entry[head]
            return not rest or (
                isinstance(inner, Mapping) and _has_field(inner.get("fields"), rest)
            )
    return False


def _is_pair(value: Any) -> bool:
    return _is_list(value) and len(value) == 2 and all(map(is_number, value))


def _is_strings(value: Any) -> bool:
    return _is_list(value) and all(isinstance(item, str) and item for item in value)


_TAKES: dict[str, Any] = {
    "string": lambda value: isinstance(value, str) and value != "",
    "strings": _is_strings,
    "boolean": lambda value: isinstance(value, bool),
    "list": _is_list,
    "any": lambda value: True,
}
_ARTICLES = {
    "string": "a text that is not empty",
    "strings": "a list of texts",
    "boolean": "True or False",
    "list": "a list",
}
