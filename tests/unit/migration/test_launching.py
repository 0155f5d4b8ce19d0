"""What commands of kong.conf run, and whether the servers take their flags."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kong_pdk.migration.launching import DEDICATED, DIRECTORY, OTHER, read_command, read_flags

SCRIPT = "from kong_pdk.cli import start_dedicated_server\nstart_dedicated_server('n', object)\n"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(f"#!{sys.executable}\n{SCRIPT}")
    return path


@pytest.mark.parametrize(
    "before",
    [
        "", "exec ", "env A=b ", "exec env -u X A=b ", "A='b c' ", "cd /tmp && ",
        f"{sys.executable} -u -X dev ", "nice -n 5 ", "sudo -u kong nohup ", "timeout -k 1 30 ",
        "stdbuf -oL ", "tini -- ",
    ],
)  # fmt: skip
@pytest.mark.parametrize("after", ["", " 2>/dev/null", " 2>&1", " | cat"])
def test_a_script_is_found_whatever_is_around_it(script: Path, before: str, after: str) -> None:
    launch = read_command(f"{before}{script} -v --dump{after}")
    assert (launch.kind, launch.script, launch.args) == (DEDICATED, str(script), ["-v", "--dump"])
    assert launch.python == sys.executable


def test_the_directory_server_is_found_by_its_name() -> None:
    for start in ("/no/such/bin/kong-python-pluginserver", "python3 /x/kong-python-pluginserver"):
        launch = read_command(f"{start} -d '/a b'")
        assert (launch.kind, launch.args) == (DIRECTORY, ["-d", "/a b"])
    assert read_command("python3 -m kong_pdk -d /p").kind == DIRECTORY


def test_relative_paths_begin_where_the_command_is_run(script: Path) -> None:
    assert read_command("python3 ./own.py", str(script.parent)).script == str(script)
    assert read_command(f"cd {script.parent}; ./own.py").script == str(script)


@pytest.mark.parametrize("shell", ["bash -c", "/bin/sh -ec", "nice bash -l -o pipefail -c"])
def test_what_a_shell_is_given_is_read(script: Path, shell: str) -> None:
    inner = f"cd {script.parent} && exec python3 own.py --dump"
    launch = read_command(f'{shell} "{inner}" 2>/dev/null')
    assert (launch.kind, launch.script, launch.args) == (DEDICATED, str(script), ["--dump"])


@pytest.mark.parametrize("activate", [".", "source"])
def test_python_is_that_of_the_environment_that_is_activated(script: Path, activate: str) -> None:
    programs = script.parent / "bin"
    programs.mkdir()
    (programs / "python3").symlink_to(sys.executable)
    launch = read_command(f"bash -c '{activate} {programs}/activate && python3 {script} -v'")
    assert (launch.kind, launch.python) == (DEDICATED, str(programs / "python3"))


def test_servers_of_other_languages_are_known_without_being_there() -> None:
    for command in (
        "/no/such/go-pluginserver -dump-all-plugins -plugins-directory /go",
        "/no/such/kong-js-pluginserver -v --plugins-directory /js",
        "/bin/ls -l",
    ):
        launch = read_command(command)
        assert launch.foreign and not launch.missing, command


def test_everything_else_is_something_else(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text("print()\n")
    (tmp_path / "wrapper").write_text('#!/bin/sh\nexec kong-python-pluginserver -d "$1"\n')
    for command, reason in (
        (sys.executable, "runs no file"),
        (f"{sys.executable} -c 'pass'", "runs no file"),
        (f"{sys.executable} -m other", "module other"),
        (str(tmp_path / "plain.py"), "does not call start_dedicated_server"),
        (str(tmp_path / "wrapper"), "put that command into kong.conf"),
        (f"bash {tmp_path}/wrapper -d /p", "put that command into kong.conf"),
        ('"/usr/bin/python3 /p/own.py"', "the quotes make one word"),
        ("bash", "is a program"),
        ("'open", "could not read"),
        ("", "nothing"),
    ):
        launch = read_command(command)
        assert launch.kind == OTHER and reason in launch.reason, command
    missing = read_command("/no/such.py")
    assert missing.missing and "No such file" in missing.reason


def test_flags_are_read_by_the_servers_own_parsers(script: Path) -> None:
    def problem(command: str, query: bool = False) -> str:
        return read_flags(read_command(command), query).problem

    server = "kong-python-pluginserver"
    assert problem(f"{server} -d /p -m -kong-prefix /k") == ""
    assert problem(f"{server} -d /p -dump-all-plugins", query=True) == ""
    assert problem(f"{script} --no-lua-style --socket-name x") == ""
    assert problem(f"{script} -dump", query=True) == ""
    assert "--plugins-directory for --plugins-dir" in problem(f"{server} --plugins-dir /p")
    assert "unrecognized arguments: --nothing" in problem(f"{server} -d /p --nothing")
    assert "invalid int value" in problem(f"{script} --listen-queue-size many")
    assert "plugins are missing" in problem(server)
    assert "needs --dump-all-plugins" in problem(f"{server} -d /p", query=True)
    assert "needs --dump" in problem(str(script), query=True)
    assert "in place of serving" in problem(f"{script} --dump")
    assert read_flags(read_command(f"{server} -d /p --no-lua-style")).values is not None
