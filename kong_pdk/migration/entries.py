"""One entry of ``pluginserver_names``: what its server is, and what must be changed of it."""

from __future__ import annotations

import ast
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple, Optional

from .. import __version__
from ..checking.findings import ERROR, Finding
from ..checking.plugin import Options, check, expand, source_of
from ..flags import DIRECTORY_SOCKET, SOCKET_SUFFIXES
from ..kongconf.reading import Configuration, PluginServer
from ..kongconf.releases import Release
from ..kongconf.serving import (
    EMBEDDED,
    FOLDER,
    INSTALLED,
    PACKAGE,
    CommandError,
    Python,
    Target,
    find,
)  # fmt: skip
from .launching import DEDICATED, OTHER, Flags, Launch, read_command, read_flags
from .source import CHANGE, LOOK, NOTE, Style, examine

#: Seconds that a Python may take to say what is installed in it.
_PROBE_LIMIT = 20.0
_PROBE = """\
import json, importlib.util, importlib.metadata as metadata
try:
    version = metadata.version("kong-pdk")
except metadata.PackageNotFoundError:
    version = None
print(json.dumps([version, importlib.util.find_spec("gevent") is not None]))
"""


@dataclass
class Entry:
    """What is known of an entry.

    Attributes:
        server: its settings, as Kong takes them.
        launch: what its commands run.
        version: of the kong-pdk that its Python has; None if that is not known.
        sockets: where its server would listen; none if it is started by somebody else.
        flags: of the server.
        starts: they are those of a start command that is good.
        plugins: the names of its plugins.
        loaded: of those that can be loaded.
        registers: of these, what its query makes Kong know.
        findings: what must be changed, or looked at.
    """

    server: PluginServer
    launch: Launch
    version: Optional[str] = None
    sockets: list[str] = field(default_factory=list)
    flags: Flags = field(default_factory=Flags)
    starts: bool = False
    plugins: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    registers: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def is_python(self) -> bool:
        """Whether it is a Python plugin server."""
        return self.launch.kind != OTHER

    def add(self, level: str, code: str, text: str, path: str = "", line: int = 0) -> None:
        """Keep a finding."""
        self.findings.append(Finding(level, code, text, path, line))

    def as_dict(self) -> dict[str, Any]:
        """The entry as JSON takes it."""
        server = self.server
        return {
            "name": server.name,
            "kind": self.launch.kind,
            "reason": self.launch.reason or None,
            "python": self.launch.python,
            "kong_pdk": self.version,
            "socket": server.socket.value,
            "start_cmd": server.start and server.start.value,
            "query_cmd": server.query and server.query.value,
            "served": self.sockets,
            "plugins": self.plugins,
            "loaded": self.loaded,
            "registers": self.registers,
            "findings": [one.as_dict() for one in self.findings],
        }


class Installed(NamedTuple):
    """What is installed in a Python.

    Attributes:
        version: of kong-pdk, None if it is not.
        gevent: whether gevent is.
    """

    version: Optional[str]
    gevent: bool


