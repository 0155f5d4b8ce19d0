"""The documented examples, and kong.conf's lines as they stand in the documentation."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kongwire import Kong
from servers import EXAMPLES, SERVER, Flavour, Server, Start, run_command, running

HELLO = EXAMPLES / "py-hello.py"
ONE_CODEC = True
SOCKETS = ("py-hello.sock", "py-hello.socket")

#: As Kong's documentation prints it: annotations of a ``kong`` that is imported beside.
DOCUMENTED = """\
#!/usr/bin/env python3
import os
import kong_pdk.pdk.kong as kong

Schema = (
    {"message": {"type": "string"}},
)

version = '0.1.0'
priority = 0

# This is an example plugin that add a header to the response

class Plugin(object):
    def __init__(self, config):
        self.config = config

    def access(self, kong: kong.kong):
        host, err = kong.request.get_header("host")
        if err:
            pass  # error handling
        # if run with --no-lua-style
        # try:
        #     host = kong.request.get_header("host")
        # except Exception as ex:
        #     pass  # error handling
        message = "hello"
        if 'message' in self.config:
            message = self.config['message']
        kong.response.set_header("x-hello-from-python", "Python says %s to %s" % (message, host))
        kong.response.set_header("x-python-pid", str(os.getpid()))


# add below section to allow this plugin optionally be running in a dedicated process
if __name__ == "__main__":
    from kong_pdk.cli import start_dedicated_server
    start_dedicated_server("py-hello", Plugin, version, priority)
"""
INFO = {
    "Name": "py-hello",
    "Phases": ["access"],
    "Priority": 0,
    "Version": "0.1.0",
    "Schema": {
        "name": "py-hello",
        "fields": [{"config": {"type": "record", "fields": [{"message": {"type": "string"}}]}}],
    },
}


@pytest.fixture(params=["of the repository", "documented"])
def hello(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The example's file."""
    if request.param == "of the repository":
        return HELLO
    path = tmp_path / "py-hello.py"
    path.write_text(DOCUMENTED)
    return path


def check_headers(kong: Kong, server: Server) -> None:
    pids = server.workers() or [server.pid]
    for config, message in (({}, "hello"), ({"message": "good day"}, "good day")):
        instance = kong.start_instance("py-hello", config)
        run = kong.run_event(instance, answers={"kong.request.get_header": "example.com"})
        assert run.calls == [
            ("kong.request.get_header", ["host"]),
            ("kong.response.set_header",
             ["x-hello-from-python", f"Python says {message} to example.com"]),
            ("kong.response.set_header", ["x-python-pid", run.headers["x-python-pid"]]),
        ]  # fmt: skip
        assert int(run.headers["x-python-pid"]) in pids


def test_the_example_embedded(start_embedded: Start, hello: Path) -> None:
    server = start_embedded(hello, sockets=SOCKETS)
    with server.kong() as kong:
        assert kong.call("plugin.GetPluginNames") == ["py-hello"]
        assert kong.call("plugin.GetPluginInfo", "py-hello") == INFO
        check_headers(kong, server)


