"""The flags of both plugin servers: their parsers, and what they make of the settings."""

from __future__ import annotations

import argparse
import os
from typing import Callable, Optional, TypeVar

from .config import (
    DEFAULT_PREFIX,
    LEVELS,
    LOG_FORMATS,
    MAX_WORKERS,
    POLICIES,
    START_METHODS,
    ServerConfig,
    read_address,
)
from .exception import ConfigError

#: The sockets of the directory server, under the prefix.
DIRECTORY_SOCKET = "python_pluginserver"

#: Kong's own default ends in .socket, the published Python server's in .sock: both are served.
SOCKET_SUFFIXES = (".sock", ".socket")

#: Flags that are fields of ServerConfig, with their types.
_LIMITS: tuple[tuple[str, type, str], ...] = (
    (
        "--event-timeout", float,
        "seconds that a handler waits for Kong's answer to a PDK call; Kong gives up after 60",
    ),
    (
        "--handler-timeout", float,
        "seconds that a handler may take in all; then its request is closed; 0 for no limit",
    ),
    (
        "--answer-timeout", float,
        "seconds after which Kong is not answered any more, as it does not wait; 0 for no limit",
    ),
    ("--graceful-timeout", float, "seconds that events under way may go on at a stop"),
    (
        "--max-events", int,
        "most events that run or wait for a thread, in each process; more are refused",
    ),
    (
        "--max-connections", int,
        "most connections in each process; more are accepted when others are closed",
    ),
    ("--max-message", int, "largest message, bytes; a larger one closes its connection"),
    ("--max-depth", int, "deepest nesting of a message; a deeper one closes its connection"),
)  # fmt: skip

_Given = TypeVar("_Given")
_Read = TypeVar("_Read")


def dedicated_parser(name: str, prog: Optional[str] = None) -> argparse.ArgumentParser:
    """Return the parser of a plugin that starts its own server.

    Args:
        name: the plugin's.
        prog: the command's name; None for that of the process.
    """
    parser = _parser(f"Kong plugin server of the Python plugin {name}.", prog)
    parser.add_argument(
        "--dump", "-dump", action="store_true", help="print the plugin as JSON for Kong and exit"
    )
    return parser


def directory_parser(prog: Optional[str] = None) -> argparse.ArgumentParser:
    """Return the parser of kong-python-pluginserver.

    Args:
        prog: its name; None for that of the process.
    """
    parser = _parser(
        "Kong plugin server for Python plugins: those of a folder, and installed ones.", prog
    )
    parser.add_argument(
        "-d", "--plugins-directory", "-plugins-directory", metavar="DIR", dest="directories",
        action="append", default=[],
        help="a folder of plugins, each a file or a package; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--plugin", metavar="PLUGIN", dest="plugins", action="append", default=[],
        help="one plugin: the name under which it is installed, its file, or its folder if that is "
        "a package; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--installed", action="store_true",
        help="every plugin that is installed in this Python, by its entry point in the group "
        "kong_pdk.plugins",
    )  # fmt: skip
    dumps = parser.add_mutually_exclusive_group()
    dumps.add_argument(
        "--dump-plugin-info", "-dump-plugin-info", metavar="NAME", dest="dump_name",
        help="print that plugin as JSON for Kong and exit (Kong 3.9 takes one per query)",
    )  # fmt: skip
    dumps.add_argument(
        "--dump-all-plugins", "-dump-all-plugins", action="store_true", dest="dump_all",
        help="print all plugins as JSON for Kong and exit",
    )  # fmt: skip
    return parser


