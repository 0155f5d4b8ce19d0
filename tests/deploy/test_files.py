"""Each file of ``deploy/``: it can be read, and its paths, flags and settings are real ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from recipes import (
    COMMAND,
    DEPLOY,
    DOCKERFILES,
    KONG_LIBRARIES,
    KONG_SETTINGS,
    PLUGINS,
    PLUGINSERVER_SETTINGS,
    ROOT,
    SERVER,
    command_lines,
    environments,
    load_all,
)

from kong_pdk.cli import start_server
from kong_pdk.commands.main import build_parser

FILES = sorted(
    path for path in DEPLOY.rglob("*") if path.is_file() and "__pycache__" not in path.parts
)
DATA = [path for path in FILES if path.suffix in (".yml", ".yaml", ".json")]
LINES = sorted({(where, tuple(line)) for where, line in command_lines()})
ENVIRONMENTS = dict(environments())


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(DEPLOY)) for path in paths]


@pytest.mark.parametrize("path", DATA, ids=names(DATA))
def test_it_is_yaml_or_json(path: Path) -> None:
    assert [one for one in load_all(path) if one is not None]


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_the_files_that_it_names_are_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for named in re.findall(r"(?<![\w/.-])(?:deploy|docs|benchmarks)/[\w./-]*[\w]", text):
        assert (ROOT / named).exists(), named
    for named in re.findall(r"(?<![\w/])\.\.?/[\w./-]*\w", text):
        assert (path.parent / named).exists(), named


def test_the_readme_names_each_folder() -> None:
    text = (DEPLOY / "README.md").read_text(encoding="utf-8")
    for folder in (path for path in DEPLOY.iterdir() if path.is_dir()):
        assert f"]({folder.name}" in text, folder.name


# --- command lines --------------------------------------------------------------------------------


def test_each_recipe_has_command_lines_of_ours() -> None:
    assert {where for where, _ in LINES} == {
        *DOCKERFILES, "compose", "kubernetes", "helm", "systemd",
    }  # fmt: skip


@pytest.mark.parametrize("where, line", LINES)
def test_its_flags_are_the_real_ones(
    where: str, line: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    program, *arguments = line
    if program == SERVER:
        with pytest.raises(SystemExit) as end:
            start_server([*arguments, "--version"])  # all flags are parsed, then it prints
        assert end.value.code == 0, capsys.readouterr().err
    else:
        assert program == COMMAND
        build_parser().parse_args(arguments)


# --- what is said to Kong -------------------------------------------------------------------------


@pytest.mark.parametrize("where", ENVIRONMENTS)
def test_its_settings_are_kongs(where: str) -> None:
    said = {
        name[len("KONG_") :].lower(): value
        for name, value in ENVIRONMENTS[where].items()
        if name.startswith("KONG_")
    }
    servers = [name.strip() for name in said["pluginserver_names"].split(",")]
    of_servers = {
        f"pluginserver_{name.replace('-', '_')}_{setting}"
        for name in servers
        for setting in PLUGINSERVER_SETTINGS
    }
    assert set(said) <= KONG_SETTINGS | of_servers
    for name in servers:
        assert f"pluginserver_{name}_query_cmd" in said  # Kong does not start without
    plugins = [name.strip() for name in said["plugins"].split(",")]
    assert plugins[0] == "bundled"
    assert set(plugins[1:]) <= {path.stem for path in PLUGINS.glob("*.py")}


@pytest.mark.parametrize("where", sorted(ENVIRONMENTS.keys() - {"systemd"}))
def test_kongs_prefix_does_not_hide_its_libraries(where: str) -> None:
    assert not ENVIRONMENTS[where]["KONG_PREFIX"].startswith(KONG_LIBRARIES)


@pytest.mark.parametrize("where", ENVIRONMENTS)
def test_the_socket_is_where_the_server_makes_it(where: str) -> None:
    (socket,) = (v for k, v in ENVIRONMENTS[where].items() if k.endswith("_SOCKET"))
    (prefix,) = {
        (rest[0] if "=" not in word else word.split("=")[1])
        for one, line in LINES
        for word, *rest in (line[i:] for i in range(len(line)))
        if one == where and line[0] == SERVER and word.startswith("--kong-prefix")
    }
    assert socket == f"{prefix}/python_pluginserver.sock"


def test_each_declarative_configuration_uses_the_plugin() -> None:
    texts = [(DEPLOY / name).read_text("utf-8") for name in (
        "compose/kong.yml", "kubernetes/base/kong.yml", "helm/values.yaml",
    )]  # fmt: skip
    for text in texts:
        assert re.search(r"plugins:\n +- name: greeting\n +config:\n +greeting: good day", text)
