"""The run-time table, ``kong_pdk/pdk/_table.py``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from kong_pdk.config import LEVELS
from kong_pdk.pdk.functions import PHASES

from . import text
from .spec import FIRST, Function, Record, Spec

HEAD = '''"""Every PDK function, what its results hold, and the names that cannot be used.

Generated from pdkgen/spec by `python3 dev.py generate`: change it there. Longer than most files,
because it is a table.
"""

from __future__ import annotations

from .functions import PHASES, FunctionSpec
from .functions import Parameter as P
'''


def table(spec: Spec) -> str:
    """The text of the module."""
    records = dict(_record_shapes(spec.records))
    lines = [HEAD, "FUNCTIONS: tuple[FunctionSpec, ...] = ("]
    for function in sorted(spec.functions, key=lambda each: each.name):
        lines += _function(function, records)
    lines += [")", "", "#: Shapes of the fields of records, where an empty table needs one."]
    lines += ["RECORDS: dict[str, dict[str, str]] = {"]
    lines += [f"    {_quoted(name)}: {_quoted(fields)}," for name, fields in records.items()]
    lines += ["}", "", "#: Names of Kong's PDK that a plugin server cannot use, and why."]
    lines += ["UNREACHABLE: dict[str, str] = {"]
    for name, why in sorted(spec.unreachable.items()):
        lines.append(f"    {_quoted(name)}: {_quoted(why.strip())},")
    lines += ["}", ""]
    return "\n".join(lines)


def _quoted(value: object) -> str:
    """A value as source, with the quotes of this project."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_quoted, value)) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quoted(k)}: {_quoted(v)}" for k, v in value.items()) + "}"
    return repr(value)


def _function(function: Function, records: dict[str, dict[str, str]]) -> Iterator[str]:
    yield "    FunctionSpec("
    yield f"        {_quoted(function.name)},"
    yield f"        {'PHASES' if function.phases == PHASES else _quoted(function.phases)},"
    if function.params:
        yield "        ("
        for one in function.params:
            words = [_quoted(one.name), _quoted(one.type)]
            if one.optional:
                words.append("optional=True")
            for key, value in (("default", one.default), ("low", one.min), ("high", one.max)):
                if value is not None:
                    words.append(f"{key}={_quoted(value)}")
            if one.choices:
                words.append(f"choices={_quoted(one.choices)}")
            for key, value in (("begins", one.begins), ("pattern", one.pattern)):
                if value:
                    words.append(f"{key}={_quoted(value)}")
            yield f"            P({', '.join(words)}),"
        yield "        ),"
    if function.returns != "None":
        yield f"        returns={_quoted(function.returns)},"
    found = shape(function.returns, records)
    if found:
        yield f"        shape={_quoted(found)},"
    if function.level:
        yield f"        level={LEVELS.index(function.level)},"
    for key in ("variadic", "rule"):
        if getattr(function, key):
            yield f"        {key}={_quoted(getattr(function, key))},"
    if function.step != "plugin.Step":
        yield f"        step={_quoted(function.step)},"
    if function.since != FIRST:
        yield f"        since={_quoted(function.since)},"
    yield "        doc=" + text.quoted(text.docstring(function), " " * 8).lstrip() + ","
    yield "    ),"


def shape(kind: str, records: dict[str, dict[str, str]]) -> str:
    """What must be done with a table of a declared type; "" for nothing.

    An empty table arrives as a list, whatever it is in Lua; so a map must become a dict.
    """
    inner = _inside(kind, "Optional")
    if inner is not None:
        return shape(inner, records)
    for outer, name in (("list", "list"), ("dict", "map")):
        inner = _inside(kind, outer)
        if inner is not None:
            member = shape(inner.rpartition(", ")[2] if outer == "dict" else inner, records)
            return f"{name} of {member}" if member in records else name
    if kind == "Body":
        return "map"
    if kind == "bytes":
        return kind
    return kind if kind in records else ""


def _inside(kind: str, outer: str) -> str | None:
    found = re.fullmatch(rf"{outer}\[(.*)\]", kind)
    return found.group(1) if found else None


def _record_shapes(records: tuple[Record, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    known: dict[str, dict[str, str]] = {record.name: {} for record in records}
    for record in records:
        shapes = {one.name: shape(one.type, known) for one in record.fields}
        # A list is what an empty table arrives as anyway.
        yield (
            record.name,
            {name: kind for name, kind in shapes.items() if kind not in ("", "list", "bytes")},
        )
