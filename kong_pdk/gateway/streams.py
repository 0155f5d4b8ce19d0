"""The gateway's TCP side: connections that are passed on whole, after the preread phase."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from .driver import drive
from .exchange import Exchange, Request, Response, Service, ServiceRequest
from .rpc import PluginClient

if TYPE_CHECKING:
    from .http import HttpGateway

_CHUNK = 64 * 1024


class EchoStream:
    """A service for streams that sends back what it gets."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self, host: str) -> None:
        """Listen on any free port; ``port`` says which."""
        self._server = await asyncio.start_server(self._answer, host, 0)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    @staticmethod
    async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                writer.write(data)
                await writer.drain()
        writer.close()


class Streams:
    """A port for stream connections.

    Args:
        gateway: makes and keeps what runs on them.
        service: where they go; a plugin may choose another one.
    """

    def __init__(self, gateway: HttpGateway, service: Service) -> None:
        self.port = 0
        self._gateway = gateway
        self._service = service
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self, host: str, port: int) -> None:
        """Listen on a port; ``port`` says which, if any was asked for with 0. Raises OSError."""
        self._server = await asyncio.start_server(self._connected, host, port)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Take no more connections, and end those that are open."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._open):
            writer.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        address = writer.get_extra_info("peername")
        asked = Request(method="TCP", target=f":{self.port}", scheme="tcp")
        exchange = self._gateway.exchange(asked, (address[0], address[1]), self.port)
        exchange.stream = True
        exchange.service = replace(self._service)
        self._name(exchange)
        try:
            await self._gateway.run(lambda client: self._drive(client, exchange, reader, writer))
        finally:
            self._open.discard(writer)
            writer.close()

    def _name(self, exchange: Exchange) -> None:
        """Make the entities those of a stream."""
        route, service = exchange.route, exchange.service_entity
        if route is not None:
            http = {"http", "https"}
            protocols = [name for name in route.get("protocols", ()) if name not in http]
            rest = {name: value for name, value in route.items() if name != "paths"}
            exchange.route = {**rest, "protocols": protocols or ["tcp", "tls"]}
        if service is not None:
            where = {"protocol": "tcp", "host": self._service.host, "port": self._service.port}
            exchange.service_entity = {**service, **where, "path": None}

    async def _drive(
        self,
        client: PluginClient,
        exchange: Exchange,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        async def send(response: Response) -> None:
            if exchange.proxied:
                await self._pass_on(exchange, reader, writer)
            elif response.body:
                writer.write(response.body)
                await writer.drain()
            writer.close()

        async def no_upstream(_: ServiceRequest, __: bool) -> Response:
            raise AssertionError("a stream has no request that could be sent")

        phases = [phase for phase in client.plugin.phases if phase in ("preread", "log")]
        await drive(exchange, phases, client.run_phase, no_upstream, send)
        self._gateway.trace.exchange_done(exchange)

    async def _pass_on(
        self, exchange: Exchange, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Connect to the service, and copy both ways until both sides have ended."""
        service = exchange.service
        try:
            behind, before = await asyncio.wait_for(
                asyncio.open_connection(service.host, service.port), service.connect_timeout / 1000
            )
        except (OSError, asyncio.TimeoutError) as error:
            exchange.unexpected = True
            exchange.log(
                "err", f"cannot connect to {service.host}:{service.port}: {error or 'timed out'}"
            )
            return
        try:
            sent = asyncio.ensure_future(_copy(reader, before))
            exchange.response_size += await _copy(behind, writer)
            # A service that has ended has no use for more.
            sent.cancel()
            await asyncio.gather(sent, return_exceptions=True)
        finally:
            before.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> int:
    """Copy until the source ends, hand on its end, and return how many bytes there were."""
    count = 0
    try:
        while data := await source.read(_CHUNK):
            count += len(data)
            target.write(data)
            await target.drain()
        if target.can_write_eof():
            target.write_eof()
    except OSError:
        pass  # one side has gone, which ends both
    return count
