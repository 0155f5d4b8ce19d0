"""What the server counts, for Prometheus: over HTTP, on a port or a Unix socket.

The only module that imports prometheus_client, which formats the answers. Needs the extra
``kong-pdk[metrics]``. Scrapes are answered in threads of their own and touch nothing but the
numbers of :mod:`kong_pdk.runtime.tally`.
"""

from __future__ import annotations

import errno
import logging
import platform
import socket
import socketserver
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, Callable, Optional
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from . import __version__, _columns
from ._codec import is_compiled
from .config import Address, ServerConfig
from .exception import ConfigError, ListenError
from .runtime.status import describe_mode
from .runtime.tally import Counts, Table
from .server.listener import Listener, Permissions, takes_over

try:
    from prometheus_client import CollectorRegistry, make_wsgi_app
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        InfoMetricFamily,
    )
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector
    from prometheus_client.utils import floatToGoString
except ImportError as exc:
    raise ConfigError(
        f"--metrics needs prometheus_client, which cannot be imported ({exc}): "
        f"pip install 'kong-pdk[metrics]'"
    ) from exc

logger = logging.getLogger("kong_pdk.server")

#: Scrapes that are answered at the same time; further connections are closed.
MAX_SCRAPES = 8
#: How long a scraper may take to send its request, and to read the answer, seconds.
SCRAPE_TIMEOUT = 10.0
#: Scrapers that wait to be accepted.
BACKLOG = 16
#: How often it is tried to get the port of the server before this one, seconds.
RETRY = 0.25

#: How long the end waits for the thread, seconds; it may look for a host's address.
END_PATIENCE = 1.0

PATHS = ("/", "/metrics")

