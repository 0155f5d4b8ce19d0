"""The specification: what an entry may hold, and the checks that it makes sense.

An entry of a function is a table named after it::

    ["kong.request.get_header"]
    summary = "One line, for completion and the page."
    text = "What else is worth knowing, Markdown."              # may be missing, as all below
    phases = ["rewrite", "access"]                              # or "all"; never missing
    log = "What is special in the log phase."
    params = [{ name = "name", type = "string", text = "..." }]
    variadic = true                                             # takes any number of anything
    returns = "Optional[str]"                                   # a Python type; None if missing
    nothing = "None if ..."
    level = "info"                                              # it writes a log line of this level
    step = "plugin.StepMultiMap"                                # how Kong sends the result
    terminal = true                                             # no result comes: the event is over
    rule = "consumer_id"                                        # for what does not fit: checks.py
    since = "3.8"                                               # of Kong; or "Enterprise"
    http_only = true                                            # not for stream connections
    deprecated = "what to use instead"
    source = "kong/pdk/x.lua"                                   # if not that of the module
    example = "Python, the body of a handler"
    example_phase = "log"                                       # else by EXAMPLE_ORDER

A parameter has ``name``, ``type`` (one of :data:`KINDS`) and ``text``, and may have ``optional``,
``default`` (that of Kong), ``min``, ``max``, ``choices``, ``begins`` (with what a text must begin)
and ``pattern`` (which texts are right without asking the rule). A name that a plugin server cannot
call has ``unreachable``, the reason, and nothing else.
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from kong_pdk.config import LEVELS
from kong_pdk.pdk.functions import PHASES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

FOLDER = Path(__file__).parent / "spec"

EXAMPLE_ORDER = ("access", "response", "log", "rewrite", "preread", "certificate")
#: Releases that the facts were read from; a function without ``since`` is in all of them.
FIRST, LAST = "2.8", "3.10"

#: Kinds of parameters, with their Python types.
KINDS = {
    "string": "Text",
    "number": "int",  # counts and statuses; Kong takes fractions, which mean nothing there
    "integer": "int",
    "boolean": "bool",
    "flag": "bool",
    "key": "Union[Text, float]",
    "table": "Table",
    "body": "Union[Text, Table]",
    "header": "HeaderValue",
    "line": "Union[Text, float]",
    "headers": "Headers",
    "query": "QueryValues",
    "any": "Any",
}


class SpecError(Exception):
    """An entry of the specification makes no sense."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a function."""

    name: str
    type: str
    text: str
    optional: bool = False
    default: Any = None
    min: Optional[int] = None
    max: Optional[int] = None
    choices: tuple[str, ...] = ()
    begins: str = ""
    pattern: str = ""

    @property
    def low_high(self) -> bool:
        """Whether it has bounds."""
        return self.min is not None or self.max is not None


@dataclass(frozen=True)
class Function:
    """A function that a plugin server can call."""

    name: str
    summary: str
    phases: tuple[str, ...]
    text: str = ""
    log: str = ""
    params: tuple[Parameter, ...] = ()
    variadic: bool = False
    returns: str = "None"
    nothing: str = ""
    level: str = ""
    step: str = "plugin.Step"
    terminal: bool = False
    rule: str = ""
    since: str = FIRST
    http_only: bool = False
    deprecated: str = ""
    source: str = ""
    example: str = ""
    example_phase: str = ""

    @property
    def namespace(self) -> str:
        """What it is called through; kong.log and kong.log.inspect are also namespaces."""
        return self.name.rpartition(".")[0]


@dataclass(frozen=True)
class Module:
    """One file of the specification, one page of the reference."""

    name: str
    summary: str
    text: str
    source: str
    functions: tuple[Function, ...]
    #: Names that a plugin server cannot call, with the reason.
    unreachable: dict[str, str]


@dataclass(frozen=True)
class Field:
    """One key of a record; ``always``: Kong never leaves it out."""

    name: str
    type: str
    text: str
    always: bool = False


@dataclass(frozen=True)
class Record:
    """A table that Kong returns, as a TypedDict."""

    name: str
    summary: str
    source: str
    fields: tuple[Field, ...]
    text: str = ""


@dataclass(frozen=True)
class Spec:
    """All of it."""

    modules: tuple[Module, ...]
    records: tuple[Record, ...]
    functions: tuple[Function, ...] = field(init=False)
    namespaces: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        functions = tuple(one for module in self.modules for one in module.functions)
        spaces = {"kong"}
        for name in [*(function.name for function in functions), *self.unreachable]:
            parts = name.split(".")
            spaces.update(".".join(parts[:n]) for n in range(1, len(parts)))
        object.__setattr__(self, "functions", functions)
        object.__setattr__(self, "namespaces", tuple(sorted(spaces)))

    @property
    def unreachable(self) -> dict[str, str]:
        """All names that a plugin server cannot call, with the reasons."""
        return {name: why for module in self.modules for name, why in module.unreachable.items()}


