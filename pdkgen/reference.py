"""The pages about the PDK, ``docs/reference/{pdk,types,kong.*}.md``; others are written by hand."""

from __future__ import annotations

from collections.abc import Iterator

from . import text
from .spec import EXAMPLE_ORDER, Function, Module, Record, Spec
from .stubs import STYLES, signature

NOTE = "<!-- Generated from pdkgen/spec by `python3 dev.py generate`: change it there. -->\n"

INDEX = """\
# The PDK

Every function of Kong's PDK that a plugin server can reach, in the names of Kong {first} to {last}.

- Functions can be called with positional or keyword arguments. `None` for an optional argument is
  the same as leaving it out.
- The first signature of each is that of Lua style, the default: calls return data and error. The
  second is that of a server with `--no-lua-style`. The error is always `None` from Kong 3.0 on.
- `Text` is `str`, `bytes` or `bytearray`; all other names are explained in [types](types.md), and
  live in `kong_pdk.pdk.types`.
- A call that Kong would not take is not made: it raises a subclass of
  `kong_pdk.exception.CallError`. See [plugins](plugins.md#pdk-calls).
- Examples are the body of a handler.

| module | for |
| --- | --- |
"""


def pages(spec: Spec) -> dict[str, str]:
    """Every page, by its file's name."""
    modules = [module for module in spec.modules if module.functions]
    found = {f"{module.name}.md": _page(spec, module) for module in modules}
    found["pdk.md"] = _index(spec)
    found["types.md"] = _types(spec.records)
    return found


def _index(spec: Spec) -> str:
    from .spec import FIRST, LAST

    lines = [NOTE, INDEX.format(first=FIRST, last=LAST).rstrip("\n")]
    for module in spec.modules:
        if module.functions:
            lines.append(f"| [{module.name}]({module.name}.md) | {module.summary} |")
    lines += ["", "## All functions", ""]
    for module in spec.modules:
        names = ", ".join(
            f"[{function.name[len(module.name) + 1 :] or 'kong.log'}]"
            f"({module.name}.md#{_anchor(function.name)})"
            for function in module.functions
        )
        if names:
            lines.append(f"- **{module.name}**: {names}")
    lines += ["", "## What a plugin server cannot use", ""]
    lines += ["Kong's PDK has these names too. Using one raises "
              "`kong_pdk.exception.UnreachableError`.", ""]  # fmt: skip
    lines += ["| name | why |", "| --- | --- |"]
    lines += [f"| `{name}` | {why.strip()} |" for name, why in sorted(spec.unreachable.items())]
    return "\n".join(lines) + "\n"


def _anchor(name: str) -> str:
    """As GitHub makes them of headings."""
    return name.replace(".", "").lower()


def _page(spec: Spec, module: Module) -> str:
    lines = [NOTE, f"# {module.name}", "", module.summary]
    if module.text:
        lines += ["", module.text]
    lines += ["", f"Kong: `{module.source}`. [All modules](pdk.md)."]
    for function in module.functions:
        lines += ["", f"## {function.name}", "", function.summary, ""]
        lines += _function(spec, function)
    if module.unreachable:
        lines += ["", "## What a plugin server cannot use", ""]
        lines += [f"- `{name}`: {why.strip()}" for name, why in module.unreachable.items()]
    return "\n".join(lines) + "\n"


def _function(spec: Spec, function: Function) -> Iterator[str]:
    yield "```python"
    shown = dict.fromkeys(
        function.name + signature(spec, function, returned) for _, returned in STYLES.values()
    )
    yield from shown
    yield "```"
    if function.deprecated:
        yield from ("", f"Deprecated: use `{function.deprecated}`.")
    if function.text:
        yield from ("", function.text)
    if function.params:
        yield ""
        for one in function.params:
            yield f"- `{one.name}`: {text.parameter(one)}"
    if function.variadic:
        yield from ("", "- `args`: any objects; the line is made of their texts.")
    yield ""
    if function.terminal:
        yield "- **Returns**: never; the handler ends."
    elif function.nothing:
        yield f"- **When there is nothing**: {function.nothing}"
    elif function.returns == "None":
        yield "- **Returns**: nothing."
    else:
        yield "- **When there is nothing**: does not happen."
    yield f"- **Phases**: {text.phases(function)}" + (f". {function.log}" if function.log else "")
    only = ", HTTP only" if function.http_only else ""
    yield f"- **Versions**: {text.versions(function.since)}{only}"
    if function.source:
        yield f"- **Source**: Kong, `{function.source}`"
    phase = example_phase(function)
    yield from ("", f"In `{phase}`:", "", "```python", *function.example.split("\n"), "```")


def example_phase(function: Function) -> str:
    """The phase that the example of a function is for."""
    return function.example_phase or next(
        phase for phase in EXAMPLE_ORDER if phase in function.phases
    )


def _types(records: tuple[Record, ...]) -> str:
    lines = [NOTE, "# Types", ""]
    lines += ["Of `kong_pdk.pdk.types`. Kong leaves out what is nil, so a key may be missing, "
              "unless it says *always there*."]  # fmt: skip
    lines += ["", "| name | what it is |", "| --- | --- |"]
    lines += [
        "| `Text` | `str`, `bytes` or `bytearray`: Kong's strings are bytes |",
        "| `Table` | a mapping, list or tuple |",
        "| `HeaderValue` | a `Text`, number or boolean, or a sequence of `Text` |",
        "| `Headers` | a mapping of names to `HeaderValue` |",
        "| `QueryValues` | a mapping of names to `Text`, numbers, booleans or sequences of these; "
        "`True` for an argument without a value |",
        "| `Body` | a dict or list, parsed from a body |",
    ]
    for record in records:
        lines += ["", f"## {record.name}", "", record.summary]
        if record.text:
            lines += ["", record.text]
        lines += ["", "| key | type | what it is |", "| --- | --- | --- |"]
        for one in record.fields:
            always = "; *always there*" if one.always else ""
            lines.append(f"| `{one.name}` | `{one.type}` | {one.text}{always} |")
        if record.source:
            lines += ["", f"Kong: `{record.source}`."]
    return "\n".join(lines) + "\n"
