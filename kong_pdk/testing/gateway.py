"""The gateway of a test: requests go in, and what came of them comes out."""

from __future__ import annotations

import copy
import functools
import ipaddress
import json as json_module
import logging
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Callable, Optional, Protocol, Union

from ..config import ServerConfig
from ..gateway import entities
from ..gateway import exchange as core
from ..gateway.driver import drive
from ..gateway.life import PHASES, STREAM_PHASES
from ..gateway.plugin import PluginInfo
from ..plugins.loading import Spec
from .fakes import _MISSING, Fake, make_fake
from .inprocess import InProcess
from .messages import Body, HeadersLike, Response, make_request, ready_response
from .plugins import Target, resolve
from .result import Failure, Result

#: The ways to run a plugin's handlers: in this process, or in a server of each mode.
MODES = ("in-process", "threads", "gevent", "multiprocessing")

#: What the lines of Kong's log are for Python's.
_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "notice": logging.INFO,
    "warn": logging.WARNING,
    "err": logging.ERROR,
    "crit": logging.CRITICAL,
    "alert": logging.CRITICAL,
    "emerg": logging.CRITICAL,
}

#: The client's own port.
_CLIENT_PORT = 40000

logger = logging.getLogger("kong_pdk.testing")


class Engine(Protocol):
    """Runs the handlers of one plugin with one configuration."""

    async def run_handler(
        self, exchange: core.Exchange, phase: str, failures: list[Failure]
    ) -> None:
        """Run the handler of one phase; what it raises is noted."""

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Take a request through its life."""

    def close(self) -> None:
        """Give up what it holds."""


class Send(Protocol):
    """:meth:`Gateway.request` with its method given."""

    def __call__(
        self,
        target: str = "/",
        *,
        headers: HeadersLike = None,
        body: Body = None,
        json: Any = None,
        form: Any = None,
        http_version: float = 1.1,
        client_ip: Optional[str] = None,
        phase: Union[str, Iterable[str], None] = None,
    ) -> Result:
        """Take a request through its life."""
        ...


class _Method:
    """An attribute of a gateway: its ``request`` with a method."""

    def __init__(self, method: str) -> None:
        self.method = method

    def __get__(self, gateway: Optional[Gateway], owner: Any = None) -> Send:
        if gateway is None:  # documentation looks at the class
            return functools.partial(Gateway.request, method=self.method)
        return functools.partial(gateway.request, self.method)


class Gateway:
    """A Kong with one plugin, for tests.

    Args:
        plugin: its class, its module, its file or folder, or the name of an installed one.
        config: its configuration; checked against the plugin's Schema and completed with the
            defaults, as Kong does it.
        schema: the fields of the configuration, where a class's module has no ``Schema``, or that
            of another class.
        consumer: who has been authenticated before the plugin runs.
        credential: by which credential.
        consumers: further ones, for ``kong.client.load_consumer``.
        route: fields of the route entity; the others have Kong's defaults.
        service: fields of the service entity.
        nginx: variables for ``kong.nginx.get_var``, before those that the gateway makes itself.
        shared: what stands in ``kong.ctx.shared`` when a request begins.
        trusted_ips: clients whose ``X-Forwarded-*`` headers are believed: addresses or networks.
        client_ip: the client's address.
        tls: clients come with TLS; then the certificate phase is run.
        client_certificate: the chain of the client's certificate in PEM form; implies ``tls``.
        upstreams: Upstream entities by name, each with host and port.
        env: variables of Kong's environment, where references and ``kong.vault`` find secrets;
            those of this process if left out.
        python_style: PDK calls return data and raise, as with the flag ``--no-lua-style``.
        pdk_checks: PDK calls are checked before they are sent.
        on_error: "closed" or "open": what becomes of a request whose handler raises, unless the
            plugin has an ``on_error`` of its own.
        mode: one of :data:`MODES`: "in-process", or a server process and a socket.

    What stands around a request, ``consumer`` to ``env``, can also be changed afterwards, as
    attributes of the same names, for the requests that follow.

    Attributes:
        plugin: what the plugin says of itself: name, version, priority, phases, schema.
        config: the configuration as the plugin gets it, without Kong's own keys.
        upstream: the service: a function that gets a :class:`.ServiceRequest` and returns a
            :class:`.Response`, or raises :class:`.UpstreamError`.
        mode: one of :data:`MODES`.

    Raises:
        PluginError: it is no plugin that Kong could use.
        SettingsError: the configuration does not fit the Schema.
        ModeUnavailable: the mode cannot be had here.
    """

    def __init__(
        self,
        plugin: Spec,
        config: Optional[Mapping[str, Any]] = None,
        *,
        schema: Optional[Sequence[Any]] = None,
        consumer: Optional[entities.Entity] = None,
        credential: Optional[entities.Entity] = None,
        consumers: Iterable[entities.Entity] = (),
        route: Optional[entities.Entity] = None,
        service: Optional[entities.Entity] = None,
        nginx: Optional[Mapping[str, object]] = None,
        shared: Optional[Mapping[str, Any]] = None,
        trusted_ips: Iterable[str] = (),
        client_ip: str = "127.0.0.1",
        tls: Optional[bool] = None,
        client_certificate: Optional[str] = None,
        upstreams: Optional[Mapping[str, tuple[str, int]]] = None,
        env: Optional[Mapping[str, str]] = None,
        python_style: bool = False,
        pdk_checks: bool = True,
        on_error: Optional[str] = None,
        mode: str = "in-process",
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"there is no mode {mode!r}, only {', '.join(MODES)}")
        self.mode = mode
        self.consumer = consumer
        self.credential = credential
        self.consumers = tuple(consumers)
        self.service = service
        self.route = route
        self.nginx = nginx
        self.shared = shared
        self.trusted_ips = tuple(trusted_ips)
        self.client_ip = client_ip
        self.tls = bool(tls)
        self.client_certificate = client_certificate
        self.upstreams = upstreams
        self.env = env
        self.upstream: Callable[[core.ServiceRequest], core.Response] = self._answer
        self._canned: core.Response = Response()
        self._fakes: dict[str, list[Fake]] = {}
        self._target = resolve(plugin, schema)
        described = self._target.plugin.describe()
        self.plugin = PluginInfo(
            described["Name"], described["Version"], described["Priority"],
            tuple(described["Phases"]), described["Schema"],
        )  # fmt: skip
        self.plugin_id = entities.id_of("plugins", self.plugin.name)
        given = {} if config is None else dict(config)
        self._config_text = self.plugin.config_text(given, self.plugin_id, env)
        self.config: dict[str, Any] = {
            name: value
            for name, value in json_module.loads(self._config_text).items()
            if not name.startswith("__")
        }
        self._exchange(None, None, False, 0)  # what is of no use should be found out here
        settings = ServerConfig(
            lua_style=not python_style,
            pdk_checks=pdk_checks,
            on_error=on_error or "closed",
            # A debugger may stop a handler for as long as it likes.
            answer_timeout=0,
        )
        self._engine: Optional[Engine] = _engine(
            mode, self._target, self.plugin, self._config_text, settings
        )

    # --- the service and Kong's functions --------------------------------------------------------

    def respond(
        self,
        status: int = 200,
        headers: HeadersLike = None,
        body: Body = None,
        *,
        json: Any = None,
    ) -> None:
        """Say what the service answers from now on.

        Args:
            status: the HTTP status.
            headers: a mapping, in which a list gives several lines, or pairs.
            body: a text or bytes.
            json: in place of ``body``: sent as JSON, with the content type.
        """
        self._canned = Response(status, headers, body, json=json)
        self.upstream = self._answer

    def _answer(self, request: core.ServiceRequest) -> core.Response:
        return self._canned

    def fake(
        self,
        function: str,
        *,
        returns: Any = _MISSING,
        raises: Optional[str] = None,
        calls: Optional[Callable[..., Any]] = None,
    ) -> Fake:
        """Replace a PDK function, until the fake is removed or a ``with`` block of it ends.

        Args:
            function: its full name.
            returns: what it gives back.
            raises: why it fails: as in Kong that ends the phase, and the handler with it.
            calls: called with the exchange and the arguments in its place.

        Raises:
            LookupError: there is no such function; says which name is near.
            TypeError: not one of ``returns``, ``raises`` and ``calls`` is given.
        """
        return make_fake(self._fakes, function, returns, raises, calls)

    # --- requests --------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        target: str = "/",
        *,
        headers: HeadersLike = None,
        body: Body = None,
        json: Any = None,
        form: Any = None,
        http_version: float = 1.1,
        client_ip: Optional[str] = None,
        phase: Union[str, Iterable[str], None] = None,
    ) -> Result:
        """Take a request through its life.

        Args:
            method: such as "GET".
            target: path and query, as they stand in the request line; or a URL, whose scheme says
                whether the client comes with TLS.
            headers: a mapping, in which a list gives several lines, or pairs.
            body: a text or bytes.
            json: in place of ``body``: sent as JSON.
            form: in place of ``body``: a mapping or pairs, sent as an HTML form.
            http_version: 1.0, 1.1 or 2.
            client_ip: the client's address, if it is not the gateway's.
            phase: run the plugin's handler of this phase only, or of these.

        Returns:
            What came of it. What a handler has raised does not come out here: the client gets what
            it would get from Kong.

        Raises:
            ValueError: there is no such phase, or the target is no path.
            BaseException: what ``upstream`` or the function of a fake has raised.
        """
        phases = self._phases(phase, PHASES)
        tls = self.tls or self.client_certificate is not None or _asks_for_tls(phase, phases)
        request, port = make_request(
            method, target, headers, body, json, form, http_version, tls
        )  # fmt: skip
        return self._run(request, phases, client_ip, request.scheme == "https", port)

    #: Take a request of that method through its life; see :meth:`request`.
    get = _Method("GET")
    head = _Method("HEAD")
    options = _Method("OPTIONS")
    post = _Method("POST")
    put = _Method("PUT")
    patch = _Method("PATCH")
    delete = _Method("DELETE")

    def run(
        self,
        phase: Union[str, Iterable[str]],
        method: str = "GET",
        target: str = "/",
        **options: Any,
    ) -> Result:
        """Take a request through its life with the plugin's handler of one phase only.

        Args:
            phase: its name, or several; "preread" makes it a stream connection.
            method, target: the request, as for :meth:`request`.
            options: as for :meth:`request`, or :meth:`connect`.

        Raises:
            ValueError: the plugin has no such phase.
        """
        names = (phase,) if isinstance(phase, str) else tuple(phase)
        if "preread" in names:
            return self.connect(phase=names, **options)
        return self.request(method, target, phase=names, **options)

    def connect(
        self,
        *,
        client_ip: Optional[str] = None,
        phase: Union[str, Iterable[str], None] = None,
    ) -> Result:
        """Take a stream connection through its life: certificate (with TLS), preread and log.

        Args:
            client_ip: the client's address, if it is not the gateway's.
            phase: run the plugin's handler of this phase only, or of these.

        Raises:
            ValueError: the plugin has no such phase.
        """
        phases = self._phases(phase, STREAM_PHASES)
        tls = self.tls or self.client_certificate is not None or _asks_for_tls(phase, phases)
        return self._run(None, phases, client_ip, tls, 8443 if tls else 8000)

    def _phases(
        self, given: Union[str, Iterable[str], None], known: Sequence[str]
    ) -> tuple[str, ...]:
        """Return the phases to run, in Kong's order."""
        has = [each for each in known if each in self.plugin.phases]
        if given is None:
            return tuple(has)
        names = {given} if isinstance(given, str) else set(given)
        for name in names:
            if name not in has:
                raise ValueError(
                    f"plugin {self.plugin.name} has no phase {name!r} here; "
                    f"it has {', '.join(has) or 'none of these'}"
                )
        return tuple(each for each in known if each in names)

    def _run(
        self,
        request: Optional[core.Request],
        phases: Sequence[str],
        client_ip: Optional[str],
        tls: bool,
        port: int,
    ) -> Result:
        engine = self._engine
        if engine is None:
            raise RuntimeError("this gateway is closed")
        exchange = self._exchange(request, client_ip, tls, port)
        failures: list[Failure] = []
        asked: list[core.ServiceRequest] = []

        async def run_handler(exchange: core.Exchange, phase: str) -> None:
            await engine.run_handler(exchange, phase, failures)

        async def upstream(request: core.ServiceRequest, buffered: bool) -> core.Response:
            asked.append(request)
            return ready_response(self.upstream(request), "upstream")

        async def send(response: core.Response) -> None:
            pass

        engine.run(drive(exchange, phases, run_handler, upstream, send))
        return Result(exchange, asked[-1] if asked else None, failures)

    def _exchange(
        self, request: Optional[core.Request], client_ip: Optional[str], tls: bool, port: int
    ) -> core.Exchange:
        """Return a request with all that stands around it, of which the plugin may change anything.

        Raises:
            TypeError, ValueError: something that the test has given is of no use.
        """
        stream = request is None
        consumer = entities.consumer(self.consumer)
        service = entities.service(self.service)
        route = entities.route(self.route, service, stream)
        return core.Exchange(
            request=request or core.Request("", "", scheme="tls" if tls else "tcp"),
            service=entities.address_of(service),
            client_ip=_address(self.client_ip if client_ip is None else client_ip),
            client_port=_CLIENT_PORT,
            server_port=port,
            trusted_ips=tuple(_network(each) for each in self.trusted_ips),
            tls=tls,
            consumers=(*entities.consumers(self.consumers), *([consumer] if consumer else [])),
            upstreams=dict(self.upstreams or {}),
            plugin_id=self.plugin_id,
            route=route,
            service_entity=service,
            on_log=_log,
            stream=stream,
            variables=_variables(self.nginx, tls),
            environment=self.env,
            client_chain=self.client_certificate,
            fakes=self._fakes,
            consumer=copy.deepcopy(consumer),
            credential=copy.deepcopy(entities.credential(self.credential, consumer)),
            shared=copy.deepcopy(dict(self.shared or {})),
            buffered="response" in self.plugin.phases,
        )

    # --- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Have the plugin's ``close`` called, and give up the server. May be called again."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
            if self._target.plugin.code is not None:
                self._target.plugin.code.forget()

    def __enter__(self) -> Gateway:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Gateway {self.plugin.name} {self.mode}>"


