"""Who may connect: permissions and owner of the sockets, and the users whose connections count."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from kongwire import LIMIT, Connection
from servers import (
    DIRECTORY_SOCKETS,
    Start,
    accepts,
    clean_environment,
    directory_command,
    run_command,
    wait_until,
)

PLUGINS = Path(__file__).parent / "plugins"
ONE_CODEC = True
OWN = os.geteuid()
as_root = pytest.mark.skipif(OWN != 0, reason="only root may be somebody else")
no_root = pytest.mark.skipif(OWN == 0, reason="root may do it")

#: Becomes somebody else, connects so many times, and says of each what came of it.
VISITOR = """
import os, socket, sys
path, (uid, gid, times) = sys.argv[1], map(int, sys.argv[2:])
os.setgroups([])
os.setgid(gid)
os.setuid(uid)
for _ in range(times):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout({limit})
        try:
            sock.connect(path)
            sock.sendall(b"\\x94\\x00\\x01\\xb5plugin.GetPluginNames\\x90")
            print("answered" if sock.recv(100) else "closed")
        except PermissionError:
            print("forbidden")
        except (BrokenPipeError, ConnectionResetError):
            print("closed")
"""


def visitor(path: str, uid: int, gid: int = 4712, times: int = 1) -> subprocess.Popen[str]:
    """Start to visit a socket as another user."""
    script = VISITOR.format(limit=LIMIT)
    return subprocess.Popen(
        [sys.executable, "-I", "-c", script, path, str(uid), str(gid), str(times)],
        cwd="/", env=clean_environment(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def visit(path: str, uid: int, gid: int = 4712, times: int = 1) -> set[str]:
    """What another user meets at a socket."""
    with visitor(path, uid, gid, times) as process:
        met = process.communicate(timeout=LIMIT)[0].split()
    assert len(met) == times
    return set(met)


def open_folder(prefix: Path) -> None:
    """Let everybody pass through the folder of the sockets."""
    prefix.chmod(0o755)


def permissions_of(path: str) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


# --- permissions ----------------------------------------------------------------------------------


def test_nginx_as_a_daemon_has_no_umask(start: Start, prefix: Path) -> None:
    """And so what Kong starts has none."""
    server = start(through=("sh", "-c", 'umask 0; exec "$@"', "sh"))
    assert {permissions_of(path) for path in server.paths} == {0o770}
    if OWN == 0:
        open_folder(prefix)
        assert visit(server.paths[0], 4711) == {"forbidden"}


@pytest.mark.parametrize("mode", ["600", "660", "0o666"])
@pytest.mark.parametrize("umask", ["0", "077"])
def test_the_permissions_are_those_of_the_flag(start: Start, mode: str, umask: str) -> None:
    through = ("sh", "-c", f'umask {umask}; exec "$@"', "sh")
    server = start("--socket-mode", mode, through=through)
    assert {permissions_of(path) for path in server.paths} == {int(mode, 8)}
    with server.kong() as kong:
        assert kong.call("plugin.GetPluginNames")


@as_root
def test_owner_and_group(start: Start, prefix: Path) -> None:
    open_folder(prefix)
    flags = ("--socket-mode", "660", "--socket-user", "4711", "--socket-group", "4712")
    server = start(*flags)
    for path in server.paths:
        status = os.lstat(path)
        assert (status.st_uid, status.st_gid) == (4711, 4712)
        assert visit(path, 4711, 1) == visit(path, 5000, 4712) == {"answered"}
        assert visit(path, 5000, 1) == {"forbidden"}
    server.stop()
    # A killed one's are replaced, whosever they are.
    server = start(*flags)
    server.kill()
    assert start().stop() is None


@no_root
@pytest.mark.parametrize("flag", ["--socket-user", "--socket-group"])
def test_what_only_root_may(prefix: Path, flag: str) -> None:
    done = run_command(*directory_command(PLUGINS, prefix, flag, "0"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "Operation not permitted" in done.stderr
    assert f"leave {flag} out" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(prefix.iterdir())


def test_nothing_is_left_of_how_a_socket_is_made(start: Start, prefix: Path) -> None:
    start("--socket-mode", "600")
    left = {path.name for path in prefix.iterdir() if not path.name.startswith("log-")}
    assert left == set(DIRECTORY_SOCKETS)


# --- users ----------------------------------------------------------------------------------------


def test_the_own_user_may_always(start: Start) -> None:
    server = start("--allow-uid", "4711")
    with server.kong() as kong:
        instance = kong.start_author("def access(self, kong): kong.log('x')")
        assert kong.run_event(instance).functions == ["kong.log"]
    assert "refused a connection" not in server.log


@as_root
def test_others_only_if_they_are_named(start: Start, prefix: Path) -> None:
    open_folder(prefix)
    server = start("--socket-mode", "666", "--allow-uid", "4711,4712", "--allow-uid", "4713")
    for path in server.paths:
        assert visit(path, 4711) == visit(path, 4712) == visit(path, 4713) == {"answered"}
        assert visit(path, 4714) == visit(path, 65534) == {"closed"}
    # The others have not noticed.
    with server.kong() as kong:
        assert kong.call("plugin.GetPluginNames")
    assert visit(server.paths[0], 4711) == {"answered"}
    assert server.log.count("refused a connection of user 4714") == 1


@as_root
def test_whoever_is_refused_cannot_fill_the_log_or_use_up_descriptors(
    start: Start, prefix: Path
) -> None:
    open_folder(prefix)
    server = start("--socket-mode", "666", "--allow-uid", "0")
    with server.kong() as kong:
        kong.call("plugin.GetPluginNames")
        before = server.descriptors()
        assert visit(server.paths[0], 4714, times=500) == {"closed"}
        kong.call("plugin.GetPluginNames")
        wait_until(lambda: server.descriptors() <= before, "they are closed")
    server.wait_log("refused further connections: ")
    server.stop()
    lines = [line for line in server.log.splitlines() if "refused" in line]
    assert "refused a connection of user 4714, who is not allowed by --allow-uid" in lines[0]
    assert sum(int(line.split("connections: ")[1].split()[0]) for line in lines[1:]) == 499
    assert len(lines) <= 4  # what was counted at the first tick, and what at the end


@as_root
def test_who_waits_at_the_end_is_looked_at_too(start: Start, prefix: Path) -> None:
    """Connections that the kernel has accepted are taken when the server is told to stop."""
    open_folder(prefix)
    server = start("--socket-mode", "666", "--allow-uid", "0")
    with server.kong() as kong:  # whoever came before has been accepted
        kong.call("plugin.GetPluginNames")
    server.send_signal(signal.SIGSTOP)
    wait_until(lambda: server.state() == "T", "the server is stopped")
    with Connection(server.paths[0]) as ours, visitor(server.paths[0], 4714) as other:
        msgid = ours.request("plugin.GetPluginNames")
        wait_until(lambda: waiting_at(server.paths[0]) >= 2, "both wait")
        server.send_signal(signal.SIGTERM)
        server.send_signal(signal.SIGCONT)
        assert ours.result(msgid)
        assert other.communicate(timeout=LIMIT)[0].split() == ["closed"]
    assert server.wait() == 0


def waiting_at(path: str) -> int:
    """How many connections nobody has accepted: they have no inode yet.

    The kernel names a socket as it was made, in a folder beside its path.
    """
    folder, name = os.path.split(path)
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    return sum(
        one[-1].startswith(folder + "/") and one[-1].endswith("/" + name) and one[6] == "0"
        for one in lines
        if len(one) == 8
    )


def test_a_probe_of_another_server_finds_it_alive(start: Start, prefix: Path) -> None:
    server = start("--allow-uid", "4711")
    done = run_command(*directory_command(PLUGINS, prefix))
    assert (done.returncode, done.stdout) == (1, "")
    assert "in use by another server" in done.stderr
    assert all(accepts(path) for path in server.paths)
