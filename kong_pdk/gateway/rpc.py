"""Kong's side of the wire: calls over pooled connections, and the events of one plugin.

Kong takes a connection out of its pool for every single call and puts it back after the reply, the
latest first; the steps of one event may thus come over several connections. That is done here too,
so that a server which counts on anything else is found out.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack

from ..exception import RPCError
from . import functions
from .errors import BadAnswer, NoAnswer
from .exchange import Exchange
from .plugin import PluginInfo
from .values import to_text

#: How long Kong waits for a reply, seconds.
READ_LIMIT = 60.0
#: Idle connections that are kept, as in Kong.
POOL_SIZE = 256
#: How often an event is begun anew after "no plugin instance". Kong does it without end.
MAX_STARTS = 3

_READ_SIZE = 64 * 1024
_MAX_REPLY = 512 * 1024 * 1024
_FORGOTTEN = "no plugin instance"


class _Connection:
    """One connection to the plugin server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._packer = msgpack.Packer(use_bin_type=True, unicode_errors="surrogateescape")
        self._unpacker = msgpack.Unpacker(
            raw=False,
            unicode_errors="surrogateescape",
            strict_map_key=False,
            max_buffer_size=_MAX_REPLY,
        )

    async def send(self, message: list[Any]) -> None:
        """Send a message. Raises OSError if the connection is gone."""
        self._writer.write(self._packer.pack(message))
        await self._writer.drain()

    async def receive(self) -> Any:
        """Return the next message. Raises NoAnswer at the end of the stream."""
        while True:
            try:
                return self._unpacker.unpack()
            except msgpack.OutOfData:
                data = await self._reader.read(_READ_SIZE)
                if not data:
                    raise NoAnswer("no data") from None
                self._unpacker.feed(data)
            except (ValueError, TypeError, msgpack.UnpackException) as error:
                raise BadAnswer(f"the server's reply cannot be decoded: {error}") from error

    @property
    def usable(self) -> bool:
        """Whether the server has not hung up."""
        return not self._reader.at_eof() and not self._writer.is_closing()

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


class RpcClient:
    """Calls to a plugin server, each on a connection that no other call uses meanwhile.

    Args:
        socket: path of the server's Unix socket.
        on_notification: called with label and argument of each notification.
        limit: seconds that a reply is waited for; ``None`` for ever.
    """

    def __init__(
        self,
        socket: Path,
        on_notification: Callable[[str, Any], None] | None = None,
        limit: float | None = READ_LIMIT,
    ) -> None:
        self._socket = socket
        self._on_notification = on_notification
        self._limit = limit
        self._idle: list[_Connection] = []
        self._last_id = 0

    async def call(self, method: object, *args: Any) -> Any:
        """Call a method and return its result. See :meth:`timed_call`."""
        return (await self.timed_call(method, *args))[0]

    async def timed_call(self, method: object, *args: Any) -> tuple[Any, float]:
        """Call a method.

        Args:
            method: its name; Kong sends anything here when a plugin's data misleads it.
            args: its arguments.

        Returns:
            Its result, and the seconds from when the call had been written to the socket until the
            reply had been read and decoded.

        Raises:
            RPCError: the server answered with an error; its text is the exception's.
            NoAnswer: it closed the connection, gave no answer in time or is not there.
            BadAnswer: its answer is none to this call.
        """
        self._last_id += 1
        msgid = self._last_id
        connection = await self._take()
        try:
            await connection.send([0, msgid, method, list(args)])
            sent = time.perf_counter()
            reply = await asyncio.wait_for(self._reply(connection, msgid), self._limit)
            waited = time.perf_counter() - sent
        except asyncio.TimeoutError:
            connection.close()
            raise NoAnswer(f"no data within {self._limit:g} s") from None
        except OSError as error:
            connection.close()
            raise NoAnswer(f"no data: {error.strerror or error}") from error
        except BaseException:
            connection.close()
            raise
        if len(self._idle) < POOL_SIZE:
            self._idle.append(connection)
        else:
            connection.close()
        _, _, error_text, result = reply
        if error_text is not None:
            raise RPCError(error_text if isinstance(error_text, str) else repr(error_text))
        return result, waited

    def close(self) -> None:
        """Hang up on every idle connection."""
        while self._idle:
            self._idle.pop().close()

    async def _take(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
            connection.close()
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._socket))
        except OSError as error:
            reason = error.strerror or str(error)
            raise NoAnswer(f"cannot connect to the plugin server: {reason}") from error
        return _Connection(reader, writer)

    async def _reply(self, connection: _Connection, msgid: int) -> list[Any]:
        while True:
            message = await connection.receive()
            if not isinstance(message, list) or not message:
                raise BadAnswer(f"the server sent {type(message).__name__} instead of a reply")
            if message[0] == 2 and len(message) == 3:
                if self._on_notification is not None:
                    self._on_notification(str(message[1]), message[2])
                continue
            if message[0] != 1 or len(message) != 4:
                raise BadAnswer("the server sent what is no reply")
            if message[1] != msgid:
                raise BadAnswer(f"the server answered call {message[1]} instead of {msgid}")
            return message


