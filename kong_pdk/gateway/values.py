"""Values on their way between Python's MessagePack and Lua's one kind of table.

Kong holds every value as a Lua value, and Lua knows fewer kinds than MessagePack does. The
functions here make a value lose what it would lose in Kong, so that a plugin meets it before it is
deployed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

#: From here on a Lua number (a double) is no exact integer, and Kong sends it as a float.
EXACT = 2**53

#: Argument lists with nil in them which LuaJIT cuts short, ``x`` being a value and ``-`` nil. They
#: were found by trying every list of up to five arguments.
_CUT_SHORT = frozenset(
    [
        "x-x",
        "--x",
        "---x",
        "--x-",
        "--xx",
        "x-x-",
        "x---x",
        "x-x-x",
        "xx--x",
        "-x--x",
        "-xx-x",
        "xxx-x",
        "--x-x",
    ]
)


def type_name(value: object) -> str:
    """Return what Lua's ``type`` says of a value."""
    if value is None:
        return "nil"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, (str, bytes)):
        return "string"
    return "table"


def is_number(value: object) -> bool:
    """Say whether Lua takes the value for a number; a boolean is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_table(value: object) -> bool:
    """Say whether Lua takes the value for a table."""
    return isinstance(value, (dict, list, tuple))


def as_map(value: Any) -> dict[Any, Any]:
    """Return a Lua table as a mapping: a list's keys are its positions, counted from one."""
    if isinstance(value, dict):
        return value
    return {index: item for index, item in enumerate(value, 1) if item is not None}


def to_string(value: object) -> str:
    """Return what Lua's ``tostring`` makes of a value."""
    if value is None:
        return "nil"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, float):
        if math.isfinite(value) and value.is_integer() and abs(value) < 1e14:
            return str(int(value))
        return f"{value:.14g}"
    if is_table(value):
        return f"table: 0x{id(value):012x}"
    return str(value)


def to_bytes(text: str) -> bytes:
    """Return the bytes that a string stands for."""
    return text.encode("utf-8", "surrogateescape")


def to_text(data: bytes) -> str:
    """Return bytes as a string that remembers those that are not UTF-8."""
    return data.decode("utf-8", "surrogateescape")


def arguments(args: object) -> list[Any]:
    """Return the arguments with which Kong would call the PDK function.

    Args:
        args: what the plugin server sent as ``Args``: an array, or one value.
    """
    if isinstance(args, dict):
        values: list[Any] = [args[key] for key in range(1, len(args) + 1) if key in args]
    elif isinstance(args, (list, tuple)):
        values = list(args)
    else:
        values = [args]
    pattern = "".join("-" if value is None else "x" for value in values)
    if pattern in _CUT_SHORT:
        values = values[: pattern.index("-")]
    while values and values[-1] is None:
        values.pop()
    return [from_wire(value) for value in values]


def from_wire(value: Any) -> Any:
    """Return a value from the wire as Lua holds it.

    Binary data and text are both strings there, and a nil inside a map or at the end of an array is
    dropped.
    """
    if isinstance(value, bytes):
        return to_text(value)
    if isinstance(value, dict):
        return {from_wire(k): from_wire(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        items = [from_wire(item) for item in value]
        while items and items[-1] is None:
            items.pop()
        return items
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return None  # an extension type


def to_wire(value: Any) -> Any:
    """Return a Lua value as Kong packs it.

    An empty table is an empty array, a table with holes a map with integer keys, and a whole number
    below 2^53 an integer.
    """
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return value if abs(value) < EXACT else float(value)
    if isinstance(value, float):
        whole = math.isfinite(value) and value.is_integer() and abs(value) < EXACT
        return int(value) if whole else value
    if isinstance(value, bytes):
        return to_text(value)
    table = {key: item for key, item in as_map(value).items() if item is not None}
    if all(index in table for index in range(1, len(table) + 1)):
        return [to_wire(table[index]) for index in range(1, len(table) + 1)]
    return {key: to_wire(item) for key, item in table.items()}


def to_json(value: Any) -> str:
    """Return a Lua value as JSON; an empty table is an object, as Kong's encoder has it.

    Raises:
        ValueError: a number has no JSON form.
    """
    return json.dumps(_for_json(value), allow_nan=False, separators=(",", ":"))


def _for_json(value: Any) -> Any:
    if isinstance(value, dict):
        items = {k: v for k, v in value.items() if v is not None}
        return {_json_key(k): _for_json(v) for k, v in items.items()}
    if isinstance(value, (list, tuple)):
        sequence: Sequence[Any] = value
        return [_for_json(item) for item in sequence] if sequence else {}
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return int(value)
    return value


def _json_key(key: object) -> str:
    return key if isinstance(key, str) else to_string(key)
