"""What a single value must be for each attribute of a field that limits it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional

from . import lua_patterns

Definition = Mapping[str, Any]
#: Where something is wrong, and what.
Problems = list[tuple[str, str]]

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.I)
#: What re and Kong's PCRE both refuse; other errors of re may be its own.
_NO_REGEX = (
    "unterminated", "unbalanced", "nothing to repeat", "bad escape (end of pattern)", "missing )",
)  # fmt: skip


def is_number(value: Any) -> bool:
    """Say whether a value is a number for Lua; booleans are none there."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_reference(value: Any) -> bool:
    """Say whether a value is a reference to a vault, ``{vault://...}``."""
    return isinstance(value, str) and value.startswith("{vault://") and value.endswith("}")


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) or value == {}


_IS_TYPE: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "number": is_number,
    "integer": lambda value: is_number(value) and float(value).is_integer(),
    "boolean": lambda value: isinstance(value, bool),
    "array": _is_list,
    "set": _is_list,
    "map": lambda value: isinstance(value, Mapping) or value == [],
    "record": lambda value: isinstance(value, Mapping) or value == [],
    "foreign": lambda value: True,  # only the entity's own schema tells
    "function": lambda value: False,  # which JSON has none of
}


def is_type(value: Any, kind: str) -> bool:
    """Say whether a value that is not null has a type of the schema language.

    An empty list stands for an empty map too, and the other way round: Lua has one empty table.
    """
    return _IS_TYPE.get(kind, lambda value: True)(value)


def a_kind(value: Any) -> str:
    """Name the kind of a value, with its article."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if is_number(value):
        return f"the number {value}"
    if isinstance(value, str):
        return "a string"
    return "an object" if isinstance(value, Mapping) else "a list"


def same(one: Any, other: Any) -> bool:
    """Say whether two values are equal in Lua, where no two tables are and True is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, (list, tuple, Mapping)) or isinstance(other, (list, tuple, Mapping)):
        return False
    return bool(one == other)


def check_null(definition: Definition, path: str, problems: Problems) -> None:
    """See whether a field may be null."""
    if "ne" in definition and definition["ne"] is None:
        problems.append((path, definition.get("err") or "must not be null"))
    elif definition.get("eq") is not None:
        problems.append((path, f"must be {definition['eq']!r}, got null"))
    elif definition.get("required"):
        problems.append((path, "required field missing"))


def check_limits(
    value: Any, definition: Definition, path: str, problems: Problems, shown: bool = True
) -> None:
    """See whether a value of the right type is within the limits of its field.

    Kong names the first that it is not within; so is it here.

    Args:
        value: the value, which is not null.
        definition: the field's.
        path: where it is.
        problems: what is wrong is added there.
        shown: the value may stand in the text.
    """
    if "eq" in definition and definition["eq"] is None:
        problems.append((path, definition.get("err") or "must be null"))
        return
    if definition.get("referenceable") or definition.get("encrypted"):
        shown = False
    for name, check in _VALIDATORS:
        wanted: Any = definition.get(name)
        if name == "len_min" and wanted is None and definition.get("type") == "string":
            wanted = 1  # Kong takes no empty string unless the schema says len_min = 0
        if wanted is None:
            continue
        try:
            text = check(value, wanted)
        except (TypeError, ValueError, AttributeError, LookupError) as exc:
            text = f"cannot be checked for {name}: {exc}"
        if text is not None:
            if shown and ", got " not in text:
                text += f", got {_shown(value)}"
            problems.append((path, definition.get("err") or text))
            return


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) and len(value) <= 60 else a_kind(value)


def _words(values: Any) -> str:
    return ", ".join(map(str, values))


