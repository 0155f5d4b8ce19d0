"""The gateway's HTTP side: its front, its client for the upstream, and the echo upstream.

This is the only module that needs aiohttp, which the extra ``kong-pdk[try]`` installs.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from yarl import URL

from .. import __version__
from . import body, tls
from .driver import Tasks, UpstreamError, drive
from .errors import GatewayError
from .exchange import Exchange, LogLine, Request, Response, Service, ServiceRequest
from .handshakes import Connection, Handshakes
from .headers import Headers
from .rpc import PluginClient
from .streams import Streams
from .surroundings import Surroundings
from .trace import Trace
from .values import to_text

#: The gateway is a tool for the machine it runs on.
HOST = "127.0.0.1"
#: Seconds that requests under way have when the gateway is closed.
FINISH_LIMIT = 2.0

T = TypeVar("T")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_logger = logging.getLogger("kong_pdk.gateway")


class _Answer(web.StreamResponse):
    """A response to the gateway's client."""

    #: It was given a content type.
    typed = False


class EchoUpstream:
    """An upstream that answers with JSON saying what it got."""

    def __init__(self) -> None:
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> None:
        """Listen on any free port; ``url`` says which."""
        self._runner, port = await _listen(self._answer, 0)
        self.url = f"http://{HOST}:{port}"

    async def close(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    @staticmethod
    async def _answer(request: web.Request) -> web.StreamResponse:
        headers = Headers(_decode(request.raw_headers))
        target = request.raw_path
        path, _, query = target.partition("?")
        data = await request.content.read()
        got = {
            "method": request.method,
            "path": path,
            "query": body.simple_map(body.parse_query(query)),
            "headers": {k: v[0] if len(v) == 1 else v for k, v in headers.as_map().items()},
            "body": to_text(data),
        }
        text = json.dumps(got, indent=2) + "\n"
        return web.Response(
            text=text, content_type="application/json", headers={"Server": "kong-pdk-echo"}
        )


class HttpGateway:
    """A gateway with one plugin on every request, listening on the loopback interface.

    Args:
        client: the plugin, whose server must be running when the first request comes.
        around: what requests find beside the plugin.
        trace: is told each log line and each finished request.
    """

    def __init__(self, client: PluginClient, around: Surroundings, trace: Trace) -> None:
        self.port = 0
        #: The ports for HTTPS and for streams; 0 if there is none.
        self.tls_port = self.stream_port = 0
        self._client = client
        self._around = around
        self.trace = trace
        self._tasks = Tasks()
        self._runner: web.AppRunner | None = None
        self._listener: tls.Listener | None = None
        self._streams: Streams | None = None
        self._session: aiohttp.ClientSession | None = None

    async def start(self, port: int) -> None:
        """Listen on a port; ``port`` says which, if any was asked for with 0.

        Raises:
            GatewayError: the port cannot be had.
        """
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )
        try:
            self._runner, self.port = await _listen(self._handle, port)
        except OSError as error:
            await self._session.close()
            raise _no_port(port, error) from error

    async def start_tls(self, port: int, certificates: tls.Certificates) -> None:
        """Listen for HTTPS too, after :meth:`start`; ``tls_port`` says where.

        Args:
            port: 0 for any.
            certificates: what handshakes are made with.

        Raises:
            GatewayError: the port cannot be had.
        """
        assert self._runner is not None and self._runner.server is not None
        handshakes = Handshakes(certificates, self.trace)

        async def decide(address: tuple[str, int], name: str | None) -> tls.Context | None:
            greeting = Request(method="TLS", target=name or "", scheme="https")
            exchange = self.exchange(greeting, address, self.tls_port)
            return await self.run(lambda client: handshakes.decide(exchange, name, client))

        listener = tls.Listener(self._runner.server, decide, handshakes.done)
        try:
            listener.start(HOST, port)
        except OSError as error:
            raise _no_port(port, error) from error
        self._listener, self.tls_port = listener, listener.port

    async def start_streams(self, port: int, service: Service) -> None:
        """Take stream connections too, after :meth:`start`; ``stream_port`` says where.

        Args:
            port: 0 for any.
            service: where they go.

        Raises:
            GatewayError: the port cannot be had.
        """
        streams = Streams(self, service)
        try:
            await streams.start(HOST, port)
        except OSError as error:
            raise _no_port(port, error) from error
        self._streams, self.stream_port = streams, streams.port

    async def run(self, work: Callable[[PluginClient], Coroutine[Any, Any, T]]) -> T:
        """Run something to its end, whatever happens to the caller, with the client of now."""
        return await asyncio.shield(self._tasks.start(work(self._client)))

    async def use(self, client: PluginClient) -> None:
        """Run what comes from now on with another client, and wait for the end of what has come.

        The requests under way go on with the client that they began with, which is for the caller
        to close.
        """
        self._client = client
        tasks, self._tasks = self._tasks, Tasks()
        await tasks.finish(None)

    async def close(self) -> None:
        """Stop listening and let the requests under way end. May be called twice."""
        end = time.monotonic() + FINISH_LIMIT
        streams, self._streams = self._streams, None
        if streams is not None:
            await streams.close()
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.close()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
        await self._tasks.finish(max(0.0, end - time.monotonic()))
        if self._session is not None:
            await self._session.close()
        self._client.close()

    def exchange(self, request: Request, address: tuple[str, int], port: int) -> Exchange:
        """Return a request of a client's, ready to be run.

        Args:
            request: what the client has sent.
            address: the client's.
            port: on which it came.
        """
        around = self._around
        return Exchange(
            request=request,
            service=replace(around.service),
            client_ip=address[0],
            client_port=address[1],
            server_port=port,
            plugin_id=around.plugin_id,
            route=around.route,
            service_entity=around.service_entity,
            consumer=around.consumer,
            credential=around.credential,
            consumers=around.consumers,
            trusted_ips=around.trusted_ips,
            on_log=self._log,
        )

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        exchange = await self._exchange(request)
        sent: asyncio.Future[web.StreamResponse] = asyncio.get_running_loop().create_future()
        task = self._tasks.start(self._drive(self._client, exchange, request, sent))
        waited: list[asyncio.Future[Any]] = [sent, task]
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if not sent.done():
            sent.cancel()
            await task  # it failed, and says how
            raise web.HTTPInternalServerError
        return sent.result()

    async def _drive(
        self,
        client: PluginClient,
        exchange: Exchange,
        request: web.Request,
        sent: asyncio.Future[web.StreamResponse],
    ) -> None:
        # The certificate phase was run with the connection.
        phases = [phase for phase in client.plugin.phases if phase != "certificate"]
        async with contextlib.AsyncExitStack() as opened:
            streams: list[aiohttp.ClientResponse] = []

            async def upstream(outgoing: ServiceRequest, buffered: bool) -> Response:
                response, stream = await self._call_upstream(exchange, outgoing, buffered, opened)
                if stream is not None:
                    streams.append(stream)
                return response

            async def send(response: Response) -> None:
                prepared = _Answer(status=response.status)
                prepared.typed = "content-type" in response.headers
                prepared.headers.extend(_encode(response.headers, exchange))
                chunks = streams[0].content.iter_any() if response.streamed else _one(response.body)
                try:
                    await prepared.prepare(request)
                    async for chunk in chunks:
                        exchange.response_size += len(chunk) if response.streamed else 0
                        await prepared.write(chunk)
                    await prepared.write_eof()
                except aiohttp.ClientError as error:
                    exchange.log("err", f"the upstream broke off: {error}")
                    if request.transport is not None:
                        request.transport.close()
                finally:
                    if not sent.done():
                        sent.set_result(prepared)

            await drive(exchange, phases, client.run_phase, upstream, send)
        self.trace.exchange_done(exchange)

    async def _exchange(self, request: web.Request) -> Exchange:
        transport = request.transport
        peer = transport.get_extra_info("peername") if transport else None
        context = transport.get_extra_info("sslcontext") if transport else None
        asked = Request(
            method=request.method,
            target=_target(request),
            headers=Headers(_decode(request.raw_headers)),
            body=await request.content.read(),
            version=float(f"{request.version.major}.{request.version.minor}"),
        )
        address = (peer[0], peer[1]) if peer else (HOST, 0)
        if not isinstance(context, tls.Context) or transport is None:
            return self.exchange(asked, address, self.port)
        asked.scheme = "https"
        connection: Connection = context.owner
        exchange = self.exchange(asked, address, self.tls_port)
        return connection.carry(exchange, transport.get_extra_info("ssl_object"))

    def _log(self, line: LogLine) -> None:
        _logger.debug("%s: %s", line.level, line.message)
        self.trace.log_line(line)

    async def _call_upstream(
        self,
        exchange: Exchange,
        outgoing: ServiceRequest,
        buffered: bool,
        opened: contextlib.AsyncExitStack,
    ) -> tuple[Response, aiohttp.ClientResponse | None]:
        assert self._session is not None
        host = f"[{outgoing.host}]" if ":" in outgoing.host else outgoing.host
        url = f"{outgoing.scheme}://{host}:{outgoing.port}{_escape(outgoing.target)}"
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=outgoing.connect_timeout, sock_read=outgoing.read_timeout
        )
        try:
            came = await opened.enter_async_context(
                self._session.request(
                    outgoing.method,
                    URL(url, encoded=True),
                    headers=_encode(outgoing.headers, exchange),
                    data=outgoing.body or None,
                    allow_redirects=False,
                    timeout=timeout,
                    ssl=outgoing.tls_verify,
                )
            )
            headers = Headers(_decode(came.raw_headers))
            if not buffered:
                return Response(came.status, headers, streamed=True), came
            return Response(came.status, headers, await came.read()), None
        except (asyncio.TimeoutError, aiohttp.ServerTimeoutError) as error:
            raise UpstreamError(504, f"the upstream took too long: {error}") from error
        except (aiohttp.ClientError, ValueError) as error:
            raise UpstreamError(502, f"the upstream gave no answer: {error}") from error