#: Called with a response's status and headers (WSGI).
StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class Numbers(Collector):
    """Makes metrics of what has been counted; see docs/reference/metrics.md for what each says.

    Args:
        config: the server's settings.
        table: what has been counted.
        plugins: the phases of each plugin, by name.
        count_instances: how many instances there are, by plugin.
        measure: called before anything is read.
    """

    def __init__(
        self,
        config: ServerConfig,
        table: Table,
        plugins: Mapping[str, Sequence[str]],
        count_instances: Callable[[], Mapping[str, int]],
        measure: Callable[[], None],
    ) -> None:
        self._table = table
        self._plugins = sorted(plugins.items())
        self._count_instances = count_instances
        self._measure = measure
        self._build = {
            "version": __version__,
            "codec": "compiled" if is_compiled() else "pure-Python",
            "mode": describe_mode(config),
            "python": platform.python_version(),
        }

    def collect(self) -> Iterator[Metric]:
        """All metrics, as they are now."""
        self._measure()
        yield InfoMetricFamily("kong_pdk_build", "What the plugin server is.", self._build)
        yield _gauge("start_time_seconds", "When it was started.", self._table.started)
        yield from self._events()
        yield from self._workers()

    def _events(self) -> Iterator[Metric]:
        labels = ("plugin", "phase")
        counted = [
            ((name, phase), self._table.counts(index, phase))
            for index, (name, phases) in enumerate(self._plugins)
            for phase in phases
        ]
        counters: tuple[tuple[str, str, Callable[[Counts], int]], ...] = (
            ("events", "Events that have begun.", lambda one: one.started),
            ("event_errors", "Handlers that have raised or timed out.", lambda one: one.errors),
            ("events_refused", "Requests refused because of that.", lambda one: one.refused),
            ("events_abandoned", "Events nobody waited for.", lambda one: one.abandoned),
            ("events_lost", "Events that have died with a worker.", lambda one: one.lost),
            ("pdk_calls", "PDK calls of events that have ended.", lambda one: one.calls),
        )
        for name, text, value in counters:
            counter = CounterMetricFamily(f"kong_pdk_{name}", text, labels=labels)
            for key, counts in counted:
                counter.add_metric(key, value(counts))
            yield counter
        under_way = GaugeMetricFamily(
            "kong_pdk_events_in_flight", "Events under way.", labels=labels
        )
        durations = HistogramMetricFamily(
            "kong_pdk_event_duration_seconds",
            "From the arrival of an event to the end of its handler.",
            labels=labels,
        )
        ends = [*map(floatToGoString, _columns.BOUNDS), "+Inf"]
        for key, counts in counted:
            under_way.add_metric(key, counts.in_flight)
            durations.add_metric(key, list(zip(ends, accumulate(counts.buckets))), counts.seconds)
        yield under_way
        yield durations

    def _workers(self) -> Iterator[Metric]:
        alive = self._count_instances()
        instances = GaugeMetricFamily("kong_pdk_instances", "Instances.", labels=("plugin",))
        for name, _ in self._plugins:
            instances.add_metric((name,), alive.get(name, 0))
        yield instances
        states = self._table.states()
        for name, text, value in (
            ("connections", "Connections of Kong.", sum(one.connections for one in states)),
            ("running", "Handlers and starts under way.", sum(one.running for one in states)),
            ("events_queued", "Events that wait to begin.", sum(one.queued for one in states)),
            ("events_waiting", "Events that wait for Kong.", sum(one.waiting for one in states)),
        ):
            yield _gauge(name, text, value)
        yield CounterMetricFamily(
            "kong_pdk_events_shed",
            "Events refused for lack of room.",
            sum(one.shed for one in states),
        )
        up = GaugeMetricFamily(
            "kong_pdk_worker_up", "Whether the process takes events.", labels=("worker",)
        )
        restarts = CounterMetricFamily(
            "kong_pdk_worker_restarts", "Processes that have died.", labels=("worker",)
        )
        replaced = CounterMetricFamily(
            "kong_pdk_worker_replaced",
            "Processes that have made room for another one.",
            labels=("worker",),
        )
        memory = GaugeMetricFamily(
            "kong_pdk_worker_memory_bytes", "Resident memory of the process.", labels=("worker",)
        )
        for one in states:
            label = (str(one.index),)
            restarts.add_metric(label, one.restarts)
            replaced.add_metric(label, one.replaced)
            if not one.vacant:
                up.add_metric(label, int(one.ready))
                memory.add_metric(label, one.memory)
        yield from (up, memory, restarts, replaced)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"kong_pdk_{name}", text, value)


class Metrics:
    """The socket on which metrics are served, and the thread that does so.

    Args:
        config: the server's settings, with ``metrics``.

    Raises:
        ListenError: the socket cannot be opened.
    """

    def __init__(self, config: ServerConfig) -> None:
        assert config.metrics is not None
        self._config = config
        self._address = config.metrics
        self._listener: Optional[Listener] = None
        self._sock: Optional[socket.socket] = None  # None: another one has the port still
        self._closing = threading.Event()
        self._thread: Optional[threading.Thread] = None
        if self._address.path:
            permissions = Permissions(config.socket_mode, config.socket_user, config.socket_group)
            self._listener = Listener(self._address.path, BACKLOG, permissions)
            self._sock = self._listener.sock
            return
        try:
            self._sock = _listen(self._address)
        except OSError as exc:
            # At `kong reload` the server before this one has it for some seconds more.
            if exc.errno != errno.EADDRINUSE or not takes_over(config.socket_paths):
                raise ListenError(_failure(self._address, exc)) from exc
            logger.info("metrics: %s is still the former server's: waiting for it", self._address)

    def serve(
        self,
        table: Table,
        plugins: Mapping[str, Sequence[str]],
        count_instances: Callable[[], Mapping[str, int]],
        measure: Callable[[], None] = lambda: None,
    ) -> None:
        """Answer scrapes from now on, in a thread; see :class:`Numbers` for what is wanted."""
        registry = CollectorRegistry(auto_describe=True)  # for scrapes of some metrics alone
        registry.register(Numbers(self._config, table, plugins, count_instances, measure))
        app = _only_metrics(make_wsgi_app(registry))
        self._thread = threading.Thread(
            target=self._run, args=(app,), name="kong-pdk-metrics", daemon=True
        )
        self._thread.start()

    def _run(self, app: Callable[..., Iterable[bytes]]) -> None:
        while self._sock is None:
            if self._closing.wait(RETRY):
                return
            try:
                self._sock = _listen(self._address)
            except OSError as exc:
                if exc.errno != errno.EADDRINUSE:
                    logger.error("%s", _failure(self._address, exc))
                    return
        where = self._address
        if not where.path:
            where = Address(where.host, self._sock.getsockname()[1])
        logger.info("metrics on %s", where if where.path else f"http://{where}/metrics")
        server = _Server(self._sock, app)
        while not self._closing.is_set():
            server.handle_request()

    def close(self) -> None:
        """Serve no more; the socket is closed, and its path removed."""
        self._closing.set()
        if self._listener is not None:
            self._listener.remove_path()
        if self._sock is not None:
            try:
                self._sock.shutdown(socket.SHUT_RDWR)  # wakes the thread
            except OSError:
                pass  # not every system takes it
        if self._thread is not None:
            self._thread.join(END_PATIENCE)
        if self._sock is not None:
            self._sock.close()

    def let_go(self) -> None:
        """Close the socket in a process that was forked from the one that serves it."""
        if self._sock is not None:
            self._sock.close()


