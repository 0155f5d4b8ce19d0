"""A server seen from outside: GetStatus, ``kong-pdk status`` and metrics, in each mode."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kongwire import Connection, Kong, pack
from prometheus_client.parser import text_string_to_metric_families
from servers import (
    Flavour,
    Server,
    Start,
    directory_command,
    run_command,
    running,
    short_directory,
    wait_until,
)

from kong_pdk.commands.status import NoStatus, ask
from kong_pdk.runtime.tally import MAX_PLUGINS

PLUGINS = Path(__file__).parent / "plugins"
KONG_PDK = str(Path(sysconfig.get_path("scripts")) / "kong-pdk")

#: Two calls of Kong, and what becomes of it afterwards as the answer to the second one says.
SOURCE = """
def access(self, kong):
    kong.log("one")
    then, err = kong.request.get_header("x")
    if then == "raise":
        raise ValueError("on purpose")
    if then == "exit":
        kong.response.exit(200)

def log(self, kong):
    pass
"""


@pytest.fixture(scope="module")
def server(flavour: Flavour) -> Iterator[Server]:
    """A server with metrics on a port and a Unix socket of Kong's."""
    with short_directory() as prefix:
        flags = (*flavour.flags, "--metrics", "127.0.0.1:0")
        with running(directory_command(PLUGINS, prefix, *flags), prefix, env=flavour.env) as one:
            one.wait_log("metrics on")
            yield one


def run(connection: Connection, instance: int, then: str = "", phase: str = "access") -> None:
    """One event, to its end."""
    turn = connection.handle_event(instance, phase)
    while not turn.is_terminal:
        value = then if turn.function.endswith("get_header") else None
        turn = connection.step(turn.event_id, value)


def status_of(kong: Kong) -> Any:
    return kong.call("plugin.GetStatus")


def events_of(kong: Kong, phase: str = "access") -> Any:
    return status_of(kong)["Plugins"]["author"]["Events"][phase]


def scrape(where: str) -> dict[Any, float]:
    """All samples at an address as the log names it."""
    connection = http.client.HTTPConnection("localhost", timeout=30)
    if where.startswith("unix:"):
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(30)
        connection.sock.connect(where[len("unix:") :])
    else:
        host, port = re.fullmatch(r"http://(.*):(\d+)/metrics", where).groups()  # type: ignore
        connection.sock = socket.create_connection((host, int(port)), 30)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        assert answer.status == 200
        body = answer.read().decode()
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }


def metrics_of(server: Server) -> dict[Any, float]:
    server.wait_log("metrics on")
    return scrape(re.findall(r"metrics on (\S+)", server.log)[-1])


def test_events_are_counted(server: Server, kong: Kong, flavour: Flavour) -> None:
    instance = kong.start_author(SOURCE)
    before, before_log = events_of(kong), events_of(kong, "log")
    connections = [kong.connect() for _ in range(4)]  # of both workers
    for connection in connections:
        run(connection, instance)
        run(connection, instance, "raise")
        run(connection, instance, "exit")
        run(connection, instance, phase="log")
    wait_until(lambda: events_of(kong)["InFlight"] == 0, "all have ended")
    after, after_log = events_of(kong), events_of(kong, "log")
    grown = {key: after[key] - before[key] for key in after if type(after[key]) is int}
    assert grown == {
        # The line in Kong's log and the refusal of a handler that has raised are calls too.
        "Started": 12, "InFlight": 0, "Errors": 4, "Refused": 4, "Abandoned": 0, "Lost": 0,
        "Calls": 4 * (2 + 4 + 3),
    }  # fmt: skip
    assert 0 < after["P50"] <= after["P90"] <= after["P99"] <= 60
    assert 0 < after["Mean"] < 60
    assert after_log["Started"] - before_log["Started"] == 4
    assert after_log["Errors"] == 0
    assert events_of(kong, "response")["P99"] is None

    found = metrics_of(server)
    for name, value in (
        ("events_total", after["Started"]), ("event_errors_total", after["Errors"]),
        ("events_refused_total", after["Refused"]), ("pdk_calls_total", after["Calls"]),
        ("event_duration_seconds_count", after["Started"]), ("events_in_flight", 0),
    ):  # fmt: skip
        assert found[f"kong_pdk_{name}", "access", "author"] == value, name
    assert found["kong_pdk_instances", "author"] == 1
    kong.close_instance(instance)
    wait_until(lambda: metrics_of(server)["kong_pdk_instances", "author"] == 0, "it is closed")


