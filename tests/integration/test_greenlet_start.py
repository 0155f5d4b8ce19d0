"""gevent: Python is patched before any plugin is imported, or the log says what is not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from kongwire import Kong
from servers import (
    DIRECTORY_SOCKETS,
    EXAMPLES,
    SERVER,
    Flavour,
    directory_command,
    embedded_command,
    run_command,
    running,
)

PLUGINS = Path(__file__).parent / "plugins"
ONE_CODEC = True
pytestmark = pytest.mark.modes("gevent")

#: A plugin that tells what it found when it was imported, also by names of its own.
EARLY = """\
import queue, select, socket, ssl, subprocess, threading, time
from socket import create_connection, socket as Socket
from ssl import SSLContext
from threading import Lock
from time import sleep

from gevent.monkey import is_object_patched

NAMES = {
    "socket": "socket", "ssl": "SSLContext", "select": "select", "threading": "Lock",
    "time": "sleep", "queue": "SimpleQueue", "subprocess": "Popen",
}
FOUND = [f"{module}.{name}" for module, name in NAMES.items() if is_object_patched(module, name)]
TAKEN = [create_connection is socket.create_connection, Socket is socket.socket,
         SSLContext is ssl.SSLContext, Lock is threading.Lock, sleep is time.sleep]

Schema, version, priority = (), "1.0.0", 1

class Plugin:
    def __init__(self, config): pass
    def access(self, kong): kong.log(*FOUND, *TAKEN)

if __name__ == "__main__":
    from kong_pdk.cli import start_dedicated_server
    start_dedicated_server("early", Plugin, version, priority)
"""
PATCHED = [
    "socket.socket", "ssl.SSLContext", "select.select", "threading.Lock", "time.sleep",
    "queue.SimpleQueue", "subprocess.Popen",
]  # fmt: skip
#: Where Python's own modules lie, and on some systems the others too.
LIBRARY = "import os; library = os.path.dirname(os.__file__)"
TOO_LATE = "was imported before gevent could patch Python"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the plugin ``early``."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "early.py").write_text(EARLY)
    return folder


def found_by_the_plugin(kong: Kong) -> list[object]:
    ((_, args),) = kong.run_event(kong.start_instance("early", {})).calls
    return args


@pytest.mark.parametrize("kind", ["folder", "embedded", "module"])
def test_python_is_patched_before_a_plugin_is_imported(
    folder: Path, kind: str, flavour: Flavour, prefix: Path
) -> None:
    command, sockets = directory_command(folder, prefix, *flavour.flags), DIRECTORY_SOCKETS
    if kind == "embedded":
        command = embedded_command(folder / "early.py", prefix, *flavour.flags)
        sockets = ("early.sock", "early.socket")
    elif kind == "module":
        command[:1] = [sys.executable, "-m", "kong_pdk"]
    with running(command, prefix, sockets, flavour.env) as server, server.kong() as kong:
        assert found_by_the_plugin(kong) == PATCHED + ["True"] * 5
        assert TOO_LATE not in server.log
        assert "Warning" not in server.log


@pytest.mark.parametrize("head", ["patch_all()", "patch_socket()", "patch_time()"])
def test_a_plugin_may_patch_all_or_some_of_it_itself(
    folder: Path, head: str, flavour: Flavour, prefix: Path
) -> None:
    path = folder / "early.py"
    path.write_text(f"import gevent.monkey\ngevent.monkey.{head}\n" + EARLY)
    command = embedded_command(path, prefix, *flavour.flags)
    with running(command, prefix, ("early.sock",), flavour.env) as server, server.kong() as kong:
        assert found_by_the_plugin(kong) == PATCHED + ["True"] * 5


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("from ssl import SSLContext", "sitecustomize: ssl.SSLContext"),
        ("from time import sleep", "sitecustomize: time.sleep"),
        ("import ssl\nclass Mine(ssl.SSLContext): pass", "sitecustomize: ssl.SSLContext"),
        ("import agent.net", "agent: socket.create_connection, time.sleep"),
        (f"import agent.net\n{LIBRARY}\nagent.net.__file__ = library + '/site-packages/agent.py'",
         "agent: socket.create_connection, time.sleep"),
        (f"from time import sleep\n{LIBRARY}\n__file__ = library + '/sitecustomize.py'",
         "sitecustomize: time.sleep"),
        ("import ssl, threading, asyncio, tempfile, urllib.request, concurrent.futures", ""),
        ("import gevent.monkey; gevent.monkey.patch_socket()", ""),
        ("import gevent.monkey; gevent.monkey.patch_all()\nimport agent.net", ""),
    ],
)  # fmt: skip
def test_what_was_imported_too_early_is_named(
    folder: Path, tmp_path: Path, source: str, names: str, flavour: Flavour, prefix: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(source + "\n")
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "__init__.py").touch()
    (tmp_path / "agent" / "net.py").write_text(
        "from time import sleep, monotonic\nfrom socket import create_connection\n"
    )
    env = {**flavour.env, "PYTHONPATH": str(tmp_path)}
    command = directory_command(folder, prefix, *flavour.flags)
    with running(command, prefix, env=env) as server, server.kong() as kong:
        server.wait_log(" serving ")
        lines = [line for line in server.log.splitlines() if TOO_LATE in line]
        assert len(lines) == bool(names)
        for line in lines:
            module, _, held = names.partition(": ")
            assert f"[WARNING] kong_pdk.server: {module} {TOO_LATE}" in line
            assert f"({held})" in line
            assert "gevent.monkey.patch_all() before" in line
            assert "leave out --gevent" in line
        assert found_by_the_plugin(kong) == PATCHED + ["True"] * 5


@pytest.mark.parametrize("command", [
    [SERVER, "-d", str(PLUGINS)], [sys.executable, str(EXAMPLES / "py-hello.py")],
], ids=["folder", "embedded"])  # fmt: skip
def test_without_gevent_it_says_what_to_install(
    command: list[str], tmp_path: Path, flavour: Flavour, prefix: Path
) -> None:
    (tmp_path / "gevent.py").write_text("raise ImportError(\"No module named 'gevent'\")\n")
    env = {**flavour.env, "PYTHONPATH": str(tmp_path)}
    done = run_command(*command, "-p", str(prefix), *flavour.flags, env=env)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "the gevent mode needs gevent" in line
    assert "pip install 'kong-pdk[gevent]'" in line
    assert not list(prefix.iterdir())


def test_a_process_without_a_script_cannot_be_patched(flavour: Flavour, prefix: Path) -> None:
    code = "from kong_pdk.cli import start_server; start_server()"
    flags = directory_command(PLUGINS, prefix, *flavour.flags)[1:]
    done = run_command(sys.executable, "-c", code, *flags, env=flavour.env)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "run the script again in a new Python, but '-c' is none" in line
