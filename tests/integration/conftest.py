"""Fixtures of the tests that talk to real server processes, in each mode and with each codec."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kongwire import Kong
from servers import (
    DIRECTORY_SOCKETS,
    Flavour,
    Server,
    Start,
    directory_command,
    embedded_command,
    running,
    short_directory,
)
from trying import PLAIN

PLUGINS = Path(__file__).parent / "plugins"

#: The flags of each mode.
MODES: dict[str, tuple[str, ...]] = {
    "threads": (),
    "gevent": ("-g",),
    "processes": ("-m", "--workers", "2"),
}

#: The environment of each codec; a compiled one that is missing is an error.
CODECS = {
    "compiled": {"KONG_PDK_REQUIRE_EXTENSIONS": "1"},
    "pure": {"KONG_PDK_PUREPYTHON": "1"},
}

PURE_ONLY = os.environ.get("KONG_PDK_TEST_PURE_ONLY", "0") not in ("", "0")
#: Servers with the compiled codec only: for further Pythons, where unit tests compare the two.
ONE_CODEC = os.environ.get("KONG_PDK_TEST_ONE_CODEC", "0") not in ("", "0")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what depends on ``flavour`` in each mode, and with each codec.

    A module of tests that have nothing to do with the codec says ``ONE_CODEC = True``. A test, or a
    module by its ``pytestmark``, says with the marker ``modes`` that it is of these modes only, and
    with ``one_process`` that its handlers share what lies in the process.
    """
    if "flavour" not in metafunc.fixturenames:
        return
    codecs = ["pure"] if PURE_ONLY else list(CODECS)
    if ONE_CODEC or getattr(metafunc.module, "ONE_CODEC", False):
        codecs = codecs[:1]
    only = metafunc.definition.get_closest_marker("modes")
    assert only is None or set(only.args) <= set(MODES), f"modes are {', '.join(MODES)}: {only}"
    one_process = metafunc.definition.get_closest_marker("one_process") is not None
    flavours = [
        Flavour(mode, codec, in_one_process(flags) if one_process else flags, CODECS[codec])
        for mode, flags in MODES.items()
        for codec in codecs
        if only is None or mode in only.args
    ]
    ids = [f"{one.mode}-{one.codec}" for one in flavours]
    metafunc.parametrize("flavour", flavours, ids=ids, indirect=True, scope="module")


def in_one_process(flags: tuple[str, ...]) -> tuple[str, ...]:
    """The flags of a mode, so that all handlers run in the same process."""
    return (*flags, "--workers", "1") if "-m" in flags else flags


@pytest.fixture(scope="module")
def flavour(request: pytest.FixtureRequest) -> Flavour:
    """The mode and the codec of the servers of this test."""
    return request.param


@pytest.fixture(scope="module")
def server(flavour: Flavour) -> Iterator[Server]:
    """A directory server with the plugins of these tests, shared by the tests of a module."""
    with short_directory() as prefix:
        command = directory_command(PLUGINS, prefix, *flavour.flags)
        with running(command, prefix, env=flavour.env) as server:
            yield server


@pytest.fixture
def kong(server: Server) -> Iterator[Kong]:
    """A client of the shared server, which is as sound after the test as before."""
    with server.kong() as kong:
        yield kong
    assert server.process.poll() is None, server.log[-2000:]
    server.check()


@pytest.fixture
def prefix() -> Iterator[Path]:
    """A prefix for Kong's sockets."""
    with short_directory() as path:
        yield path


@pytest.fixture
def start(flavour: Flavour, prefix: Path) -> Iterator[Start]:
    """Start directory servers of the test's own: ``start(*flags, plugins=, sockets=)``."""
    with contextlib.ExitStack() as stack:

        def start(
            *flags: str,
            plugins: Path = PLUGINS,
            sockets: tuple[str, ...] = DIRECTORY_SOCKETS,
            through: tuple[str, ...] = (),
        ) -> Server:
            command = directory_command(plugins, prefix, *flavour.flags, *flags)
            return stack.enter_context(
                running([*through, *command], prefix, sockets=sockets, env=flavour.env)
            )

        yield start


@pytest.fixture
def start_embedded(flavour: Flavour, prefix: Path) -> Iterator[Start]:
    """Start embedded servers of the test's own: ``start_embedded(path, *flags, sockets=)``."""
    with contextlib.ExitStack() as stack:

        def start(path: Path, *flags: str, sockets: tuple[str, ...]) -> Server:
            command = embedded_command(path, prefix, *flavour.flags, *flags)
            return stack.enter_context(running(command, prefix, sockets=sockets, env=flavour.env))

        yield start


# --- the command `kong-pdk try` -------------------------------------------------------------------


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory for temporary files with a short name, which the command must leave empty."""
    path = Path(tempfile.mkdtemp(prefix="kp-", dir="/tmp"))
    yield path
    left = list(path.iterdir())
    shutil.rmtree(path)
    assert left == []


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A plugin for ``kong-pdk try``, in a file alone."""
    path = tmp_path / "plain.py"
    path.write_text(PLAIN)
    return path
