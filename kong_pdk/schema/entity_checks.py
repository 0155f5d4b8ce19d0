"""What the fields of one record must be to each other: its ``entity_checks``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable, Optional

from .validators import Definition, Problems, check_limits, check_null, is_reference, is_type, same

#: The lists of a check's argument that name fields; "" for an argument that is such a list itself.
SOURCES: dict[str, tuple[str, ...]] = {
    "at_least_one_of": ("",),
    "only_one_of": ("",),
    "distinct": ("",),
    "mutually_required": ("",),
    "mutually_exclusive": ("",),
    "mutually_exclusive_sets": ("set1", "set2"),
    "conditional": ("if_field", "then_field"),
    "conditional_at_least_one_of": (
        "if_field", "then_at_least_one_of", "else_then_at_least_one_of",
    ),
}  # fmt: skip


def names_in(check: str, argument: Any) -> list[str]:
    """Return the names of the fields that a check looks at, with dots for those inside of others.

    Args:
        check: its name.
        argument: what the schema gives it.
    """
    names: list[str] = []
    for source in SOURCES.get(check, ()):
        found = argument.get(source) if source and isinstance(argument, Mapping) else argument
        if isinstance(found, str) and source:
            names.append(found)
        elif isinstance(found, (list, tuple)):
            names += [name for name in found if isinstance(name, str)]
    return names


def run(
    checks: Any,
    record: Mapping[str, Any],
    known: Mapping[str, Definition],
    path: str,
    problems: Problems,
) -> None:
    """Run the checks of a record.

    Args:
        checks: a list of dicts of one key each.
        record: its values, without those that are null.
        known: the definitions of its fields.
        path: where the record is.
        problems: what is wrong is added there.
    """
    for entry in checks:
        for name, argument in entry.items() if isinstance(entry, Mapping) else ():
            function = _CHECKS.get(name)
            fields = _Fields(record, known)
            if function is None or argument is None:
                continue
            if any(fields.is_reference(each) for each in names_in(name, argument)):
                continue  # nobody knows yet what it will be
            text = function(fields, argument)
            if text:
                problems.append((path or "config", text))


class _Fields:
    """The fields of a record by name, which has dots for those inside of others."""

    def __init__(self, record: Mapping[str, Any], known: Mapping[str, Definition]) -> None:
        self.record = record
        self.known = known

    def get(self, name: str) -> Any:
        value: Any = self.record
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def filled(self, names: Any) -> list[str]:
        """Those of the names whose fields have a value that is not empty."""
        return [name for name in names or () if self.get(name) not in (None, "", [], {}, ())]

    def definition(self, name: str) -> Definition:
        known: Any = self.known
        found: Any = {}
        for part in name.split("."):
            found = known.get(part) if isinstance(known, Mapping) else None
            if not isinstance(found, Mapping):
                return {}
            known = {
                key: inner
                for item in found.get("fields") or ()
                if isinstance(item, Mapping)
                for key, inner in item.items()
            }
        return found if isinstance(found, Mapping) else {}

    def is_reference(self, name: str) -> bool:
        definition = self.definition(name)
        return bool(definition.get("referenceable")) and is_reference(self.get(name))

    def fits(self, name: str, limits: Any) -> Optional[str]:
        """Why a field does not fit other limits beside its own; None if it does."""
        definition = {**self.definition(name), **(limits or {})}
        value, problems = self.get(name), Problems()
        if value is None:
            check_null(definition, "", problems)
        elif not is_type(value, str(definition.get("type", "any"))):
            return "has a wrong type"
        else:
            check_limits(value, definition, "", problems, shown=False)
        return problems[0][1] if problems else None


def _list(names: Any) -> str:
    return ", ".join(map(str, names))


def _at_least_one_of(fields: _Fields, names: Any) -> Optional[str]:
    return None if fields.filled(names) else f"at least one of these must be set: {_list(names)}"


def _only_one_of(fields: _Fields, names: Any) -> Optional[str]:
    if len(fields.filled(names)) == 1:
        return None
    return f"exactly one of these must be set: {_list(names)}"


def _distinct(fields: _Fields, names: Any) -> Optional[str]:
    values = [fields.get(name) for name in fields.filled(names)]
    if any(same(value, other) for n, value in enumerate(values) for other in values[:n]):
        return f"the values of these must differ: {_list(names)}"
    return None


def _mutually_required(fields: _Fields, names: Any) -> Optional[str]:
    if len(fields.filled(names)) in (0, len(names)):
        return None
    return f"all or none of these must be set: {_list(names)}"


def _mutually_exclusive(fields: _Fields, names: Any) -> Optional[str]:
    if len(fields.filled(names)) < 2:
        return None
    return f"at most one of these may be set: {_list(names)}"


def _mutually_exclusive_sets(fields: _Fields, argument: Any) -> Optional[str]:
    first, second = fields.filled(argument.get("set1")), fields.filled(argument.get("set2"))
    if first and second:
        return f"these exclude each other: ({_list(first)}) and ({_list(second)})"
    return None


def _conditional(fields: _Fields, argument: Any) -> Optional[str]:
    condition, other = str(argument.get("if_field")), str(argument.get("then_field"))
    if fields.fits(condition, argument.get("if_match")):
        return None
    wrong = fields.fits(other, argument.get("then_match"))
    if wrong is None:
        return None
    own = argument.get("then_err")
    if own:
        return str(own).replace("%s", condition)
    return f"{other}: {wrong}, because {condition} has the value that it has"


def _conditional_at_least_one_of(fields: _Fields, argument: Any) -> Optional[str]:
    condition = str(argument.get("if_field"))
    prefix = ""
    if fields.fits(condition, argument.get("if_match")):
        if argument.get("else_match") is None:
            return None
        if fields.fits(condition, argument.get("else_match")):
            return None
        prefix = "else_"
    names = argument.get(f"{prefix}then_at_least_one_of") or ()
    if fields.filled(names):
        return None
    own = argument.get(f"{prefix}then_err")
    text = f"at least one of these must be set: %s, because {condition} has the value that it has"
    return str(own or text).replace("%s", _list(names))


_CHECKS: dict[str, Callable[[_Fields, Any], Optional[str]]] = {
    "at_least_one_of": _at_least_one_of,
    "only_one_of": _only_one_of,
    "distinct": _distinct,
    "mutually_required": _mutually_required,
    "mutually_exclusive": _mutually_exclusive,
    "mutually_exclusive_sets": _mutually_exclusive_sets,
    "conditional": _conditional,
    "conditional_at_least_one_of": _conditional_at_least_one_of,
}