def _number(value: Any) -> Any:
    if not is_number(value):
        raise TypeError(f"that needs a number, not {a_kind(value)}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"that needs a string, not {a_kind(value)}")
    return value


def _length(value: Any) -> int:
    """As Lua counts: of a string its bytes."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogateescape"))
    if not isinstance(value, (list, tuple, Mapping)):
        raise TypeError(f"{a_kind(value)} has no length")
    return len(value)


def _matches(value: Any, pattern: Any) -> bool:
    return lua_patterns.match(_text(value), _text(pattern)) is not None


def _eq(value: Any, wanted: Any) -> Optional[str]:
    return None if same(value, wanted) else f"must be {wanted!r}"


def _ne(value: Any, wanted: Any) -> Optional[str]:
    return f"must not be {wanted!r}" if same(value, wanted) else None


def _one_of(value: Any, wanted: Any) -> Optional[str]:
    if any(same(value, each) for each in wanted):
        return None
    return f"expected one of: {_words(wanted)}"


def _not_one_of(value: Any, wanted: Any) -> Optional[str]:
    if any(same(value, each) for each in wanted):
        return f"must be none of: {_words(wanted)}"
    return None


def _gt(value: Any, wanted: Any) -> Optional[str]:
    return None if _number(value) > wanted else f"expected a value above {wanted}"


def _timestamp(value: Any, wanted: Any) -> Optional[str]:
    return None if _number(value) > 0 else "expected a timestamp, a value above 0"


def _uuid(value: Any, wanted: Any) -> Optional[str]:
    return None if _UUID.fullmatch(_text(value)) else "expected a UUID"


def _is_regex(value: Any, wanted: Any) -> Optional[str]:
    try:
        re.compile(_text(value))
    except re.error as exc:
        if any(words in exc.msg for words in _NO_REGEX):
            return f"expected a regular expression ({exc})"
    return None


def _between(value: Any, wanted: Any) -> Optional[str]:
    low, high = wanted
    if low <= _number(value) <= high:
        return None
    return f"expected a value between {low} and {high}"


def _len_eq(value: Any, wanted: Any) -> Optional[str]:
    length = _length(value)
    return None if length == wanted else f"expected a length of {wanted}, got {length}"


def _len_min(value: Any, wanted: Any) -> Optional[str]:
    length = _length(value)
    return None if length >= wanted else f"expected a length of at least {wanted}, got {length}"


def _len_max(value: Any, wanted: Any) -> Optional[str]:
    length = _length(value)
    return None if length <= wanted else f"expected a length of at most {wanted}, got {length}"


def _starts_with(value: Any, wanted: Any) -> Optional[str]:
    return None if _text(value).startswith(wanted) else f"should start with {wanted!r}"


def _match(value: Any, wanted: Any) -> Optional[str]:
    if _matches(value, wanted):
        return None
    return f"expected a match of the Lua pattern {wanted!r}"


def _not_match(value: Any, wanted: Any) -> Optional[str]:
    if _matches(value, wanted):
        return f"must not match the Lua pattern {wanted!r}"
    return None


def _match_all(value: Any, wanted: Any) -> Optional[str]:
    for each in wanted:
        if not _matches(value, each["pattern"]):
            return each.get("err") or _match(value, each["pattern"])
    return None


def _match_none(value: Any, wanted: Any) -> Optional[str]:
    for each in wanted:
        if _matches(value, each["pattern"]):
            return each.get("err") or _not_match(value, each["pattern"])
    return None


def _match_any(value: Any, wanted: Any) -> Optional[str]:
    if any(_matches(value, pattern) for pattern in wanted["patterns"]):
        return None
    return wanted.get("err") or f"expected a match of a Lua pattern of {_words(wanted['patterns'])}"


def _contains(value: Any, wanted: Any) -> Optional[str]:
    if isinstance(value, Sequence) and any(same(each, wanted) for each in value):
        return None
    return f"expected to contain {wanted!r}"


def _exclusive_subsets(value: Any, wanted: Any) -> Optional[str]:
    _length(value)
    items = value if isinstance(value, (list, tuple)) else ()
    met = [subset for subset in wanted if any(each in subset for each in items)]
    if len(met) < 2:
        return None
    return f"these exclude each other: {' and '.join(f'({_words(each)})' for each in met)}"


#: In the order in which Kong looks at them.
_VALIDATORS: tuple[tuple[str, Callable[[Any, Any], Optional[str]]], ...] = (
    ("eq", _eq),
    ("ne", _ne),
    ("not_one_of", _not_one_of),
    ("one_of", _one_of),
    ("gt", _gt),
    ("timestamp", _timestamp),
    ("uuid", _uuid),
    ("is_regex", _is_regex),
    ("between", _between),
    ("len_eq", _len_eq),
    ("len_min", _len_min),
    ("len_max", _len_max),
    ("starts_with", _starts_with),
    ("not_match", _not_match),
    ("match_none", _match_none),
    ("match", _match),
    ("match_all", _match_all),
    ("match_any", _match_any),
    ("contains", _contains),
    ("mutually_exclusive_subsets", _exclusive_subsets),
)
