"""The command lines of both servers: every flag and its aliases."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
from pathlib import Path

import pytest
from kongwire import Kong
from servers import (
    EXAMPLES,
    SERVER,
    Flavour,
    Start,
    embedded_command,
    is_alive,
    run_command,
    running,
    short_directory,
    wait_until,
)

PLUGINS = Path(__file__).parent / "plugins"
ONE_CODEC = True
HELLO = EXAMPLES / "py-hello.py"
KINDS = {
    "directory": [SERVER, "-d", str(PLUGINS)],
    "embedded": [sys.executable, str(HELLO)],
    "module": [sys.executable, "-m", "kong_pdk", "-d", str(PLUGINS)],
}
STEMS = {
    "directory": "python_pluginserver",
    "embedded": "py-hello",
    "module": "python_pluginserver",
}
SUFFIXES = (".sock", ".socket")


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    """Which server."""
    return str(request.param)


def serves(path: str) -> bool:
    with Kong(path) as kong:
        return bool(kong.call("plugin.GetPluginNames"))


# --- what only tells something --------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["--version", "-version"])
def test_version(kind: str, flag: str) -> None:
    done = run_command(*KINDS[kind], flag)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    assert "codec" not in line
    assert line.split()[-1][0].isdigit()


@pytest.mark.parametrize(
    "flags", [["--version", "-v"], ["-v", "-version"], ["--verbose", "--version"]]
)
def test_version_with_v_tells_the_codec(kind: str, flags: list[str], flavour: Flavour) -> None:
    for env, expected in ((flavour.env, flavour.codec), ({"KONG_PDK_PUREPYTHON": "1"}, "pure")):
        done = run_command(*KINDS[kind], *flags, env=env)
        assert (done.returncode, done.stderr) == (0, "")
        codec = {"compiled": "(compiled codec,", "pure": "(pure-Python codec,"}[expected]
        assert codec in done.stdout
    assert f"Python {sys.version_info[0]}.{sys.version_info[1]}" in done.stdout


def test_version_needs_no_directory() -> None:
    assert run_command(SERVER, "--version").returncode == 0


def test_help_names_every_flag(kind: str) -> None:
    done = run_command(*KINDS[kind], "--help")
    assert (done.returncode, done.stderr) == (0, "")
    flags = {
        "-p", "--kong-prefix", "-kong-prefix", "-v", "--verbose", "--version", "-version",
        "--socket-name", "--socket-mode", "--socket-user", "--socket-group", "--allow-uid",
        "--listen-queue-size", "--threads", "--no-lua-style", "-g", "--gevent",
        "-m", "--multiprocessing", "--workers", "--start-method", "--supervise",
        "--worker-memory",
        "--instance-ttl", "--max-starts", "--log-format",
    }  # fmt: skip
    flags |= (
        {"--dump", "-dump"}
        if kind == "embedded"
        else {
            "-d", "--plugins-directory", "-plugins-directory", "--dump-plugin-info",
            "-dump-plugin-info", "--dump-all-plugins", "-dump-all-plugins",
        }
    )  # fmt: skip
    words = done.stdout.replace(",", " ").replace("[", " ").replace("]", " ").split()
    assert flags <= set(words)
    assert "/usr/local/kong" in done.stdout


@pytest.mark.parametrize(
    "flags",
    [
        ["--no-such-flag"], ["stray"], ["-p"], ["--socket-name"], ["--listen-queue-size", "many"],
        ["--threads"], ["--threads", "many"], ["--threads", "1.5"], ["-m", "--workers", "many"],
        ["--instance-ttl", "long"],
        ["--max-starts", "many"], ["-m", "--start-method", "thread"], ["--kong-pref", "/tmp"],
    ],
)  # fmt: skip
def test_wrong_flags_are_usage_errors(kind: str, flags: list[str]) -> None:
    done = run_command(*KINDS[kind], *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage:" in done.stderr


def test_the_directory_must_be_named() -> None:
    done = run_command(SERVER)
    assert (done.returncode, done.stdout) == (2, "")
    assert "-d" in done.stderr


def test_two_dumps_at_once_are_a_usage_error() -> None:
    done = run_command(SERVER, "-d", str(PLUGINS), "--dump-all-plugins", "-dump-plugin-info", "x")
    assert (done.returncode, done.stdout) == (2, "")


# --- what stops the start -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags", [["--workers", "2"], ["--start-method", "fork"], ["--worker-memory", "100"]]
)
def test_flags_of_a_mode_that_is_not_wanted(kind: str, flags: list[str], prefix: Path) -> None:
    done = run_command(*KINDS[kind], "-p", str(prefix), *flags)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{flags[0]} is of use with --multiprocessing (-m)" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(prefix.iterdir())


@pytest.mark.parametrize("number", ["0", "-1", "1025"])
def test_a_number_of_workers_that_cannot_be(kind: str, number: str, prefix: Path) -> None:
    done = run_command(*KINDS[kind], "-p", str(prefix), "-m", "--workers", number)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"--workers must be 1 to 1024, got {number}" in done.stderr
    assert not list(prefix.iterdir())


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["-p", "/nonexistent/kong"], "/nonexistent/kong"),
        (["-p", __file__], __file__),
        (["-p", "{prefix}", "--listen-queue-size", "0"], "listen_queue_size"),
        (["-p", "{prefix}", "--listen-queue-size", "-1"], "listen_queue_size"),
        (["-p", "{prefix}", "--threads", "0"], "--threads must be at least 1, got 0"),
        (["-p", "{prefix}", "--threads", "-1"], "--threads must be at least 1, got -1"),
        (["-p", "{prefix}", "--threads", "8", "-g"], "with --gevent they run in greenlets"),
        (["-p", "{prefix}", "--gevent", "--threads", "512"], "--threads limits the threads"),
        (["-p", "{prefix}", "--instance-ttl", "-1"], "--instance-ttl must be 0 or more seconds"),
        (["-p", "{prefix}", "--instance-ttl", "nan"], "--instance-ttl must be 0 or more seconds"),
        (["-p", "{prefix}", "--max-starts", "0"], "--max-starts must be at least 1, got 0"),
        (["-p", "{prefix}", "--socket-mode", "rw"], "--socket-mode must be permissions in octal"),
        (["-p", "{prefix}", "--socket-mode", "1660"], "octal, 000 to 777, such as 660, got '1660'"),
        (["-p", "{prefix}", "--socket-mode", "680"], "--socket-mode must be"),
        (["-p", "{prefix}", "--socket-user", "no-such-user"], "--socket-user: there is no user"),
        (
            ["-p", "{prefix}", "--socket-group", "no-such-group"],
            "--socket-group: there is no group",
        ),
        (["-p", "{prefix}", "--socket-group", ""], "--socket-group: there is no group ''"),
        (["-p", "{prefix}", "--allow-uid", "0,no-such-user"], "--allow-uid: there is no user 'no-"),
        (["-p", "{prefix}", "--allow-uid", "4294967295"], "number is at most 4294967294"),
        (["-p", "{prefix}", "--socket-name", ""], "--socket-name"),
        (["-p", "{prefix}", "--socket-name", "a/b.socket"], "--socket-name"),
        (["-p", "{prefix}", "--socket-name", "../b.socket"], "--socket-name"),
        (["-p", "{prefix}", "--socket-name", "/tmp/b.socket"], "--socket-name"),
        (["-p", "{prefix}", "--socket-name", "."], "is no socket"),
        (["-p", "{prefix}", "--socket-name", ".."], "is no socket"),
        (["-p", "{prefix}", "--socket-name", "x" * 108], "107"),
        (["-p", "{prefix}", "--socket-name", "ä" * 54], "107"),
    ],
)
def test_what_makes_no_sense_is_refused(
    kind: str, prefix: Path, flags: list[str], text: str
) -> None:
    done = run_command(*KINDS[kind], *(flag.format(prefix=prefix) for flag in flags))
    assert (done.returncode, done.stdout) == (1, "")
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(prefix.iterdir())


def test_the_longest_socket_path(prefix: Path) -> None:
    name = "x" * (107 - len(str(prefix)) - 1)
    command = [*KINDS["directory"], "-p", str(prefix), "--socket-name", name]
    with running(command, prefix, (name,)) as server:
        assert len(server.paths[0]) == 107
        assert serves(server.paths[0])
    done = run_command(*command[:-1], name + "x")
    assert (done.returncode, done.stdout) == (1, "")
    assert "107" in done.stderr


@pytest.mark.parametrize("directory", ["/nonexistent", __file__])
def test_a_plugins_directory_that_cannot_be_read(directory: str, prefix: Path) -> None:
    done = run_command(SERVER, "-d", directory, "-p", str(prefix))
    assert (done.returncode, done.stdout) == (1, "")
    assert directory in done.stderr
    assert "Traceback" not in done.stderr


def test_a_directory_without_a_plugin(prefix: Path) -> None:
    (prefix / "helper.py").write_text("x = 1\n")
    done = run_command(SERVER, "-d", str(prefix), "-p", str(prefix))
    assert (done.returncode, done.stdout) == (1, "")
    assert "no plugin" in done.stderr
    assert "helper.py" in done.stderr


# --- what changes how it serves -------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["-p", "--kong-prefix", "-kong-prefix"])
@pytest.mark.parametrize("joined", [False, True])
def test_the_prefix(kind: str, flag: str, joined: bool, prefix: Path) -> None:
    flags = (
        [f"{flag}={prefix}" if flag != "-p" else f"-p{prefix}"] if joined else [flag, str(prefix)]
    )
    names = [STEMS[kind] + suffix for suffix in SUFFIXES]
    with running([*KINDS[kind], *flags], prefix, names) as server:
        assert all(serves(path) for path in server.paths)


@pytest.mark.parametrize("flag", ["-d", "--plugins-directory", "-plugins-directory"])
def test_the_plugins_directory(flag: str, prefix: Path) -> None:
    command = [SERVER, flag, str(PLUGINS), "-p", str(prefix)]
    with running(command, prefix) as server, server.kong() as kong:
        assert kong.call("plugin.GetPluginNames") == ["author", "hello"]


def test_a_relative_directory_and_prefix(prefix: Path) -> None:
    (prefix / "plugins").mkdir()
    (prefix / "plugins" / "hello.py").write_text((PLUGINS / "hello.py").read_text())
    command = [SERVER, "-d", "plugins", "-p", "."]
    with running(command, prefix) as server, server.kong() as kong:
        assert kong.call("plugin.GetPluginNames") == ["hello"]


@pytest.mark.parametrize(
    ("flags", "debug"), [([], False), (["-v"], True), (["--verbose"], True), (["-vv"], True),
                         (["-v", "-v", "--verbose"], True)]
)  # fmt: skip
def test_verbose(start: Start, flags: list[str], debug: bool) -> None:
    server = start(*flags)
    server.wait_log(" serving ")
    assert ("[DEBUG] kong_pdk" in server.log) == debug


def test_the_style_is_logged(start: Start) -> None:
    start("--socket-name", "a.sock", sockets=("a.sock",)).wait_log("PDK calls return (data, err)")
    server = start("--no-lua-style", "--socket-name", "b.sock", sockets=("b.sock",))
    server.wait_log("PDK calls return data")
    assert "(data, err)" not in server.log


def test_no_lua_style_returns_data_alone(start: Start) -> None:
    source = "def access(self, kong): kong.log(repr(kong.request.get_header('x')))"
    for flags, expected in (((), "('y', None)"), (("--no-lua-style",), "'y'")):
        server = start(*flags)
        with server.kong() as kong:
            run = kong.run_event(
                kong.start_author(source), answers={"kong.request.get_header": "y"}
            )
            assert run.calls[-1] == ("kong.log", [expected])
        server.stop()


@pytest.mark.parametrize("size", [1, 30])
def test_the_listen_queue(size: int, prefix: Path) -> None:
    command = [*KINDS["directory"], "-p", str(prefix), "--listen-queue-size", str(size)]
    with running(command, prefix) as server, contextlib.ExitStack() as stack:
        assert serves(server.paths[0])  # nothing from before is in the queue any more
        server.send_signal(signal.SIGSTOP)
        wait_until(lambda: server.state() == "T", "the server is stopped")
        try:
            taken = 0
            while taken <= 10 * size:
                sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                sock.setblocking(False)
                try:
                    sock.connect(server.paths[0])
                except BlockingIOError:
                    break
                taken += 1
        finally:
            server.send_signal(signal.SIGCONT)
        assert taken == size + 1  # as Linux counts


def test_the_mode_is_logged(start: Start, flavour: Flavour) -> None:
    server = start()
    server.wait_log(", gevent, " if flavour.mode == "gevent" else ", threads, ")
    workers = " ".join(map(str, server.workers()))
    assert (f"(pid {server.pid}, workers {workers}, " in server.log) == (
        flavour.mode == "processes"
    )


def test_socket_name_is_served_alone(kind: str, prefix: Path) -> None:
    """As Kong's own tests start it."""
    command = [*KINDS[kind], "--socket-name", "py.socket", "--kong-prefix", str(prefix)]
    with running([*command], prefix, ("py.socket",)) as server:
        server.wait_log(" serving ")
        assert [path.name for path in prefix.iterdir() if path.is_socket()] == ["py.socket"]
        assert serves(server.paths[0])


def test_the_default_prefix_is_kongs(prefix: Path) -> None:
    """Where Kong is not installed, the message names it; where it is, nothing is started here."""
    if Path("/usr/local/kong").exists():
        pytest.skip("/usr/local/kong exists: a server started for a test could be in its way")
    done = run_command(SERVER, "-d", str(PLUGINS))
    assert (done.returncode, done.stdout) == (1, "")
    assert "/usr/local/kong" in done.stderr


def test_the_same_name_in_two_prefixes(prefix: Path) -> None:
    with short_directory() as other:
        names = ("py-hello.sock", "py-hello.socket")
        first = embedded_command(HELLO, prefix)
        second = embedded_command(HELLO, other)
        with running(first, prefix, names) as one:
            with running(second, other, names) as two:
                assert serves(one.paths[0])
                assert serves(two.paths[1])
            assert serves(one.paths[1])
            assert is_alive(one.pid)
        wait_until(lambda: not is_alive(one.pid), "both have ended")
