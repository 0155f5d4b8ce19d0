"""The real server in a process of its own, spoken to over its socket as Kong does it.

What speaks to the servers runs in one thread with an event loop. Servers are kept for the next test
with the same plugin, mode and flags, and end with the tests.
"""

from __future__ import annotations

import asyncio
import atexit
import importlib.util
import logging
import os
import re
import shutil
import sys
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Optional, TypeVar

from ..config import ServerConfig
from ..exception import KongPDKError, PluginError
from ..gateway.errors import ServerFailed
from ..gateway.exchange import Exchange
from ..gateway.plugin import PluginInfo
from ..gateway.prefix import make_prefix
from ..gateway.process import ServerProcess
from ..gateway.rpc import PluginClient
from ..gateway.trace import Trace
from .launcher import SCRIPT
from .plugins import Target
from .result import NOT_STARTED, Failure

logger = logging.getLogger("kong_pdk.testing.server")

T = TypeVar("T")

#: The flags of each mode.
FLAGS: dict[str, tuple[str, ...]] = {
    "threads": (),
    "gevent": ("--gevent",),
    "multiprocessing": ("--multiprocessing", "--workers", "2"),
}

#: Servers that are kept while no gateway uses them.
KEPT = 6
#: How long a handler waits for an answer that does not come because Kong has ended its phase,
#: seconds. No test waits for that.
EVENT_TIMEOUT = 5

_SOCKET = "test.sock"
_LINE = re.compile(r"\S+ \[([A-Z]+)\] (.*)", re.DOTALL)
_LAST_LINES = 15


class ModeUnavailable(KongPDKError):
    """A mode cannot be had here; says why."""


class _Lines(Trace):
    """Writes what a server says to the log of the tests."""

    def __init__(self) -> None:
        self.last: list[str] = []
        self._level = logging.INFO

    def server_line(self, line: str) -> None:
        found = _LINE.fullmatch(line)
        if found is not None:
            self._level = getattr(logging, found[1], logging.INFO)
        self.last = [*self.last[1 - _LAST_LINES :], line]
        logger.log(self._level, "%s", line if found is None else found[2])

    def server_died(self, status: int) -> None:
        logger.error("the plugin server has ended with status %d; it is started again", status)


class _Server:
    """A plugin server, and how many gateways use it."""

    def __init__(self, process: ServerProcess, folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.users = 0

    async def stop(self) -> None:
        await self.process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class _Servers:
    """All servers of this process, and the thread that speaks to them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._thread: Optional[threading.Thread] = None
        self._servers: dict[Any, _Server] = {}
        self._starting: Optional[asyncio.Lock] = None
        self._pid = os.getpid()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of a coroutine that runs in the loop's thread."""
        with self._lock:
            loop = self._started()
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._pid != os.getpid():
            self._pid = os.getpid()
            self._servers = {}  # after a fork they are the parent's
            self._starting = None
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=self._loop.run_forever, name="kong-pdk-testing", daemon=True
            )
            self._thread.start()
        return self._loop

    def take(self, key: Any, settings: dict[str, Any], flags: tuple[str, ...]) -> _Server:
        """Return a server, for a gateway's use until it is given back.

        Raises:
            ServerFailed: it does not start.
        """
        return self.run(self._take(key, settings, flags))

    async def _take(self, key: Any, settings: dict[str, Any], flags: tuple[str, ...]) -> _Server:
        if self._starting is None:
            self._starting = asyncio.Lock()  # made in the loop that uses it
        async with self._starting:  # two gateways may ask for the same one
            server = self._servers.pop(key, None)
            if server is not None and server.process.pid is None:
                await server.stop()
                server = None
            if server is None:
                server = await _start(settings, flags)
            self._servers[key] = server  # the latest used is the last
            server.users += 1
        return server

    def has(self, server: _Server) -> bool:
        """Whether a server has not been ended."""
        return any(each is server for each in list(self._servers.values()))

    async def give_back(self, server: _Server) -> None:
        """Note that a gateway does not use a server any more."""
        server.users -= 1
        idle = [key for key, each in self._servers.items() if not each.users]
        for key in idle[: max(0, len(idle) - KEPT)]:
            await self._servers.pop(key).stop()

    def stop(self) -> None:
        """End all servers, and the thread."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is None or self._pid != os.getpid():
            return
        asyncio.run_coroutine_threadsafe(self._stop_servers(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        assert self._thread is not None
        self._thread.join()
        loop.close()

    async def _stop_servers(self) -> None:
        servers = list(self._servers.values())
        self._servers.clear()
        await asyncio.gather(*(server.stop() for server in servers))


_servers = _Servers()


def stop_all() -> None:
    """End all servers. Gateways that are still open are of no use after that."""
    _servers.stop()


atexit.register(stop_all)


class Live:
    """Runs the handlers of one plugin with one configuration, in a server of a mode.

    Args:
        mode: one of :data:`FLAGS`.
        target: the plugin.
        info: the same, as Kong knows it.
        config_text: its configuration, as JSON.
        settings: of the server.

    Raises:
        ModeUnavailable: what the mode needs is not installed.
        PluginError: the server's process could not import the plugin.
        ServerFailed: the server does not start.
    """

    def __init__(
        self,
        mode: str,
        target: Target,
        info: PluginInfo,
        config_text: str,
        settings: ServerConfig,
    ) -> None:
        if mode == "gevent" and importlib.util.find_spec("gevent") is None:
            raise ModeUnavailable(
                "mode gevent needs gevent, which is not installed: pip install 'kong-pdk[gevent]'"
            )
        self._name = info.name
        launch, key = _describe(mode, target)
        flags = (*FLAGS[mode], *_flags(settings))
        self._server: Optional[_Server] = _servers.take((key, flags), launch, flags)
        socket = self._server.folder / _SOCKET
        self._client = _servers.run(_connect(socket, info, config_text))

    async def run_handler(self, exchange: Exchange, phase: str, failures: list[Failure]) -> None:
        """Run the handler of one phase over the socket.

        Raises:
            BaseException: what a fake or another function of the test has raised.
        """
        seen = len(exchange.logs)
        await self._client.run_phase(exchange, phase)
        for _ in range(3):  # what the server has written before its answer can be read
            await asyncio.sleep(0)
        for line in exchange.logs[seen:]:
            text = self._failure(phase, line.message)
            if line.level == "err" and text is not None:
                failures.append(Failure(phase, text))

    def _failure(self, phase: str, message: str) -> Optional[str]:
        """What a handler has raised, if a line of the log is about that."""
        for beginning in (
            f"{phase} failed, the request is refused: ",
            f"plugin {self._name}: {phase} raised ",
            NOT_STARTED,
        ):
            if message.startswith(beginning):
                return message[len(beginning) :]
        return None

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Take a request through its life."""
        _servers.run(work)

    def close(self) -> None:
        """Have the plugin's object closed, and let others have the server."""
        server, self._server = self._server, None
        if server is not None and _servers.has(server):
            _servers.run(self._close(server))

    async def _close(self, server: _Server) -> None:
        await self._client.close_instance()
        self._client.close()
        await _servers.give_back(server)


