"""All checks of one plugin: its definition, its Schema, its PDK calls, and a run of it."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from typing import Any, NamedTuple, Optional

from ..gateway.errors import GatewayError
from ..gateway.plugin import PluginInfo
from ..kongconf.releases import Release, release
from ..kongconf.serving import (
    EMBEDDED,
    FOLDER,
    INSTALLED,
    PACKAGE,
    CommandError,
    Python,
    Target,
    base_command,
    find,
    installed,
    query,
    query_command,
)  # fmt: skip
from ..schema import language
from ..schema.values import config_record
from . import samples, smoke
from .calls import Analysis
from .findings import ERROR, WARNING, Finding, in_order, shown_path
from .handlers import find_unreached
from .modules import Module, find_line, top_level

_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
_PLACE = re.compile(r"(/[^\s:,\"]+\.py)(?::|, line |, in line )(\d+)")
#: A module is not what was expected.
_WRONG_MODULE = re.compile(r"(?:module|from(?: partially initialized module)?) '([\w.]+)'")
_NOT_PLUGINS = ("conftest.py", "setup.py")


@dataclass
class Options:
    """How a plugin is checked.

    Attributes:
        python: runs it.
        config: its configuration for the run; what is required and not there is made up.
        kong: the release that it is for; None: any that is known.
        lua_style: what its PDK calls return; None: what its annotations say.
        run: whether it is run.
        load: whether it is loaded, as Kong's query does; if not, only its source is looked at.
        server_flags: for the run.
    """

    python: Python
    config: Optional[Mapping[str, Any]] = None
    kong: Optional[Release] = None
    lua_style: Optional[bool] = None
    run: bool = True
    load: bool = True
    server_flags: tuple[str, ...] = ()


@dataclass
class Report:
    """What is known of a plugin after its checks.

    Attributes:
        place: where it is.
        info: what Kong gets to know of it; None if it cannot be loaded.
        findings: what is wrong.
        config: the configuration of the run.
        outcome: what came of the run; None if there was none.
    """

    place: str
    info: Optional[PluginInfo] = None
    findings: list[Finding] = field(default_factory=list)
    config: Optional[Mapping[str, Any]] = None
    outcome: Optional[smoke.Outcome] = None

    def add(self, level: str, code: str, text: str, path: str = "", line: int = 0) -> None:
        """Keep a finding."""
        self.findings.append(Finding(level, code, text, path, line))

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON takes it."""
        info, outcome = self.info, self.outcome
        return {
            "place": self.place,
            "name": info and info.name,
            "version": info and info.version,
            "priority": info and info.priority,
            "phases": info and list(info.phases),
            "findings": [one.as_dict() for one in self.findings],
            "run": outcome
            and {
                "config": self.config,
                "status": outcome.status,
                "ended": outcome.ended,
                "calls": outcome.calls,
                "round_trips": {name: len(calls) for name, calls in outcome.calls.items()},
            },
        }


class Source(NamedTuple):
    """Where the class of a plugin is."""

    path: str
    name: str


def expand(target: Target) -> list[Target]:
    """The plugins of a folder, each by itself; any other target as it is.

    Raises:
        CommandError: there is none.
    """
    if target.kind != FOLDER:
        return [target]
    found = []
    for entry in sorted(os.listdir(target.place)):
        path = os.path.join(target.place, entry)
        if entry.startswith((".", "_", "test_")) or entry in _NOT_PLUGINS:
            continue
        if os.path.isdir(path):
            if _defines_plugin(os.path.join(path, "__init__.py")):
                found.append(Target(PACKAGE, path))
        elif entry.endswith(".py") and _defines_plugin(path):
            try:
                found.append(find(path))
            except CommandError:
                found.append(Target("file", path))  # the check says what is wrong
    if not found:
        raise CommandError(f"there is no plugin in {target.place}: none of its files has a Plugin")
    return found


def _defines_plugin(path: str) -> bool:
    """Whether a file may be a plugin; also one that is no Python, which was to be something."""
    try:
        module = Module(path, os.path.dirname(path))
    except OSError:
        return False
    except (SyntaxError, ValueError):
        return True
    names = set()
    for node in top_level(module.tree.body):
        if isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return "Plugin" in names or find_line(module, "Plugin") > 0 or _starter(module) is not None


