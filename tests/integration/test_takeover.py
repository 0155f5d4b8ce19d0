"""``kong reload``: a new nginx worker starts a new server while the old one is still there.

Processes whose executable is called ``nginx`` play the workers; the tests are their master.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from kongwire import Kong
from servers import Server, directory_command, family, is_alive, run_command, wait_until

PLUGINS = Path(__file__).parent / "plugins"
SHELL = shutil.which("sh")

#: Starts the command, forwards the end, and is there as long as the command is.
WORKER = 'trap "kill -TERM \\$child" TERM; "$@" & child=$!; wait $child; wait $child'

pytestmark = pytest.mark.skipif(
    SHELL is None or not Path("/proc/self/stat").exists(),
    reason="needs sh and /proc to have processes of a certain name",
)

StartUnder = Callable[..., Server]


@pytest.fixture
def start_under(prefix: Path) -> Iterator[StartUnder]:
    """Start a server as the child of a worker process with a name of its own."""
    started: list[Server] = []

    def start(worker: str = "nginx", below: str = "", flags: tuple[str, ...] = ()) -> Server:
        assert SHELL is not None
        for name in filter(None, (worker, below)):
            path = prefix / name
            if not path.exists():
                path.symlink_to(SHELL)
        command = [
            str(prefix / worker),
            "-c",
            WORKER,
            "worker",
            *directory_command(PLUGINS, prefix, *flags),
        ]
        if below:  # another process stands between the worker and the tests
            command = [str(prefix / below), "-c", WORKER, "master", *command]
        started.append(Server(command, prefix))
        return started[-1]

    yield start
    for server in started:
        for pid in reversed(family(server.pid)):
            os.kill(pid, signal.SIGKILL)
        server.kill()


def pid_behind(server: Server) -> int:
    with server.kong() as kong:
        return int(kong.call("plugin.GetStatus")["Pid"])


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def test_a_new_worker_takes_over(start_under: StartUnder) -> None:
    old = start_under().wait_ready()
    assert name_of(old.pid) == "nginx"
    old_pid = pid_behind(old)
    with old.kong() as kong:
        instance = kong.start_author("def access(self, kong): kong.log('x')")
        turn = kong.handle_event(instance)

        new = start_under()
        wait_until(lambda: " serving " in new.log, "the new server serves")
        new_pid = pid_behind(new)
        assert new_pid not in (old_pid, new.pid)

        # The old one goes on for those who have a connection to it.
        assert kong.step(turn.event_id).is_return
        assert kong.handle_event(instance).function == "kong.log"

    old.send_signal(signal.SIGTERM)
    wait_until(lambda: not is_alive(old_pid), "the old server has ended")
    assert pid_behind(new) == new_pid  # what is at the path is not the old one's to remove
    for path in new.paths:
        with Kong(path) as kong:
            assert kong.call("plugin.GetPluginNames") == ["author", "hello"]
    new.send_signal(signal.SIGTERM)
    wait_until(lambda: not is_alive(new_pid), "the new server has ended")
    assert not any(os.path.lexists(path) for path in new.paths)


def refused(new: Server, old_pid: int) -> None:
    new.wait()
    assert "in use by another server" in new.log
    assert pid_behind(new) == old_pid


def test_another_kind_of_parent_does_not(start_under: StartUnder) -> None:
    old = start_under("nginx").wait_ready()
    refused(start_under("shell"), pid_behind(old))


def test_a_server_under_another_kind_of_parent_is_not_taken_over(start_under: StartUnder) -> None:
    old = start_under("shell").wait_ready()
    refused(start_under("nginx"), pid_behind(old))


def test_another_master_does_not(start_under: StartUnder) -> None:
    """Two Kongs with one prefix."""
    old = start_under().wait_ready()
    refused(start_under(below="nginx"), pid_behind(old))


def test_the_same_worker_does_not(start_under: StartUnder, prefix: Path) -> None:
    old = start_under().wait_ready()
    pid = pid_behind(old)
    done = run_command(*directory_command(PLUGINS, prefix))
    assert done.returncode == 1
    assert "in use by another server" in done.stderr
    assert pid_behind(old) == pid


@pytest.mark.parametrize("flags", [(), ("-g",), ("-m", "--workers", "1")], ids=" ".join)
def test_the_port_of_the_metrics_goes_over_too(
    start_under: StartUnder, flags: tuple[str, ...]
) -> None:
    """The new server serves Kong at once, and metrics when the old one has left the port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = (*flags, "--metrics", f":{port}")
    old = start_under(flags=flags).wait_ready()
    old.wait_log("metrics on http://")
    old_pid = pid_behind(old)

    new = start_under(flags=flags)
    wait_until(lambda: " serving " in new.log, "the new server serves")
    assert "is still the former server's: waiting for it" in new.log
    assert "metrics on http://" not in new.log
    old.send_signal(signal.SIGTERM)
    wait_until(lambda: not is_alive(old_pid), "the old server has ended")
    new.wait_log(f"metrics on http://127.0.0.1:{port}/metrics")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        assert b"kong_pdk_worker_up" in answer.read()
    new.check()
