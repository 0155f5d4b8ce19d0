"""Checks of arguments that several namespaces of the PDK share."""

from __future__ import annotations

from typing import Any

from ..headers import Headers
from ..values import as_map, is_number, is_table, to_string, type_name
from .registry import check


def need_string(what: str, value: object) -> str:
    """Return a string argument.

    Raises:
        PdkError: it is none.
    """
    check(isinstance(value, str), f"{what} must be a string, not {type_name(value)}")
    return str(value)


def need_integer(what: str, value: Any, low: int, high: int) -> int:
    """Return a whole number within limits.

    Raises:
        PdkError: it is none, or outside.
    """
    whole = is_number(value) and float(value).is_integer()
    check(whole, f"{what} must be an integer, not {type_name(value)}")
    check(low <= value <= high, f"{what} must be an integer between {low} and {high}, not {value}")
    return int(value)


def limit(what: str, value: Any, default: int = 100) -> int:
    """Return how many arguments or headers are wanted: 1 to 1000.

    Raises:
        PdkError: the value is no number, or outside.
    """
    if value is None:
        return default
    check(is_number(value), f"{what} must be a number, not {type_name(value)}")
    check(1 <= value <= 1000, f"{what} must be between 1 and 1000, not {value}")
    return int(value)


def header_values(name: object, value: Any) -> tuple[str, list[str]]:
    """Return a header's name and values as Kong sends them.

    A number or a boolean becomes text, and an empty string one space, because nginx would take it
    for a wish to remove the header.

    Raises:
        PdkError: the name is no string, or the value none of the types allowed.
    """
    check(isinstance(name, str), f"a header's name must be a string, not {type_name(name)}")
    if is_table(value):
        items = list(as_map(value).values())
        for item in items:
            check(
                isinstance(item, str),
                f"the values of header {name!r} must be strings, not {type_name(item)}",
            )
        return str(name), [item or " " for item in items]
    check(
        isinstance(value, (str, bool)) or is_number(value),
        f"the value of header {name!r} must be a string, a number, a boolean or an array of "
        f"strings, not {type_name(value)}",
    )
    return str(name), [to_string(value) or " "]


def header_map(value: Any, required: bool = True) -> Headers:
    """Return a table of headers as lines.

    Args:
        value: the table.
        required: whether nil is refused.

    Raises:
        PdkError: it is no table, or one of its headers is not allowed.
    """
    lines = Headers()
    if value is None and not required:
        return lines
    check(is_table(value), f"headers must be a table, not {type_name(value)}")
    for name, item in as_map(value).items():
        header, values = header_values(name, item)
        lines.add(header, *values)
    return lines
