"""What is in ``deploy/``, for the tests that look at it; and facts about what it is made for.

The facts were read from the sources of Kong and of its images and chart, and are recorded here so
that a misspelt name is found: Kong, Helm and Kubernetes pass over what they do not know.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Optional

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
PLUGINS = DEPLOY / "plugins"
#: All of them, with their folders.
DOCKERFILES = sorted(str(path.relative_to(DEPLOY)) for path in DEPLOY.glob("*/Dockerfile.*"))

SERVER, COMMAND = "kong-python-pluginserver", "kong-pdk"

# --- facts ----------------------------------------------------------------------------------------

#: Names of kong.conf, of 3.9, that the recipes use. Each is a variable KONG_... too.
KONG_SETTINGS = {
    "admin_listen", "database", "declarative_config", "log_level", "nginx_main_env",
    "nginx_worker_processes", "pluginserver_names", "plugins", "prefix", "status_listen",
}  # fmt: skip
#: Settings of one plugin server: pluginserver_NAME_..., with - in its name as _.
PLUGINSERVER_SETTINGS = {"socket", "start_cmd", "query_cmd"}

#: Tags of Docker's image "kong" that the recipes may name; those of Alpine are of a whole release.
KONG_TAGS = {"2.8.5-alpine", "3.3.1-alpine", "3.9", "3.9.3"}

#: Where Kong's image has libraries of Kong's, which must not be hidden under an empty folder.
KONG_LIBRARIES = "/usr/local/kong"

#: The chart kong, 3.4.1: what its values.yaml or its templates know, of what the recipe sets. A "*"
#: stands for what the templates pass on as it is, to Kubernetes or (env) to Kong.
CHART_KEYS = {
    "image.repository", "image.tag",
    "env.*",
    "ingressController.enabled",
    "dblessConfig.config",
    "deployment.userDefinedVolumes.*", "deployment.userDefinedVolumeMounts.*",
    "deployment.initContainers.*", "deployment.sidecarContainers.*",
    "securityContext.*",
    "resources.*",
    "terminationGracePeriodSeconds",
    "autoscaling.enabled", "autoscaling.minReplicas", "autoscaling.maxReplicas",
    "autoscaling.metrics.*",
    "podDisruptionBudget.enabled", "podDisruptionBudget.maxUnavailable",
    "podDisruptionBudget.unhealthyPodEvictionPolicy",
    "manager.enabled", "updateStrategy.*", "topologySpreadConstraints.*",
    "extraObjects.*",
}  # fmt: skip
#: What the chart gives Kong's container: its name, its prefix, its ports.
CHART_CONTAINER, CHART_PREFIX = "proxy", "/kong_prefix/"
CHART_PORTS = {"proxy": 8000, "proxy-tls": 8443, "status": 8100}

# --- files ----------------------------------------------------------------------------------------


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """As safe_load, and a key that is there twice is an error."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.value != "<<"]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        assert not twice, f"{node.start_mark}: keys that are there twice: {twice}"
        return super().construct_mapping(node, deep)


@functools.cache
def load_all(path: Path) -> list[Any]:
    """The documents of a YAML or JSON file, which nobody may change."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return [json.loads(text)]
    return list(yaml.load_all(text, _Loader))


def load(name: str) -> Any:
    """The one document of a file in ``deploy/``."""
    (document,) = load_all(DEPLOY / name)
    return document


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All values of a document that hold no others, with their places."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value:
        for item in value:
            yield from leaves(item, f"{path}.*")
    else:
        yield path, value


def read_dockerfile(name: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile (``docker/Dockerfile.ubuntu``), each in one line."""
    text = (DEPLOY / name).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines()]  # type: ignore[misc]


def image_environment(name: str) -> dict[str, str]:
    """What ENV sets in the image that a Dockerfile makes."""
    found = {}
    instructions = read_dockerfile(name)
    last = max(i for i, (kind, _) in enumerate(instructions) if kind == "FROM")
    for kind, text in instructions[last:]:
        if kind == "ENV":
            found.update(pair.split("=", 1) for pair in shlex.split(text))
    return found


def read_unit(name: str) -> dict[str, list[str]]:
    """The settings of a systemd unit, by name, whatever their section."""
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / "systemd" / name).read_text(encoding="utf-8").splitlines():
        if "=" in line and not line.startswith("#"):
            key, value = line.split("=", 1)
            found.setdefault(key, []).append(value)
    return found


def read_conf(path: Path) -> dict[str, str]:
    """The settings of a kong.conf."""
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip() for key, value in pairs}


# --- a pod ----------------------------------------------------------------------------------------


class Pod(NamedTuple):
    """A pod of Kong and its plugin server, as a recipe makes it."""

    spec: dict[str, Any]
    kong: dict[str, Any]
    env: dict[str, str]

    def container(self, name: str) -> dict[str, Any]:
        """One of its containers."""
        both = [*self.spec["initContainers"], *self.spec["containers"]]
        (found,) = (one for one in both if one["name"] == name)
        return found


