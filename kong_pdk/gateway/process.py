"""The plugin server's process: queried, started, read, started again when it dies, and stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from .causes import find_cause
from .errors import ServerFailed
from .trace import Trace

#: Seconds that the query command may take, and the server until it accepts connections.
START_LIMIT = 30.0
#: Seconds between SIGTERM and SIGKILL. A server may let the events under way end first.
STOP_LIMIT = 5.0
#: Seconds between two starts of a server that dies, as in Kong.
RESTART_PAUSE = 1.0
#: The longest line of output that is kept whole, bytes.
MAX_LINE = 1024 * 1024

_POLL = 0.02


async def query(command: Sequence[str], trace: Trace, script: str = "", folder: str = "") -> bytes:
    """Run the query command and return what it wrote to its standard output.

    Args:
        command: the command and its arguments.
        trace: is told the lines of its standard error.
        script: the file that the command runs, to find its own errors in what it writes.
        folder: where the plugin lives, to find its line in a traceback.

    Raises:
        ServerFailed: it cannot be run, fails or takes too long; where the plugin has raised, the
            text says what and where.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise ServerFailed(f"cannot run {command[0]}: {error.strerror}") from error
    try:
        output, errors = await asyncio.wait_for(process.communicate(), START_LIMIT)
    except asyncio.TimeoutError:
        raise ServerFailed(f"the query command took more than {START_LIMIT:g} s") from None
    finally:
        _kill_group(process.pid)
        await process.wait()
    said = errors.decode("utf-8", "replace").splitlines()
    for line in said:
        trace.server_line(line)
    if process.returncode != 0:
        for line in output.decode("utf-8", "replace").splitlines():
            trace.server_line(line)
        cause = find_cause(said, os.path.basename(script), folder)
        if cause is not None:
            raise ServerFailed(f"the plugin cannot be loaded: {cause}")
        raise ServerFailed(f"the query command ended with status {process.returncode}")
    return output


def _kill_group(pid: int) -> None:
    """Kill what is left of a process's group, which it leads."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


class ServerProcess:
    """A plugin server under supervision.

    Args:
        command: the start command and its arguments.
        socket: the Unix socket on which the server will accept.
        trace: is told its output, its starts and its deaths.
        folder: its working folder; this process's if left out.
    """

    def __init__(
        self, command: Sequence[str], socket: Path, trace: Trace, folder: Path | None = None
    ) -> None:
        self.command = tuple(command)
        self.socket = socket
        self.deaths = 0
        self._trace = trace
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """The process's id while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Start the server and wait until it accepts connections.

        Raises:
            ServerFailed: it cannot be run, ends, or takes too long.
        """
        try:
            await self._launch()
            await self._wait_ready()
        except BaseException:
            await self.stop()
            raise
        self._supervisor = asyncio.ensure_future(self._supervise())

    async def stop(self) -> None:
        """End the server: SIGTERM, and SIGKILL after a while. May be called twice."""
        self._stopping = True
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            supervisor.cancel()
            await asyncio.gather(supervisor, return_exceptions=True)
        process = self._process
        if process is not None:
            if process.returncode is None:
                try:
                    process.terminate()
                    await asyncio.wait_for(process.wait(), STOP_LIMIT)
                except ProcessLookupError:
                    pass
                except asyncio.TimeoutError:
                    self._trace.server_line(f"still running {STOP_LIMIT:g} s after SIGTERM: killed")
            _kill_group(process.pid)
            await process.wait()
        await self._drain()
        try:
            self.socket.unlink()
        except FileNotFoundError:
            pass

    async def _launch(self) -> None:
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                # Lines must come when they are written, not when a buffer is full.
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                limit=MAX_LINE,
                cwd=self._folder,
                # A Ctrl-C at the terminal is for the gateway, which stops the server in its turn.
                start_new_session=True,
            )
        except OSError as error:
            raise ServerFailed(f"cannot run {self.command[0]}: {error.strerror}") from error
        assert self._process.stdout is not None
        self._reader = asyncio.ensure_future(self._read(self._process.stdout))

    async def _read(self, stream: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await stream.readline()
            except ValueError:  # longer than the limit: what was read of it is dropped
                self._trace.server_line(f"(a line of more than {MAX_LINE} bytes)")
                continue
            if not line:
                return
            self._trace.server_line(line.decode("utf-8", "replace").rstrip("\r\n"))

    async def _drain(self) -> None:
        """Let the lines that the process wrote before its end be read."""
        reader, self._reader = self._reader, None
        if reader is not None:
            done, _ = await asyncio.wait([reader], timeout=1.0)
            if not done:  # a grandchild holds the pipe open
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)

    async def _wait_ready(self) -> None:
        """Wait until the socket accepts; connecting and hanging up is what some Kongs do too."""
        process = self._process
        assert process is not None
        end = time.monotonic() + START_LIMIT
        while True:
            try:
                _, writer = await asyncio.open_unix_connection(str(self.socket))
            except OSError:
                pass
            else:
                writer.close()
                self._trace.server_started(process.pid)
                return
            if process.returncode is not None:
                await self._drain()
                raise ServerFailed(
                    f"the plugin server ended with status {process.returncode} before it listened"
                )
            if time.monotonic() > end:
                raise ServerFailed(
                    f"the plugin server does not accept connections after {START_LIMIT:g} s"
                )
            await asyncio.sleep(_POLL)

    async def _supervise(self) -> None:
        while not self._stopping:
            process = self._process
            assert process is not None
            started = time.monotonic()
            status = await process.wait()
            await self._drain()
            _kill_group(process.pid)
            self.deaths += 1
            self._trace.server_died(status)
            await asyncio.sleep(max(0.0, RESTART_PAUSE - (time.monotonic() - started)))
            try:
                await self._launch()
                await self._wait_ready()
            except ServerFailed as error:
                self._trace.server_line(str(error))
