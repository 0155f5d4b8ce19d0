"""The recipes' commands are run here, on other paths: servers, probes, queries, the echo."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Union

import pytest
from kongwire import LIMIT
from recipes import (
    COMMAND,
    DEPLOY,
    PLUGINS,
    PODS,
    SERVER,
    container_command,
    environments,
    load,
    map_json,
    read_dockerfile,
    read_unit,
)
from servers import Server, clean_environment, running, short_directory

SCRIPTS = sysconfig.get_path("scripts")

#: What a script of a recipe may be: words, or a text for the shell.
Command = Union[list[str], str]


class Recipe(NamedTuple):
    """How a recipe starts the server, asks it how it is, and tells Kong of the plugin.

    Attributes:
        start: the server.
        probe: its exit status is what the recipe goes by.
        describe: prints the plugin, or writes it; None where Kong's query command does it.
        query: Kong's query command.
    """

    start: Command
    probe: Command
    describe: Union[Command, None]
    query: str


def query_of(where: str) -> str:
    environment = dict(environments())[where]
    return environment["KONG_PLUGINSERVER_GREETING_QUERY_CMD"]


def sidecar() -> Recipe:
    instructions = dict(read_dockerfile("docker/Dockerfile.sidecar"))
    check = instructions["HEALTHCHECK"]
    start = [*map_json(instructions, "ENTRYPOINT"), *map_json(instructions, "CMD")]
    pod = PODS["kubernetes"]()
    return Recipe(
        start,
        json.loads(check[check.index("CMD") + 3 :]),
        container_command(pod.container("describe-plugins"), []),
        query_of("kubernetes"),
    )


def compose() -> Recipe:
    kong = load("compose/docker-compose.yml")["services"]["kong"]
    start = kong["environment"]["KONG_PLUGINSERVER_GREETING_START_CMD"]
    return Recipe(start, kong["healthcheck"]["test"][-1], None, query_of("compose"))


def in_pod() -> Recipe:
    pod = PODS["kubernetes"]()
    server = pod.container("plugins")
    entry = map_json(dict(read_dockerfile("docker/Dockerfile.sidecar")), "ENTRYPOINT")
    return Recipe(
        container_command(server, entry),
        server["livenessProbe"]["exec"]["command"],
        container_command(pod.container("describe-plugins"), entry),
        query_of("kubernetes"),
    )


def unit() -> Recipe:
    settings = read_unit("kong-python-plugins.service")
    loop = shlex.split(settings["ExecStartPost"][0])[-1]
    (probe,) = re.findall(r"until (.*?) >", loop)
    return Recipe(
        settings["ExecStart"][0],
        probe,
        shlex.split(settings["ExecStartPre"][0])[-1],
        query_of("systemd"),
    )


#: That of Helm is the one of Kubernetes, which test_cluster.py sees to; that of Dockerfile.ubuntu
#: is the one of compose without metrics.
RECIPES = {
    "Dockerfile.sidecar": sidecar(),
    "compose": compose(),
    "kubernetes": in_pod(),
    "systemd": unit(),
}


def here(command: Command, folder: Path) -> list[str]:
    """A command of a recipe, with the paths of this machine in place of its own."""
    is_script = isinstance(command, str)
    text = command if isinstance(command, str) else shlex.join(command)
    text = re.sub(rf"(/opt/kong-pdk/bin/)?\b({SERVER}|{COMMAND})\b", rf"{SCRIPTS}/\2", text)
    for path in ("/opt/kong-python/plugins", "/etc/kong/python-plugins"):
        text = text.replace(path, str(PLUGINS))
    for path in ("/var/run/kong", "/run/kong-python"):
        text = text.replace(path, str(folder))
    text = re.sub(r"(--metrics[ =])\S*:\d+", r"\g<1>127.0.0.1:0", text)
    text = text.replace("kong health", "true")
    if os.geteuid() != 0:
        text = re.sub(r" --socket-group[ =]\w+", "", text)  # for root, or a member
    return ["/bin/sh", "-c", text] if is_script and re.search("[>&]", text) else shlex.split(text)


def run(command: Command, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        here(command, folder), capture_output=True, text=True, timeout=LIMIT, cwd="/",
        env=clean_environment(),
    )  # fmt: skip


@pytest.fixture(scope="module", params=RECIPES)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    """Each of them."""
    return RECIPES[request.param]


@pytest.fixture
def folder() -> Iterator[Path]:
    """What is shared with Kong."""
    with short_directory() as path:
        yield path


def test_the_server_starts_and_the_probe_follows_it(recipe: Recipe, folder: Path) -> None:
    assert run(recipe.probe, folder).returncode == 1
    with running(here(recipe.start, folder), folder) as server:
        done = run(recipe.probe, folder)
        assert done.returncode == 0, done.stderr
        assert "greeting" in done.stdout
        greets(server)
    assert run(recipe.probe, folder).returncode == 1


def greets(server: Server) -> None:
    with server.kong() as kong:
        instance = kong.start_instance("greeting", {"greeting": "good day"})
        done = kong.run_event(instance, answers={"kong.request.get_header": "example.com"})
        assert done.headers["x-greeting"] == "good day, example.com"


def test_kong_is_told_of_the_plugin(recipe: Recipe, folder: Path) -> None:
    if recipe.describe is not None:
        done = run(recipe.describe, folder)
        assert done.returncode == 0, done.stderr
    done = run(recipe.query, folder)
    (told,) = json.loads(done.stdout)
    assert (told["Name"], told["Phases"], told["Version"]) == ("greeting", ["access"], "1.0.0")


def test_the_echo_says_what_it_gets() -> None:
    command = [sys.executable, str(DEPLOY / "compose" / "echo.py"), "0"]
    pipe, none = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, stdout=pipe, stderr=none, text=True) as echo:
        try:
            assert echo.stdout is not None
            port = re.findall(r"\d+", echo.stdout.readline())[0]
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/orders?page=2", data=b"one", headers={"X-Key": "k"}
            )
            with urllib.request.urlopen(request, timeout=LIMIT) as answer:
                said = json.load(answer)
        finally:
            echo.terminate()
    assert (said["method"], said["path"], said["body"]) == ("POST", "/orders?page=2", "one")
    assert said["headers"]["X-Key"] == "k"