def check(target: Target, options: Options) -> Report:
    """Check one plugin.

    Args:
        target: a plugin, no folder of plugins.
        options: how.

    Raises:
        CommandError: the check cannot be made, whatever the plugin is like.
    """
    report = Report(target.place)
    source = source_of(target)
    if options.load:
        report.info = _load(target, options, report, source)
    if report.info is not None:
        _check_name(report, options)
        _check_schema(report, options, source)
    lua_style = options.lua_style
    if source is not None:
        lua_style = _check_calls(report, options, source)
    if report.info is not None and options.run:
        flags = ("--no-lua-style",) if lua_style is False else ()
        _run(target, options, report, flags)
    report.findings = in_order(report.findings)
    return report


# --- loading --------------------------------------------------------------------------------------


def _load(
    target: Target, options: Options, report: Report, source: Optional[Source]
) -> Optional[PluginInfo]:
    """What Kong's query says of the plugin; None, and a finding, if it says nothing."""
    said: list[str] = []
    try:
        (entry, *_) = query(query_command(target, options.python), said)
        return PluginInfo(
            name=str(entry["Name"]),
            version=str(entry["Version"]),
            priority=entry["Priority"],
            phases=tuple(entry["Phases"]),
            schema=entry["Schema"],
        )
    except CommandError as exc:
        text = str(exc)
    last = next((line for line in reversed(said) if line.strip()), "")
    if last:
        text = re.sub(r"^[\w.-]+: (?=/|plugin)", "", last)  # the name of the command
        text = re.sub(rf"^{re.escape(target.place)}[^\s]*: ", "", text)
    problems = re.split(r"; (?=Schema: )", text)
    if problems[0].startswith("Schema: "):
        for problem in problems:
            found = re.match(r"Schema: field '([^']+)'", problem)
            _add_schema_problem(report, ERROR, problem, found.group(1) if found else "", source)
        return None
    text += _hidden(text, target)
    path, line = _locate(said, target.folder)
    if not path and source is not None:
        path, line = source.path, _line_of(source, text)
    report.add(ERROR, "not-loaded", text, path or target.place, line)
    return None


def _hidden(text: str, target: Target) -> str:
    """What to do if a file beside a script hides the module that an import was to find."""
    found = _WRONG_MODULE.search(text)
    if found is None or target.kind != EMBEDDED:
        return ""
    name = found.group(1).partition(".")[0]
    if PathFinder.find_spec(name) is None:  # it is the plugin's own
        return ""
    for entry in (f"{name}.py", name):
        path = os.path.join(target.folder, entry)
        if os.path.exists(path):
            return (
                f" (there is {shown_path(path)}, which scripts beside it import in place of "
                f"another module of that name: name it otherwise)"
            )
    return ""


def _locate(lines: Sequence[str], folder: str) -> tuple[str, int]:
    """The line of the plugin's that is the innermost of a traceback, or that a text names."""
    inside = os.path.realpath(folder) + os.sep if folder else ""
    for pattern in (_FRAME, _PLACE):
        found = [match.groups() for line in lines for match in pattern.finditer(line)]
        own = [each for each in found if os.path.realpath(each[0]).startswith(inside)]
        if own:
            return os.path.realpath(own[-1][0]), int(own[-1][1])
    return "", 0


def _line_of(source: Source, text: str) -> int:
    """The line that an error of the definition is about."""
    try:
        module = Module(source.path, os.path.dirname(source.path))
    except (OSError, SyntaxError, ValueError):
        return 0
    method = re.search(r"\bPlugin\.(\w+)", text)
    for node in ast.walk(module.tree):
        is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        if is_function and method is not None and getattr(node, "name", "") == method.group(1):
            return int(getattr(node, "lineno", 0))
    for name in ("version", "priority", "Schema", "on_error"):
        if re.search(rf"\b{name}\b", text):
            line = find_line(module, name)
            if line:
                return line
    return find_line(module, source.name)


def source_of(target: Target) -> Optional[Source]:
    """Where the class of a target's plugin is, as far as that can be seen."""
    if target.kind == INSTALLED:
        return _installed_source(target.place)
    path = target.place
    if target.kind == PACKAGE:
        path = os.path.join(path, "__init__.py")
    name = "Plugin"
    if target.kind == EMBEDDED:
        try:
            name = _starter(Module(path, os.path.dirname(path))) or name
        except (OSError, SyntaxError, ValueError):
            return None
    return Source(os.path.realpath(path), name)


