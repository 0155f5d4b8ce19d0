"""Texts that more than one output holds."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

from kong_pdk.pdk.functions import PHASES

from .spec import FIRST, LAST, Function, Parameter

WIDTH = 96


def versions(since: str) -> str:
    """The Kong releases that have something, as far as is known."""
    if since == "Enterprise":
        return "Kong Enterprise only"
    if since == FIRST:
        return f"Kong {FIRST} to {LAST}"
    return f"Kong {since}" if since == LAST else f"Kong {since} to {LAST}"


def phases(function: Function) -> str:
    """The phases, as a list for readers."""
    return "all" if function.phases == PHASES else ", ".join(function.phases)


def _bounds(parameter: Parameter) -> Iterator[str]:
    if parameter.low_high:
        low, high = parameter.min, parameter.max
        yield f"at least {low}" if high is None else f"{low} to {high}"
    if parameter.choices:
        yield "one of " + ", ".join(f"`{each}`" for each in parameter.choices)
    if parameter.begins:
        yield f"begins with `{parameter.begins}`"
    if parameter.optional:
        shown = "None" if parameter.default is None else repr(parameter.default)
        yield "optional" if shown == "None" else f"`{shown}` if left out"


def parameter(parameter: Parameter) -> str:
    """What a parameter is, on one line."""
    return "; ".join([parameter.text, *_bounds(parameter)]) + "."


def plain(markdown: str) -> str:
    """Markdown as a docstring shows it."""
    return re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", markdown)


def docstring(function: Function) -> str:
    """What help() and editors show."""
    parts = [function.summary]
    if function.deprecated:
        parts.append(f"Deprecated: use {function.deprecated}.")
    if function.text:
        parts.append(plain(function.text))
    if function.params:
        lines = ["Args:"]
        for one in function.params:
            lines.append(
                textwrap.fill(
                    f"{one.name}: {parameter(one)}",
                    WIDTH - 8,
                    initial_indent="    ",
                    subsequent_indent="        ",
                )
            )
        parts.append("\n".join(lines))
    elif function.variadic:
        parts.append("Args:\n    args: any objects; the line is made of their texts.")
    if function.nothing:
        returned = textwrap.fill(
            function.nothing, WIDTH - 8, initial_indent="    ", subsequent_indent="    "
        )
        parts.append(f"Returns:\n{returned}")
    if function.terminal:
        parts.append("Ends the handler: nothing after the call runs but ``finally`` blocks.")
    notes = f"Phases: {phases(function)}. {versions(function.since)}."
    if function.log:
        notes = f"Phases: {phases(function)}. {plain(function.log)} {versions(function.since)}."
    parts.append(textwrap.fill(notes, WIDTH - 8))
    return "\n\n".join(parts)


def quoted(text: str, indent: str) -> str:
    """A docstring in its quotes, for a place of that indentation."""
    body = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    if body.endswith('"'):
        body += " "
    lines = body.split("\n")
    if len(lines) == 1:
        return f'{indent}"""{body}"""'
    rest = "\n".join(f"{indent}{line}" if line else "" for line in lines[1:])
    return f'{indent}"""{lines[0]}\n{rest}\n{indent}"""'
