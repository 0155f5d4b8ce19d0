"""The guides for Docker and Kubernetes: their files are well-formed, and their commands do work.

There is no Kong here, no Docker and no cluster. So the commands that Kong, a container or a probe
would run are run as they stand, but for the folders, and seen to fit together.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pages
import pytest
import yaml
from servers import clean_environment, short_directory, wait_until

GUIDES = pages.ROOT / "docs/how-to"
PLUGIN = """\
Schema = ({"message": {"type": "string", "default": "hello"}},)
version = "1.0.0"
priority = 10


class Plugin:
    def __init__(self, config):
        pass

    def access(self, kong):
        pass


if __name__ == "__main__":
    from kong_pdk.cli import start_dedicated_server

    start_dedicated_server("greeter", Plugin, version, priority, Schema)
"""


def texts(guide: str, language: str) -> list[str]:
    return [each.text for each in pages.blocks(GUIDES / guide) if each.language == language]


def yaml_of(guide: str, wanted: str) -> dict[str, Any]:
    """The YAML of a guide that has the key ``wanted``."""
    found = [yaml.safe_load(text) for text in texts(guide, "yaml")]
    [one] = [each for each in found if wanted in each]
    assert isinstance(one, dict)
    return one


@pytest.mark.parametrize("page", pages.written_pages(), ids=lambda page: page.stem)
def test_yaml_is_yaml(page: Path) -> None:
    for block in pages.blocks(page):
        if block.language == "yaml":
            assert yaml.safe_load(block.text), str(block)


#: A command that installs packages, and this one's name in it without a version behind it.
INSTALLER = re.compile(r"\b(?:pip3? (?:install|download)|pipx install|uv (?:pip install|add))\b")
UNVERSIONED = re.compile(r"(?<![\w/])kong-pdk(?:\[[\w,]+\])?(?=['\"\s]|$)")


@pytest.mark.parametrize("page", pages.all_pages(), ids=lambda page: str(page.name))
def test_no_command_installs_the_published_package(page: Path) -> None:
    """It has the same name: without a version pip takes it until the first final release."""
    for block in pages.blocks(page):
        for line in block.text.splitlines():
            if INSTALLER.search(line):
                said = line.replace("--no-binary kong-pdk", "")
                assert not UNVERSIONED.search(said), f"{block}: {line}: write >=1.0.dev1"


@pytest.mark.parametrize("page", pages.written_pages(), ids=lambda page: page.stem)
def test_kong_is_told_to_read_its_file_again(page: Path) -> None:
    """``kong reload`` alone goes on with the settings of Kong's start."""
    for block in pages.blocks(page):
        for command in re.findall(r"\bkong reload\b[^&;\n]*", block.text):
            if block.language in ("sh", "console"):
                assert "-c /etc/kong/kong.conf" in command, f"{block}: {command}"


class Places:
    """Where the folders of a guide are on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sockets = folder / "run"
        self.sockets.mkdir()
        (folder / "greeter.py").write_text(PLUGIN, encoding="utf-8")

    def here(self, command: str) -> str:
        """A command of a guide with the paths of this machine."""
        scripts = sysconfig.get_path("scripts")
        for there, here in (
            ("/opt/plugins/venv/bin/python", sys.executable),
            ("/opt/plugins/greeter.py", f"{self.folder}/greeter.py"),
            ("/run/plugins", str(self.sockets)),
            ("/kong_prefix", str(self.sockets)),
            ("kong-pdk status", f"{scripts}/kong-pdk status"),
        ):
            command = command.replace(there, here)
        return re.sub(r"^python\b|(?<=\s)python\b", sys.executable, command)

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as Kong, Kubernetes and Docker do: by a shell."""
        return subprocess.run(
            ["/bin/sh", "-c", self.here(command)],
            capture_output=True, text=True, timeout=60, env=clean_environment(),
        )  # fmt: skip

    def start(self, command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            shlex.split(self.here(command)), env=clean_environment(), stderr=subprocess.DEVNULL
        )


def serves(places: Places, start: str, query: str, socket: str, probe: str) -> None:
    """See that what the query tells is what Kong wants, and that the server serves the socket."""
    told = places.run(query)
    assert told.returncode == 0, told.stderr
    [plugin] = yaml.safe_load(told.stdout)  # JSON is YAML
    assert (plugin["Name"], plugin["Phases"]) == ("greeter", ["access"])
    assert places.run(probe).returncode == 1, "there is no server yet"
    server = places.start(start)
    try:
        wait_until(lambda: places.run(probe).returncode == 0, "the server to answer its probe")
        assert Path(places.here(socket)).is_socket()
    finally:
        server.terminate()
        assert server.wait(60) == 0


def test_the_image_has_commands_that_work() -> None:
    [dockerfile] = texts("docker.md", "dockerfile")
    variables = dict(re.findall(r'(KONG_\w+)="?(.*?)"?(?: \\\n|\n|$)', dockerfile))
    assert variables["KONG_PLUGINSERVER_NAMES"] == "greeter"
    start = variables["KONG_PLUGINSERVER_GREETER_START_CMD"]
    query = variables["KONG_PLUGINSERVER_GREETER_QUERY_CMD"]
    with short_directory() as folder:
        places = Places(folder)
        # Kong's own prefix is not to be had here.
        start += f" --kong-prefix {places.sockets}"
        probe = f"kong-pdk status --kong-prefix {places.sockets}"
        serves(places, start, query, f"{places.sockets}/greeter.socket", probe)


def test_the_charts_values_have_commands_that_work() -> None:
    values = next(
        each for each in map(yaml.safe_load, texts("kubernetes.md", "yaml")) if "image" in each
    )
    env = values["env"]
    with short_directory() as folder:
        serves(
            Places(folder),
            env["pluginserver_greeter_start_cmd"],
            env["pluginserver_greeter_query_cmd"],
            env["pluginserver_greeter_socket"],
            "kong-pdk status --kong-prefix /kong_prefix",
        )


def test_the_sidecar_fits_together() -> None:
    values = yaml_of("kubernetes.md", "deployment")
    env, deployment = values["env"], values["deployment"]
    dump, server = deployment["initContainers"]
    assert "pluginserver_greeter_start_cmd" not in env
    assert {mount["mountPath"] for mount in server["volumeMounts"]} == {"/run/plugins"}
    with short_directory() as folder:
        places = Places(folder)
        assert dump["command"][:2] == ["/bin/sh", "-c"]
        assert places.run(dump["command"][2]).returncode == 0
        serves(
            places,
            shlex.join(server["command"]),
            env["pluginserver_greeter_query_cmd"],
            env["pluginserver_greeter_socket"],
            shlex.join(server["livenessProbe"]["exec"]["command"]),
        )