def _no_port(port: int, error: OSError) -> GatewayError:
    if error.errno == errno.EADDRINUSE:
        return GatewayError(
            f"cannot listen on {HOST}:{port}: it is in use; name another port, or 0 for a free one"
        )
    return GatewayError(f"cannot listen on {HOST}:{port}: {error.strerror}")


async def fetch(
    url: str,
    method: str,
    target: str,
    headers: Iterable[tuple[str, str]],
    data: bytes | None,
) -> tuple[str, list[tuple[bytes, bytes]], bytes]:
    """Make one request of the gateway over TCP; its certificate is taken as it is.

    Args:
        url: where the gateway listens, without a path.
        method: the request's method.
        target: its path and query.
        headers: its headers.
        data: its body.

    Returns:
        The status line, the header lines and the body of the answer, as they came.

    Raises:
        GatewayError: there is no answer.
    """
    lines = Headers(headers)
    if "user-agent" not in lines:
        lines.add("User-Agent", f"kong-pdk/{__version__}")
    skipped = ("Accept-Encoding", "Content-Type")
    try:
        async with (
            aiohttp.ClientSession(auto_decompress=False, skip_auto_headers=skipped) as session,
            session.request(
                method,
                URL(f"{url}{_escape(target)}", encoded=True),
                headers=list(lines),
                ssl=False,
                data=data,
                allow_redirects=False,
            ) as answer,
        ):
            version = answer.version or aiohttp.HttpVersion11
            line = f"HTTP/{version.major}.{version.minor} {answer.status} {answer.reason or ''}"
            return line.rstrip(), list(answer.raw_headers), await answer.read()
    except (aiohttp.ClientError, ValueError) as error:
        raise GatewayError(f"the gateway gave no answer: {error}") from error