def load(folder: Path = FOLDER) -> Spec:
    """Read the specification.

    Raises:
        SpecError: names the file and what is wrong with it.
    """
    modules, records = [], []
    for path in sorted(folder.glob("*.toml")):
        try:
            with path.open("rb") as stream:
                content = tomllib.load(stream)
            if path.stem == "types":
                records = [_record(name, entry) for name, entry in content.items()]
            else:
                modules.append(_module(path.stem, content))
        except KeyError as exc:
            raise SpecError(f"{path.name}: {exc} is missing") from exc
        except (ValueError, SpecError, TypeError) as exc:  # not TOML, not UTF-8
            raise SpecError(f"{path.name}: {exc}") from exc
    return Spec(tuple(modules), tuple(records))


#: What a value of TOML must be, by the annotation of the attribute that it becomes.
_TYPES = {"str": str, "bool": bool, "Optional[int]": int, "tuple[str, ...]": list}


def _checked(kind: type, entry: Any, where: str) -> dict[str, Any]:
    """An entry for a dataclass, each of whose values has the right type."""
    if not isinstance(entry, dict):
        raise SpecError(f"{where} must be a table, got {entry!r}")
    for one in dataclasses.fields(kind):
        wanted = None if one.name == "phases" else _TYPES.get(str(one.type))  # which may be "all"
        if wanted and one.name in entry and type(entry[one.name]) is not wanted:
            raise SpecError(
                f"{where}: {one.name} must be of type {wanted.__name__}, got {entry[one.name]!r}"
            )
    return entry


def _record(name: str, entry: dict[str, Any]) -> Record:
    entry = _checked(Record, entry, name)
    if "fields" not in entry:
        raise SpecError(f"{name}: fields is missing")
    fields = tuple(Field(**_checked(Field, one, f"{name}: a field")) for one in entry.pop("fields"))
    return Record(name=name, fields=fields, **_texts(entry))


def _module(stem: str, content: dict[str, Any]) -> Module:
    head = _texts(_checked(Module, content.pop("module"), "module"))
    if head.get("name") != stem:
        raise SpecError(f"its module is called {head.get('name')!r}")
    functions, unreachable = [], {}
    for name, entry in content.items():
        if "unreachable" in _checked(Function, entry, name):
            unreachable[name] = str(entry["unreachable"])
            if len(entry) > 1:
                raise SpecError(f"{name}: what cannot be called has nothing but the reason")
            continue
        try:
            functions.append(_function(name, entry, stem))
        except KeyError as exc:
            raise SpecError(f"{name}: {exc} is missing") from exc
        except TypeError as exc:
            raise SpecError(f"{name}: {exc}") from exc
    return Module(
        name=stem,
        summary=head["summary"],
        text=head.get("text", ""),
        source=head["source"],
        functions=tuple(functions),
        unreachable=unreachable,
    )


def _texts(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value.strip() if isinstance(value, str) else value for key, value in entry.items()}


def _function(name: str, entry: dict[str, Any], stem: str) -> Function:
    entry = _texts(entry)
    if not (name == stem or name.startswith(stem + ".")):
        raise SpecError(f"{name} does not belong to {stem}")
    phases = entry.pop("phases")
    phases = PHASES if phases == "all" else tuple(phases)
    if not phases or not set(phases) <= set(PHASES):
        raise SpecError(f"{name}: phases must be some of {', '.join(PHASES)}, or all")
    params = tuple(_parameter(name, one) for one in entry.pop("params", ()))
    if len({one.name for one in params}) < len(params):
        raise SpecError(f"{name}: two parameters have the same name")
    function = Function(name=name, phases=phases, params=params, **entry)
    optional = False
    for parameter in params:
        if optional and not parameter.optional:
            raise SpecError(f"{name}: {parameter.name} must be optional like the one before it")
        optional = parameter.optional
    if function.level and function.level not in LEVELS:
        raise SpecError(f"{name}: there is no level {function.level!r}")
    if function.returns.startswith("Optional") and not function.nothing:
        raise SpecError(f"{name}: say when it returns None, in `nothing`")
    for key in ("summary", "example"):
        if not getattr(function, key):
            raise SpecError(f"{name}: {key} is missing")
    if "\n" in function.summary or not function.summary.endswith("."):
        raise SpecError(f"{name}: the summary must be one sentence on one line")
    if function.example_phase and function.example_phase not in function.phases:
        raise SpecError(f"{name}: its example is for a phase in which it cannot be called")
    return function


def _parameter(function: str, entry: dict[str, Any]) -> Parameter:
    if _checked(Parameter, entry, f"{function}: a parameter").get("type") not in KINDS:
        raise SpecError(f"{function}: there is no type {entry.get('type')!r}")
    return Parameter(**{**entry, "choices": tuple(entry.get("choices", ()))})
