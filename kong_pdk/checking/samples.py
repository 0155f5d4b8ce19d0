"""A configuration that fits a Schema, for a plugin that is run without its author's values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Optional

from ..exception import SettingsError
from ..schema.values import complete, named, problems_of

#: What texts mostly are; the first that fits is taken.
TEXTS = (
    "example", "http://localhost:8080/example", "localhost", "127.0.0.1", "/example",
    "example.com", "example@example.com", "00000000-0000-4000-8000-000000000000", "GET", "1",
    "2024-01-01", "X-Example", "a:b", "#336699", "en", "10.0.0.0/8", "application/json", "a.b.c",
    "1.0.0", "https://example.com", "redis://localhost:6379/0", "EXAMPLE", "5m",
    "2024-01-01T00:00:00Z", "a", "ab", "abc123",
)  # fmt: skip
NUMBERS = (1, 0, 10, 100, 8080, 2, 60, 1000, 0.5, -1, 200, 65536)
#: The longest text or list that is made up.
_LONGEST = 1000


class NoSample(Exception):
    """No value can be made up; the text names the field."""


def make(
    record: Mapping[str, Any], given: Optional[Mapping[str, Any]] = None
) -> tuple[dict[str, Any], list[str]]:
    """A configuration of which all required fields have values.

    Args:
        record: the definition of the configuration, with ``fields`` and ``entity_checks``.
        given: values that are known.

    Returns:
        The configuration, and the names of the fields whose values are made up.

    Raises:
        NoSample: none can be made up for a field, or the whole does not fit.
    """
    fields, checks = record.get("fields"), record.get("entity_checks") or ()
    made: list[str] = []
    config = _record(fields, dict(given or {}), "", made)
    _add_one_of_several(fields, checks, config, made)
    try:
        complete(config, fields, checks)
    except SettingsError as error:
        raise NoSample(str(error)) from error
    return config, made


def _record(fields: Any, config: dict[str, Any], path: str, made: list[str]) -> dict[str, Any]:
    for name, definition in named(fields):
        if config.get(name) is not None or definition.get("default") is not None:
            continue
        if definition.get("required"):
            config[name] = _value(definition, f"{path}{name}", made)
        elif definition.get("type") == "record" and definition.get("required") is None:
            inner = _record(definition.get("fields"), {}, f"{path}{name}.", made)
            if inner:  # Kong makes one of its defaults, which may not be all that it needs
                config[name] = inner
    return config


def _add_one_of_several(fields: Any, checks: Any, config: dict[str, Any], made: list[str]) -> None:
    """Give a value to the first of some fields of which one must be set."""
    known = dict(named(fields))
    for check in checks:
        for kind in ("at_least_one_of", "only_one_of"):
            names = check.get(kind) if isinstance(check, Mapping) else None
            if not names or any(config.get(name) is not None for name in names):
                continue
            if any(known.get(name, {}).get("default") is not None for name in names):
                continue
            if names[0] in known:
                config[names[0]] = _value(known[names[0]], names[0], made)


def _value(definition: Mapping[str, Any], path: str, made: list[str]) -> Any:
    if definition.get("type") == "record":
        return _record(definition.get("fields"), {}, f"{path}.", made)
    made.append(path)
    for value in _candidates(definition, path):
        if fits(value, definition):
            return value
    raise NoSample(f"no value can be made up for {path}")


def fits(value: Any, definition: Mapping[str, Any]) -> bool:
    """Whether a field may have a value."""
    return not problems_of(value, definition)


def _candidates(definition: Mapping[str, Any], path: str) -> Iterator[Any]:
    if definition.get("eq") is not None:
        yield definition["eq"]
    yield from definition.get("one_of") or ()
    kind = definition.get("type")
    if kind == "boolean":
        yield from (True, False)
    elif kind in ("number", "integer"):
        yield from (definition.get("between") or ())[:1]
        if isinstance(definition.get("gt"), (int, float)):
            yield definition["gt"] + 1
        yield from NUMBERS
    elif kind in ("array", "set"):
        yield []
        elements = definition.get("elements") or {}
        count = min(int(definition.get("len_min") or definition.get("len_eq") or 1), _LONGEST)
        items = list(_distinct(elements, path, count))
        yield items
    elif kind == "map":
        yield {}
        keys, values = definition.get("keys") or {}, definition.get("values") or {}
        count = min(int(definition.get("len_min") or 1), _LONGEST)
        yield {key: _value(values, path, []) for key in _distinct(keys, path, count)}
    elif kind == "string":
        yield from TEXTS
        length = definition.get("len_eq") or definition.get("len_min") or 0
        if 0 < length <= _LONGEST:
            for text in TEXTS:
                yield (text * int(length))[: int(length)]


def _distinct(definition: Mapping[str, Any], path: str, count: int) -> Iterator[Any]:
    """So many values of one definition, each another one as far as there are others."""
    fitting: list[Any] = []
    if definition.get("type") in ("record", "array", "set", "map"):
        fitting = [_value(definition, path, [])]
    else:
        for value in _candidates(definition, path):
            if value not in fitting and fits(value, definition):
                fitting.append(value)
            if len(fitting) == count:
                break
    if not fitting:
        raise NoSample(f"no value can be made up for the elements of {path}")
    for number in range(count):
        yield fitting[number % len(fitting)]