async def _listen(answer: Handler, port: int) -> tuple[web.AppRunner, int]:
    """Serve every request, whatever its target, with one handler."""

    @web.middleware
    async def front(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await answer(request)

    app = web.Application(middlewares=[front])
    app.on_response_prepare.append(_keep_untyped)
    runner = web.AppRunner(
        app, handle_signals=False, access_log=None, shutdown_timeout=FINISH_LIMIT
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, port).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner, int(runner.addresses[0][1])


async def _keep_untyped(_: web.Request, response: web.StreamResponse) -> None:
    """Take back the content type that aiohttp gives to an answer without one; Kong does not."""
    if isinstance(response, _Answer) and not response.typed:
        response.headers.pop("Content-Type", None)


async def _one(data: bytes) -> AsyncIterator[bytes]:
    if data:
        yield data


def _decode(raw: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(to_text(name), to_text(value)) for name, value in raw]


def _encode(headers: Headers, exchange: Exchange) -> list[tuple[str, str]]:
    """Return header lines that aiohttp can send: it knows UTF-8 only, and no line ends in them."""
    lines = []
    for name, value in headers:
        sent = value.encode("utf-8", "replace").decode("utf-8")
        sent = sent.replace("\r", " ").replace("\n", " ")
        if sent != value:
            exchange.log(
                "warn",
                f"header {name} was changed: this gateway sends UTF-8 only, and no line ends",
            )
        lines.append((name, sent))
    return lines


def _target(request: web.Request) -> str:
    """Return the path and query of the request line, also where it had a whole URL."""
    target = request.raw_path
    if target.startswith("/"):
        return target
    parts = urlsplit(target)
    path = parts.path if parts.path.startswith("/") else "/"
    return path + (f"?{parts.query}" if parts.query else "")


def _escape(target: str) -> str:
    """Return a request target whose bytes outside of ASCII, and spaces, are escaped."""
    data = target.encode("utf-8", "surrogateescape")
    return "".join(chr(b) if 0x20 < b < 0x7F else f"%{b:02X}" for b in data)
