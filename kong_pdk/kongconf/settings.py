"""The settings that make Kong start plugin servers and ask them, by their keys in kong.conf."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Optional

from ..config import DEFAULT_PREFIX, MAX_SOCKET_PATH
from ..exception import ConfigError
from .releases import Release

#: The name of the entry for a folder of plugins.
FOLDER_ENTRY = "python"


@dataclass(frozen=True)
class Server:
    """One process that serves plugins.

    Attributes:
        queries: by the names of the plugins that are wanted of it, the commands that tell Kong of
            one of them.
        query_all: the command that tells Kong of all.
        start: the command that starts it, but for its flags.
        socket: the name of its socket under Kong's prefix.
        flags: more flags for the start command.
        entry: the entry's name in kong.conf, where one stands for several plugins.
    """

    queries: dict[str, tuple[str, ...]]
    query_all: tuple[str, ...]
    start: tuple[str, ...]
    socket: str
    flags: tuple[str, ...] = ()
    entry: str = FOLDER_ENTRY


@dataclass(frozen=True)
class Entry:
    """One entry of ``pluginserver_names``.

    Attributes:
        name: as it stands there.
        socket: path of the server's socket.
        start: the command that Kong starts; None: another entry's has started it.
        query: the command that tells Kong of the plugin.
    """

    name: str
    socket: str
    start: Optional[tuple[str, ...]]
    query: tuple[str, ...]

    @property
    def key(self) -> str:
        """How its settings begin: Kong takes names in lower case, and a dash for an underscore."""
        return f"pluginserver_{key_of(self.name)}"


@dataclass
class Settings:
    """All settings for some servers.

    Attributes:
        release: of Kong.
        plugins: the names of all plugins.
        entries: of ``pluginserver_names``.
        prefix: Kong's prefix.
        notes: what to know, a line each.
    """

    release: Release
    plugins: list[str]
    entries: list[Entry]
    prefix: str
    notes: list[str] = field(default_factory=list)


def key_of(name: str) -> str:
    """A name as it stands in the keys of its settings (Kong: kong/conf_loader)."""
    return name.lower().replace("-", "_")


def settings(servers: Sequence[Server], kong: Release, prefix: str = DEFAULT_PREFIX) -> Settings:
    """What Kong must be told of some servers.

    Args:
        servers: all that Kong has to start.
        kong: its release.
        prefix: its prefix, an absolute path.

    Raises:
        ConfigError: two plugins have one name, or a socket's path is too long.
    """
    plugins = [name for server in servers for name in server.queries]
    for name in plugins:
        if plugins.count(name) > 1:
            raise ConfigError(f"two plugins are called {name!r}: Kong knows a plugin by its name")
    entries: list[Entry] = []
    for server in servers:
        socket = os.path.join(prefix, server.socket)
        if len(os.fsencode(socket)) > MAX_SOCKET_PATH:
            raise ConfigError(
                f"{socket}: the path of a socket has {MAX_SOCKET_PATH} bytes at the most; use a "
                f"shorter prefix"
            )
        start: Optional[tuple[str, ...]] = (*server.start, *_where(prefix), *server.flags)
        if kong.first_plugin_only or len(server.queries) == 1:
            for name, query in server.queries.items():
                entries.append(Entry(_free(name, entries), socket, start, query))
                start = None  # one process serves them all
        else:
            entries.append(Entry(_free(server.entry, entries), socket, start, server.query_all))
    return Settings(kong, plugins, entries, prefix, _notes(servers, plugins, kong))


def _where(prefix: str) -> tuple[str, ...]:
    return () if prefix == DEFAULT_PREFIX else ("--kong-prefix", prefix)


def _free(name: str, taken: Sequence[Entry]) -> str:
    """A name for an entry whose settings have keys of their own; Kong takes it in lower case."""
    name = re.sub(r"[^a-z0-9_-]", "_", name.lower())
    keys = {entry.key for entry in taken}
    number, unique = 2, name
    while f"pluginserver_{key_of(unique)}" in keys:
        unique, number = f"{name}-{number}", number + 1
    return unique


def _notes(servers: Sequence[Server], plugins: Sequence[str], kong: Release) -> list[str]:
    notes = []
    if kong.newer:
        notes.append(f"Kong {kong} is newer than what is known here: see that its settings are so")
    if kong.first_plugin_only and any(len(server.queries) > 1 for server in servers):
        notes.append(
            f"Kong {kong} registers one plugin of each entry, so several share a server's socket; "
            f"the first one starts it"
        )
    for name in plugins:
        if kong.bundles(name):
            notes.append(f"Kong has a plugin {name} of its own, which it takes: rename yours")
    return notes