def test_what_is_under_way(server: Server, kong: Kong) -> None:
    instance = kong.start_author(SOURCE)
    connections = [kong.connect() for _ in range(4)]
    turns = [connection.handle_event(instance) for connection in connections]
    assert events_of(kong)["InFlight"] == 4
    assert metrics_of(server)["kong_pdk_events_in_flight", "access", "author"] == 4
    # Once a second each worker tells what it has.
    wait_until(lambda: sum(w["Waiting"] for w in status_of(kong)["Workers"]) == 4, "they wait")
    wait_until(lambda: metrics_of(server)["kong_pdk_events_waiting",] == 4, "metrics say so")
    assert sum(w["Running"] for w in status_of(kong)["Workers"]) >= 4
    for connection, turn in zip(connections, turns):
        turn = connection.step(turn.event_id)
        assert connection.step(turn.event_id).is_return
    wait_until(lambda: metrics_of(server)["kong_pdk_events_waiting",] == 0, "none waits")
    kong.close_instance(instance)


def test_the_server_itself(server: Server, kong: Kong, flavour: Flavour) -> None:
    found = status_of(kong)
    assert found["Codec"] == {"compiled": "compiled", "pure": "pure-Python"}[flavour.codec]
    assert found["Mode"] == {"processes": "threads in processes"}.get(flavour.mode, flavour.mode)
    assert found["Pid"] == server.pid
    assert found["Uptime"] > 0 and found["StartTime"] > 1.7e9
    workers = found["Workers"]
    assert [one["Index"] for one in workers] == list(range(len(workers)))
    pids = server.workers() if flavour.mode == "processes" else [server.pid]
    assert sorted(one["Pid"] for one in workers) == pids
    assert all(one["Ready"] and one["Restarts"] == 0 for one in workers)
    assert sum(one["Connections"] for one in workers) >= 1
    assert found["Plugins"]["hello"]["Version"] == "0.1.0"
    assert found["Plugins"]["hello"]["Priority"] == 100
    samples = metrics_of(server)
    assert sum(key[0] == "kong_pdk_worker_up" for key in samples) == len(workers)
    assert samples["kong_pdk_start_time_seconds",] == pytest.approx(found["StartTime"])