class Examiner:
    """Looks at the entries of one configuration.

    Args:
        conf: Kong's settings.
        kong: its release.
        python: the Python with this package, that is to run the plugins.
        run: whether programs are run: the queries, and Pythons to say what they have.
    """

    def __init__(self, conf: Configuration, kong: Release, python: Python, run: bool) -> None:
        self.conf, self.kong, self.python, self.run = conf, kong, python, run
        #: Plugins that have been looked at: several entries may share a server.
        self._names: dict[tuple[Target, Style], Optional[str]] = {}

    def entry(self, server: PluginServer) -> Entry:
        """Look at one entry."""
        prefix = self.conf.prefix
        commands = {
            key: read_command(setting.value, prefix)
            for key, setting in (("start_cmd", server.start), ("query_cmd", server.query))
            if setting is not None and not setting.is_reference
        }
        found = [each for each in commands.values() if each.kind != OTHER]
        others = list(commands.values())
        nothing = Launch(OTHER, reason="it has no command that could be read here")
        entry = Entry(server, (found or others or [nothing])[0])
        self._check_references(entry)
        if not entry.is_python:
            if entry.launch.missing:
                entry.add(
                    CHANGE, "not-read",
                    f"{entry.launch.reason}: run this where Kong runs, or correct the path",
                )  # fmt: skip
            elif not entry.launch.foreign:
                entry.add(
                    LOOK, "not-seen", "what runs here is not looked into; if it is a server in "
                    "Python, run this with a copy of the settings that has the server's own "
                    "command in this place",
                )  # fmt: skip
            return entry
        self._check_commands(entry, commands)
        values = entry.flags.values
        style = Style()
        if values is not None:
            style = Style(values.lua_style, values.multiprocessing, values.gevent)
            if entry.starts:
                self._check_modes(entry, style)
                self._check_sockets(entry)
        if self.run:
            self._check_python(entry)
        if values is not None:
            self._check_plugins(entry, style)
        self._check_query(entry, commands.get("query_cmd"))
        entry.findings = list(dict.fromkeys(entry.findings))  # plugins share modules
        return entry

    def _check_references(self, entry: Entry) -> None:
        server = entry.server
        for setting in (server.start, server.query, server.socket):
            if setting is not None and setting.is_reference:
                entry.add(
                    CHANGE, "not-read", f"{setting.origin}: {setting.value} is in a vault: write "
                    f"it out for this command, say in the environment",
                )  # fmt: skip

    def _check_commands(self, entry: Entry, commands: dict[str, Launch]) -> None:
        """The flags, as the server itself reads them."""
        server = entry.server
        for key, setting in (("start_cmd", server.start), ("query_cmd", server.query)):
            launch = commands.get(key)
            if launch is None or setting is None:
                continue
            if launch.kind == OTHER:
                entry.add(
                    CHANGE, "not-read", f"{server.key}_{key} is no command of a Python server as "
                    f"the other one is: {launch.reason}",
                )  # fmt: skip
                continue
            flags = read_flags(launch, query=key == "query_cmd")
            if flags.problem:
                entry.add(CHANGE, "flags", f"{server.key}_{key}: {flags.problem}")
            if entry.flags.values is None:  # those of the start command, if there is one
                entry.flags, entry.launch = flags, launch
                entry.starts = key == "start_cmd" and flags.values is not None
        if server.query is None and self.kong.first_plugin_only:
            entry.add(
                CHANGE, "no-query", f"{server.key}_query_cmd is missing: Kong {self.kong} does not "
                f"start without it",
            )  # fmt: skip

    def _check_modes(self, entry: Entry, style: Style) -> None:
        if style.gevent:
            if self.run and not _probe(self.python.path).gevent:
                entry.add(
                    CHANGE, "extra", f"-g needs gevent, which came with the published package: "
                    f"{self.python.path} -m pip install 'kong-pdk[gevent]'",
                )  # fmt: skip
            entry.add(
                NOTE, "flags", "-g: the standard library is patched before the plugin is imported",
            )  # fmt: skip
        if style.multiprocessing:
            entry.add(
                NOTE, "flags", "-m: objects live in the workers and are not pickled for each "
                "event; --workers says how many there are",
            )  # fmt: skip

    def _check_sockets(self, entry: Entry) -> None:
        values, server = entry.flags.values, entry.server
        assert values is not None
        stem = DIRECTORY_SOCKET
        if entry.launch.kind == DEDICATED:
            stem = _started_name(entry.launch.script) or server.name
        names = [f"{stem}{suffix}" for suffix in SOCKET_SUFFIXES]
        if values.socket_name is not None:
            names = [values.socket_name]
            if os.path.basename(values.socket_name) != values.socket_name:
                entry.add(
                    CHANGE, "socket", f"--socket-name {values.socket_name} must be a file's name: "
                    f"put its folder into --kong-prefix",
                )  # fmt: skip
        folder = os.path.join(self.conf.prefix, values.prefix)
        entry.sockets = [os.path.normpath(os.path.join(folder, name)) for name in names]
        if not server.socket.is_reference:
            wanted = os.path.normpath(server.socket.value)
            if wanted not in entry.sockets:
                entry.add(
                    CHANGE, "socket", f"Kong connects to {wanted}, and the server makes "
                    f"{' and '.join(entry.sockets)}: give it --socket-name and --kong-prefix, or "
                    f"change {server.key}_socket",
                )  # fmt: skip

    def _check_python(self, entry: Entry) -> None:
        python = entry.launch.python
        if python is None:
            return
        entry.version = _probe(python).version
        if entry.version is None:
            entry.add(
                CHANGE, "not-installed", f"{python} has no kong-pdk: {python} -m pip install "
                f"'kong-pdk>={__version__}', or name another Python in the commands",
            )  # fmt: skip
        elif entry.version.partition(".")[0] == "0":
            entry.add(
                NOTE, "published", f"{python} has the published package, {entry.version}: install "
                f"this one beside it, and put its Python into the commands",
            )  # fmt: skip

    # --- plugins ----------------------------------------------------------------------------------

    def _check_plugins(self, entry: Entry, style: Style) -> None:
        state: dict[str, list[str]] = {}
        for target, folder in self._targets(entry):
            key = target, style
            is_new = key not in self._names  # else it was told with another entry
            if is_new:
                self._names[key] = self._check_plugin(entry, target, style, state, folder)
            loaded = self._names[key]
            if loaded is not None:
                entry.loaded.append(loaded)
            elif folder and target.kind == PACKAGE:
                continue  # it was none before
            entry.plugins.append(loaded or _name_of(target))
        for path, names in state.items():
            if len(names) > 1:
                entry.add(
                    LOOK, "shared-state", f"{', '.join(names)} change what this module keeps, and "
                    f"have one each here: an installed package is there once for all", path,
                )  # fmt: skip

    def _targets(self, entry: Entry) -> Iterator[tuple[Target, bool]]:
        """What the server has, and whether it comes from a folder of plugins."""
        values = entry.flags.values
        assert values is not None
        if entry.launch.kind == DEDICATED:
            yield Target(EMBEDDED, entry.launch.script), False
            return
        for directory in values.directories:
            place = os.path.normpath(os.path.join(self.conf.prefix, directory))
            if not os.path.isdir(place):
                entry.add(
                    CHANGE, "not-read", f"there is no folder {place}: run this where Kong runs, or "
                    f"correct the path",
                )  # fmt: skip
                continue
            try:
                for target in expand(Target(FOLDER, place)):
                    # The directory server takes a script as any other file.
                    file = target.kind == EMBEDDED
                    yield (Target("file", target.place) if file else target), True
            except (CommandError, OSError) as exc:
                entry.add(CHANGE, "not-loaded", str(exc), place)
        for spec in values.plugins:
            place = os.path.join(self.conf.prefix, spec)
            try:
                yield find(place if os.path.exists(place) else spec), False
            except CommandError as exc:
                entry.add(CHANGE, "not-loaded", str(exc))

    def _check_plugin(
        self, entry: Entry, target: Target, style: Style, state: dict[str, list[str]], folder: bool
    ) -> Optional[str]:
        """Look at one plugin; returns its name, None if it cannot be loaded."""
        options = Options(
            self.python, kong=self.kong, lua_style=style.lua_style, run=False, load=self.run
        )
        report = check(target, options)
        is_package = folder and target.kind == PACKAGE
        if is_package and self.run and report.info is None:
            text = "this package was passed over, and is no plugin here either"
            entry.add(NOTE, "not-loaded", f"{text}: {report.findings[0].text}", target.place)
            return None
        if is_package:
            text = "this package was passed over, and is a plugin here"
            entry.add(LOOK, "package-loaded", text, target.place)
        for one in report.findings:
            level = CHANGE if one.level == ERROR else LOOK
            entry.findings.append(replace(one, level=level))
        name = report.info.name if report.info is not None else None
        if not self.run:
            name = _name_of(target)
        source = source_of(target)
        if source is None:
            return name
        try:
            found = examine(source.path, source.name, style)
        except (OSError, SyntaxError, ValueError) as exc:
            if not report.findings:
                entry.add(CHANGE, "not-loaded", str(exc), source.path)
            return name
        entry.findings += found.findings
        for path in found.state if folder else ():
            state.setdefault(path, []).append(name or _name_of(target))
        return name

    def _check_query(self, entry: Entry, launch: Optional[Launch]) -> None:
        """What Kong gets to know of the plugins by the query."""
        if launch is None or launch.kind == OTHER:
            return
        values = read_flags(launch, query=True).values
        if values is None:
            return
        wanted = getattr(values, "dump_name", None)
        if wanted is not None:
            entry.registers = [wanted]
            if entry.plugins and wanted not in entry.plugins:
                entry.add(
                    CHANGE, "no-plugin", f"the query asks for {wanted}, and there is "
                    f"{', '.join(entry.plugins)}",
                )  # fmt: skip
        else:
            entry.registers = entry.loaded[: 1 if self.kong.first_plugin_only else None]


def _name_of(target: Target) -> str:
    """The name of a plugin that has not been loaded."""
    if target.kind == EMBEDDED:
        return _started_name(target.place) or os.path.basename(target.place)
    if target.kind == INSTALLED:
        return target.place
    return os.path.basename(target.place).split(".", 1)[0]


def _started_name(script: str) -> str:
    """The name that a script gives its server, "" if it is made at run time."""
    try:
        with open(script, "rb") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):
        return ""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            given = [*node.args[:1], *(each.value for each in node.keywords if each.arg == "name")]
            if called == "start_dedicated_server" and given:
                name = given[0]
                if isinstance(name, ast.Constant) and isinstance(name.value, str):
                    return name.value
    return ""


@lru_cache(maxsize=64)
def _probe(python: str) -> Installed:
    """Ask a Python what it has."""
    try:
        done = subprocess.run(
            [python, "-c", _PROBE], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=_PROBE_LIMIT, check=True, cwd="/",
        )  # fmt: skip
        version, gevent = json.loads(done.stdout)
        return Installed(version, gevent)
    except (OSError, ValueError, subprocess.SubprocessError):
        return Installed(None, False)
