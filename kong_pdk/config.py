"""The server's settings: every path, limit and time in one frozen object, checked once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import NamedTuple, Optional

from ._bounds import MAX_DEPTH, MAX_DEPTH_LIMIT, MAX_MESSAGE
from .exception import ConfigError

#: Modes by the name that the flags choose, with the module that implements them.
MODES = {
    "threads": "kong_pdk.modes.threads",
    "gevent": "kong_pdk.modes.greenlets",
}

#: How worker processes are made: a new Python, or a copy of the parent.
START_METHODS = ("spawn", "fork")

#: Levels of Kong's log lines, the gravest first (nginx: ngx_log.h).
LEVELS = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")

#: What becomes of a request whose plugin fails.
POLICIES = ("closed", "open")

#: How the lines of the log are written.
LOG_FORMATS = ("text", "json")

#: Most worker processes of one server; the ids of events have room for so many.
MAX_WORKERS = 1024

#: Where Kong keeps its sockets unless kong.conf's ``prefix`` says otherwise.
DEFAULT_PREFIX = "/usr/local/kong"

#: The kernel's limit of a Unix socket's path, bytes (struct sockaddr_un, with its final zero 108).
MAX_SOCKET_PATH = 107

#: Where metrics are served if only a port is named: to this machine alone.
DEFAULT_METRICS_HOST = "127.0.0.1"


class Address(NamedTuple):
    """Where metrics are served: a host and a port, or the path of a Unix socket.

    Attributes:
        host: a name or number; "" with a path.
        port: 0 for any that is free.
        path: absolute; "" with a host.
    """

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read_address(text: str) -> Address:
    """An address as the flag ``--metrics`` names it.

    Args:
        text: ``HOST:PORT``, ``[::1]:PORT``, ``:PORT`` for this machine alone, or ``unix:/path``.

    Raises:
        ConfigError: it is none of these.
    """
    kind, _, path = text.partition(":")
    if kind == "unix":
        if not os.path.isabs(path) or len(os.fsencode(path)) > MAX_SOCKET_PATH:
            raise ConfigError(
                f"--metrics unix: wants an absolute path of at most {MAX_SOCKET_PATH} bytes, "
                f"got {path!r}"
            )
        return Address("", 0, path)
    host, colon, port = text.rpartition(":")
    in_brackets = host.startswith("[") and host.endswith("]")
    known = colon and port.isascii() and port.isdigit() and int(port) <= 65535
    if not known or (":" in host and not in_brackets) or host == "[]":
        raise ConfigError(
            f"--metrics wants HOST:PORT, [::1]:PORT, :PORT or unix:/path, got {text!r}"
        )
    return Address((host[1:-1] if in_brackets else host) or DEFAULT_METRICS_HOST, int(port))


@dataclass(frozen=True)
class ServerConfig:
    """All that the running server wants to know. Times are in seconds, sizes in bytes.

    Attributes:
        prefix: Kong's prefix, the folder of the sockets.
        socket_names: names of the sockets under the prefix; each is served.
        listen_queue_size: connections that the kernel holds until they are accepted.
        socket_mode: permissions of the sockets; None: what the umask leaves to owner and group.
        socket_user: their owner, a user id; None: the server's user.
        socket_group: their group, a group id; None: the one that the system gives them.
        allow_uids: users whose connections are taken, beside the server's own; None: all.
        lua_style: PDK calls return ``(data, err)``; otherwise data, raising PDKException.
        pdk_checks: PDK calls are checked before they are sent.
        kong_log_level: one of :data:`LEVELS`; lines that a plugin logs below it are dropped.
        on_error: what becomes of a request whose plugin fails: "closed" refuses it, "open" lets it
            go on; a plugin's own ``on_error`` comes first.
        mode: one of :data:`MODES`.
        workers: processes that run plugin code; 0: this process does it itself.
        start_method: how worker processes are made, one of :data:`START_METHODS`.
        worker_memory: a worker process that uses more is replaced by another one; 0: never.
        threads: most handlers that run at the same time in threads; further events wait. Kong's
            pools hold up to 256 connections per nginx worker, each with one event under way.
        idle_timeout: a thread that had nothing to do for so long ends.
        event_timeout: how long a handler waits for the answer to a PDK call; below the 60 s after
            which Kong itself gives up, so that the handler's slot is free first.
        handler_timeout: how long a handler may take in all; 0: as long as it likes.
        answer_timeout: how long an answer of ours may take. Kong gives up after 60 s and uses the
            connection for another request, which a later answer would be taken for.
        graceful_timeout: how long events under way may go on once the server has been told to stop.
        max_events: most events that run or wait for a thread, in each process; more are refused.
        max_connections: most connections; more are not accepted until others are closed.
        instance_ttl: an instance without an event for so long is closed and forgotten; 0: never.
            Kong then starts all instances of that plugin anew, in the nginx worker that misses it:
            so it is long enough for what is used once a day.
        max_starts: most instances of one plugin that are made at the same time in one process, with
            the events that wait for one; further ones are refused.
        max_message: the largest message that is taken from a connection.
        max_depth: the deepest nesting of a message, in containers.
        announce_pid: send Kong a ``serverPid`` notification on each connection.
        metrics: where metrics are served to Prometheus; None: nowhere.
        event_log: where a line for each event is written: an absolute path, or "-" for standard
            output; None: nowhere.
        event_log_format: how, one of :data:`LOG_FORMATS`.
        event_log_slow: lines for events that take as long, or that do not end well, only.
        event_log_request_id: asks Kong for the id of the request, which is a PDK call more.
        tracing: where a span of each event is sent, a collector's URL, or "env"; None: nowhere.
        reload: changed code of plugins is taken over while the server runs.
        directories: folders of plugins that are served, for those that appear there.
    """

    prefix: str = DEFAULT_PREFIX
    socket_names: tuple[str, ...] = ("python_pluginserver.sock", "python_pluginserver.socket")
    listen_queue_size: int = 4096
    socket_mode: Optional[int] = None
    socket_user: Optional[int] = None
    socket_group: Optional[int] = None
    allow_uids: Optional[frozenset[int]] = None
    lua_style: bool = True
    pdk_checks: bool = True
    kong_log_level: str = "debug"
    on_error: str = "closed"
    mode: str = "threads"
    workers: int = 0
    start_method: str = "spawn"
    worker_memory: int = 0
    threads: int = 512
    idle_timeout: float = 30.0
    event_timeout: float = 55.0
    handler_timeout: float = 0.0
    answer_timeout: float = 58.0
    graceful_timeout: float = 10.0
    max_events: int = 16384
    max_connections: int = 16384
    instance_ttl: float = 25 * 3600.0
    max_starts: int = 256
    max_message: int = MAX_MESSAGE
    max_depth: int = MAX_DEPTH
    announce_pid: bool = False
    metrics: Optional[Address] = None
    event_log: Optional[str] = None
    event_log_format: str = "text"
    event_log_slow: float = 0.0
    event_log_request_id: bool = False
    tracing: Optional[str] = None
    reload: bool = False
    directories: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in (
            "listen_queue_size", "threads", "max_events", "max_connections", "max_starts",
            "max_message", "max_depth",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in (
            "idle_timeout", "event_timeout", "handler_timeout", "answer_timeout",
            "graceful_timeout", "instance_ttl", "event_log_slow",
        ):  # fmt: skip
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must be 0 s or more, got {getattr(self, name)}")
        if self.max_depth > MAX_DEPTH_LIMIT:
            raise ConfigError(
                f"max_depth must be at most {MAX_DEPTH_LIMIT}, where msgpack ends, "
                f"got {self.max_depth}"
            )
        if self.mode not in MODES:
            raise ConfigError(f"mode must be one of {', '.join(MODES)}, got {self.mode!r}")
        if self.on_error not in POLICIES:
            raise ConfigError(
                f"on_error must be one of {', '.join(POLICIES)}, got {self.on_error!r}"
            )
        if self.kong_log_level not in LEVELS:
            raise ConfigError(
                f"kong_log_level must be one of {', '.join(LEVELS)}, got {self.kong_log_level!r}"
            )
        if not 0 <= self.workers <= MAX_WORKERS:
            raise ConfigError(f"workers must be 0 to {MAX_WORKERS}, got {self.workers}")
        if self.worker_memory:
            self._check_worker_memory()
        if self.start_method not in START_METHODS:
            raise ConfigError(
                f"start_method must be one of {', '.join(START_METHODS)}, got {self.start_method!r}"
            )
        if self.socket_mode is not None and not 0 <= self.socket_mode <= 0o777:
            raise ConfigError(f"socket_mode must be 0 to 0o777, got {self.socket_mode:#o}")
        if self.allow_uids is not None:
            self._check_peers()
        if not self.socket_names:
            raise ConfigError("socket_names must name at least one socket")
        for path in self.socket_paths:
            if len(os.fsencode(path)) > MAX_SOCKET_PATH:
                raise ConfigError(
                    f"socket path {path!r} is longer than the {MAX_SOCKET_PATH} bytes that the "
                    f"system allows: use a shorter prefix (--kong-prefix) or --socket-name"
                )

    def closes(self, policy: str) -> bool:
        """Whether requests are refused if a plugin fails.

        Args:
            policy: the plugin's own, one of :data:`POLICIES`; "" if it has none.
        """
        return (policy or self.on_error) == "closed"

    @property
    def places(self) -> int:
        """How many worker processes there may be at a time: one more while one is replaced."""
        return self.workers + (1 if self.worker_memory else 0)

    def _check_worker_memory(self) -> None:
        if self.worker_memory < 0:
            raise ConfigError(f"worker_memory must be 0 or more bytes, got {self.worker_memory}")
        if not self.workers:
            raise ConfigError(
                "--worker-memory is of use with --multiprocessing (-m) or --supervise only: add one"
            )
        if self.places > MAX_WORKERS:
            raise ConfigError(
                f"with --worker-memory there may be {MAX_WORKERS - 1} workers, got {self.workers}"
            )
        if self.reload:
            raise ConfigError(
                "--worker-memory is for production, --reload for those who write plugins: leave "
                "one of the two out"
            )
        if not os.path.exists("/proc/self/statm"):
            raise ConfigError(
                "--worker-memory is not available: this system does not tell what a process uses "
                "(/proc/PID/statm); leave it out"
            )

    def _check_peers(self) -> None:
        import socket  # the commands that print and end need none

        if not hasattr(socket, "SO_PEERCRED"):
            raise ConfigError(
                "--allow-uid is not available: this system does not tell whose a connection is; "
                "leave it out, and use --socket-mode, --socket-user and --socket-group"
            )

    @property
    def sweep_interval(self) -> float:
        """How often unused instances are looked for, seconds."""
        return min(60.0, max(1.0, self.instance_ttl / 16))

    @property
    def socket_paths(self) -> tuple[str, ...]:
        """The paths of all sockets."""
        return tuple(os.path.join(self.prefix, name) for name in self.socket_names)