async def _connect(socket: Path, info: PluginInfo, config_text: str) -> PluginClient:
    """Make a client in the thread that uses it: on Python 3.9 its locks belong to that one."""
    return PluginClient(socket, info, config_text)


def _flags(settings: ServerConfig) -> tuple[str, ...]:
    flags = ["--on-error", settings.on_error, "--answer-timeout", "0"]
    flags += ["--event-timeout", str(EVENT_TIMEOUT), "--graceful-timeout", "0"]
    if not settings.lua_style:
        flags.append("--no-lua-style")
    if not settings.pdk_checks:
        flags.append("--no-pdk-checks")
    return tuple(flags)


def _describe(mode: str, target: Target) -> tuple[dict[str, Any], Any]:
    """Return what the server's process is told, and what makes it another one's.

    Raises:
        PluginError: it could not import the plugin.
    """
    plugin = target.plugin
    home = sys.modules.get(plugin.factory.__module__)
    settings: dict[str, Any] = {
        "path": [os.path.abspath(each) for each in sys.path],
        "parent": os.getpid(),
        "name": plugin.name,
        "version": plugin.version,
        "priority": plugin.priority,
        # None: as the class's module has it.
        "schema": None if target.schema is None and hasattr(home, "Schema") else plugin.schema,
        "complete": target.complete,
    }
    if target.spec is not None:
        settings["plugin"] = target.spec
    else:
        settings["class"] = _reach(mode, plugin.factory)
    # pytest itself changes some for each test.
    environment = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    return settings, repr((settings, plugin.modified, os.getcwd(), sorted(environment.items())))


def _reach(mode: str, factory: type) -> tuple[str, str, str]:
    """Return module, file and name of a class, by which another process can have it.

    Raises:
        PluginError: it cannot.
    """
    module = sys.modules.get(factory.__module__)
    file = getattr(module, "__file__", None)
    found: Any = module
    for name in factory.__qualname__.split("."):
        found = getattr(found, name, None)
    if file is None or found is not factory:
        raise PluginError(
            f"the server's process of mode {mode} cannot import the class "
            f"{factory.__module__}.{factory.__qualname__}: define it at the top of a file, or run "
            f"this test in-process only"
        )
    return factory.__module__, os.path.abspath(file), factory.__qualname__


async def _start(settings: dict[str, Any], flags: tuple[str, ...]) -> _Server:
    folder = make_prefix(_SOCKET)
    script = folder / "serve_tested_plugin.py"
    script.write_text(SCRIPT.format(settings=settings), encoding="utf-8")
    command = (
        sys.executable, str(script), "--kong-prefix", str(folder), "--socket-name", _SOCKET, *flags,
    )  # fmt: skip
    lines = _Lines()
    process = ServerProcess(command, folder / _SOCKET, lines)
    try:
        await process.start()
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, ServerFailed):
            said = "\n".join(lines.last)
            raise ServerFailed(f"{error}; it has said:\n{said}") from error
        raise
    return _Server(process, folder)
