"""``kong-pdk new``: a plugin with its test, ready to run."""

from __future__ import annotations

import argparse
import importlib.util
import keyword
import os
import re
import shlex
import sys
from string import Template
from typing import Optional

from .. import __version__
from ..checking.findings import shown_path
from ..kongconf.releases import release

EPILOG = """\
Writes a folder with a plugin, whose configuration is a dataclass and whose handlers are typed, its
test, a pyproject.toml and a README with the commands to run it. Nothing that is there is
overwritten. With --package it is a distribution with an entry point: after "pip install" the plugin
is known by its name, wherever its files are.

examples:
  kong-pdk new my-plugin && cd my-plugin && pytest
  kong-pdk new my-plugin --package -d ~/src/my-plugin
"""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "templates")


class Refused(Exception):
    """Nothing is written; the text says why, and what to do."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's arguments to its parser."""
    parser.add_argument("name", metavar="NAME", help="the plugin's name, as Kong will know it")
    parser.add_argument(
        "-d", "--directory", metavar="DIR", help="the folder to write (default: NAME, here)"
    )
    parser.add_argument(
        "--package", action="store_true",
        help="a distribution that pip can install, with an entry point",
    )  # fmt: skip
    parser.add_argument(
        "--python-style", action="store_true",
        help="PDK calls return data alone and raise, for a server with --no-lua-style",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run the subcommand.

    Returns:
        0 if all files have been written, 1 if none has.
    """
    try:
        module = module_name(args.name)
        files = contents(args.name, module, args.package, args.python_style)
        folder = os.path.abspath(args.directory or args.name)
        write(folder, files)
    except Refused as exc:
        print(f"kong-pdk new: {exc}", file=sys.stderr)
        return 1
    except OSError as exc:
        if exc.filename is None:  # the current folder is gone, which any command says
            raise
        print(f"kong-pdk new: cannot write {exc.filename}: {exc.strerror}", file=sys.stderr)
        return 1
    shown = shown_path(folder)
    for path in files:
        print(os.path.join(shown, path))
    print(f"\nNext: cd {shlex.quote(shown)} && {_install(args.package)} && pytest")
    return 0


def module_name(name: str) -> str:
    """The Python module of a plugin.

    Raises:
        Refused: Kong or Python would not take the name.
    """
    if not _NAME.fullmatch(name):
        raise Refused(
            f"a plugin's name must consist of letters, digits, - and _ and begin with a letter or "
            f"digit, got {name!r}"
        )
    if release().bundles(name):
        raise Refused(f"Kong has a plugin {name} of its own and would take that one: use another")
    module = name.replace("-", "_").lower()
    if not module.isidentifier():  # it begins with a digit
        module = f"plugin_{module}"
    if keyword.iskeyword(module) or module in sys.builtin_module_names or _is_taken(module):
        raise Refused(
            f"{name!r} would be the Python module {module}, which is another one already: use a "
            f"name like my-{name}"
        )
    return module


def _is_taken(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def contents(name: str, module: str, package: bool, python_style: bool) -> dict[str, str]:
    """The files of a new plugin: paths within its folder, and texts."""
    title = f'"""{name}, a plugin for Kong Gateway: tells the service a message."""'
    options = ", python_style=True" if python_style else ""
    target = name if package else f"{module}.py"
    values = {
        "name": name,
        "module": module,
        "dist": name.lower().replace("_", "-").strip("-"),
        "pdk": __version__,
        "stub": f"from kong_pdk.pdk import {'python_style as ' if python_style else ''}kong",
        "get_path": ("path" if python_style else "path, _") + " = kong.request.get_path()",
        "get_status": ("status" if python_style else "status, _") + " = kong.response.get_status()",
        "head": title if package else f"#!/usr/bin/env python3\n{title}",
        "imports": f"\nfrom {module} import Plugin\n" if package else "",
        "plugin": "Plugin" if package else f'"{module}.py"',
        "options": options,
        "target": target,
        "try_args": " --server-args=--no-lua-style" if python_style else "",
        "install": f"In a virtual environment, once:\n\n```sh\n{_install(package)}\n```",
    }
    if package:
        return {
            "pyproject.toml": _fill("package/pyproject.toml", values),
            "README.md": _fill("README.md", values),
            f"src/{module}/__init__.py": _fill("package/__init__.py", values),
            f"src/{module}/plugin.py": _fill("plugin.py", values),
            f"src/{module}/py.typed": "",
            "tests/test_plugin.py": _fill("test_plugin.py", values),
        }
    return {
        f"{module}.py": _fill("plugin.py", values) + _fill("plain/main", values),
        f"test_{module}.py": _fill("test_plugin.py", values),
        "pyproject.toml": _fill("plain/pyproject.toml", values),
        "README.md": _fill("README.md", values),
    }


def _install(package: bool) -> str:
    """What installs all that is needed. The version tells this package from the published one."""
    return (
        "pip install -e '.[dev]'"
        if package
        else f"pip install 'kong-pdk[try]>={__version__}' pytest"
    )


def _fill(template: str, values: dict[str, str]) -> str:
    with open(os.path.join(_FOLDER, f"{template}.tmpl"), encoding="utf-8") as file:
        return Template(file.read()).substitute(values)


def write(folder: str, files: dict[str, str], mode: Optional[int] = 0o755) -> None:
    """Write files into a folder, all or none.

    Args:
        folder: is made if it is not there.
        files: paths within it, and texts.
        mode: of a file that can be run.

    Raises:
        Refused: one of them is there already.
        OSError: something cannot be written.
    """
    there = [path for path in files if os.path.lexists(os.path.join(folder, path))]
    if there:
        raise Refused(
            f"{shown_path(os.path.join(folder, there[0]))} is there already and is left as it is: "
            f"name another folder with --directory"
        )
    for path, text in files.items():
        place = os.path.join(folder, path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "x", encoding="utf-8") as file:
            file.write(text)
        if mode is not None and text.startswith("#!"):
            os.chmod(place, mode)
