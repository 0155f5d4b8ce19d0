"""One request on its way through the gateway, with all that a plugin can see of it or change.

Nothing here reads a socket: a driver fills in the client's request, lets :mod:`.life` say what
comes next, and reads the answer off when it is due.
"""

from __future__ import annotations

import ipaddress
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Callable

from . import error_pages
from .headers import Headers
from .values import to_json, to_text

#: What the gateway calls itself in ``Server`` and ``Via``.
SERVER_NAME = "kong-pdk"

#: What a connection with TLS speaks.
TLS_VERSION = "TLSv1.3"

#: nginx keeps bodies up to this many bytes in memory; larger ones go to a file, where
#: ``kong.request.get_raw_body`` does not look unless it is told to.
BODY_BUFFER = 8192

#: Headers of which nginx keeps one line only: what the upstream says replaces what a plugin set.
_SINGLE = ("content-type", "content-length", "content-encoding", "date", "server", "last-modified")


@dataclass
class Request:
    """What the client sent. ``kong.service.request`` changes it in place, as nginx does."""

    method: str = "GET"
    target: str = "/"
    headers: Headers = field(default_factory=Headers)
    body: bytes = b""
    version: float = 1.1
    scheme: str = "http"
    query: str = ""
    path: str = ""

    def __post_init__(self) -> None:
        path, _, query = self.target.partition("?")
        self.path = self.path or path
        self.query = self.query or query

    @property
    def host(self) -> str:
        """The host of the ``Host`` header in lower case, without its port."""
        host = (self.headers.get("host") or "localhost").lower()
        return host[: host.index("]") + 1] if host.startswith("[") else host.split(":", 1)[0]


@dataclass
class Service:
    """Where the request goes: the upstream's address and how to speak to it."""

    scheme: str = "http"
    host: str = "127.0.0.1"
    port: int = 80
    path: str = ""
    #: Milliseconds.
    connect_timeout: int = 60_000
    write_timeout: int = 60_000
    read_timeout: int = 60_000
    retries: int = 5
    tls_verify: bool = False


@dataclass(frozen=True)
class ServiceRequest:
    """The request that goes to the upstream, ready to be sent."""

    method: str
    scheme: str
    host: str
    port: int
    #: Path and query as they stand in the request line.
    target: str
    headers: Headers
    body: bytes
    #: Seconds.
    connect_timeout: float
    read_timeout: float
    tls_verify: bool

    @property
    def path(self) -> str:
        """The path as it stands in the request line."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """The query string, without its question mark."""
        return self.target.partition("?")[2]

    @property
    def text(self) -> str:
        """The body as text; bytes that are not UTF-8 are surrogate escapes."""
        return to_text(self.body)

    def json(self) -> Any:
        """Return the body, read as JSON. Raises ValueError if it is none."""
        return json.loads(self.text)


@dataclass
class Response:
    """An answer: the upstream's, or the one that the client gets."""

    status: int = 200
    headers: Headers = field(default_factory=Headers)
    body: bytes = b""
    #: The body is with the driver, which copies it to the client as it comes.
    streamed: bool = False


@dataclass(frozen=True)
class LogLine:
    """A line of Kong's log: its level by Kong's name (``debug`` … ``emerg``), and its text."""

    level: str
    message: str


@dataclass
class Call:
    """One PDK call that the plugin made.

    Attributes:
        phase: in which it was made.
        function: the function's full name, such as ``kong.request.get_header``.
        args: its arguments as they came.
        at: when it came, seconds since the phase began.
        seconds: what the function took, without the way there and back.
        result: what it gave back; ``None`` also if it gave nothing.
        error: why Kong would have refused it, ending the phase; ``None`` if it was taken.
    """

    phase: str
    function: str
    args: list[Any]
    at: float = 0.0
    seconds: float = 0.0
    result: Any = None
    error: str | None = None


@dataclass
class PhaseRun:
    """One phase that the plugin ran: how long it took in seconds, and which PDK calls it made."""

    name: str
    seconds: float = 0.0
    calls: list[Call] = field(default_factory=list)
    #: When it began, by the monotonic clock.
    began: float = field(default_factory=time.monotonic)
    #: Seconds that the gateway waited for the plugin before each of its calls, and last for its
    #: end, where a driver measures that: the plugin's own time and the way to it and back.
    waits: list[float] = field(default_factory=list)