def kubernetes_pod() -> Pod:
    """That of the manifests."""
    spec = load("kubernetes/base/deployment.yaml")["spec"]["template"]["spec"]
    (kong,) = spec["containers"]
    return Pod(spec, kong, {one["name"]: one["value"] for one in kong["env"]})


def helm_pod() -> Pod:
    """That of Kong's chart with our values, as far as they go."""
    values = load("helm/values.yaml")
    deployment = values["deployment"]
    kong = {
        "name": CHART_CONTAINER,
        "image": "{repository}:{tag}".format(**values["image"]),
        "ports": [{"name": name, "containerPort": port} for name, port in CHART_PORTS.items()],
        "resources": values["resources"],
        "volumeMounts": deployment["userDefinedVolumeMounts"],
    }
    spec = {
        "initContainers": deployment["initContainers"],
        "containers": [kong, *deployment.get("sidecarContainers", [])],
        "volumes": deployment["userDefinedVolumes"],
        "securityContext": values["securityContext"],
        "terminationGracePeriodSeconds": values["terminationGracePeriodSeconds"],
    }
    env = {f"KONG_{key.upper()}": value for key, value in values["env"].items()}
    return Pod(spec, kong, {"KONG_PREFIX": CHART_PREFIX, **env})


PODS = {"kubernetes": kubernetes_pod, "helm": helm_pod}

# --- command lines --------------------------------------------------------------------------------


def environments() -> Iterator[tuple[str, dict[str, str]]]:
    """What each recipe says to Kong, as variables."""
    for name in DOCKERFILES:
        if "sidecar" not in name:
            yield name, image_environment(name)
    compose = image_environment("docker/Dockerfile.ubuntu")
    compose.update(load("compose/docker-compose.yml")["services"]["kong"]["environment"])
    yield "compose", compose
    for name, pod in PODS.items():
        yield name, pod().env
    conf = read_conf(DEPLOY / "systemd" / "kong.conf")
    yield "systemd", {f"KONG_{key.upper()}": value for key, value in conf.items()}


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Each command line of ours in the recipes, from the name of its program on."""
    for where, text in _commands():
        words = text if isinstance(text, list) else shlex.split(text.replace("$KONG_PREFIX", "/p"))
        programs = re.compile(rf"(?:.*/bin/)?(?:{SERVER}|{COMMAND})")
        starts = [i for i, word in enumerate(words) if programs.fullmatch(word)]
        for start in starts:
            line = [Path(words[start]).name]
            for word in words[start + 1 :]:
                if word.rstrip(";") in (">", "2>&1", "&&", ";", "do", "done", "|"):
                    break
                line.append(word.rstrip(";"))
            yield where, line


def _commands() -> Iterator[tuple[str, Any]]:
    for name in DOCKERFILES:
        for kind, text in read_dockerfile(name):
            if kind in ("RUN", "HEALTHCHECK"):
                listed = re.search(r"CMD (\[.*\])$", text)
                words = json.loads(listed[1]) if listed else text
                yield name, words[-1] if words[0] == "/bin/sh" else words
        instructions = dict(read_dockerfile(name))
        if "ENTRYPOINT" in instructions:
            yield name, [*map_json(instructions, "ENTRYPOINT"), *map_json(instructions, "CMD")]
    for where, environment in environments():
        for name, value in environment.items():
            if name.endswith(("_START_CMD", "_QUERY_CMD")):
                yield where, value
    for service in load("compose/docker-compose.yml")["services"].values():
        for part in service.get("healthcheck", {}).get("test", ()):
            yield "compose", part
    entry = map_json(dict(read_dockerfile("docker/Dockerfile.sidecar")), "ENTRYPOINT")
    for where, pod in PODS.items():
        for container in pod().spec["initContainers"]:
            yield where, container_command(container, entry)
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                if probe in container:
                    yield where, container[probe]["exec"]["command"]
    for key, values in read_unit("kong-python-plugins.service").items():
        for value in values if key.startswith("Exec") else ():
            words = shlex.split(value)
            yield "systemd", words[-1] if words[0] == "/bin/sh" else words


def map_json(instructions: dict[str, str], name: str) -> list[str]:
    """The words of an instruction that is a JSON list."""
    return [str(word) for word in json.loads(instructions[name])]


def container_command(container: dict[str, Any], entry: list[str]) -> Any:
    """What a container runs: words, or a script for the shell."""
    if container.get("command", [""])[0] == "/bin/sh":
        return container["command"][-1]
    return [*container.get("command", entry), *container.get("args", ())]


# --- tools ----------------------------------------------------------------------------------------


def tool(name: str, install: str) -> str:
    """The path of a program; without it the test is skipped, or fails with KONG_PDK_REQUIRE_E2E=1.

    Args:
        name: of the program.
        install: how it is to be had.
    """
    here = Path(sysconfig.get_path("scripts")) / name
    found: Optional[str] = str(here) if here.exists() else shutil.which(name)
    return found or missing(f"{name}: {install}")


def missing(what: str) -> Any:
    """Skip the test, or fail where nothing may be missing."""
    if os.environ.get("KONG_PDK_REQUIRE_E2E", "0") not in ("", "0"):
        pytest.fail(what)
    pytest.skip(what)
