"""A plugin behind the gateway, from its start to its end, with changes of its code in between.

A change is taken over as ``kong reload`` would: the plugin is queried anew, a second server is
started beside the first, and what comes from then on goes to it. The first one ends when the
requests that it began are over, so none is lost. Whatever keeps the new code from running leaves
the old one in place.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable

from ..exception import KongPDKError, RPCError
from . import process
from .exchange import Service
from .http import HOST, EchoUpstream, HttpGateway
from .plugin import Launch, PluginInfo, parse_dump, plan
from .rpc import READ_LIMIT, PluginClient
from .streams import EchoStream
from .surroundings import Surroundings
from .tls import Certificates
from .trace import Trace


@dataclass
class Options:
    """What is to be run, and how.

    Attributes:
        plugin: its file, its package's folder, or the name under which it is installed.
        config: returns the plugin's configuration as it is now.
        surroundings: called with the URL of the echo service; returns what requests find.
        port: for HTTP, 0 for any.
        tls_port: for HTTPS; ``None`` for none.
        certificates: called with a private directory, for HTTPS.
        stream_port: for stream connections; ``None`` for none.
        stream: host and port where they go; ``None`` for a service that sends back what it gets.
        server_args: more arguments for the plugin server.
        limit: seconds that the plugin server has for each of its replies; ``None`` for ever.
    """

    plugin: str
    config: Callable[[], dict[str, Any]]
    surroundings: Callable[[str], Surroundings]
    port: int = 0
    tls_port: int | None = None
    certificates: Callable[[Path], Certificates] | None = None
    stream_port: int | None = None
    stream: tuple[str, int] | None = None
    server_args: Sequence[str] = ()
    limit: float | None = READ_LIMIT


@dataclass
class _Version:
    """The plugin as it is at one time, with a server of its own."""

    folder: Path
    launch: Launch
    plugin: PluginInfo
    client: PluginClient
    server: process.ServerProcess

    async def stop(self) -> None:
        self.client.close()
        await self.server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class Session:
    """One plugin being tried.

    Args:
        options: what is to be run, and how.
        prefix: an existing directory with a short name, for the servers' sockets.
        trace: is told everything.
    """

    def __init__(self, options: Options, prefix: Path, trace: Trace) -> None:
        self._options = options
        self._prefix = prefix
        self._trace = trace
        self._plugin_id = str(uuid.uuid4())
        self._count = 0
        self._current: _Version | None = None
        self._gateway: HttpGateway | None = None
        self._old: set[asyncio.Task[None]] = set()
        self._opened = contextlib.AsyncExitStack()
        self.certificates: Certificates | None = None

    @property
    def gateway(self) -> HttpGateway:
        """The gateway, which is there from the start on."""
        assert self._gateway is not None
        return self._gateway

    @property
    def url(self) -> str:
        """Where the gateway listens, with TLS if it speaks that."""
        gateway = self.gateway
        if gateway.tls_port:
            return f"https://{HOST}:{gateway.tls_port}"
        return f"http://{HOST}:{gateway.port}"

    @property
    def plugin(self) -> PluginInfo:
        """What is known of the plugin as it runs now."""
        return self._version.plugin

    @property
    def launch(self) -> Launch:
        """The commands of the plugin's server as it runs now."""
        return self._version.launch

    @property
    def failed(self) -> bool:
        """Whether the plugin's server has failed or died."""
        return bool(self._version.client.failures or self._version.server.deaths)

    @property
    def _version(self) -> _Version:
        assert self._current is not None
        return self._current

    async def start(self) -> None:
        """Start everything.

        Raises:
            GatewayError: the plugin cannot be loaded, or a port cannot be had.
            SettingsError: the configuration does not fit the plugin's Schema.
        """
        options = self._options
        if options.tls_port is not None and options.certificates is not None:
            self.certificates = options.certificates(self._prefix)
        version = self._current = await self._prepare()
        echo = EchoUpstream()
        await echo.start()
        self._opened.push_async_callback(echo.close)
        around = replace(options.surroundings(echo.url), plugin_id=self._plugin_id)
        gateway = HttpGateway(version.client, around, self._trace)
        await gateway.start(options.port)
        self._gateway = gateway
        if options.tls_port is not None and self.certificates is not None:
            await gateway.start_tls(options.tls_port, self.certificates)
        if options.stream_port is not None:
            await gateway.start_streams(options.stream_port, await self._stream_service())
        await version.server.start()
        try:
            await version.client.start_instance()
        except RPCError as error:
            # Kong starts instances with the first request, and so there may be a better time.
            version.client.failures += 1
            self._trace.problem("instance", f"the plugin's instance cannot be started: {error}")

    async def reload(self, changed: Sequence[str] = ()) -> bool:
        """Take over the plugin's code and configuration as they are now.

        Args:
            changed: the files that have changed, to be named.

        Returns:
            Whether the new code runs; if not, the old one does.
        """
        began = time.monotonic()
        old = self._version
        version = None
        try:
            version = await self._prepare()
            await version.server.start()
            await version.client.start_instance()
        except KongPDKError as error:
            text = str(error)
            if isinstance(error, RPCError):
                text = f"the plugin's instance cannot be started: {text}"
            self._trace.problem("reload", f"the old code still runs: {text}")
            if version is not None:
                await version.stop()
            return False
        except BaseException:
            if version is not None:
                await version.stop()
            raise
        self._current = version
        task = asyncio.ensure_future(self._retire(old, version.client))
        self._old.add(task)
        task.add_done_callback(self._old.discard)
        seconds = time.monotonic() - began
        names = ", ".join(Path(name).name for name in changed) or "the plugin"
        self._trace.note(
            "reload",
            f"reloaded in {seconds:.1f} s: {names}",
            files=list(changed),
            seconds=round(seconds, 3),
        )
        differences = compare(old.plugin, version.plugin)
        if differences:
            self._trace.note(
                "changed",
                f"changed: {'; '.join(differences)} (Kong itself needs `kong reload` for that)",
                changes=differences,
            )
        return True

    async def measure(self) -> float | None:
        """Return how long a call to the plugin server takes that runs nothing, in seconds."""
        return await self._version.client.measure()

    async def close(self) -> None:
        """End everything, the requests under way first. May be called at any time."""
        if self._gateway is not None:
            await self._gateway.close()
        for task in list(self._old):
            task.cancel()
        await asyncio.gather(*self._old, return_exceptions=True)
        if self._current is not None:
            await self._current.stop()
        await self._opened.aclose()

    async def _stream_service(self) -> Service:
        if self._options.stream is not None:
            host, port = self._options.stream
            return Service("tcp", host, port)
        echo = EchoStream()
        await echo.start(HOST)
        self._opened.push_async_callback(echo.close)
        return Service("tcp", HOST, echo.port)

    async def _prepare(self) -> _Version:
        """Query the plugin and check its configuration; the server is not started."""
        self._count += 1
        folder = self._prefix / str(self._count)
        folder.mkdir()
        try:
            launch = plan(self._options.plugin, folder, self._options.server_args)
            output = await process.query(launch.query, self._trace, launch.script, launch.folder)
            plugin = parse_dump(output)
            config = plugin.config_text(self._options.config(), self._plugin_id)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return _Version(
            folder,
            launch,
            plugin,
            PluginClient(launch.socket, plugin, config, self._options.limit),
            process.ServerProcess(launch.start, launch.socket, self._trace),
        )

    async def _retire(self, old: _Version, client: PluginClient) -> None:
        """Let the requests of the old code end, then its server."""
        try:
            await self.gateway.use(client)
        finally:
            await old.stop()


def compare(old: PluginInfo, new: PluginInfo) -> list[str]:
    """Return what Kong would have to be told of, in words."""
    result = []
    for name in ("name", "version", "priority"):
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            result.append(f"{name} {before} -> {after}")
    if set(old.phases) != set(new.phases):
        signs = [f"+{phase}" for phase in new.phases if phase not in old.phases]
        signs += [f"-{phase}" for phase in old.phases if phase not in new.phases]
        result.append(f"phases {' '.join(signs)}")
    before, after = old.fields, new.fields
    signs = [f"+{field}" for field in after if field not in before]
    signs += [f"-{field}" for field in before if field not in after]
    signs += [f"~{field}" for field in after if field in before and after[field] != before[field]]
    if signs:
        result.append(f"Schema {' '.join(signs)}")
    return result
