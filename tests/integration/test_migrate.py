"""``kong-pdk migrate`` as a command: a real kong.conf, real plugins, and its exit status."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from kongsettings import plugin_servers, read_conf
from servers import SCRIPTS, run_command

COMMAND = str(SCRIPTS / "kong-pdk")
SERVER = str(SCRIPTS / "kong-python-pluginserver")
PLUGIN = """
version, priority, Schema = "1.0.0", 5, ()
class Plugin:
    def __init__(self, config): pass
    def access(self, kong):
        kong.log.info("hello")
"""
STARTS = """
if __name__ == "__main__":
    from kong_pdk.cli import start_dedicated_server
    start_dedicated_server("own", Plugin, version, priority, Schema)
"""


def settings(folder: Path, **more: str) -> str:
    """A kong.conf with a folder of plugins and a script, as they are with the published package."""
    (folder / "plugins").mkdir(exist_ok=True)
    (folder / "plugins/one.py").write_text(PLUGIN)
    (folder / "own.py").write_text(PLUGIN + STARTS)
    values = {
        "prefix": str(folder),
        "plugins": "bundled, one, own",
        "pluginserver_names": "python, own",
        "pluginserver_python_socket": f"{folder}/python_pluginserver.sock",
        "pluginserver_python_start_cmd": f"{SERVER} -p {folder} -d {folder}/plugins",
        "pluginserver_python_query_cmd": f"{SERVER} -d {folder}/plugins --dump-all-plugins",
        "pluginserver_own_socket": f"{folder}/own.sock  # where it listens",
        "pluginserver_own_start_cmd": f"{sys.executable} {folder}/own.py -kong-prefix {folder}",
        "pluginserver_own_query_cmd": f"{sys.executable} {folder}/own.py -dump",
        **more,
    }
    (folder / "kong.conf").write_text("".join(f"{k} = {v}\n" for k, v in values.items()))
    return str(folder / "kong.conf")


def migrate(folder: Path, *args: str, **variables: str) -> tuple[int, dict[str, Any]]:
    """Status and report."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KONG_")}
    done = subprocess.run(
        [COMMAND, "migrate", "--json", *args], capture_output=True, text=True, cwd=folder,
        env={**environment, **variables}, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def codes(report: dict[str, Any], name: str, level: str) -> list[str]:
    (entry,) = [each for each in report["entries"] if each["name"] == name]
    return [one["code"] for one in entry["findings"] if one["level"] == level]


def test_settings_that_can_go_over_as_they_are(tmp_path: Path) -> None:
    done = run_command(COMMAND, "migrate", "--kong-conf", settings(tmp_path), cwd=tmp_path)
    lines = done.stdout.splitlines()
    assert "python: kong-python-pluginserver, plugins: one" in lines
    assert f"own: {tmp_path}/own.py, plugins: own" in lines
    assert (
        lines[-1] == "2 Python plugin servers: 0 to change, 0 to look at; it can go over as it is"
    )
    assert "What differs on purpose, for every plugin:" in lines
    assert (done.returncode, done.stderr) == (0, "")


def test_what_must_be_changed(tmp_path: Path) -> None:
    path = settings(
        tmp_path,
        pluginserver_own_socket="/elsewhere/own.sock",
        pluginserver_own_start_cmd=f"{sys.executable} {tmp_path}/own.py --kong-pref {tmp_path}",
        pluginserver_python_start_cmd=f"{SERVER} -p {tmp_path} -d {tmp_path}/plugins "
        "--socket-name=s/x.sock",
    )
    (tmp_path / "plugins/two.py").write_text(f"from kong_pdk.module import Module\n{PLUGIN}")
    status, report = migrate(tmp_path, "--kong-conf", path, "--kong-version", "3.4")
    assert status == 1
    assert codes(report, "own", "change") == ["flags"]
    found = codes(report, "python", "change")
    assert sorted(found) == ["not-loaded", "private-import", "socket", "socket"]
    status, report = migrate(tmp_path, "--kong-conf", path, "--kong-version", "3.4", "--no-run")
    assert sorted(codes(report, "python", "change")) == ["private-import", "socket", "socket"]


def test_entries_for_each_plugin_are_written_where_kong_needs_them(tmp_path: Path) -> None:
    path = settings(tmp_path)
    (tmp_path / "plugins/two.py").write_text(PLUGIN)
    status, report = migrate(tmp_path, "--kong-conf", path, "--kong-version", "3.8")
    assert (status, report["lines"]) == (0, {})
    status, report = migrate(tmp_path, "--kong-conf", path, "--kong-version", "3.9")
    assert (status, codes(report, "python", "change")) == (1, ["first-plugin-only"])
    made = list(plugin_servers(read_conf(report["lines"]["python"]), str(tmp_path)))
    names = []
    for server in made:
        assert server.socket == f"{tmp_path}/python_pluginserver.sock" and server.query
        done = subprocess.run(shlex.split(server.query), capture_output=True, check=True)
        names += [each["Name"] for each in json.loads(done.stdout)]
    assert names == ["one", "two"]
    assert made[0].start == f"{SERVER} -p {tmp_path} -d {tmp_path}/plugins"
    assert made[1].start is None
    # With them in its place there is nothing to do.
    lines = (tmp_path / "kong.conf").read_text() + report["lines"]["python"]
    (tmp_path / "kong.conf").write_text(lines)
    assert migrate(tmp_path, "--kong-conf", path, "--kong-version", "3.9")[0] == 0


def test_no_entry_is_written_for_what_cannot_be_loaded(tmp_path: Path) -> None:
    """Kong would not start with it."""
    path = settings(tmp_path, pluginserver_names="python")
    (tmp_path / "plugins/broken.py").write_text(f"import no_such_module\n{PLUGIN}")
    status, report = migrate(tmp_path, "--kong-conf", path, "--kong-version", "3.9")
    assert (status, codes(report, "python", "change"), report["lines"]) == (1, ["not-loaded"], {})
    (tmp_path / "plugins/two.py").write_text(PLUGIN)
    _, report = migrate(tmp_path, "--kong-conf", path, "--kong-version", "3.9")
    assert "first-plugin-only" in codes(report, "python", "change")
    assert "--dump-plugin-info two" in report["lines"]["python"]
    assert "broken" not in report["lines"]["python"]


def test_the_environment_alone_and_above_the_file(tmp_path: Path) -> None:
    path = settings(tmp_path)
    own = f"{sys.executable} {tmp_path}/own.py"
    variables = {
        "KONG_PREFIX": str(tmp_path), "KONG_PLUGINSERVER_NAMES": "own",
        "KONG_PLUGINSERVER_OWN_START_CMD": f"{own} --kong-prefix {tmp_path}",
        "KONG_PLUGINSERVER_OWN_QUERY_CMD": f"{own} --dump",
    }  # fmt: skip
    status, report = migrate(tmp_path, "--env", **variables)
    assert (status, report["sources"]) == (0, ["the environment"])
    assert [each["name"] for each in report["entries"]] == ["own"]
    (tmp_path / "kong.env").write_text("".join(f"{k}={v}\n" for k, v in variables.items()))
    status, report = migrate(tmp_path, "--env", "kong.env", "--no-run")
    assert (status, report["sources"]) == (0, ["kong.env"])
    _, report = migrate(tmp_path, "--kong-conf", path, "--no-run", KONG_PREFIX="/other")
    # It is Kong's prefix, and the server's own is in its command.
    assert report["entries"][1]["socket"] == f"{tmp_path}/own.sock"
    assert report["sources"] == [path, "the environment"]


def test_settings_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("prefix = /p\n")
    (tmp_path / "go").write_text("go_pluginserver_exe = /usr/local/bin/go-pluginserver\n")
    (tmp_path / "included").write_text("include /etc/kong/more.conf\n")
    for args, said in (
        (["--kong-conf", "none"], "cannot read none: No such file"),
        (["--kong-conf", "empty"], "there is no pluginserver_names in empty"),
        (["--env", "none"], "cannot read none"),
        (["--kong-conf", "empty", "--python", "no/python"], "no such program"),
        (["--kong-conf", "go"], "go_pluginserver_exe is for plugins in Go only"),
        (["--kong-conf", "included"], "included:1: Kong does not see this line"),
        (["--kong-conf", "."], "cannot read .: Is a directory"),
    ):
        done = run_command(COMMAND, "migrate", *args, cwd=tmp_path)
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr.startswith("kong-pdk migrate: ") and said in done.stderr
    done = run_command(COMMAND, "migrate", "--kong-version", "1.0", cwd=tmp_path)
    assert done.returncode == 2 and "is not known" in done.stderr


def test_plugin_servers_in_other_languages_are_left_alone(tmp_path: Path) -> None:
    path = settings(
        tmp_path, pluginserver_names="go,js",
        pluginserver_go_start_cmd="/no/such/go-pluginserver -plugins-directory /go",
        pluginserver_go_query_cmd="/bin/ls -dump",
        pluginserver_js_start_cmd="/no/such/kong-js-pluginserver -d /js",
        pluginserver_js_query_cmd="/no/such/kong-js-pluginserver -d /js --dump-all-plugins",
    )  # fmt: skip
    status, report = migrate(tmp_path, "--kong-conf", path)
    go, js = report["entries"]
    assert (status, go["kind"], js["kind"], go["findings"], js["findings"]) == (
        0, "other", "other", [], [],
    )  # fmt: skip
    assert "server for Go" in go["reason"] and "server for JavaScript" in js["reason"]
    done = run_command(COMMAND, "migrate", "--kong-conf", path, cwd=tmp_path)
    assert done.stdout.splitlines()[-1].startswith("2 plugin servers: 0 to change, ")
    assert done.stdout.endswith("; none of them was found to be in Python\n")


def test_what_is_not_looked_into_is_said(tmp_path: Path) -> None:
    (tmp_path / "start").write_text(f"#!/bin/sh\nexec {SERVER} -d {tmp_path}/plugins\n")
    path = settings(
        tmp_path, pluginserver_names="python",
        pluginserver_python_start_cmd=f"sh {tmp_path}/start",
        pluginserver_python_query_cmd=f"sh {tmp_path}/start --dump-all-plugins",
    )  # fmt: skip
    status, report = migrate(tmp_path, "--kong-conf", path)
    assert (status, codes(report, "python", "look")) == (0, ["not-seen"])
    assert "starts a Python server" in report["entries"][0]["reason"]
    # In quotes for a shell it is read.
    path = settings(
        tmp_path, pluginserver_names="python",
        pluginserver_python_start_cmd=f"sh -c '{SERVER} -p {tmp_path} -d {tmp_path}/plugins'",
    )  # fmt: skip
    status, report = migrate(tmp_path, "--kong-conf", path)
    assert (status, codes(report, "python", "look")) == (0, [])
    assert report["entries"][0]["plugins"] == ["one"]
