"""What a PLUGIN on the command line is, and the commands with which Kong would start and ask it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any, NamedTuple, Optional

from .. import __version__
from ..exception import ConfigError
from ..gateway.plugin import calls_starter

#: The entry points of installed plugins.
GROUP = "kong_pdk.plugins"
#: The script of the directory server.
SERVER_SCRIPT = "kong-python-pluginserver"
#: Seconds that a query may take. Kong itself would wait for ever.
QUERY_LIMIT = 60.0
#: The name of its socket.
SERVER_SOCKET = "python_pluginserver.socket"

EMBEDDED, FILE, PACKAGE, FOLDER, INSTALLED = "embedded", "file", "package", "folder", "installed"


class CommandError(ConfigError):
    """What was asked for cannot be done; the text says why, and what to do."""


class NoPython(CommandError):
    """A file that was to be a plugin is no Python.

    Attributes:
        path: the file.
        line: the line, 0 if none is known.
        problem: what is wrong.
    """

    def __init__(self, path: str, line: int, problem: str) -> None:
        super().__init__(f"{path}:{line}: this is no Python: {problem}")
        self.path, self.line, self.problem = path, line, problem


@dataclass(frozen=True)
class Target:
    """A PLUGIN of the command line.

    Attributes:
        kind: a file that starts its own server, any other file, a package, a folder of plugins, or
            the name of an installed one.
        place: its absolute path; the name of one that is installed.
    """

    kind: str
    place: str

    @property
    def folder(self) -> str:
        """The folder that its code lies in, "" where that is not known."""
        if self.kind == INSTALLED:
            return ""
        return self.place if self.kind in (FOLDER, PACKAGE) else os.path.dirname(self.place)

    @property
    def flags(self) -> tuple[str, str]:
        """How the directory server is told of it."""
        return ("-d" if self.kind == FOLDER else "--plugin"), self.place


def find(spec: str) -> Target:
    """The target that a text names.

    Raises:
        CommandError: there is no such file or folder, or it is no Python.
    """
    path = os.path.abspath(spec)
    if os.path.isdir(path):
        if os.path.isfile(os.path.join(path, "__init__.py")):
            return Target(PACKAGE, path)
        # The folder of a distribution is mostly called like the plugin in it.
        is_name = os.sep not in spec and installed(spec) is not None
        return Target(INSTALLED, spec) if is_name else Target(FOLDER, path)
    if os.path.isfile(path):
        try:
            with open(path, "rb") as file:
                embedded = calls_starter(file.read())
        except OSError as exc:
            raise CommandError(f"cannot read the plugin {spec}: {exc.strerror}") from exc
        except SyntaxError as exc:
            raise NoPython(path, exc.lineno or 0, f"SyntaxError: {exc.msg}") from exc
        except ValueError as exc:
            raise NoPython(path, 0, str(exc)) from exc
        return Target(EMBEDDED if embedded else FILE, path)
    if os.sep in spec or spec.endswith(".py"):
        raise CommandError(f"there is no file or folder {spec}")
    return Target(INSTALLED, spec)


def installed(name: str) -> Optional[metadata.EntryPoint]:
    """The entry point of an installed plugin, if there is one of that name."""
    for distribution in metadata.distributions():
        for point in distribution.entry_points:
            if point.group == GROUP and point.name == name:
                return point
    return None


class Python(NamedTuple):
    """The Python that runs plugin servers.

    Attributes:
        path: its absolute path.
        script: the directory server that is installed there; None: where it is has to be found.
    """

    path: str
    script: Optional[str] = None


def python_of(given: Optional[str]) -> Python:
    """The Python that was named, or this one.

    Raises:
        CommandError: there is none.
    """
    path = os.path.abspath(given or sys.executable)  # no realpath: a venv's is a link
    if not os.access(path, os.X_OK) or os.path.isdir(path):
        raise CommandError(f"--python {given}: there is no such program")
    return Python(path)


def script_of(python: Python) -> str:
    """The directory server that is installed with a Python.

    Raises:
        CommandError: there is none.
    """
    if python.script is not None:
        return python.script
    places = [os.path.join(os.path.dirname(python.path), SERVER_SCRIPT)]
    if python.path == os.path.abspath(sys.executable):
        places.append(os.path.join(sysconfig.get_path("scripts"), SERVER_SCRIPT))
    for place in places:
        if os.path.isfile(place):
            return place
    raise CommandError(
        f"cannot find {places[0]}: install kong-pdk there, {python.path} -m pip install "
        f"'kong-pdk>={__version__}'"
    )


def base_command(target: Target, python: Python) -> tuple[str, ...]:
    """What each command for a target begins with.

    Raises:
        CommandError: the directory server is not installed beside that Python.
    """
    if target.kind == EMBEDDED:
        return python.path, target.place
    return (script_of(python), *target.flags)


def query_command(target: Target, python: Python, name: Optional[str] = None) -> tuple[str, ...]:
    """The command that prints a target's plugin, or all that it has, as JSON for Kong."""
    base = base_command(target, python)
    if target.kind == EMBEDDED:
        return (*base, "--dump")
    return (*base, "--dump-all-plugins") if name is None else (*base, "--dump-plugin-info", name)


def query(command: Sequence[str], said: Optional[list[str]] = None) -> list[dict[str, Any]]:
    """Run a query as Kong does, and return the plugins that it prints.

    Args:
        command: the query.
        said: gets the lines of its standard error; None: they are passed on there.

    Raises:
        CommandError: it fails, takes too long or prints what is no such document.
    """
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=None if said is None else subprocess.PIPE, timeout=QUERY_LIMIT, check=False,
            cwd="/",
        )  # fmt: skip
    except OSError as exc:
        raise CommandError(f"cannot run {command[0]}: {exc.strerror}") from exc
    except subprocess.TimeoutExpired:
        raise CommandError(
            f"the plugin is not loaded after {QUERY_LIMIT:g} s: what does its module wait for at "
            f"its top level?"
        ) from None
    if said is not None:
        said += done.stderr.decode("utf-8", "replace").splitlines()
    if done.returncode != 0:
        raise CommandError("the plugin cannot be loaded")
    try:
        found = json.loads(done.stdout)
    except ValueError as exc:
        raise CommandError(_no_document(done.stdout)) from exc
    plugins = found.get("Plugins") if isinstance(found, dict) else found
    if not isinstance(plugins, list) or not plugins:
        raise CommandError("the query names no plugin")
    return plugins


def _no_document(printed: bytes) -> str:
    """What is wrong with a query's output that is no JSON document."""
    text = printed.decode("utf-8", "replace").strip()
    if not text:
        return "the query prints nothing, so Kong would not start"
    line = text.splitlines()[0]
    shown = line if len(line) <= 60 else line[:57] + "..."
    return (
        f"the query prints more than its JSON document, so Kong would not start: it begins with "
        f"{shown!r}; print to standard error (file=sys.stderr), or nothing at a module's top level"
    )
