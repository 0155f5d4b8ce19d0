"""The plugin to be tried: what kind of file it is, and what its server says about it."""

from __future__ import annotations

import ast
import json
import os
import sys
import sysconfig
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..schema import values
from . import references
from .errors import GatewayError, ServerFailed

#: The socket's name under the prefix; given to the server, so that no rule has to be guessed.
SOCKET_NAME = "try.sock"

_STARTER = "start_dedicated_server"


@dataclass(frozen=True)
class PluginInfo:
    """What a plugin server dumps about one plugin."""

    name: str
    version: str
    priority: float
    phases: tuple[str, ...]
    #: The whole schema as dumped; see :func:`kong_pdk.schema.values.config_fields`.
    schema: Any = field(repr=False, default=None)

    @property
    def fields(self) -> dict[str, Any]:
        """The definitions of the configuration's fields, by their names."""
        found = values.config_fields(self.schema)
        return {name: each[name] for each in found if isinstance(each, dict) for name in each}

    def config_text(
        self, config: Any, plugin_id: str, environment: Mapping[str, str] | None = None
    ) -> str:
        """Return the configuration as the server gets it, as JSON.

        It is completed, with secrets in place of references to them, and has Kong's own keys.

        Args:
            config: the configuration as it was given.
            plugin_id: the id of the plugin entity.
            environment: where the vault ``env`` looks; None: this process's own.

        Raises:
            SettingsError: the configuration does not fit the schema.
        """
        record = values.config_record(self.schema)
        completed = values.complete(config, record.get("fields"), record.get("entity_checks"))
        completed = references.resolve(completed, record.get("fields"), environment)
        own = {
            "__plugin_id": plugin_id,
            "__seq__": 1,
            "__key__": f"plugins:{self.name}:::::",
            "__ws_id": str(uuid.uuid5(uuid.NAMESPACE_OID, "default workspace")),
        }
        return json.dumps({**completed, **own})


@dataclass(frozen=True)
class Launch:
    """The commands that make a plugin server out of a plugin.

    Attributes:
        start: the start command, as in kong.conf.
        query: the query command.
        socket: where the server will listen.
        script: the file that both run.
        folder: where the plugin's code is; "" for an installed one.
    """

    start: tuple[str, ...]
    query: tuple[str, ...]
    socket: Path
    script: str
    folder: str


def calls_starter(source: str | bytes, file: str = "<plugin>") -> bool:
    """Say whether a Python source calls ``start_dedicated_server``, without running it.

    Args:
        source: the source.
        file: its name, for errors.

    Raises:
        SyntaxError: it is no Python.
    """
    for node in ast.walk(ast.parse(source, file)):
        if isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else None
            name = called.id if isinstance(called, ast.Name) else name
            if name == _STARTER:
                return True
    return False


def directory_server() -> Path:
    """Return the script of the directory server that is installed with this package.

    Not ``python -m``, which would look for the package in the current folder first.

    Raises:
        GatewayError: there is none.
    """
    name = "kong-python-pluginserver"
    folders = [Path(sys.argv[0]).parent, Path(sysconfig.get_path("scripts"))]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise GatewayError(f"cannot find {name} in {' or '.join(map(str, folders))}: install kong-pdk")


def plan(
    plugin: str, prefix: Path, server_args: Sequence[str] = (), python: str = sys.executable
) -> Launch:
    """Return how to run a plugin.

    A file that starts its own server is run as it is. Any other, a package, and an installed plugin
    are for the server that comes with this package.

    Args:
        plugin: the file, the folder of a package, or the name under which it is installed.
        prefix: an existing directory for the socket, with a short name.
        server_args: more arguments for the server.
        python: the interpreter to run it with.

    Raises:
        GatewayError: there is no such file or package, or it is no Python.
    """
    path = Path(plugin).absolute()
    script, folder, embedded = "", "", False
    if path.is_dir():
        folder = str(path)
        if not (path / "__init__.py").is_file():
            raise GatewayError(
                f"the folder {path} is no package: it has no __init__.py; "
                f"of a folder of plugins name one of its files"
            )
    elif path.exists() or os.sep in plugin or plugin.endswith(".py"):
        folder = str(path.parent)
        embedded = _is_embedded(path)
    place = ("--kong-prefix", str(prefix), "--socket-name", SOCKET_NAME)
    if embedded:
        script = str(path)
        base: tuple[str, ...] = (python, script)
        query = (*base, "--dump", *place)
    else:
        script = str(directory_server())
        base = (python, script, "--plugin", str(path) if folder else plugin)
        query = (*base, "--dump-all-plugins", *place)
    return Launch((*base, *place, *server_args), query, prefix / SOCKET_NAME, script, folder)


def _is_embedded(path: Path) -> bool:
    """Say whether a file starts its own server. Raises GatewayError if it cannot be read."""
    try:
        # As bytes, because the file itself says which encoding it has.
        return calls_starter(path.read_bytes(), str(path))
    except OSError as error:
        raise GatewayError(f"cannot read the plugin {path}: {error.strerror}") from error
    except SyntaxError as error:
        line = f"{path}, line {error.lineno}" if error.lineno else str(path)
        raise GatewayError(f"the plugin is no Python file: {error.msg} ({line})") from error
    except ValueError as error:
        raise GatewayError(f"the plugin {path} is no Python file: {error}") from error


def parse_dump(text: bytes) -> PluginInfo:
    """Return the first plugin of a dump, as Kong takes it.

    Args:
        text: what the query command wrote to its standard output.

    Raises:
        ServerFailed: it is no such document.
    """
    try:
        dump = json.loads(text)
    except ValueError as error:
        raise ServerFailed(f"the server's dump is no JSON document: {error}") from error
    if isinstance(dump, dict):
        dump = dump.get("Plugins")
    if not isinstance(dump, list) or not dump or not isinstance(dump[0], dict):
        raise ServerFailed("the server's dump names no plugin")
    entry = dump[0]
    try:
        return PluginInfo(
            name=str(entry["Name"]),
            version=str(entry.get("Version")),
            priority=entry.get("Priority") or 0,
            phases=tuple(entry.get("Phases") or ()),
            schema=entry.get("Schema"),
        )
    except (KeyError, TypeError) as error:
        raise ServerFailed(f"the server's dump is not understood: {error!r}") from error