def _starter(module: Module) -> Optional[str]:
    """The class that a file starts its server with."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if called == "start_dedicated_server":
                given: list[ast.expr] = [k.value for k in node.keywords if k.arg == "plugin"]
                for each in [*node.args[1:2], *given]:
                    if isinstance(each, ast.Name):
                        return each.id
                return "Plugin"
    return None


def _installed_source(name: str) -> Optional[Source]:
    point = installed(name)
    if point is None:
        return None
    module, _, attribute = point.value.partition(":")
    path: Optional[Sequence[str]] = None
    place: Optional[str] = None
    parts = module.strip().split(".")
    for number in range(len(parts)):  # without importing anything
        found = PathFinder.find_spec(".".join(parts[: number + 1]), path)
        if found is None:
            try:
                found = importlib.util.find_spec(module)  # of an editable installation
            except (ImportError, ValueError):
                return None
            place = found.origin if found is not None else None
            break
        path, place = found.submodule_search_locations, found.origin
    if place is None or not place.endswith(".py"):
        return None
    return Source(os.path.realpath(place), attribute.strip() or "Plugin")


# --- what Kong says to it -------------------------------------------------------------------------


def _check_name(report: Report, options: Options) -> None:
    assert report.info is not None
    name = report.info.name
    if (options.kong or release()).bundles(name):
        text = f"Kong has a plugin {name} of its own and would take that one: use another name"
        report.add(ERROR, "name-taken", text, report.place)


def _check_schema(report: Report, options: Options, source: Optional[Source]) -> None:
    assert report.info is not None
    record = config_record(report.info.schema)
    kong = options.kong.version if options.kong is not None else None
    found = language.check_fields(record.get("fields"), record.get("entity_checks"), kong)
    for problem in found:
        level = ERROR if problem.level == language.ERROR else WARNING
        _add_schema_problem(report, level, str(problem), problem.path, source)


def _add_schema_problem(
    report: Report, level: str, text: str, field: str, source: Optional[Source]
) -> None:
    line = _line_of_field(source, field) if source is not None else 0
    path = source.path if source is not None and line else report.place
    report.add(level, "schema", text, path, line)


def _line_of_field(source: Source, path: str) -> int:
    """The line of a field in a Schema that is written out, or in the class that it is made of."""
    try:
        module = Module(source.path, os.path.dirname(source.path))
    except (OSError, SyntaxError, ValueError):
        return 0
    place: ast.AST = module.tree
    for node in top_level(module.tree.body):
        if isinstance(node, ast.Assign) and "Schema" in map(_name, node.targets):
            place = node
    line: int = getattr(place, "lineno", 0)
    for part in re.split(r"[.\[\]]+", path):
        inner = next(_named_nodes(place, part), None) or next(_annotated(module.tree, part), None)
        if inner is None:
            break
        place, line = inner, getattr(inner, "lineno", line)
    return line


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _named_nodes(place: ast.AST, name: str) -> Iterator[ast.AST]:
    for node in ast.walk(place):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values):
                if isinstance(key, ast.Constant) and key.value == name:
                    yield value


def _annotated(place: ast.AST, name: str) -> Iterator[ast.AST]:
    for node in ast.walk(place):
        if isinstance(node, ast.AnnAssign) and _name(node.target) == name:
            yield node


# --- its calls, and a run -------------------------------------------------------------------------


def _check_calls(report: Report, options: Options, source: Source) -> Optional[bool]:
    """Look at the PDK calls; returns whether they are in Lua style, None if nothing tells."""
    phases = report.info.phases if report.info is not None else smoke.ORDER
    kong = options.kong.version if options.kong is not None else None
    try:
        analysis = Analysis(source.path, source.name, phases, options.lua_style, kong)
    except (OSError, SyntaxError, ValueError):
        return options.lua_style  # it cannot be loaded either, and that is told
    report.findings += analysis.run()
    report.findings += find_unreached(source.path, source.name)
    return analysis.lua_style


def _run(target: Target, options: Options, report: Report, flags: tuple[str, ...]) -> None:
    info = report.info
    assert info is not None
    record = config_record(info.schema)
    try:
        config, made = samples.make(record, options.config)
    except samples.NoSample as exc:
        level = WARNING if options.config is None else ERROR
        text = f"it cannot be run: {exc}"
        report.add(level, "not-run", f"{text}; give its configuration with --config", report.place)
        return
    report.config = config
    hint = ""
    if made:
        hint = f" (with made-up values for {', '.join(made)}: give real ones with --config)"
    level = WARNING if made else ERROR
    start = (*base_command(target, options.python), *flags, *options.server_flags)
    try:
        outcome = smoke.run(start, info, config, target.folder)
    except GatewayError as exc:
        report.add(ERROR, "not-run", f"its server does not start: {exc}", report.place)
        return
    report.outcome = outcome
    for failure in outcome.failures:
        where = f"in {failure.phase}: " if failure.phase else ""
        report.add(
            level, "run-failed", f"{where}{failure.text}{hint}", failure.path or report.place,
            failure.line,
        )  # fmt: skip
