"""The two plugin servers that Kong starts: one plugin in its own file, and any number of them.

    python my-plugin.py                     a plugin that calls start_dedicated_server
    kong-python-pluginserver -d DIR         every plugin of a folder
    kong-python-pluginserver --plugin NAME  a plugin that is installed

Exit status: 0 at the end or after a dump, 1 for anything that went wrong, 2 for wrong flags.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Callable, NoReturn, Optional, TextIO

from . import __version__, is_compiled
from .config import ServerConfig
from .exception import ConfigError, KongPDKError
from .flags import DIRECTORY_SOCKET, dedicated_parser, directory_parser, make_config

# All else is imported where it is used: Kong waits for these commands, some of which only print.
if TYPE_CHECKING:
    from .plugins import Plugin

#: How long threads that a plugin left behind may hold up the end of the process, seconds.
EXIT_PATIENCE = 3.0


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


def _dump_all(plugins: dict[str, Plugin]) -> list[Plugin]:
    return list(plugins.values())


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
            config = make_config(args, stem)
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