def _engine(
    mode: str, target: Target, info: PluginInfo, config_text: str, settings: ServerConfig
) -> Engine:
    if mode == "in-process":
        return InProcess(target.plugin, config_text, settings)
    from .live import Live  # asyncio's loop, a thread and processes: for those who want them

    return Live(mode, target, info, config_text, settings)


def _log(line: core.LogLine) -> None:
    logger.log(_LEVELS[line.level], "[%s] %s", line.level, line.message)


def _variables(given: Optional[Mapping[str, object]], tls: bool) -> dict[str, str]:
    result: dict[str, str] = {"ssl_protocol": core.TLS_VERSION} if tls else {}
    for name, value in (given or {}).items():
        if not isinstance(value, (str, int, float)) or isinstance(value, bool):
            raise TypeError(f"nginx variable {name!r} must be a str, got {value!r}")
        result[name] = str(value)
    return result


def _asks_for_tls(given: object, phases: Sequence[str]) -> bool:
    """Whether the test asks for a phase that there is with TLS only."""
    return given is not None and "certificate" in phases


@functools.lru_cache(256)
def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise ValueError(f"client_ip must be an IP address, got {text!r}") from error


@functools.lru_cache(256)
def _network(given: object) -> str:
    text = str(given)
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ValueError(
            f"trusted_ips must be addresses or networks such as 10.0.0.0/8, got {text!r}"
        ) from error
    return text