@dataclass
class Exchange:
    """A request, the answer in the making, and everything between the two."""

    request: Request = field(default_factory=Request)
    service: Service = field(default_factory=Service)
    client_ip: str = "127.0.0.1"
    client_port: int = 0
    server_port: int = 8000
    #: Client addresses whose ``X-Forwarded-*`` headers are believed, as addresses or networks.
    trusted_ips: tuple[str, ...] = ()
    tls: bool = False
    #: What ``kong.client.load_consumer`` finds, each a mapping with ``id`` and ``username``.
    consumers: tuple[dict[str, Any], ...] = ()
    #: Upstream entities by name, with the address that each stands for.
    upstreams: dict[str, tuple[str, int]] = field(default_factory=dict)
    plugin_id: str | None = None
    node_id: str = "00000000-0000-4000-8000-000000000001"
    route: dict[str, Any] | None = None
    service_entity: dict[str, Any] | None = None
    body_buffer: int = BODY_BUFFER
    on_log: Callable[[LogLine], None] | None = None
    #: nginx variables by name, which come before those that the gateway makes.
    variables: Mapping[str, str] = field(default_factory=dict)
    #: The certificates that the client has shown, as PEM, its own first.
    client_chain: str | None = None
    #: The gateway's environment, where the vault looks; ``None``: this process's own.
    environment: Mapping[str, str] | None = None
    #: What of the path the route has matched and stripped, if it has.
    stripped: str | None = None
    #: A connection of nginx's stream subsystem, not an HTTP request.
    stream: bool = False
    #: PDK functions that are replaced, by their full names: the last of each is called, with the
    #: exchange and the arguments.
    fakes: Mapping[str, Sequence[Callable[..., Any]]] = field(default_factory=dict)

    phase: str = ""
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: float = field(default_factory=time.time)
    consumer: dict[str, Any] | None = None
    credential: dict[str, Any] | None = None
    shared: dict[str, Any] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)
    captures: dict[str, Any] = field(default_factory=lambda: {"named": {}, "unnamed": {}})
    client_verify: str | None = None
    #: ``kong.log.inspect`` writes; in Kong it is the nginx worker that knows, for all requests.
    inspecting: bool = True
    serialize_edits: list[tuple[str, Any, str]] = field(default_factory=list)
    buffered: bool = False
    upstream_path: str | None = None
    upstream_host: str | None = None
    service_response: Response | None = None
    response: Response = field(default_factory=Response)
    #: The response's headers are on their way: nothing in it can be changed any more.
    headers_sent: bool = False
    #: What the log phase says of the answer: the number of bytes in its body, and milliseconds.
    response_size: int = 0
    upstream_latency: int = -1
    exited: str | None = None
    aborted: str | None = None
    unexpected: bool = False
    proxied: bool = False
    #: Method and target as they came; a plugin may change what the request says.
    received: str = ""
    #: What was logged, oldest first.
    logs: list[LogLine] = field(default_factory=list)
    #: The phases that the plugin has run, in order.
    runs: list[PhaseRun] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.received = self.received or f"{self.request.method} {self.request.target}"

    @property
    def source(self) -> str:
        """Who made the answer: ``exit`` (a plugin), ``service`` or ``error``, as Kong tells it."""
        if self.unexpected:
            return "error"
        if self.exited is not None:
            return "exit"
        return "service" if self.proxied else "error"

    @property
    def trusts_client(self) -> bool:
        """Whether the client's ``X-Forwarded-*`` headers are believed."""
        return is_trusted(self.client_ip, self.trusted_ips)

    @property
    def reached_access(self) -> bool:
        """Whether nothing has ended the request before the access phase."""
        return not {self.exited, self.aborted} & {"certificate", "rewrite"}

    def log(self, level: str, message: str) -> None:
        """Keep a log line and hand it to whoever listens."""
        line = LogLine(level, message)
        self.logs.append(line)
        if self.on_log is not None:
            self.on_log(line)

    def page(self, message: str, content_type: str) -> bytes:
        """Return the body of an error of Kong's own in a content type."""
        return error_pages.render(message, content_type, self.request_id).encode(
            "utf-8", "surrogateescape"
        )

    def error_page(self, status: int) -> tuple[bytes, Headers]:
        """Return the body that Kong gives to an error without one, and headers that go with it."""
        accept = self.request.headers.get("accept") or self.request.headers.get("content-type")
        content_type = error_pages.accepted_type(accept)
        body = self.page(error_pages.message_for(status), content_type)
        headers = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
        return body, Headers(headers)

    def answer(self, status: int, body: bytes | None, headers: Headers) -> None:
        """Make the answer one that Kong gives itself.

        Args:
            status: its HTTP status.
            body: its body; ``None`` and ``b""`` are both empty.
            headers: headers that replace those of the same name; the others stay.
        """
        response = self.response
        response.status = status
        response.body = body or b""
        response.streamed = False
        response.headers.remove("transfer-encoding")
        for name in dict.fromkeys(name for name, _ in headers):
            response.headers.set(name, *headers.get_all(name))
        if "content-length" not in headers:
            response.headers.set("Content-Length", str(len(response.body)))

    def abort(self, message: str) -> None:
        """End the phase as an error inside Kong does: a log line, and 500 for the client.

        After the answer has gone only the log line is left of it.
        """
        self.log("err", message)
        self.aborted = self.phase
        if self.headers_sent:
            return
        self.unexpected = True
        if self.phase == "certificate":
            self.response.status = 0  # the TLS handshake fails
            return
        body = to_json({"message": error_pages.message_for(500)})
        self.answer(500, body.encode(), Headers([("Content-Type", error_pages.JSON_TYPE)]))

    def upstream_failed(self, status: int, reason: str) -> None:
        """Note that the upstream gave no answer.

        Args:
            status: what the client gets for it: 502, 503 or 504.
            reason: for the log.
        """
        self.log("err", reason)
        self.unexpected = True
        body, headers = self.error_page(status)
        self.service_response = Response(status, headers, body)

    def take_service_response(self) -> None:
        """Make the upstream's answer the client's, with the headers that plugins set before it."""
        came = self.service_response
        if came is None:
            self.upstream_failed(502, "the upstream gave no answer")
            came = self.service_response
            assert came is not None
        early = self.response.headers
        came_headers = came.headers.without_hop_by_hop()
        for name in dict.fromkeys(name for name, _ in came_headers):
            if self.buffered or name.lower() in _SINGLE:
                early.set(name, *came_headers.get_all(name))
            else:
                # nginx appends what the upstream says to what a plugin has set before.
                early.add(name, *came_headers.get_all(name))
        self.response = replace(came, headers=early)

    def service_request(self) -> ServiceRequest:
        """Return the request for the upstream as the plugin left it."""
        service, request = self.service, self.request
        path = self.upstream_path
        if path is None:
            path = service.path.rstrip("/") + request.path
        headers = request.headers.without_hop_by_hop()
        default_port = 443 if service.scheme == "https" else 80
        host = service.host if service.port == default_port else f"{service.host}:{service.port}"
        headers.set("Host", self.upstream_host or host)
        headers.remove("content-length")
        if request.body or request.method in ("POST", "PUT", "PATCH"):
            headers.set("Content-Length", str(len(request.body)))
        for name, value in self._forwarded():
            headers.set(name, value)
        return ServiceRequest(
            method=request.method,
            scheme=service.scheme,
            host=service.host,
            port=service.port,
            target=(path or "/") + (f"?{request.query}" if request.query else ""),
            headers=headers,
            body=request.body,
            connect_timeout=service.connect_timeout / 1000,
            read_timeout=service.read_timeout / 1000,
            tls_verify=service.tls_verify,
        )

    def _forwarded(self) -> list[tuple[str, str]]:
        headers = self.request.headers
        trusted = headers if self.trusts_client else Headers()
        so_far = headers.get("x-forwarded-for")
        prefix = trusted.get("x-forwarded-prefix") or self.stripped
        return [
            ("X-Forwarded-For", f"{so_far}, {self.client_ip}" if so_far else self.client_ip),
            ("X-Forwarded-Proto", trusted.get("x-forwarded-proto") or self.request.scheme),
            ("X-Forwarded-Host", trusted.get("x-forwarded-host") or self.request.host),
            ("X-Forwarded-Port", trusted.get("x-forwarded-port") or str(self.server_port)),
            ("X-Forwarded-Path", trusted.get("x-forwarded-path") or self.request.path),
            *([("X-Forwarded-Prefix", prefix)] if prefix else []),
            ("X-Real-IP", self.client_ip),
            ("X-Kong-Request-Id", self.request_id),
        ]

    def finish(self, latency: float) -> None:
        """Complete the answer's headers; it is ready for the client after this.

        Args:
            latency: seconds that the gateway itself has spent so far.
        """
        headers = self.response.headers
        if self.proxied:
            headers.set("X-Kong-Upstream-Latency", str(max(self.upstream_latency, 0)))
            headers.set("X-Kong-Proxy-Latency", str(int(latency * 1000)))
            via = headers.get("via")
            headers.set("Via", f"{via}, 1.1 {SERVER_NAME}" if via else f"1.1 {SERVER_NAME}")
        else:
            headers.set("X-Kong-Response-Latency", str(int(latency * 1000)))
        if not self.proxied or "server" not in headers:
            headers.set("Server", SERVER_NAME)
        headers.set("X-Kong-Request-Id", self.request_id)
        if self.response.status in (204, 304):
            self.response.body = b""
            headers.remove("content-length")
        elif self.request.method == "HEAD":
            self.response.body = b""
        elif not self.response.streamed:
            headers.set("Content-Length", str(len(self.response.body)))
        self.response_size = len(self.response.body)
        self.headers_sent = True


def is_address(text: str) -> bool:
    """Say whether a text is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def split_port(text: str) -> tuple[str, int | None]:
    """Return the parts of ``address``, ``address:port`` or ``[address]:port``."""
    if not is_address(text):
        address, _, port = text.rpartition(":")
        if port.isascii() and port.isdigit() and 0 < int(port) <= 65535:
            return address.strip("[]"), int(port)
    return text.strip("[]"), None


def is_trusted(address: str, trusted: tuple[str, ...]) -> bool:
    """Say whether an address lies in one of the networks; a text that is no address does not."""
    if not trusted:
        return False
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(ip in ipaddress.ip_network(network, strict=False) for network in trusted)
