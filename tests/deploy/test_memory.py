"""A limit of memory, as containers and systemd's units have: the kernel ends a worker, and no more.

Needs a control group of its own, which root can make on most machines and in few containers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import directory_command, running, short_directory, wait_until

EATS = """
version, priority, Schema = "1.0.0", 5, ()
class Plugin:
    def __init__(self, config): pass
    def access(self, kong):
        eaten = []
        while True:
            eaten.append(b"x" * 1_000_000)
"""
LIVES = """
version, priority, Schema = "1.0.0", 5, ()
class Plugin:
    def __init__(self, config): pass
    def access(self, kong):
        kong.response.set_header("x-lives", "yes")
"""
#: Two workers and the parent have some 70 MiB together.
LIMIT = 192 * 1024 * 1024
#: Where groups are made, and the files of their limits: of cgroups v2, and of v1.
PLACES = (
    (Path("/sys/fs/cgroup"), "memory.max", ("memory.swap.max", "0")),
    (
        Path("/sys/fs/cgroup/memory"),
        "memory.limit_in_bytes",
        ("memory.memsw.limit_in_bytes", str(LIMIT)),
    ),
)


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group with a limit, whose processes are killed one at a time."""
    for place, file, (swap, most) in PLACES:
        path = place / f"kong-pdk-test-{os.getpid()}"
        try:
            path.mkdir()
        except OSError:
            continue
        try:
            if (path / file).exists():
                (path / file).write_text(str(LIMIT))
                if (path / swap).exists():
                    (path / swap).write_text(most)
                yield path
                wait_until(
                    lambda path=path: not (path / "cgroup.procs").read_text(), "an empty group"
                )
                return
        finally:
            path.rmdir()
    pytest.skip("no control group of memory can be made here")


@pytest.mark.parametrize("flags", [["--supervise"], ["-m", "--workers", "2"]], ids=" ".join)
def test_out_of_memory_ends_a_worker_alone(flags: list[str], group: Path, tmp_path: Path) -> None:
    (tmp_path / "eats.py").write_text(EATS)
    (tmp_path / "lives.py").write_text(LIVES)
    enter = ["/bin/sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group)]
    with short_directory() as prefix:
        command = [*enter, *directory_command(tmp_path, prefix, *flags)]
        with running(command, prefix) as server, server.kong() as kong:
            eats, lives = (kong.start_instance(name, {}) for name in ("eats", "lives"))
            done = kong.run_event(eats)
            assert [name for name, _ in done.calls] == ["kong.response.exit"]
            assert done.calls[0][1][0] == 500
            assert kong.run_event(lives).headers["x-lives"] == "yes"
            server.wait_log("has ended: signal SIGKILL; 1 calls that it had to answer are refused")
            assert str(server.pid) in (group / "cgroup.procs").read_text().split()
