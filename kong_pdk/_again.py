"""Starting this program once more in a fresh interpreter, with something done first.

The gevent mode has to patch Python before the script imports anything, and a worker process is the
same script with another purpose. So the script need not be importable, and nothing is pickled.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
from typing import Any, NoReturn

from .config import MODES
from .exception import ConfigError

#: What the process starts with: no ``-m``, which would look for modules in the current folder.
_START = """\
import sys
early = list(sys.modules)
del sys.path[0]
sys.path.append(sys.argv[1])
from kong_pdk._again import main
main(early)
"""

_purpose: dict[str, Any] = {}


def command(**purpose: Any) -> list[str]:
    """The command line that runs this program again.

    Args:
        purpose: what :func:`get_purpose` is to return there; ``mode`` is to patch Python first if
            that mode needs it.

    Raises:
        ConfigError: the process has no script that could be run again.
    """
    script = sys.argv[0]
    if not os.path.isfile(script):
        raise ConfigError(
            f"the flags -g and -m need to run the script again in a new Python, but {script!r} is "
            f"none: write the program to a file"
        )
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return [
        sys.executable, "-c", _START, home, json.dumps(purpose), script, *sys.argv[1:],
    ]  # fmt: skip


def replace(**purpose: Any) -> NoReturn:
    """Replace this process by one that runs this program again; see :func:`command`.

    Raises:
        ConfigError: the process has no script that could be run again.
    """
    arguments = command(**purpose)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(arguments[0], arguments)


def get_purpose() -> dict[str, Any]:
    """What this process was started again for; empty if it was not."""
    return _purpose


def main(early: list[str]) -> None:
    """Do what the purpose wants, then run the script.

    Args:
        early: the modules that Python had imported at its start, before anything of ours.
    """
    _purpose.update(json.loads(sys.argv[2]))
    del sys.argv[:3]
    script = sys.argv[0]
    if "mode" in _purpose:
        try:
            importlib.import_module(MODES[_purpose["mode"]]).Mode.patch(early)
        except ConfigError as exc:  # the library that it needs is broken
            sys.exit(f"{os.path.basename(script)}: {exc}")
    sys.path.insert(0, os.path.dirname(os.path.realpath(script)))  # as Python does it
    runpy.run_path(script, run_name="__main__")
