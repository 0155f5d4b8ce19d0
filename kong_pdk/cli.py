"""The two plugin servers that Kong starts: one plugin in its own file, and any number of them.

    python my-plugin.py                     a plugin that calls start_dedicated_server
    kong-python-pluginserver -d DIR         every plugin of a folder
    kong-python-pluginserver --plugin NAME  a plugin that is installed

Exit status: 0 at the end or after a dump, 1 for anything that went wrong, 2 for wrong flags.

A few lines over 500: the flags of both, each with its help, stand here in one list.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Callable, NoReturn, Optional, TextIO, TypeVar

from . import __version__, is_compiled
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
from .exception import ConfigError, KongPDKError

# All else is imported where it is used: Kong waits for these commands, some of which only print.
if TYPE_CHECKING:
    from .plugins import Plugin

#: The sockets of the directory server, under the prefix.
DIRECTORY_SOCKET = "python_pluginserver"

#: Kong's own default ends in .socket, the published Python server's in .sock: both are served.
SOCKET_SUFFIXES = (".sock", ".socket")

#: How long threads that a plugin left behind may hold up the end of the process, seconds.
EXIT_PATIENCE = 3.0

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


def start_dedicated_server(
    name: str,
    plugin: type,
    version: Optional[str] = None,
    priority: Optional[int] = 0,
    schema: Optional[Sequence[Any]] = None,
    *,
    _version: Optional[str] = None,
    _priority: Optional[int] = None,
    _schema: Optional[Sequence[Any]] = None,
) -> NoReturn:
    """Be a plugin server for one plugin, with the flags of the command line; never returns.

    To be called at the end of a plugin's own file. ``<prefix>/<name>.sock`` and
    ``<prefix>/<name>.socket`` are served unless ``--socket-name`` names one.

    Args:
        name: the plugin's name in kong.conf, unique among Kong's plugins.
        plugin: its class.
        version: three numbers, ``"1.0.0"``.
        priority: plugins of higher priority run first.
        schema: the fields of its configuration; the ``Schema`` of the class's module if left out.
        _version, _priority, _schema: what the published package calls the three.

    Raises:
        SystemExit: always; the status is 0 after a dump or an orderly end, 1 after an error.
    """
    version = version if _version is None else _version
    priority = priority if _priority is None else _priority
    schema = schema if _schema is None else _schema
    parser = dedicated_parser(name)
    args = parser.parse_args()
    if args.version:
        _print_version(parser, args)

    from .plugins import embedded

    code = embedded.start(name, plugin, version, priority, schema)

    def load() -> dict[str, Plugin]:
        # In a worker that was forked the script was run before that.
        found = code.load_present() if args.reload else code.load()
        return {found.name: found}

    _main(args, load, _dump_all if args.dump else None, stem=name)


def start_server(argv: Optional[Sequence[str]] = None) -> NoReturn:
    """The console script kong-python-pluginserver: serve plugins, of a folder, say; never returns.

    Args:
        argv: the flags; those of the process if None.

    Raises:
        SystemExit: always; the status is 0 after a dump or an orderly end, 1 after an error, 2 for
            wrong flags.
    """
    parser = directory_parser()
    args = parser.parse_args(argv)
    if args.version:
        _print_version(parser, args)
    if not (args.directories or args.plugins or args.installed):
        parser.error(
            "the plugins are missing: name their folder with -d DIR, or one with --plugin PLUGIN, "
            "or take all that are installed with --installed"
        )
    places = [*args.directories, *args.plugins, *(["what is installed"] if args.installed else [])]

    def dump_one(plugins: dict[str, Plugin]) -> list[Plugin]:
        if args.dump_name not in plugins:
            known = ", ".join(sorted(plugins)) or "none"
            where = ", ".join(places)
            raise ConfigError(f"no plugin {args.dump_name!r} in {where} (found: {known})")
        return [plugins[args.dump_name]]

    dump = dump_one if args.dump_name is not None else _dump_all if args.dump_all else None

    def load() -> dict[str, Plugin]:
        from .plugins.loading import load_places

        return load_places(args.directories, args.plugins, args.installed, fresh=args.reload)

    _main(args, load, dump, stem=DIRECTORY_SOCKET)


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


def _dump_all(plugins: dict[str, Plugin]) -> list[Plugin]:
    return list(plugins.values())


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
        "--start-method", choices=START_METHODS,
        help="with -m or --supervise: start workers in a new Python, or as copies of the main "
        "process "
        f"(default: {START_METHODS[0]})",
    )  # fmt: skip
    return parser


def _field(flag: str) -> str:
    """The name of a flag's value."""
    return flag[2:].replace("-", "_")


