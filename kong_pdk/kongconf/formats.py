"""Settings as they are written: in kong.conf, in the environment, and for Docker Compose."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .releases import Release
from .settings import Settings

#: Where the image of the Compose form has Python, and the plugins.
IMAGE_PYTHON = "/opt/kong-python"
IMAGE_PLUGINS = "/opt/kong-plugins"


def pairs(settings: Settings) -> Iterator[tuple[str, str]]:
    """Keys and values; commands are for a shell, which Kong gives them to."""
    yield "plugins", ",".join(["bundled", *settings.plugins])
    yield "pluginserver_names", ",".join(entry.name for entry in settings.entries)
    for entry in settings.entries:
        yield f"{entry.key}_socket", entry.socket
        if entry.start is not None:
            yield f"{entry.key}_start_cmd", shlex.join(entry.start)
        yield f"{entry.key}_query_cmd", shlex.join(entry.query)


def variable(key: str) -> str:
    """The environment variable that stands for a key."""
    return f"KONG_{key.upper()}"


def _comments(settings: Settings) -> Iterator[str]:
    yield f"# For Kong {settings.release}."
    for note in settings.notes:
        yield f"# {note[0].upper()}{note[1:]}."


def conf(settings: Settings) -> str:
    """The lines of kong.conf. Kong takes # for the begin of a comment unless \\ stands before."""
    lines = [*_comments(settings)]
    entry = ""
    for key, value in pairs(settings):
        stem = key.rpartition("_socket")[0] or entry
        if stem != entry or key == "pluginserver_names":
            lines.append("")
        entry = stem
        lines.append(f"{key} = {value}".replace("#", "\\#"))
    return "\n".join(lines) + "\n"


def env(settings: Settings) -> str:
    """Lines for a shell, which set the environment that Kong is started in."""
    lines = [f"export {variable(key)}={shlex.quote(value)}" for key, value in pairs(settings)]
    return "\n".join([*_comments(settings), *lines]) + "\n"


@dataclass(frozen=True)
class Mount:
    """A folder or file that the container sees.

    Attributes:
        source: its absolute path here.
        target: its absolute path there.
    """

    source: str
    target: str


def compose(
    settings: Settings, mounts: Sequence[Mount], packages: Sequence[str], database: str = "off"
) -> str:
    """A service for Docker Compose: Kong's image with Python in it, the plugins and the settings.

    Args:
        settings: with commands and paths of the container.
        mounts: what to mount.
        packages: what pip installs.
        database: ``KONG_DATABASE``.
    """
    lines = [
        *_comments(settings),
        "services:",
        "  kong:",
        "    build:",
        "      dockerfile_inline: |",
        *(f"        {line}" if line else "" for line in dockerfile(settings.release, packages)),
        "    environment:",
        f"      KONG_DATABASE: {_text(database)}",
        *(f"      {variable(key)}: {_text(value)}" for key, value in pairs(settings)),
        # Kong's own default is its container alone, where the port below would lead to nobody.
        '      KONG_ADMIN_LISTEN: "0.0.0.0:8001"',
        '      KONG_PROXY_ACCESS_LOG: "/dev/stdout"',
        '      KONG_PROXY_ERROR_LOG: "/dev/stderr"',
    ]
    if mounts:
        lines.append("    volumes:")
    for mount in mounts:
        lines += [
            "      - type: bind",
            f"        source: {_text(mount.source)}",
            f"        target: {_text(mount.target)}",
            "        read_only: true",
        ]
    lines += ["    ports:", '      - "8000:8000"', '      - "127.0.0.1:8001:8001"']
    return "\n".join(lines) + "\n"


def dockerfile(kong: Release, packages: Sequence[str]) -> list[str]:
    """The lines of a Dockerfile: Kong's image, and Python packages in a venv of their own."""
    python = kong.image_python
    compiler = f"gcc libc6-dev {python}-dev"
    install = " ".join(shlex.quote(each) for each in packages).replace("$", "$$")
    return [
        f"FROM {kong.image_tag}",
        "USER root",
        "RUN apt-get update \\",
        f" && apt-get install -y --no-install-recommends {python} {python}-venv {compiler} \\",
        f" && {python} -m venv {IMAGE_PYTHON} \\",
        f" && {IMAGE_PYTHON}/bin/pip install --no-cache-dir {install} \\",
        f" && apt-get purge -y --auto-remove {compiler} \\",
        " && rm -rf /var/lib/apt/lists/*",
        "USER kong",
    ]


def _text(value: str) -> str:
    """A text for YAML, which takes JSON's; Compose takes $ for a variable of its own."""
    return json.dumps(value.replace("$", "$$"), ensure_ascii=True)
