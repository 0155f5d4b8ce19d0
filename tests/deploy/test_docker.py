"""Dockerfiles, what they install, and the compose file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from recipes import DEPLOY, ROOT, image_environment, load, read_dockerfile, tool

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

NAMES = sorted(path.name for path in (DEPLOY / "docker").glob("Dockerfile.*"))


@pytest.mark.parametrize("name", NAMES)
def test_hadolint_finds_nothing(name: str) -> None:
    hadolint = tool("hadolint", "pip install -r tests/deploy/requirements.txt")
    path = DEPLOY / "docker" / name
    done = subprocess.run(
        [hadolint, "--no-color", "--failure-threshold", "info", str(path)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def stages(name: str) -> list[list[tuple[str, str]]]:
    """The instructions of each stage, from its FROM on."""
    found: list[list[tuple[str, str]]] = []
    for kind, text in read_dockerfile(name):
        if kind == "FROM":
            found.append([])
        if found:
            found[-1].append((kind, text))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_no_compiler_and_no_root_in_what_runs(name: str) -> None:
    builder, final = stages(name)
    assert builder[0][1].split()[0] == final[0][1], "the same Python builds and runs"
    assert "gcc" in str(builder)
    assert not re.search(r"gcc|-dev|\bpip\b", str(final))
    users = [text for kind, text in final if kind == "USER"]
    assert users[-1] in ("kong", "10001:2000")
    assert any(kind == "HEALTHCHECK" for kind, _ in final)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_copied_is_there(name: str) -> None:
    defaults = dict(text.split("=", 1) for kind, text in read_dockerfile(name) if kind == "ARG")
    for kind, text in read_dockerfile(name):
        if kind == "COPY" and not text.startswith("--from="):
            for source in text.split()[:-1]:
                source = re.sub(r"\$\{(\w+)\}", lambda found: defaults[found[1]], source)
                assert (ROOT / source).exists(), source


def test_they_build_the_same_way() -> None:
    """All but the packages of the distribution, which are the first thing that a builder runs."""
    builders = []
    for name in NAMES:
        builder, _ = stages(name)
        start = next(i for i, one in enumerate(builder) if one[0] == "WORKDIR")
        builders.append(builder[start:])
    assert builders[0] == builders[1] == builders[2]
    assert image_environment("Dockerfile.ubuntu") == image_environment("Dockerfile.alpine")


def locked(name: str) -> dict[str, list[str]]:
    """The packages of a requirements file, with what is said of each."""
    text = (DEPLOY / "docker" / name).read_text(encoding="utf-8").replace("\\\n", " ")
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            found.setdefault(re.split(r"[=\s]", line, maxsplit=1)[0], []).append(line)
    return found


def wanted(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w-]", one, maxsplit=1)[0].lower() for one in requirements}


def test_all_that_is_installed_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    needed = wanted([*project["project"]["dependencies"], *extras["metrics"], *extras["gevent"]])
    packages = {**locked("requirements.txt"), **locked("build-requirements.txt")}
    assert needed <= set(locked("requirements.txt"))
    assert wanted(project["build-system"]["requires"]) <= set(locked("build-requirements.txt"))
    for lines in packages.values():
        for line in lines:
            assert re.match(r"[\w.-]+==[\w.]+ .*--hash=sha256:[0-9a-f]{64}", line), line


# --- compose --------------------------------------------------------------------------------------


def services() -> dict[str, dict]:
    return load("compose/docker-compose.yml")["services"]


@pytest.mark.parametrize("name", services())
def test_a_service_may_do_little(name: str) -> None:
    service = services()[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["deploy"]["resources"]["limits"]["memory"]
    for volume in service.get("volumes", ()):
        source, _, mode = volume.split(":")
        assert mode == "ro"
        assert (DEPLOY / "compose" / source).exists(), source
    image = service["image"]
    assert "build" in service or re.search(r":v?\d", image), f"{image}: of no version"


def test_kong_writes_where_it_may() -> None:
    kong = services()["kong"]
    assert kong["read_only"] is True
    prefix = image_environment("Dockerfile.ubuntu")["KONG_PREFIX"]
    assert {one.split(":")[0] for one in kong["tmpfs"]} == {prefix, "/tmp"}
    assert all(one.endswith("mode=1777") for one in kong["tmpfs"])  # root's otherwise
    assert kong["environment"]["KONG_DECLARATIVE_CONFIG"] in str(kong["volumes"])
    for name in kong["depends_on"]:
        assert name in services()


def test_what_a_plugin_wants_of_the_environment_gets_through_nginx() -> None:
    environment = services()["kong"]["environment"]
    passed = environment["KONG_NGINX_MAIN_ENV"].replace("env ", "").split("; ")
    assert set(passed) == {name for name in environment if not name.startswith("KONG_")}
    plugin = (DEPLOY / "plugins" / "greeting.py").read_text(encoding="utf-8")
    assert all(f'"{name}"' in plugin for name in passed)


def test_the_build_is_the_dockerfiles() -> None:
    build = services()["kong"]["build"]
    context = (DEPLOY / "compose" / build["context"]).resolve()
    assert context == ROOT and (context / build["dockerfile"]).exists()
    known = {text.split("=")[0] for kind, text in read_dockerfile(Path(build["dockerfile"]).name)
             if kind == "ARG"}  # fmt: skip
    assert set(build["args"]) <= known


def test_prometheus_and_grafana_find_each_other() -> None:
    (scrape,) = load("prometheus/prometheus.yml")["scrape_configs"]
    (target,) = scrape["static_configs"][0]["targets"]
    host, port = target.split(":")
    assert services()[host]["expose"] == [port]
    assert (
        f"--metrics 0.0.0.0:{port}"
        in services()[host]["environment"]["KONG_PLUGINSERVER_GREETING_START_CMD"]
    )
    mounted = [volume.split(":") for volume in services()["prometheus"]["volumes"]]
    folders = {str(Path(target).parent) for _, target, _ in mounted}
    assert folders == {"/etc/prometheus"}
    for name in load("prometheus/prometheus.yml")["rule_files"]:
        assert f"../prometheus/{name}" in [source for source, *_ in mounted]
    (provider,) = load("compose/grafana/dashboards.yml")["providers"]
    targets = {target: source for source, target, _ in
               (volume.split(":") for volume in services()["grafana"]["volumes"])}  # fmt: skip
    assert targets[provider["options"]["path"]] == "../grafana"
