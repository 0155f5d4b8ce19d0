"""The plugin server of a test, seen from inside: what its process runs.

The process is an embedded server of the plugin that the test names, started by a script that
:mod:`.live` writes. It ends when the process of the tests does, however that ends.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

from .. import _again
from ..cli import start_dedicated_server, start_server
from .plugins import load_leniently

#: How often it is looked whether the process of the tests is still there, seconds.
WATCH = 0.5
#: How long an orderly stop may take then, seconds.
STOP_LIMIT = 3.0

#: What the script is made of.
SCRIPT = """\
import sys
settings = {settings!r}
sys.path[:] = settings["path"]
from kong_pdk.testing.launcher import main
main(settings)
"""


def main(settings: dict[str, Any]) -> NoReturn:
    """Serve a plugin.

    Args:
        settings: ``parent``, the process of the tests; ``plugin``, a path or the name of an
            installed one, or ``class``, its module, file and qualified name; and ``complete``,
            ``name``, ``version``, ``priority`` and ``schema`` as :class:`.Target` has them.
    """
    if "worker" not in _again.get_purpose():  # workers watch the server
        _watch(settings["parent"])
    if settings["complete"]:
        start_server(["--plugin", settings["plugin"], *sys.argv[1:]])
    schema = settings["schema"]
    if "class" in settings:
        factory = find_class(*settings["class"])
    else:
        plugin = load_leniently(settings["plugin"], schema)
        factory, schema = plugin.factory, plugin.stated
    start_dedicated_server(
        settings["name"], factory, settings["version"], settings["priority"], schema
    )


def find_class(module: str, file: str, qualname: str) -> type:
    """Return a class of a module that may not be importable by its name."""
    found: Any = _import(module, file)
    for name in qualname.split("."):
        found = getattr(found, name)
    assert isinstance(found, type)
    return found


def _import(name: str, file: str) -> Any:
    if name != "__main__":
        try:
            found = importlib.import_module(name)
        except ImportError:  # pytest has its own ways to import a test's file
            pass
        else:
            there = getattr(found, "__file__", None)
            if there is not None and Path(there).resolve() == Path(file).resolve():
                return found
    else:
        name = "kong_pdk_tested_main"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"Python cannot import {file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)  # pyright: ignore[reportAttributeAccessIssue]  # of 3.9
    return module


def _watch(parent: int) -> None:
    def wait_for_its_end() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH)
        # The script's own folder: nobody else is left to remove it.
        shutil.rmtree(os.path.dirname(sys.argv[0]), ignore_errors=True)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(STOP_LIMIT)
        os.killpg(0, signal.SIGKILL)  # it leads a group of its own

    threading.Thread(target=wait_for_its_end, name="kong-pdk-watch", daemon=True).start()