def test_the_example_in_a_folder(start: Start, hello: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(hello, folder / "py-hello.py")
    server = start(plugins=folder)
    with server.kong() as kong:
        check_headers(kong, server)
    done = run_command(SERVER, "-d", str(folder), "--dump-plugin-info", "py-hello")
    assert json.loads(done.stdout) == [INFO]


@pytest.mark.parametrize("flag", ["--dump", "-dump"])
def test_the_query_command(hello: Path, flag: str) -> None:
    """``pluginserver_py_hello_query_cmd = python3 py-hello.py --dump``"""
    done = run_command(sys.executable, str(hello), flag)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == [INFO]


@pytest.fixture
def path_of_python(tmp_path: Path) -> str:
    """A PATH on which ``python3`` is this one, for ``#!/usr/bin/env python3``."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "python3"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    script.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_the_file_as_a_command(
    hello: Path, tmp_path: Path, prefix: Path, path_of_python: str, flavour: Flavour
) -> None:
    """``…_start_cmd = /path/to/my-plugin.py -v``, ``…_query_cmd = /path/to/my-plugin.py -dump``."""
    path = tmp_path / "my-plugin"  # Kong runs /usr/local/bin/<name> where no command is given
    shutil.copy(hello, path)
    path.chmod(0o755)
    env = {**flavour.env, "PATH": path_of_python}
    for flag in ("--dump", "-dump"):
        done = run_command(str(path), flag, env=env)
        assert (done.returncode, json.loads(done.stdout)) == (0, [INFO])
    command = [str(path), "-v", "-p", str(prefix), *flavour.flags]
    with running(command, prefix, SOCKETS, env=env) as server, server.kong() as kong:
        check_headers(kong, server)


EXAMPLE_FILES = sorted(path.name for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("name", EXAMPLE_FILES)
def test_each_example_can_be_queried(name: str) -> None:
    done = run_command(sys.executable, str(EXAMPLES / name), "--dump")
    assert (done.returncode, done.stderr) == (0, "")
    (found,) = json.loads(done.stdout)
    assert found["Name"] == name[: -len(".py")]


@pytest.mark.parametrize("name", EXAMPLE_FILES)
def test_each_example_can_be_run(name: str) -> None:
    assert os.access(EXAMPLES / name, os.X_OK)


@pytest.fixture
def examples(start: Start) -> Iterator[Kong]:
    """A server for all of them."""
    with start(plugins=EXAMPLES).kong() as kong:
        yield kong


#: Of those whose configuration has fields without a default.
CONFIGS: dict[str, dict[str, object]] = {
    "jwt-guard": {"key": "k" * 32, "issuer": "i", "audience": "a"},
    "rate-limit": {"limit": 1},
    "request-log": {"url": "http://127.0.0.1/"},
}


def test_one_server_for_all_examples(examples: Kong) -> None:
    names = [name[: -len(".py")] for name in EXAMPLE_FILES]
    assert examples.call("plugin.GetPluginNames") == names
    for name in names:
        assert type(examples.start_instance(name, CONFIGS.get(name, {}))) is int


TOKEN = "a token, ü"
USERS = {"users": {"alice": hashlib.sha256(TOKEN.encode()).hexdigest()}}


@pytest.fixture
def py_token(start_embedded: Start) -> Iterator[Kong]:
    """The example in Python style."""
    path, sockets = EXAMPLES / "py-token.py", ("py-token.sock", "py-token.socket")
    with start_embedded(path, "--no-lua-style", sockets=sockets).kong() as kong:
        yield kong


def test_a_known_token(py_token: Kong) -> None:
    instance = py_token.start_instance("py-token", USERS)
    run = py_token.run_event(instance, answers={"kong.request.get_header": f"Bearer {TOKEN}"})
    assert run.calls == [
        ("kong.request.get_header", ["authorization"]),
        ("kong.service.request.set_header", ["x-user", "alice"]),
        ("kong.service.request.clear_header", ["authorization"]),
        ("kong.ctx.shared.set", ["user", "alice"]),
    ]
    run = py_token.run_event(instance, "log", answers={"kong.ctx.shared.get": "alice"})
    assert run.calls[-1] == ("kong.log.info", ["served ", "alice"])


def test_unknown_tokens(py_token: Kong) -> None:
    instance = py_token.start_instance("py-token", USERS)
    refused = [
        401, {"message": "a valid token is needed"}, {"www-authenticate": 'Bearer realm="api"'},
    ]  # fmt: skip
    for given in (None, "", "Bearer", f"Basic {TOKEN}", "Bearer other", "Bearer \udcff"):
        run = py_token.run_event(instance, answers={"kong.request.get_header": given})
        assert run.calls[-1] == ("kong.response.exit", refused), given
        assert len(run.calls) == 2
    assert py_token.run_event(instance, "log").functions == ["kong.ctx.shared.get"]
