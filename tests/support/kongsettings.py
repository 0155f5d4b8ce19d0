"""Reads settings as Kong's conf_loader is known to do it; for tests of kong-pdk conf."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Optional


class PluginServer(NamedTuple):
    """An entry, as Kong takes it."""

    name: str
    socket: str
    start: Optional[str]
    query: Optional[str]


def read_conf(text: str) -> dict[str, str]:
    """The settings of a kong.conf: what follows a bare # is a comment."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        line = re.sub(r"(?<!\\)#.*", "", line).replace("\\#", "#")
        key, equals, value = line.partition("=")
        if equals:
            assert key.strip() not in found, f"{key} is there twice"
            found[key.strip()] = value.strip()
    return found


def read_exports(text: str) -> dict[str, str]:
    """The environment that lines of exports make, as a shell reads them."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if words:
            assert words[0] == "export" and len(words) == 2, line
            name, _, value = words[1].partition("=")
            found[name] = value
    return found


def from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The settings that variables stand for: Kong looks for KONG_ and the key in capitals."""
    found = {}
    for name, value in environment.items():
        match = re.fullmatch(r"kong_(.+)", name.lower())
        if match is not None:
            assert name == "KONG_" + match.group(1).upper(), "Kong finds it, but reads another one"
            found[match.group(1)] = value
    return found


def plugin_servers(
    settings: Mapping[str, str], prefix: str = "/usr/local/kong"
) -> Iterator[PluginServer]:
    """The entries of pluginserver_names, as Kong 3.9 and later reads them."""
    for name in settings["pluginserver_names"].split(","):
        name = name.strip().lower()
        key = "pluginserver_" + name.replace("-", "_")
        yield PluginServer(
            name,
            settings.get(f"{key}_socket", f"{prefix}/{name}.socket"),
            settings.get(f"{key}_start_cmd"),
            settings.get(f"{key}_query_cmd"),
        )
