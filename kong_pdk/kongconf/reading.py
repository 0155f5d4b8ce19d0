"""Reads what Kong would read: a kong.conf, the environment above it, and its own defaults.

The syntax is that of Kong's loader (Kong: kong/conf_loader, Penlight's config), which is no INI
file: there are no quotes, a backslash at a line's end joins it with the next one, a key's dashes
are underscores, and a ``#`` within a value begins a comment unless a backslash stands before it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Optional

from ..config import DEFAULT_PREFIX
from ..exception import ConfigError
from .releases import Release
from .settings import key_of

#: Where Kong looks for its file if it is given none.
DEFAULT_PLACES = ("/etc/kong/kong.conf", "/etc/kong.conf")
#: Where it looks for the program of an entry that has no commands.
PROGRAMS = "/usr/local/bin"

_ENTRY_KEY = re.compile(r"pluginserver_(.+)_(socket|start_cmd|query_cmd)", re.IGNORECASE)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
#: A value that Kong gets from elsewhere when it starts.
_REFERENCE = re.compile(r"\{vault://.*\}")


@dataclass(frozen=True)
class Setting:
    """A value, and where it stands.

    Attributes:
        value: without comments and spaces around it.
        origin: the file and the line, or the variable of the environment; "" for a default.
    """

    value: str
    origin: str = ""

    @property
    def is_reference(self) -> bool:
        """Whether it is in a vault, so that only Kong knows it."""
        return _REFERENCE.fullmatch(self.value) is not None


@dataclass(frozen=True)
class PluginServer:
    """An entry of ``pluginserver_names`` as Kong takes it.

    Attributes:
        name: in lower case, as Kong has it.
        socket: where Kong connects.
        start: the command that starts the server; None: somebody else does.
        query: the command that tells Kong of the plugins; None: there is none.
    """

    name: str
    socket: Setting
    start: Optional[Setting]
    query: Optional[Setting]

    @property
    def key(self) -> str:
        """How its keys begin."""
        return f"pluginserver_{key_of(self.name)}"


@dataclass
class Configuration:
    """Kong's settings, those that are set.

    Attributes:
        settings: by their keys.
        notes: lines of the file that Kong does not take for what they seem to be.
    """

    settings: dict[str, Setting] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def get(self, key: str) -> Optional[Setting]:
        """A setting; None if it is not there, or empty, which is the same to Kong."""
        found = self.settings.get(key)
        return found if found is not None and found.value else None

    def items(self, key: str) -> list[str]:
        """A setting that is a list with commas."""
        found = self.get(key)
        parts = found.value.split(",") if found is not None else []
        return [part.strip() for part in parts if part.strip()]

    @property
    def prefix(self) -> str:
        """Kong's prefix, absolute and without a slash at its end."""
        found = self.get("prefix")
        return os.path.abspath(found.value if found is not None else DEFAULT_PREFIX)


