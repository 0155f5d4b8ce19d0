"""Who may import whom, and what a plain import of the package brings with it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import kong_pdk

ROOT = Path(kong_pdk.__file__).parent


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("kong_pdk", *(parts[:-1] if parts[-1] == "__init__" else parts)))


#: Every module by its full name; the compiled one by its source, where that is installed.
SOURCES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports(name: str) -> Iterator[str]:
    """The full names of all modules, and of names in them, that a module imports anywhere."""
    path = SOURCES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) + 1 - node.level]
            source = ".".join([*base, *([node.module] if node.module else [])])
            if not node.level:
                source = node.module or ""
            for alias in node.names:
                full = f"{source}.{alias.name}"
                yield full if full in SOURCES or f"{full}._" in SOURCES else source


def ours(name: str) -> set[str]:
    """The modules of this package that a module imports."""
    return {each for each in imports(name) if each.split(".")[0] == "kong_pdk"}


def within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == each or name.startswith(each + ".") for each in packages)


# What each may import of ours. The first line that fits a module holds; a name stands for all below
# it. What no line fits is refused, so that a new module gets its rule.
RULES: list[tuple[str, tuple[str, ...]]] = [
    ("kong_pdk.exception", ()),
    ("kong_pdk._wakeup", ()),
    ("kong_pdk.logs", ()),
    ("kong_pdk._kinds", ()),
    ("kong_pdk._bounds", ()),
    ("kong_pdk._columns", ()),
    ("kong_pdk._wire", ("kong_pdk._bounds", "kong_pdk.exception")),
    (
        "kong_pdk._fallback",
        (
            "kong_pdk._columns", "kong_pdk._kinds", "kong_pdk._wire", "kong_pdk._wakeup",
            "kong_pdk.exception",
        ),
    ),
    ("kong_pdk._codec", ("kong_pdk._fallback", "kong_pdk._speedups")),
    ("kong_pdk.config", ("kong_pdk._bounds", "kong_pdk.exception")),
    ("kong_pdk.refusals", ("kong_pdk._wire", "kong_pdk._codec")),
    ("kong_pdk.accounts", ("kong_pdk.exception",)),
    (
        "kong_pdk.pdk",
        (
            "kong_pdk.pdk", "kong_pdk._codec", "kong_pdk._kinds", "kong_pdk._wire",
            "kong_pdk.exception",
        ),
    ),
    ("kong_pdk.schema", ("kong_pdk.schema", "kong_pdk.exception")),
    # What a plugin is and where it comes from; nothing that serves one.
    (
        "kong_pdk.plugins",
        (
            "kong_pdk.plugins", "kong_pdk.pdk.functions", "kong_pdk.schema", "kong_pdk.config",
            "kong_pdk.exception",
        ),
    ),
    # Told of events by what runs them, of which they know the codec's part alone.
    (
        "kong_pdk.observing",
        (
            "kong_pdk.observing", "kong_pdk.pdk._table", "kong_pdk.config", "kong_pdk._codec",
            "kong_pdk._wakeup", "kong_pdk.exception",
        ),
    ),
    (
        "kong_pdk.runtime",
        (
            "kong_pdk.runtime", "kong_pdk.plugins.definition", "kong_pdk.pdk", "kong_pdk.schema",
            "kong_pdk.observing.base",
            "kong_pdk.config", "kong_pdk._codec", "kong_pdk._columns", "kong_pdk._wire",
            "kong_pdk.exception", "kong_pdk.refusals",
        ),
    ),
    # Served by what runs plugins and by the parent alike: neither is known here.
    (
        "kong_pdk.metrics",
        (
            "kong_pdk.runtime.status", "kong_pdk.runtime.tally", "kong_pdk.server.listener",
            "kong_pdk.config", "kong_pdk._codec", "kong_pdk._columns", "kong_pdk.exception",
        ),
    ),
    (
        "kong_pdk.server.lifecycle",
        (
            "kong_pdk.server", "kong_pdk.runtime", "kong_pdk.plugins.definition",
            "kong_pdk.modes", "kong_pdk.config", "kong_pdk._codec", "kong_pdk.metrics",
            "kong_pdk.observing",
        ),
    ),
    (
        "kong_pdk.server.reloading",
        (
            "kong_pdk.server.loop", "kong_pdk.plugins", "kong_pdk.runtime", "kong_pdk.modes.base",
            "kong_pdk.config", "kong_pdk.exception",
        ),
    ),
    ("kong_pdk._again", ("kong_pdk.config", "kong_pdk.exception")),
    (
        "kong_pdk.server",
        (
            "kong_pdk.server", "kong_pdk.runtime", "kong_pdk.modes", "kong_pdk.config",
            "kong_pdk._codec", "kong_pdk._wire", "kong_pdk.exception", "kong_pdk.refusals",
        ),
    ),
    (
        "kong_pdk.modes",
        (
            "kong_pdk.modes", "kong_pdk.server", "kong_pdk.runtime", "kong_pdk.config",
            "kong_pdk._codec", "kong_pdk._wire", "kong_pdk._wakeup", "kong_pdk.exception",
            "kong_pdk._again",
        ),
    ),
    # The parent runs no plugin, and the worker is an ordinary server.
    ("kong_pdk.processes.link", ()),
    ("kong_pdk.processes.channel", ("kong_pdk.processes.link", "kong_pdk.processes.memory")),
    ("kong_pdk.processes.poller", ()),
    ("kong_pdk.processes.memory", ()),
    (
        "kong_pdk.processes.ledger",
        ("kong_pdk.processes.memory", "kong_pdk._wire", "kong_pdk.config"),
    ),
    ("kong_pdk.processes.launch", ("kong_pdk.processes.link", "kong_pdk._again")),
    (
        "kong_pdk.processes.crew",
        (
            "kong_pdk.processes.channel", "kong_pdk.processes.launch",
            "kong_pdk.processes.ledger", "kong_pdk.processes.link", "kong_pdk.processes.poller",
            "kong_pdk.config", "kong_pdk.exception",
        ),
    ),
    (
        "kong_pdk.processes.rescue",
        (
            "kong_pdk.processes.crew", "kong_pdk.processes.inbox", "kong_pdk.processes.ledger",
            "kong_pdk.processes.poller", "kong_pdk.server.drain", "kong_pdk.refusals",
            "kong_pdk.config", "kong_pdk._codec", "kong_pdk._wire", "kong_pdk.exception",
        ),
    ),
    (
        "kong_pdk.processes.parent",
        (
            "kong_pdk.processes.crew", "kong_pdk.processes.channel", "kong_pdk.processes.ledger",
            "kong_pdk.processes.link", "kong_pdk.processes.memory", "kong_pdk.processes.poller",
            "kong_pdk.processes.registry", "kong_pdk.processes.replacing",
            "kong_pdk.processes.rescue", "kong_pdk.runtime.tally",
            "kong_pdk.metrics",
            "kong_pdk.server.door", "kong_pdk.server.lifecycle", "kong_pdk.server.listener",
            "kong_pdk.config", "kong_pdk.exception",
        ),
    ),
    (
        "kong_pdk.processes",
        (
            "kong_pdk.processes", "kong_pdk.server", "kong_pdk.runtime",
            "kong_pdk.plugins.definition", "kong_pdk.modes", "kong_pdk.config",
            "kong_pdk.observing", "kong_pdk._codec", "kong_pdk._wire", "kong_pdk._again",
            "kong_pdk.exception",
        ),
    ),
    # What the PDK is, from its table; not how plugins call it.
    (
        "kong_pdk.gateway.functions.registry",
        ("kong_pdk.gateway", "kong_pdk.pdk._table", "kong_pdk.pdk.functions"),
    ),
    ("kong_pdk.gateway.prefix", ("kong_pdk.config",)),
    (
        "kong_pdk.gateway",
        ("kong_pdk.gateway", "kong_pdk.schema", "kong_pdk.exception", "kong_pdk.__version__"),
    ),
    (
        "kong_pdk.kongconf",
        (
            "kong_pdk.kongconf", "kong_pdk.gateway.plugin", "kong_pdk.config",
            "kong_pdk.exception",
        ),
    ),
    # Source is read there, and nothing of the plugin's is run but by a server.
    (
        "kong_pdk.checking.calls",
        ("kong_pdk.checking", "kong_pdk.pdk.functions", "kong_pdk.pdk.proxy"),
    ),
    (
        "kong_pdk.checking.walker",
        ("kong_pdk.checking", "kong_pdk.pdk", "kong_pdk.exception"),
    ),
    ("kong_pdk.checking.handlers", ("kong_pdk.checking", "kong_pdk.pdk.functions")),
    ("kong_pdk.checking.misuse", ("kong_pdk.checking", "kong_pdk.pdk.functions")),
    ("kong_pdk.checking.values", ("kong_pdk.checking", "kong_pdk.pdk.proxy")),
    ("kong_pdk.checking.modules", ("kong_pdk.checking", "kong_pdk.pdk.helpers")),
    ("kong_pdk.checking.findings", ()),
    (
        "kong_pdk.checking",
        (
            "kong_pdk.checking", "kong_pdk.gateway", "kong_pdk.kongconf", "kong_pdk.schema",
            "kong_pdk.config", "kong_pdk.exception",
        ),
    ),
    # Flags are read by the server's own parsers.
    (
        "kong_pdk.migration.launching",
        ("kong_pdk.flags", "kong_pdk.gateway.plugin", "kong_pdk.kongconf.serving"),
    ),
    (
        "kong_pdk.migration.source",
        ("kong_pdk.checking.findings", "kong_pdk.checking.modules", "kong_pdk.pdk.functions"),
    ),
    ("kong_pdk.migration.differences", ()),
    (
        "kong_pdk.migration",
        (
            "kong_pdk.migration", "kong_pdk.checking", "kong_pdk.flags", "kong_pdk.kongconf",
            "kong_pdk.config", "kong_pdk.exception",
        ),
    ),
    # In every project that uses pytest.
    ("kong_pdk.testing.pytest_plugin", ("kong_pdk.testing",)),
    # What the process of a server runs.
    (
        "kong_pdk.testing.launcher",
        ("kong_pdk.testing.plugins", "kong_pdk.cli", "kong_pdk._again"),
    ),
    # The server as it is, with the simulation in Kong's place.
    (
        "kong_pdk.testing",
        (
            "kong_pdk.testing", "kong_pdk.gateway", "kong_pdk.runtime", "kong_pdk.pdk.functions",
            "kong_pdk.plugins", "kong_pdk.config", "kong_pdk.exception", "kong_pdk._codec",
            "kong_pdk._wire",
        ),
    ),
    (
        "kong_pdk.commands",
        (
            "kong_pdk.commands", "kong_pdk.checking", "kong_pdk.gateway", "kong_pdk.kongconf",
            "kong_pdk.migration", "kong_pdk.schema", "kong_pdk.flags", "kong_pdk.config",
            "kong_pdk.exception", "kong_pdk.plugins.installed", "kong_pdk.plugins.watching",
        ),
    ),
    (
        "kong_pdk.cli",
        (
            "kong_pdk.server.lifecycle", "kong_pdk.plugins", "kong_pdk.config", "kong_pdk.flags",
            "kong_pdk.logs", "kong_pdk._again", "kong_pdk._codec", "kong_pdk.exception",
            "kong_pdk.modes", "kong_pdk.processes",
        ),
    ),
    ("kong_pdk.flags", ("kong_pdk.accounts", "kong_pdk.config", "kong_pdk.exception")),
    ("kong_pdk.__main__", ("kong_pdk.cli", "kong_pdk.commands")),
    ("kong_pdk", ("kong_pdk._codec",)),
]  # fmt: skip


def test_the_rules_are_read_from_real_modules() -> None:
    """Otherwise a renamed module would be free to do what it likes."""
    assert len(SOURCES) > 30
    for prefix, _ in RULES:
        assert any(within(name, (prefix,)) for name in SOURCES), prefix
    assert "kong_pdk._wire" in ours("kong_pdk._fallback")
    assert "kong_pdk.server.loop" in ours("kong_pdk.modes.threads")
    assert "aiohttp" in set(imports("kong_pdk.gateway.http"))


def rule_for(name: str) -> tuple[str, tuple[str, ...]]:
    for prefix, allowed in RULES:
        if name == prefix or (prefix != "kong_pdk" and within(name, (prefix,))):
            return prefix, allowed
    raise AssertionError(f"there is no rule for {name}: add one to RULES")


@pytest.mark.parametrize("name", SOURCES)
def test_who_may_import_whom(name: str) -> None:
    prefix, allowed = rule_for(name)
    # `from . import __version__` reads a name of the package itself, which is there already.
    wrong = {each for each in ours(name) if each != "kong_pdk" and not within(each, allowed)}
    assert not wrong, f"{prefix} may import {allowed} of ours"


def test_the_compiled_codec_imports_what_its_twin_does() -> None:
    script = (
        "import sys, kong_pdk; before = set(sys.modules); import kong_pdk._speedups;"
        "print(*sorted(m for m in set(sys.modules) - before if m.startswith('kong_pdk')))"
    )
    pytest.importorskip("kong_pdk._speedups")
    assert set(fresh(script).split()) == {
        "kong_pdk._speedups", "kong_pdk._bounds", "kong_pdk._columns", "kong_pdk._kinds",
        "kong_pdk._wire",
        "kong_pdk._wakeup", "kong_pdk.exception",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("library", "files"),
    [
        ("aiohttp", {"kong_pdk.gateway.http"}),
        ("gevent", {"kong_pdk.modes.greenlets"}),
        ("greenlet", {"kong_pdk.modes.greenlets"}),
        ("multiprocessing", set()),
        ("marshal", {"kong_pdk.processes.channel"}),
        ("setproctitle", {"kong_pdk.server.lifecycle"}),
        ("msgpack", {"kong_pdk._wire", "kong_pdk.gateway.rpc", "kong_pdk.commands.status"}),
        ("prometheus_client", {"kong_pdk.metrics"}),
        ("opentelemetry", {"kong_pdk.observing.tracing"}),
        ("trustme", {"kong_pdk.gateway.tls"}),
        ("watchfiles", {"kong_pdk.plugins.watching"}),
        ("wsgiref", {"kong_pdk.metrics"}),
        ("shtab", {"kong_pdk.commands.completion"}),
        ("pytest", {"kong_pdk.testing.pytest_plugin"}),
        ("pydantic", {"kong_pdk.schema.models"}),
        ("pydantic_core", set()),
        ("annotated_types", set()),
    ],
)
def test_a_library_is_imported_in_its_own_file_only(library: str, files: set[str]) -> None:
    users = {
        name for name in SOURCES if any(each.split(".")[0] == library for each in imports(name))
    }
    assert users <= files


#: msgpack, the extras of pyproject.toml, and what comes with them; typing_extensions is for type
#: checkers alone.
KNOWN = {
    "kong_pdk", "msgpack", "aiohttp", "yarl", "gevent", "greenlet", "prometheus_client",
    "setproctitle", "shtab", "trustme", "watchfiles", "pytest", "pydantic", "typing_extensions",
    "opentelemetry",
}  # fmt: skip


@pytest.mark.skipif(sys.version_info < (3, 10), reason="Python 3.9 has no list of its modules")
def test_no_library_is_used_that_is_not_asked_for() -> None:
    used = {each.split(".")[0] for name in SOURCES for each in imports(name)}
    assert used - sys.stdlib_module_names <= KNOWN  # type: ignore[attr-defined]


# --- in a fresh process ---------------------------------------------------------------------------


def fresh(script: str) -> str:
    """The output of a new Python that runs the script with warnings as errors."""
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", script],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


#: Not for those who only want to be a plugin, to dump or to serve in threads.
HEAVY = (
    "aiohttp", "asyncio", "multiprocessing", "gevent", "concurrent", "ssl", "http", "unittest",
    "importlib.metadata", "subprocess", "tempfile", "pathlib", "email", "urllib",
    "prometheus_client", "wsgiref", "socketserver", "pydantic", "watchfiles", "opentelemetry",
)  # fmt: skip


def loaded_by(module: str) -> set[str]:
    return set(fresh(f"import {module}, sys; print(*sys.modules)").split())


@pytest.mark.parametrize(
    "module",
    [
        "kong_pdk", "kong_pdk.cli", "kong_pdk.pdk.kong", "kong_pdk.exception",
        "kong_pdk.commands.main", "kong_pdk.server.lifecycle", "kong_pdk.modes.threads",
        "kong_pdk.commands.status",
    ],
)  # fmt: skip
def test_what_a_plain_import_does_not_bring(module: str) -> None:
    assert not loaded_by(module) & set(HEAVY)


def test_a_dump_needs_no_server() -> None:
    loaded = loaded_by("kong_pdk.cli")
    assert not {name for name in loaded if within(name, ("kong_pdk.server", "kong_pdk.modes"))} - {
        "kong_pdk.modes"
    }
    assert not {name for name in loaded if within(name, ("kong_pdk.gateway", "kong_pdk.commands"))}


#: Runs a command line, and writes to a file what it has imported.
COMMAND = """
import sys
sys.argv = {argv!r}
from {module} import {name} as command
try:
    command()