def _print_version(parser: argparse.ArgumentParser, args: argparse.Namespace) -> NoReturn:
    text = f"{parser.prog} {__version__}"
    if args.verbose:
        python = ".".join(map(str, sys.version_info[:3]))
        text += f" ({'compiled' if is_compiled() else 'pure-Python'} codec, Python {python})"
    print(text)
    sys.exit(0)


def _main(
    args: argparse.Namespace,
    load: Callable[[], dict[str, Plugin]],
    dump: Optional[Callable[[dict[str, Plugin]], list[Plugin]]],
    stem: str,
) -> NoReturn:
    """Load, then dump or serve; turns errors into a line on standard error and status 1."""
    from . import logs

    logs.configure(args.verbose, args.log_format)
    try:
        if dump is not None:
            with _output_aside() as output:
                import json

                # Nothing is written until all of it is known to be good.
                text = json.dumps([plugin.describe() for plugin in dump(load())])
                output.write(text + "\n")
        else:
            config = _config(args, stem)
            _serve(load, config)
            _exit_soon()
    except KongPDKError as exc:
        name = os.path.basename(sys.argv[0])
        print(f"{'kong_pdk' if name == '__main__.py' else name}: {exc}", file=sys.stderr)
        sys.exit(1)
    sys.exit(0)


def _serve(load: Callable[[], dict[str, Plugin]], config: ServerConfig) -> None:
    """Serve to the end, in this process or in workers."""
    from .modes import check_gil, check_mode, load_mode, starts_anew

    check_gil()
    if config.reload:
        from .plugins.watching import check_watchfiles

        check_watchfiles()
        # What Python keeps of a file is told from its successor by the second only.
        sys.dont_write_bytecode = True
    if config.workers:
        from .processes import run

        run(load, config)
        return
    check_mode(config.mode)
    if starts_anew(config.mode):
        from . import _again

        _again.replace(mode=config.mode)
    from .server.lifecycle import serve

    load_mode(config.mode).prepare()
    serve(load(), config)


def _count_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _config(args: argparse.Namespace, stem: str) -> ServerConfig:
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
        reload=args.reload,
        directories=tuple(map(os.path.abspath, getattr(args, "directories", ()))),
    )


def _read(
    read: Callable[[str, _Given], _Read], flag: str, given: Optional[_Given]
) -> Optional[_Read]:
    """What a flag says, None if it is not there."""
    return None if given is None else read(flag, given)


@contextlib.contextmanager
def _output_aside() -> Iterator[TextIO]:
    """Keep standard output for what is written to the result; all else goes to standard error.

    What a plugin has printed while it was imported is still in Python's buffer, unless it was more
    than that holds or was flushed: it goes to standard error too.
    """
    sys.stderr.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    sys.stdout.flush()
    with open(kept, "w", encoding="utf-8") as output:
        yield output


def _exit_soon() -> None:
    """See that threads of a plugin which never end do not keep the process."""
    import threading
    import time

    def end() -> None:
        time.sleep(EXIT_PATIENCE)
        os._exit(0)

    threading.Thread(target=end, daemon=True).start()
