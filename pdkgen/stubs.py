"""The typed surface: ``kong.pyi`` and ``python_style.pyi``, and the types in ``types.py``."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

from kong_pdk.pdk.functions import class_name

from . import text
from .spec import KINDS, Field, Function, Spec

NOTE = "Generated from pdkgen/spec by `python3 dev.py generate`: change it there."

TYPES_HEAD = f'''"""Types of what goes to Kong and comes from it.

{NOTE}
Longer than most files, because it is a list. Kong leaves out of a table what is nil, so keys may be
missing, but for those of a class without ``total=False``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import {{names}}

#: A text for Kong, whose strings are bytes.
Text = Union[str, bytes, bytearray]

#: A table for Kong.
Table = Union[Mapping[Any, Any], list[Any], tuple[Any, ...]]

#: The value of a header, or its values.
HeaderValue = Union[Text, float, Sequence[Text]]

#: Headers by name.
Headers = Mapping[str, HeaderValue]

#: Query arguments by name; True stands for one without a value.
QueryValues = Mapping[str, Union[Text, float, Sequence[Union[Text, float]]]]

#: A parsed body: an object or a form as a dict, an array as a list. An empty one is a dict.
Body = Union[dict[str, Any], list[Any]]
'''

STYLES = {
    "kong": (
        "The PDK in Lua style: calls return data and error. See kong.py.",
        "tuple[{}, Optional[str]]",
    ),
    "python_style": (
        "The PDK in Python style: calls return the data alone. See python_style.py.",
        "{}",
    ),
}

#: Namespaces with access by item: whether items can be set, and what one is.
ITEMS = {
    "kong.ctx.shared": (True, "Any"),
    "kong.nginx.ctx": (True, "Any"),
    "kong.nginx.var": (False, "str"),
}


def types(spec: Spec) -> str:
    """The text of ``kong_pdk/pdk/types.py``."""
    lines = [TYPES_HEAD]
    for record in spec.records:
        doc = record.summary
        if record.text:
            doc += f"\n\n{text.plain(record.text)}"
        if record.source:
            doc += f"\n\nKong: {record.source}."
        always = [one for one in record.fields if one.always]
        others = [one for one in record.fields if not one.always]
        base, total = "TypedDict", ", total=False" if others else ""
        if always and others:
            base = f"_{record.name}Always"
            lines += ["", f"class {base}(TypedDict):", *_keys(always), ""]
            always = []
        lines += ["", f"class {record.name}({base}{total}):"]
        lines += [text.quoted(doc, " " * 4), "", *_keys(always + others), ""]
    content = "\n".join(lines)
    return content.replace("{names}", ", ".join(_typing_names(content)))


def _keys(fields: list[Field]) -> Iterator[str]:
    for one in fields:
        yield textwrap.fill(one.text, 90, initial_indent="    #: ", subsequent_indent="    #: ")
        yield f"    {one.name}: {one.type}"


def _typing_names(content: str) -> list[str]:
    """The names of typing that a module uses outside of its docstrings."""
    names = r"\b(Any|Literal|NoReturn|Optional|TypedDict|Union)\b"
    return sorted(set(re.findall(names, _code(content))))


def stub(spec: Spec, style: str) -> str:
    """The text of ``kong_pdk/pdk/<style>.pyi``."""
    summary, returned = STYLES[style]
    spaces = sorted({*spec.namespaces, *ITEMS}, key=lambda name: (-name.count("."), name))
    body: list[str] = []
    for path in spaces:
        body += _namespace(spec, path, returned)
    content = "\n".join(body)
    records = "|".join(record.name for record in spec.records)
    own = sorted(set(re.findall(
        rf"\b_(Text|Table|HeaderValue|Headers|QueryValues|Body|{records})\b", _code(content)
    )))  # fmt: skip
    aliases = "".join(f"from .types import {name} as {_alias(name)}\n" for name in own)
    if "@_deprecated" in content:  # type checkers know the module, installed or not
        aliases = f"from typing_extensions import deprecated as _deprecated\n\n{aliases}"
    public = "".join(f'    "{class_name(path)}",\n' for path in sorted(spaces))
    return (
        f'"""{summary}\n\n{NOTE}\nLonger than most files, because it is a list.\n"""\n\n'
        f"from typing import {', '.join(_typing_names(content))}\n\n{aliases}\n"
        f"__all__ = [\n{public}]\n\n" + content
    )


def _code(content: str) -> str:
    """A module without its docstrings."""
    return re.sub(r'"""(?:\\.|[^\\])*?"""', "", content)


def _alias(name: str) -> str:
    """Records have the names of some namespaces, so a stub calls all types by private ones."""
    return f"_{name}"


def _namespace(spec: Spec, path: str, returned: str) -> Iterator[str]:
    yield f"class {class_name(path)}:"
    yield text.quoted(_summary(spec, path), " " * 4)
    prefix = path + "."
    functions = {function.name: function for function in spec.functions}
    if path in functions:
        yield from _method(spec, functions[path], "__call__", returned)
    for name in sorted({*functions, *spec.namespaces, *ITEMS}):
        if not name.startswith(prefix) or "." in name[len(prefix) :]:
            continue
        last = name[len(prefix) :]
        if name in spec.namespaces or name in ITEMS:
            yield "    @property"
            yield f"    def {last}(self) -> {class_name(name)}:"
            yield text.quoted(_summary(spec, name), " " * 8)
        else:
            yield from _method(spec, functions[name], last, returned)
    if path in ITEMS:
        settable, kind = ITEMS[path]
        yield f"    def __getitem__(self, key: _Text, /) -> {kind}: ..."
        yield "    def __contains__(self, key: _Text, /) -> bool: ..."
        yield "    __iter__: None"
        if settable:
            yield "    def __setitem__(self, key: _Text, value: Any, /) -> None: ..."
            yield "    def __delitem__(self, key: _Text, /) -> None: ..."
    yield ""


def _summary(spec: Spec, path: str) -> str:
    for module in spec.modules:
        if module.name == path:
            return module.summary
    return f"{path} of Kong's PDK."


def signature(spec: Spec, function: Function, returned: str, private: bool = False) -> str:
    """Parameters and result of a function, "(name: Text) -> Optional[str]".

    Args:
        spec: which names are records.
        function: whose.
        returned: what a style makes of the type of the data, with ``{}`` for that.
        private: types of ours have the stubs' private names.
    """
    params = ["*args: object"] if function.variadic else []
    for one in function.params:
        kind = KINDS[one.type]
        if one.optional and kind != "Any":
            kind = f"Optional[{kind}]"
        default = f" = {one.default!r}" if one.optional else ""
        params.append(f"{one.name}: {kind}{default}")
    result = function.returns if function.terminal else returned.format(function.returns)
    whole = f"({', '.join(params)}) -> {result}"
    if private:
        known = "|".join([record.name for record in spec.records] + [
            "Text", "Table", "HeaderValue", "Headers", "QueryValues", "Body",
        ])  # fmt: skip
        whole = re.sub(rf"\b({known})\b", r"_\1", whole)
    return whole


def _method(spec: Spec, function: Function, name: str, returned: str) -> Iterator[str]:
    whole = signature(spec, function, returned, private=True)
    inside = whole[1:] if whole.startswith("()") else ", " + whole[1:]
    if function.deprecated:
        yield f'    @_deprecated("use {function.deprecated}")'
    yield f"    def {name}(self{inside}:"
    yield text.quoted(text.docstring(function), " " * 8)
