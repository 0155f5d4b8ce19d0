"""What ``kong-pdk new`` writes: a plugin that passes all there is to pass, as it stands."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from kongsettings import plugin_servers, read_conf
from servers import SCRIPTS, Server, run_command, short_directory

COMMAND = str(SCRIPTS / "kong-pdk")
PYTHON = sys.executable


def make(folder: Path, *flags: str) -> Path:
    done = run_command(COMMAND, "new", "my-plugin", *flags, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    written = [line for line in done.stdout.splitlines() if line.startswith("my-plugin/")]
    made = folder / "my-plugin"
    assert sorted(written) == sorted(
        str(path.relative_to(folder)) for path in made.rglob("*") if path.is_file()
    )
    return made


def passes(folder: Path, *command: str, **env: str) -> str:
    done = run_command(*command, cwd=folder, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def installed(made: Path) -> str:
    """A folder for PYTHONPATH in which the plugin is installed, without pip's build."""
    lines = (made / "pyproject.toml").read_text().splitlines()
    begin = lines.index('[project.entry-points."kong_pdk.plugins"]') + 1
    entries = [line.replace('"', "") for line in lines[begin : lines.index("", begin)]]
    info = made / "src/kong_plugin_my_plugin-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: kong-plugin-my-plugin\nVersion: 0.1.0\n"
    )
    (info / "entry_points.txt").write_text("\n".join(["[kong_pdk.plugins]", *entries, ""]))
    return str(made / "src")


@pytest.mark.parametrize("flags", [(), ("--python-style",), ("--package",)], ids=str)
def test_what_is_written_passes_everything(tmp_path: Path, flags: tuple[str, ...]) -> None:
    made = make(tmp_path, *flags)
    package = "--package" in flags
    env = {"PYTHONPATH": installed(made)} if package else {}
    spec = "my-plugin" if package else "my_plugin.py"
    style = ["--server-args=--no-lua-style"] if "--python-style" in flags else []
    output = passes(made, PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", **env)
    assert "4 passed" in output
    output = passes(made, COMMAND, "check", spec, "--strict", **env)
    assert "my-plugin 0.1.0, priority 10, phases: access, log" in output
    assert "access: 2 round trips" in output
    target = "src/my_plugin" if package else spec
    if importlib.util.find_spec("aiohttp") is not None and "--python-style" in flags:
        output = passes(made, COMMAND, "try", target, *style, "--request", "GET /orders")
        assert "hello, this is for /orders" in output
    assert (made / "README.md").read_text().count(f"kong-pdk check {spec}\n") == 1


def test_what_is_written_pleases_type_checker_and_linter(tmp_path: Path) -> None:
    make(tmp_path, "--package", "--python-style").rename(tmp_path / "package")
    made = make(tmp_path)
    (made / "my_plugin.py").rename(made / "plain.py")  # mypy takes one module of each name
    if importlib.util.find_spec("ruff") is not None:
        for folder in (tmp_path / "package", made):
            passes(folder, PYTHON, "-m", "ruff", "check", ".")
            passes(folder, PYTHON, "-m", "ruff", "format", "--check", ".")
    pytest.importorskip("mypy")
    passes(tmp_path, PYTHON, "-m", "mypy", "--strict", ".", MYPYPATH=str(tmp_path / "package/src"))


def test_its_settings_start_a_server_for_kong(tmp_path: Path) -> None:
    """From new to kong.conf: the lines are taken as Kong takes them."""
    made = make(tmp_path, "--package")
    env = {"PYTHONPATH": installed(made)}
    with short_directory() as prefix:
        text = passes(
            tmp_path, COMMAND, "conf", "my-plugin", "--kong-prefix", str(prefix), **env
        )  # fmt: skip
        settings = read_conf(text)
        assert settings["plugins"] == "bundled,my-plugin"
        (one,) = plugin_servers(settings)
        assert one.start is not None
        command = ["sh", "-c", f"exec {one.start}"]
        server = Server(command, prefix, [Path(one.socket).name], env=env)
        try:
            with server.wait_ready().kong() as kong:
                names = kong.call("plugin.GetPluginNames")
        finally:
            server.process.terminate()
            assert server.wait() == 0
    assert names == ["my-plugin"]