def test_the_command(server: Server, kong: Kong) -> None:
    instance = kong.start_author(SOURCE)
    for then in ("", "raise"):
        run(kong.connect(), instance, then)
    path = server.paths[0]
    done = run_command(KONG_PDK, "status", "--socket", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{path}: kong-pdk " in done.stdout and "author" in done.stdout
    # Without a name both sockets of the server are found, and it is shown once.
    prefix = os.path.dirname(path)
    done = run_command(KONG_PDK, "status", "--kong-prefix", prefix)
    assert done.returncode == 0 and done.stdout.count("kong-pdk ") == 1
    done = run_command(KONG_PDK, "status", "python_pluginserver", "-p", prefix, "--json")
    told = json.loads(done.stdout)
    assert told["Pid"] == server.pid
    assert told["Plugins"]["author"]["Events"]["access"]["Errors"] >= 1
    kong.close_instance(instance)


def test_no_configuration_is_told(server: Server, kong: Kong) -> None:
    instance = kong.start_author(SOURCE, secret="s3cr3t")
    with pytest.raises(Exception, match="no phase"):
        kong.handle_event(instance, "s3cr3t")
    assert "s3cr3t" not in json.dumps(status_of(kong)) + str(metrics_of(server))
    kong.close_instance(instance)


# --- servers of a test's own ----------------------------------------------------------------------


@pytest.mark.modes("threads")
def test_status_is_told_when_all_threads_are_busy(start: Start, prefix: Path) -> None:
    """That is when somebody wants to know: it does not wait for a thread as all else does."""
    release = prefix / "release"
    source = f"""
import os, time

def access(self, kong):
    while not os.path.exists({str(release)!r}):
        time.sleep(0.01)
"""
    server = start("--threads", "2", "--metrics", "127.0.0.1:0")
    with server.kong() as kong:
        instance = kong.start_author(source)
        connections = [kong.connect() for _ in range(3)]
        sent = [connection.send_event(instance) for connection in connections]
        wait_until(lambda: metrics_of(server)["kong_pdk_events_queued",] == 1, "one waits")
        (state,) = status_of(kong)["Workers"]
        assert (state["Running"], state["Queued"]) == (2, 1)
        assert run_command(KONG_PDK, "status", "--socket", server.paths[0]).returncode == 0
        # Whoever does not wait for its replies has its turn.
        hasty = kong.connect()
        asked = list(range(1, 2001))
        hasty.send_raw(b"".join(pack([0, msgid, "plugin.GetStatus", []]) for msgid in asked))
        release.touch()
        for connection, msgid in zip(connections, sent):
            assert connection.turn(msgid).is_return
        for msgid in asked:
            assert hasty.result(msgid)["Pid"] == server.pid


def test_over_a_unix_socket(start: Start, prefix: Path) -> None:
    path = prefix / "metrics.sock"
    server = start("--metrics", f"unix:{path}")
    assert metrics_of(server)["kong_pdk_worker_up", "0"] == 1
    server.stop()
    assert not path.exists()


def test_a_port_in_use(flavour: Flavour, prefix: Path) -> None:
    """Said before anything of Kong's is opened."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        command = directory_command(PLUGINS, prefix, *flavour.flags, "--metrics", address)
        done = run_command(*command, env=flavour.env)
    assert done.returncode == 1
    assert f"cannot serve metrics on {address}: " in done.stderr and "--metrics" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(prefix.glob("*.sock*"))


@pytest.mark.modes("processes")
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_worker_that_is_killed(start: Start, method: str) -> None:
    """What it has counted stays, what was under way in it is lost, and its place is counted on."""
    server = start("--metrics", "127.0.0.1:0", "--start-method", method)
    with server.kong() as kong:
        instance = kong.start_author(SOURCE)
        connections = [kong.connect() for _ in range(6)]
        for connection in connections:
            run(connection, instance, "raise")
        for connection in connections:
            connection.handle_event(instance)
        wait_until(lambda: events_of(kong)["InFlight"] == 6, "they are under way")
        before = metrics_of(server)
        victim = status_of(kong)["Workers"][1]
        os.kill(victim["Pid"], signal.SIGKILL)
        server.wait_log("is ready again")

        def back() -> bool:
            state = fresh(server)["Workers"][1]
            return bool(state["Ready"] and state["Restarts"] == 1)

        wait_until(back, "its place is taken")
        found = fresh(server)
        assert found["Workers"][1]["Pid"] not in (0, victim["Pid"])
        events = found["Plugins"]["author"]["Events"]["access"]
        assert events["Lost"] == 3 and events["InFlight"] == 3
        after = metrics_of(server)
        for key, value in before.items():
            if key[0].endswith(("_total", "_bucket", "_count", "_sum")):
                assert after[key] >= value, key
        assert after["kong_pdk_events_lost_total", "access", "author"] == 3
        assert after["kong_pdk_worker_restarts_total", "1"] == 1
        for _ in range(4):
            with Kong(server.paths[0]) as other:
                run(other.connect(), instance, "exit")
        wait_until(
            lambda: metrics_of(server)["kong_pdk_events_total", "access", "author"] == 16,
            "the new one counts on",
        )


@pytest.mark.modes("processes")
def test_a_plugin_that_is_there_when_a_worker_starts_again(start: Start, tmp_path: Path) -> None:
    """The others keep their rows, although it comes before them by its name."""
    folder = tmp_path / "plugins"
    shutil.copytree(PLUGINS, folder)
    server = start("--metrics", "127.0.0.1:0", plugins=folder)
    with server.kong() as kong:
        instance = kong.start_author(SOURCE)
        for connection in [kong.connect() for _ in range(4)]:
            run(connection, instance)
        wait_until(lambda: events_of(kong)["InFlight"] == 0, "all have ended")
    shutil.copy(folder / "hello.py", folder / "aaa.py")
    os.kill(fresh(server)["Workers"][0]["Pid"], signal.SIGKILL)
    server.wait_log("is ready again")
    for _ in range(4):
        with server.kong() as kong:
            run(kong.connect(), instance)
    wait_until(lambda: fresh_events(server)["Started"] == 8, "all are counted")
    assert metrics_of(server)["kong_pdk_events_total", "access", "author"] == 8
    assert metrics_of(server)["kong_pdk_events_total", "access", "hello"] == 0
    seen = []
    for _ in range(4):  # of both workers, one of which has the new plugin
        seen.append(fresh(server)["Plugins"])
        assert seen[-1]["hello"]["Events"]["access"]["Started"] == 0
        assert seen[-1]["author"]["Events"]["access"]["Started"] == 8
    for found in seen:
        if "aaa" in found:
            assert found["aaa"]["Events"]["access"]["Started"] == 0


def fresh_events(server: Server) -> Any:
    return fresh(server)["Plugins"]["author"]["Events"]["access"]


def fresh(server: Server) -> Any:
    """GetStatus on a new connection: those of a worker that has died are closed."""
    with server.kong() as kong:
        return status_of(kong)


@pytest.mark.modes("threads", "processes")
def test_events_that_kong_has_abandoned(start: Start) -> None:
    server = start("--event-timeout", "0.5", "--metrics", "127.0.0.1:0")
    with server.kong() as kong:
        instance = kong.start_author(SOURCE)
        kong.handle_event(instance)
        wait_until(lambda: events_of(kong)["Abandoned"] == 1, "it is given up")
        assert events_of(kong)["InFlight"] == 0
        key = ("kong_pdk_events_abandoned_total", "access", "author")
        assert metrics_of(server)[key] == 1


@pytest.mark.modes("processes")
def test_too_many_plugins(flavour: Flavour, prefix: Path, tmp_path: Path) -> None:
    """A worker finds out, and the parent says so."""
    text = (
        "class Plugin:\n    def __init__(self, c): pass\n    def access(self, k): pass\n"
        "version = '1.0.0'\npriority = 1\n"
    )
    for number in range(MAX_PLUGINS + 1):
        (tmp_path / f"p{number}.py").write_text(text)
    command = directory_command(tmp_path, prefix, *flavour.flags)
    done = run_command(*command, env=flavour.env)
    assert done.returncode == 1
    assert f"can have {MAX_PLUGINS}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.modes("threads")
def test_a_probe_of_a_stopped_server(start: Start) -> None:
    """What a liveness probe is for."""
    server = start()
    command = (KONG_PDK, "status", "--socket", server.paths[0], "--timeout", "0.2")
    assert run_command(*command).returncode == 0
    server.send_signal(signal.SIGSTOP)
    wait_until(lambda: server.state() == "T", "it is stopped")
    done = run_command(*command)
    server.send_signal(signal.SIGCONT)
    assert done.returncode == 1
    assert "no answer within 0.2 s" in done.stderr
    server.stop()
    done = run_command(*command)
    assert done.returncode == 1 and "is not there" in done.stderr


@pytest.mark.modes("threads")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_users_who_are_not_let_in(start: Start, prefix: Path) -> None:
    prefix.chmod(0o755)
    server = start("--allow-uid", "12345")
    path = server.paths[0]
    assert run_command(KONG_PDK, "status", "--socket", path).returncode == 0  # the server's own
    assert "this user may not connect: run this as the server's user" in asked_by(12346, path)
    os.chmod(path, 0o666)
    assert "not among those of the server's --allow-uid" in asked_by(12346, path)
    assert asked_by(12345, path) == "told"


def asked_by(uid: int, path: str) -> str:
    """What another user is told of the server at a socket.

    The command cannot be run as that user, who may have no way to the installation.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            ask(path, 30.0)
            os.write(writer, b"told")
        except NoStatus as exc:
            os.write(writer, str(exc).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as output:
        told = output.read().decode()
    os.waitpid(pid, 0)
    return told