except SystemExit as exc:
    assert not exc.code, exc
with open({result!r}, "w") as file:
    file.write(" ".join(sys.modules))
"""


def loaded_by_command(folder: Path, module: str, name: str, *flags: str) -> set[str]:
    result = folder / "modules"
    argv = ["command", *flags]
    fresh(COMMAND.format(argv=argv, module=module, name=name, result=str(result)))
    # Python's own argparse brings some of them, which ones depends on its version.
    own = fresh(
        "import argparse, sys; parser = argparse.ArgumentParser();"
        "parser.add_argument('-x', help='x'); parser.parse_args([]); print(*sys.modules)"
    )
    return set(result.read_text().split()) - set(own.split())


#: Each costs a command that only prints some milliseconds, of the thirty that it takes.
UNHURRIED = (
    "json", "logging", "msgpack", "socket", "selectors", "datetime", "threading", "subprocess",
    "tempfile", "random", "secrets", "importlib.metadata", "pathlib", "traceback",
)  # fmt: skip


def test_the_version_needs_no_server(tmp_path: Path) -> None:
    loaded = loaded_by_command(tmp_path, "kong_pdk.cli", "start_server", "--version")
    assert not loaded & {*HEAVY, *UNHURRIED}
    assert {name for name in loaded if within(name, ("kong_pdk",))} == {
        "kong_pdk", "kong_pdk.cli", "kong_pdk.config", "kong_pdk.exception", "kong_pdk.flags",
        "kong_pdk._bounds",
    }  # fmt: skip


def test_the_version_of_the_tools_needs_no_tool(tmp_path: Path) -> None:
    loaded = loaded_by_command(tmp_path, "kong_pdk.commands.main", "main", "--version")
    assert not loaded & {*HEAVY, *UNHURRIED, "inspect"}


def test_a_dump_needs_no_more_than_its_plugins(tmp_path: Path) -> None:
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "mine.py").write_text(
        "version, priority, Schema = '1.0.0', 1, ()\n"
        "class Plugin:\n"
        "    def __init__(self, config): pass\n"
        "    def access(self, kong): pass\n"
    )
    flags = ("--dump-all-plugins", "-d", str(plugins))
    loaded = loaded_by_command(tmp_path, "kong_pdk.cli", "start_server", *flags)
    rare = {"subprocess", "tempfile", "random", "secrets", "importlib.metadata", "selectors"}
    assert not loaded & {*HEAVY, *rare}
    layers = ("kong_pdk.server", "kong_pdk.modes", "kong_pdk.accounts", "kong_pdk._codec")
    assert not {name for name in loaded if within(name, layers)}


def test_the_package_alone_loads_nothing_of_itself() -> None:
    assert {name for name in loaded_by("kong_pdk") if within(name, ("kong_pdk",))} == {"kong_pdk"}


def test_the_annotations_of_plugins_bring_the_pdk_and_the_codec_alone() -> None:
    loaded = {name for name in loaded_by("kong_pdk.pdk.kong") if within(name, ("kong_pdk",))}
    layers = ("runtime", "server", "modes", "cli", "config", "gateway", "commands")
    assert not {name for name in loaded if name.split(".")[1:2] and name.split(".")[1] in layers}


NEEDS = {
    "kong_pdk.gateway.http": "aiohttp",
    "kong_pdk.gateway.session": "aiohttp",
    "kong_pdk.modes.greenlets": "gevent",
    "kong_pdk.metrics": "prometheus_client",
    "kong_pdk.observing.tracing": "opentelemetry",
    "kong_pdk.testing.pytest_plugin": "pytest",
    "kong_pdk.schema.models": "pydantic",
}


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "kong_pdk.__main__"])
def test_each_module_can_be_imported_first(name: str) -> None:
    """No module leans on what another one has imported before it."""
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    assert fresh(f"import {name}; print('ok')") == "ok\n"