class PluginClient:
    """One plugin with one configuration: its instance is started when needed, and events are run.

    Args:
        socket: path of the server's Unix socket.
        plugin: the plugin, as dumped.
        config: its configuration as the server gets it, a JSON text.
        limit: seconds that the server has for each of its replies; ``None`` for ever.
    """

    def __init__(
        self, socket: Path, plugin: PluginInfo, config: str, limit: float | None = READ_LIMIT
    ) -> None:
        self.plugin = plugin
        #: Errors of the server, and answers that it owed, since the start.
        self.failures = 0
        self._config = config
        self._rpc = RpcClient(socket, self._notified, limit)
        self._instance: Any = None
        self._starting = asyncio.Lock()
        self._server_pid: Any = None

    async def start_instance(self) -> None:
        """Start the plugin's instance unless there is one.

        Raises:
            RPCError: the server refuses, or does not answer.
        """
        async with self._starting:
            if self._instance is not None:
                return
            argument = {"Name": self.plugin.name, "Config": self._config}
            result = await self._rpc.call("plugin.StartInstance", argument)
            if not isinstance(result, dict) or result.get("Id") is None:
                raise BadAnswer("the server's answer to StartInstance has no Id")
            self._instance = result["Id"]

    async def run_phase(self, exchange: Exchange, phase: str) -> None:
        """Run the plugin's handler of one phase on an exchange.

        What goes wrong is logged in the exchange. An error of the server's lets the request go on
        as if the plugin were not there, as in Kong; one at the start of the instance, or an answer
        that is not understood, aborts the phase.
        """
        for _ in range(MAX_STARTS):
            try:
                await self.start_instance()
            except RPCError as error:
                self.failures += 1
                exchange.abort(f"the plugin's instance cannot be started: {error}")
                return
            instance = self._instance
            try:
                await self._event(exchange, phase, instance)
                return
            except BadAnswer as error:
                self.failures += 1
                exchange.abort(str(error))
                return
            except RPCError as error:
                if _FORGOTTEN not in str(error).lower():
                    self.failures += 1
                    exchange.log("err", str(error))
                    return
                exchange.log("warn", str(error))
                if self._instance == instance:
                    self._instance = None
        self.failures += 1
        exchange.log("err", f"the server forgot its instance {MAX_STARTS} times; event given up")

    async def measure(self, times: int = 5) -> float | None:
        """Return how long a call to the server takes that runs nothing, in seconds.

        It is the shortest of some; ``None`` if the server does not answer.
        """
        try:
            return min(
                [(await self._rpc.timed_call("plugin.GetPluginNames"))[1] for _ in range(times)]
            )
        except RPCError:
            return None

    async def close_instance(self) -> None:
        """Have the server close the plugin's instance, if there is one, as Kong does for a new
        configuration.
        """
        instance, self._instance = self._instance, None
        if instance is not None:
            with contextlib.suppress(RPCError):
                await self._rpc.call("plugin.CloseInstance", instance)

    def close(self) -> None:
        """Hang up on the server."""
        self._rpc.close()

    async def _event(self, exchange: Exchange, phase: str, instance: Any) -> None:
        waits = exchange.runs[-1].waits if exchange.runs else []
        result, waited = await self._rpc.timed_call(
            "plugin.HandleEvent", {"InstanceId": instance, "EventName": phase}
        )
        event_id = result.get("EventId") if isinstance(result, dict) else None
        while True:
            waits.append(waited)
            if result is None:
                return
            data = result.get("Data") if isinstance(result, dict) else None
            if isinstance(data, bytes):
                data = to_text(data)
            if data == "ret":
                return
            if not isinstance(data, dict):
                raise BadAnswer("the server's answer holds neither a PDK call nor the end")
            reply = functions.call(exchange, data.get("Method"), data.get("Args"))
            if reply.step is None:
                return
            step: dict[str, Any] = {"EventId": event_id}
            if reply.value is not None:
                step["Data"] = reply.value
            result, waited = await self._rpc.timed_call(reply.step, step)

    def _notified(self, label: str, argument: Any) -> None:
        if label != "serverPid":
            return
        if self._server_pid is not None and argument != self._server_pid:
            self._instance = None  # another process, which knows nothing of it
        self._server_pid = argument