def _parser(description: str, prog: Optional[str] = None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description=description, allow_abbrev=False)
    parser.add_argument(
        "-p", "--kong-prefix", "-kong-prefix", metavar="PREFIX", dest="prefix",
        default=DEFAULT_PREFIX,
        help="Kong's prefix, the folder of the sockets (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "-v", "--verbose", action="count", default=0, help="log more; may be repeated"
    )
    parser.add_argument(
        "--log-format", choices=LOG_FORMATS, default=LOG_FORMATS[0],
        help="lines of the log: text, or a JSON object each (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--version", "-version", action="store_true",
        help="print the version and exit; with -v also the build of the codec",
    )  # fmt: skip
    parser.add_argument(
        "--socket-name", metavar="NAME", help="serve only the socket of this name under the prefix"
    )
    parser.add_argument(
        "--listen-queue-size", metavar="N", type=int, default=ServerConfig.listen_queue_size,
        help="connections that wait to be accepted (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--socket-mode", metavar="MODE",
        help="permissions of the sockets, in octal as for chmod; whoever may write may connect "
        "(default: what the umask leaves to owner and group, none for others)",
    )  # fmt: skip
    parser.add_argument(
        "--socket-user", metavar="USER",
        help="owner of the sockets, a name or a number (default: the server's user)",
    )  # fmt: skip
    parser.add_argument(
        "--socket-group", metavar="GROUP",
        help="group of the sockets, a name or a number (default: the server's group)",
    )  # fmt: skip
    parser.add_argument(
        "--allow-uid", metavar="USER", action="append",
        help="take connections of this user only, a name or a number, and of the server's own; "
        "several between commas, or by several flags (default: of all who can connect)",
    )  # fmt: skip
    parser.add_argument(
        "--threads", metavar="N", type=int,
        help="most handlers that run at the same time, each in a thread of its own; further events "
        f"wait (default: {ServerConfig.threads})",
    )  # fmt: skip
    parser.add_argument(
        "--instance-ttl", metavar="SECONDS", type=float, default=ServerConfig.instance_ttl,
        help="close and forget an instance that has had no event for so long; Kong starts it again "
        "when it is needed (default: %(default)g; 0: never)",
    )  # fmt: skip
    parser.add_argument(
        "--max-starts", metavar="N", type=int,
        help="most instances of one plugin that are being started at the same time in one process "
        f"(default: half of --threads, {ServerConfig.max_starts} with --gevent)",
    )  # fmt: skip
    parser.add_argument(
        "--no-lua-style", action="store_false", dest="lua_style",
        help="PDK calls return data and raise PDKException, in place of (data, err)",
    )  # fmt: skip
    parser.add_argument(
        "--no-pdk-checks", action="store_false", dest="pdk_checks",
        help="send PDK calls as they are; what Kong would not take then ends the event in Kong",
    )  # fmt: skip
    parser.add_argument(
        "--kong-log-level", choices=LEVELS, default=ServerConfig.kong_log_level,
        help="drop the lines that plugins log below this level, without asking Kong "
        "(default: %(default)s, everything is sent)",
    )  # fmt: skip
    parser.add_argument(
        "--on-error", choices=POLICIES, default=ServerConfig.on_error,
        help="what becomes of a request whose plugin fails: it is refused with status 500, or goes "
        "on; a plugin's own on_error comes first (default: %(default)s)",
    )  # fmt: skip
    for flag, kind, text in _LIMITS:
        default = getattr(ServerConfig, _field(flag))
        parser.add_argument(
            flag, metavar="S" if kind is float else "N", type=kind, default=default,
            help=f"{text} (default: {default:{'g' if kind is float else 'd'}})",
        )  # fmt: skip
    parser.add_argument(
        "--announce-pid", action="store_true",
        help="tell Kong this server's pid on each connection, so that it drops the instances of a "
        "former one at once (not needed: ids are never used again)",
    )  # fmt: skip
    parser.add_argument(
        "--metrics", metavar="ADDRESS",
        help="serve metrics to Prometheus there: HOST:PORT, :PORT for this machine alone, or "
        "unix:/path; needs the extra kong-pdk[metrics] (default: nowhere)",
    )  # fmt: skip
    parser.add_argument(
        "--event-log", metavar="FILE",
        help="write a line for each event there, as --log-format says; - is standard output "
        "(default: nowhere)",
    )  # fmt: skip
    parser.add_argument(
        "--event-log-slow", metavar="S", type=float,
        help="with --event-log: lines for events that take S seconds or longer, or that do not end "
        "well, only (default: for all)",
    )  # fmt: skip
    parser.add_argument(
        "--event-log-request-id", action="store_true",
        help="with --event-log: ask Kong for the id of the request, one PDK call more for each",
    )  # fmt: skip
    parser.add_argument(
        "--tracing", metavar="URL",
        help="send a span of each event to this OpenTelemetry collector, as in "
        "http://127.0.0.1:4318, or, with the word env, where the environment's OTEL_* variables "
        "say; needs the extra kong-pdk[tracing] (default: nowhere)",
    )  # fmt: skip
    parser.add_argument(
        "--reload", action="store_true",
        help="take over the changed code of plugins while the server runs, for those who write "
        "them; needs the extra kong-pdk[reload]",
    )  # fmt: skip
    parser.add_argument(
        "-g", "--gevent", action="store_true",
        help="run handlers in greenlets; needs the extra kong-pdk[gevent]",
    )  # fmt: skip
    parser.add_argument(
        "-m", "--multiprocessing", action="store_true",
        help="run handlers in worker processes; with -g in greenlets there, else in threads",
    )  # fmt: skip
    parser.add_argument(
        "--supervise", action="store_true",
        help="run handlers in one worker process, which is replaced when it dies: calls wait for "
        "the next one, and what it had to answer is refused; -m does so in any case",
    )  # fmt: skip
    parser.add_argument(
        "--workers", metavar="N", type=int,
        help="with -m: how many worker processes (default: the cores that may be used)",
    )  # fmt: skip
    parser.add_argument(
        "--worker-memory", metavar="MIB", type=int,
        help="with -m or --supervise: a worker process that uses more memory makes room for a new "
        "one, with no request lost (default: it may use what it likes)",
    )  # fmt: skip
    parser.add_argument(
        "--start-method", choices=START_METHODS,
        help="with -m or --supervise: start workers in a new Python, or as copies of the main "
        "process "
        f"(default: {START_METHODS[0]})",
    )  # fmt: skip
    return parser