def _listen(address: Address) -> socket.socket:
    """A socket that listens at a host and port.

    Raises:
        OSError: it cannot be had.
    """
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    family, kind, protocol, _, where = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of one before
        sock.bind(where)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _failure(address: Address, exc: OSError) -> str:
    text = f"cannot serve metrics on {address}: {exc.strerror or exc}"
    if exc.errno == errno.EADDRINUSE:
        text += "; stop who listens there, or choose another address with --metrics"
    return text


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """Answers each request in a thread.

    Args:
        sock: listens already.
        app: answers.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, sock: socket.socket, app: Callable[..., Iterable[bytes]]) -> None:
        super().__init__(("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = sock
        self.server_name, self.server_port = "kong-pdk", 0
        self._free = threading.BoundedSemaphore(MAX_SCRAPES)
        self.setup_environ()
        self.set_app(app)

    def get_request(self) -> tuple[socket.socket, Any]:
        """A connection, and a peer's address: a Unix socket's has none that could be shown."""
        sock, address = self.socket.accept()
        return sock, address or ("unix", 0)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Have a thread answer, unless too many are at it."""
        if not self._free.acquire(blocking=False):
            logger.warning("metrics: %d scrapes are under way, another one waits", MAX_SCRAPES)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, in the thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Note what went wrong with a connection: it is the peer's business."""
        logger.debug("metrics: a scrape failed", exc_info=True)


class _Handler(WSGIRequestHandler):
    """One connection."""

    timeout = SCRAPE_TIMEOUT  # of each read and write
    server_version = "kong-pdk"
    sys_version = ""

    def address_string(self) -> str:
        """Who asks."""
        return str(self.client_address[0])

    def log_message(self, format: str, *args: Any) -> None:
        """No line in the log for each scrape."""
        logger.debug("metrics: " + format, *args)


def _only_metrics(app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """Answer what is about metrics, and nothing else."""

    def answer(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] not in PATHS:
            status = "404 Not Found"
        elif environ["REQUEST_METHOD"] != "GET":
            status = "405 Method Not Allowed"
        else:
            try:
                return app(environ, start_response)
            except Exception:  # a bug of ours: it must not end up as a traceback on stderr
                logger.exception("metrics: they cannot be had")
                status = "500 Internal Server Error"
        start_response(status, [("Content-Type", "text/plain"), ("Allow", "GET")])
        return [f"{status}: GET /metrics\n".encode()]

    return answer