def read_file(path: str, kong: Release) -> Configuration:
    """Read a kong.conf.

    Args:
        path: of the file.
        kong: the release that reads it: they differ in what is a comment.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            text = file.read()
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {exc.strerror}") from exc
    if "\0" in text:
        raise ConfigError(f"{path} is no kong.conf: it is binary")
    return parse(text, kong, path)


def parse(text: str, kong: Release, path: str = "kong.conf") -> Configuration:
    """Read the text of a kong.conf; see :func:`read_file`."""
    found = Configuration()
    section = ""
    for number, line in _lines(text):
        where = f"{path}:{number}"
        if line.startswith("["):
            section = line.strip()
            found.notes.append(f"{where}: Kong does not see what stands below {section}")
            continue
        name, equals, value = line.strip().partition("=")
        key = re.sub(r"[^A-Za-z0-9]", "_", name.rstrip())
        if section:
            continue
        if not equals:
            found.notes.append(f"{where}: Kong does not see this line, which has no '='")
            continue
        earlier = found.settings.get(key)
        if earlier is not None and _ENTRY_KEY.fullmatch(key):
            found.notes.append(f"{where}: {key} is there twice; Kong takes this one")
        found.settings[key] = Setting(_without_comment(value.strip(), kong), where)
    return found


def _lines(text: str) -> list[tuple[int, str]]:
    """The lines that say something, with their numbers; those that are continued are one."""
    found: list[tuple[int, str]] = []
    begun, first = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith(("#", ";")):
            continue
        first = first or number
        continued = re.search(r"\\\s*$", line)
        if continued is not None:
            begun += line[: continued.start()]
            continue
        found.append((first, begun + line))
        begun, first = "", 0
    return found  # one that is continued at the end is lost, for Kong too


def _without_comment(value: str, kong: Release) -> str:
    if kong.version < (3, 2):  # takes the character before it as well
        value = re.sub(r"[^\\]#.*$", "", value)
    else:
        value = re.sub(r"\s*(?<!\\)#.*$", "", value, count=1)
    return value.replace("\\#", "#").strip()


def read_variables(path: str) -> dict[str, str]:
    """Read an environment from a file with lines ``NAME=VALUE``, such as ``env`` prints.

    Quotes around a value, as in a shell's ``export`` or in a .env of Compose, are no part of it.

    Raises:
        ConfigError: it cannot be read, or has no such line.
    """
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {exc.strerror}") from exc
    found = {}
    for line in lines:
        line = re.sub(r"^\s*(export|declare -x)\s+", "", line)
        if _VARIABLE.match(line):
            name, _, value = line.partition("=")
            quoted = re.fullmatch(r"""(["'])(.*)\1\s*""", value)
            found[name] = quoted[2] if quoted is not None else value
    if not found:
        raise ConfigError(f"{path} has no line NAME=VALUE, such as env prints")
    return found


def overlay(below: Configuration, environment: Mapping[str, str]) -> Configuration:
    """Settings with the environment's above them: ``KONG_`` and the key in capitals.

    Args:
        below: what the file says.
        environment: the variables that Kong gets.
    """
    made = Configuration(dict(below.settings), list(below.notes))
    for name, value in environment.items():
        if not name.upper().startswith("KONG_"):
            continue
        if name != name.upper():
            if _ENTRY_KEY.fullmatch(name[len("KONG_") :]):
                made.notes.append(f"{name}: Kong reads {name.upper()} only")
            continue
        # An empty one is set too: it takes away what the file says.
        made.settings[name[len("KONG_") :].lower()] = Setting(value.strip(), name)
    return made


def plugin_servers(
    conf: Configuration, kong: Release, programs: str = PROGRAMS
) -> list[PluginServer]:
    """The entries of ``pluginserver_names``, with what Kong takes where a setting is missing.

    Args:
        conf: Kong's settings.
        kong: its release, which has its own defaults.
        programs: the folder of programs that are started and asked without being named.
    """
    found = []
    names = [name.lower() for name in conf.items("pluginserver_names")]
    for name in dict.fromkeys(names):
        key = f"pluginserver_{key_of(name)}"
        folder = conf.prefix if kong.first_plugin_only else DEFAULT_PREFIX
        program = os.path.join(programs, name)
        asker = program if kong.first_plugin_only else os.path.join(programs, f"query_{name}")
        start, query = conf.get(f"{key}_start_cmd"), conf.get(f"{key}_query_cmd")
        if start is None and os.path.exists(program):
            start = Setting(program)
        if query is None and os.path.exists(asker):
            query = Setting(f"{asker} -dump" if kong.first_plugin_only else asker)
        socket = conf.get(f"{key}_socket") or Setting(os.path.join(folder, f"{name}.socket"))
        found.append(PluginServer(name, socket, start, query))
    return found


def unread_keys(conf: Configuration, servers: list[PluginServer]) -> list[str]:
    """What Kong does not read of the settings of plugin servers, a line each, with the reason."""
    known = {server.key for server in servers}
    said = []
    for key, setting in conf.settings.items():
        match = _ENTRY_KEY.fullmatch(key)
        if match is None or not setting.value:
            continue
        stem = f"pluginserver_{match.group(1)}"
        if stem in known and key == key.lower():
            continue
        if key.lower() != key and stem.lower() in known:
            said.append(f"{setting.origin}: Kong looks for {key.lower()}, and {key} is not that")
        else:
            said.append(f"{setting.origin}: {key} is of no entry of pluginserver_names")
    return said