def _field(flag: str) -> str:
    """The name of a flag's value."""
    return flag[2:].replace("-", "_")


def _count_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def make_config(args: argparse.Namespace, stem: str) -> ServerConfig:
    """The settings that flags ask for.

    Args:
        args: what a parser of this module has read.
        stem: of the sockets' names, unless a flag names one.

    Raises:
        ConfigError: they do not go together, or a value is out of range.
    """
    from . import accounts

    workers = 1 if args.supervise else 0
    if args.multiprocessing:
        workers = min(_count_cores(), MAX_WORKERS) if args.workers is None else args.workers
        if not 1 <= workers <= MAX_WORKERS:
            raise ConfigError(f"--workers must be 1 to {MAX_WORKERS}, got {workers}")
    if args.workers is not None and not args.multiprocessing:
        raise ConfigError("--workers is of use with --multiprocessing (-m) only: add that flag")
    if args.start_method is not None and not workers:
        raise ConfigError(
            "--start-method is of use with --multiprocessing (-m) or --supervise only: add one"
        )
    if args.worker_memory is not None and args.worker_memory < 1:
        raise ConfigError(f"--worker-memory must be at least 1 MiB, got {args.worker_memory}")
    if not os.path.isdir(args.prefix):
        raise ConfigError(
            f"folder {args.prefix} does not exist, so no socket can be created there: create it, "
            f"or name Kong's prefix with --kong-prefix"
        )
    threads = ServerConfig.threads if args.threads is None else args.threads
    if threads < 1:
        raise ConfigError(f"--threads must be at least 1, got {threads}")
    if args.gevent and args.threads is not None:
        raise ConfigError(
            "--threads limits the threads of handlers, but with --gevent they run in greenlets: "
            "leave one of the two flags out"
        )
    if not args.instance_ttl >= 0:
        raise ConfigError(
            f"--instance-ttl must be 0 or more seconds, got {args.instance_ttl:g} "
            f"(0: instances are kept until Kong closes them)"
        )
    max_starts = max(1, threads // 2) if args.max_starts is None else args.max_starts
    if max_starts < 1:
        raise ConfigError(f"--max-starts must be at least 1, got {max_starts}")
    if args.event_log is None and (args.event_log_slow is not None or args.event_log_request_id):
        flag = "--event-log-request-id" if args.event_log_request_id else "--event-log-slow"
        raise ConfigError(f"{flag} is of use with --event-log only: add that flag")
    names = tuple(f"{stem}{suffix}" for suffix in SOCKET_SUFFIXES)  # load() checks the name
    if args.socket_name is not None:
        if not args.socket_name or os.path.basename(args.socket_name) != args.socket_name:
            raise ConfigError(f"--socket-name must be a file's name, got {args.socket_name!r}")
        names = (args.socket_name,)
    return ServerConfig(
        prefix=args.prefix,
        socket_names=names,
        socket_mode=_read(accounts.read_mode, "--socket-mode", args.socket_mode),
        socket_user=_read(accounts.find_user, "--socket-user", args.socket_user),
        socket_group=_read(accounts.find_group, "--socket-group", args.socket_group),
        allow_uids=_read(accounts.find_users, "--allow-uid", args.allow_uid),
        mode="gevent" if args.gevent else "threads",
        threads=threads,
        instance_ttl=args.instance_ttl,
        max_starts=max_starts,
        workers=workers,
        start_method=args.start_method or START_METHODS[0],
        worker_memory=(args.worker_memory or 0) << 20,
        listen_queue_size=args.listen_queue_size,
        lua_style=args.lua_style,
        pdk_checks=args.pdk_checks,
        kong_log_level=args.kong_log_level,
        on_error=args.on_error,
        **{
            name: getattr(args, name)
            for name in (flag[2:].replace("-", "_") for flag, *_ in _LIMITS)
        },
        announce_pid=args.announce_pid,
        metrics=None if args.metrics is None else read_address(args.metrics),
        event_log=_log_path(args.event_log),
        event_log_format=args.log_format,
        event_log_slow=args.event_log_slow or 0.0,
        event_log_request_id=args.event_log_request_id,
        tracing=args.tracing,
        reload=args.reload,
        directories=tuple(map(os.path.abspath, getattr(args, "directories", ()))),
    )


def _log_path(given: Optional[str]) -> Optional[str]:
    """Where the event log goes, for a server that may work in another folder."""
    if given == "":
        raise ConfigError("--event-log wants the path of a file, or - for standard output, got ''")
    return given if given in (None, "-") else os.path.abspath(given)


def _read(
    read: Callable[[str, _Given], _Read], flag: str, given: Optional[_Given]
) -> Optional[_Read]:
    """What a flag says, None if it is not there."""
    return None if given is None else read(flag, given)
