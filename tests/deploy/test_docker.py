"""Dockerfiles, what they install, and the compose file."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from recipes import (
    DEPLOY,
    DOCKERFILES,
    KONG_TAGS,
    PLUGINS,
    ROOT,
    image_environment,
    load,
    read_dockerfile,
    tool,
)

import kong_pdk

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

#: Those that build this checkout, and those that take a release.
NAMES = [name for name in DOCKERFILES if name.startswith("docker/")]
OWN = [name for name in DOCKERFILES if name.startswith("plugin-repository/")]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_finds_nothing(name: str) -> None:
    hadolint = tool("hadolint", "pip install -r tests/deploy/requirements.txt")
    path = DEPLOY / name
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


@pytest.mark.parametrize("name", DOCKERFILES)
def test_no_compiler_and_no_root_in_what_runs(name: str) -> None:
    builder, final = stages(name)
    assert builder[0][1].split()[0] == final[0][1], "the same Python builds and runs"
    assert ("gcc" in str(builder)) is (name in NAMES)
    assert not re.search(r"gcc|-dev|\bpip\b", str(final))
    users = [text for kind, text in final if kind == "USER"]
    assert users[-1] in ("kong", "10001:2000")
    assert any(kind == "HEALTHCHECK" for kind, _ in final)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_copied_is_there(name: str) -> None:
    arguments = [text for kind, text in read_dockerfile(name) if kind == "ARG" and "=" in text]
    defaults = dict(text.split("=", 1) for text in arguments)
    for kind, text in read_dockerfile(name):
        if kind == "COPY" and not text.startswith("--from="):
            for source in text.split()[:-1]:
                source = re.sub(r"\$\{(\w+)\}", lambda found: defaults[found[1]], source)
                assert (ROOT / source).exists(), source


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_says_what_it_is(name: str) -> None:
    """The base's version, which is that of Ubuntu in Kong's image, would be told otherwise."""
    _, final = stages(name)
    (label,) = [text for kind, text in final if kind == "LABEL"]
    labels = dict(pair.split("=", 1) for pair in shlex.split(label))
    base = final[0][1].strip("${}")
    assert labels["org.opencontainers.image.version"] == "${VERSION}"
    assert labels["org.opencontainers.image.revision"] == "${REVISION}"
    assert labels["org.opencontainers.image.base.name"] == f"${{{base}}}"
    arguments = [text.split("=")[0] for kind, text in final if kind == "ARG"]
    assert arguments == ["VERSION", "REVISION", base]  # those before FROM are not known after it


def patterns(folder: Path) -> list[str]:
    lines = (folder / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_what_was_compiled_here_stays_out_of_the_images() -> None:
    """A module of another Python, or C of an older Cython that is newer than the source."""
    ignored = patterns(ROOT)
    for kept_out in ("kong_pdk/*.so", "kong_pdk/_speedups.c", "**/__pycache__", ".git", ".venv*"):
        assert kept_out in ignored
    for name in NAMES:
        for kind, text in read_dockerfile(name):
            if kind == "COPY" and not text.startswith("--from="):
                assert not {word.split("/")[0] for word in text.split()[:-1]} & set(ignored)


def test_they_build_the_same_way() -> None:
    """All but the packages of the distribution, which are the first thing that a builder runs."""
    builders = []
    for name in NAMES:
        builder, _ = stages(name)
        start = next(i for i, one in enumerate(builder) if one[0] == "WORKDIR")
        builders.append(builder[start:])
    assert builders[0] == builders[1] == builders[2]
    assert image_environment("docker/Dockerfile.ubuntu") == image_environment(
        "docker/Dockerfile.alpine"
    )


def test_images_of_kong_are_there() -> None:
    """A short tag of Alpine's, 3.3-alpine, never was."""
    named = {load("helm/values.yaml")["image"]["tag"]}
    for path in DEPLOY.rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            text = path.read_text(encoding="utf-8")
            named.update(re.findall(r"(?<![\w/.-])kong:(\d+\.\d[\w.-]*\w|\d+\.\d)", text))
    assert {"3.9", "3.3.1-alpine"} <= named <= KONG_TAGS


# --- for a repository of plugins ------------------------------------------------------------------


@pytest.mark.parametrize(
    "own, ours", list(zip(OWN, ("docker/Dockerfile.ubuntu", "docker/Dockerfile.sidecar")))
)
def test_an_image_of_a_release_runs_as_one_of_this_checkout(own: str, ours: str) -> None:
    """All from the first stage's result on is the same."""

    def run(name: str) -> list[tuple[str, str]]:
        _, final = stages(name)
        start = next(i for i, (_, text) in enumerate(final) if text.startswith("--from=builder"))
        return [one for one in final[start:] if one[0] != "COPY"]

    assert run(own) == run(ours)
    (kept,) = [text for kind, text in stages(own)[1] if kind == "COPY" and "--from" not in text]
    assert kept == "plugins /opt/kong-python/plugins"


def test_all_that_such_an_image_takes_gets_through_its_dockerignore() -> None:
    allowed = {line[1:] for line in patterns(DEPLOY / "plugin-repository") if line[0] == "!"}
    copied = {
        text.split()[0]
        for name in OWN
        for kind, text in read_dockerfile(name)
        if kind == "COPY" and not text.startswith("--from=")
    }
    assert copied == allowed == {"plugins", "requirements.txt"}
    assert patterns(DEPLOY / "plugin-repository")[0] == "*"
    assert PLUGINS.name in copied  # they can be tried out with ours


def test_such_an_image_takes_a_release_of_this_package_only() -> None:
    text = (DEPLOY / "plugin-repository" / "requirements.in").read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if not line.startswith("#")]
    assert line.startswith("kong-pdk[metrics]>=1.0")  # the others are the published package
    for name in OWN:
        (install,) = [text for _, text in read_dockerfile(name) if "requirements.txt" in text
                      and "pip install" in text]  # fmt: skip
        assert "--only-binary :all:" in install


def test_a_release_without_its_codec_ends_the_build() -> None:
    """The last command of the first stage, with this package and with its pure codec."""
    checks = set()
    for name in OWN:
        (install,) = [text for _, text in read_dockerfile(name) if "pip install" in text]
        *_, last = install.split("&& ")
        checks.add(last.replace("/opt/kong-pdk/bin/python", sys.executable))
    (check,) = checks
    for pure, status in (("0", 0 if kong_pdk.is_compiled() else 1), ("1", 1)):
        done = subprocess.run(
            ["/bin/sh", "-c", check], capture_output=True, text=True, timeout=60, cwd="/",
            env={**os.environ, "KONG_PDK_PUREPYTHON": pure},
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        assert bool(status) is ("no wheel of kong-pdk" in done.stderr)


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
    prefix = image_environment("docker/Dockerfile.ubuntu")["KONG_PREFIX"]
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
    instructions = read_dockerfile(build["dockerfile"].partition("/")[2])
    known = {text.split("=")[0] for kind, text in instructions if kind == "ARG"}
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
