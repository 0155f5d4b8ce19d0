"""The C programs of the benchmarks: the load client, and the floor beneath all servers."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Optional

SOURCES = Path(__file__).resolve().parents[1] / "native"
FLAGS = ("-O2", "-Wall", "-Wextra", "-Werror", "-pthread")


class LoadError(Exception):
    """The load client could not run, or did not end."""


def compiler() -> Optional[str]:
    """The C compiler, if there is one: that of ``CC``, or ``cc``."""
    return shutil.which(os.environ.get("CC", "cc"))


def build(name: str) -> Path:
    """Compile ``native/<name>.c``, unless that has been done.

    The program lies in the virtual environment, or with the temporary files where there is none.

    Raises:
        RuntimeError: there is no compiler, or it refuses the source.
    """
    cc = compiler()
    if cc is None:
        raise RuntimeError("there is no C compiler: on Debian, apt-get install gcc libc6-dev")
    digest = hashlib.sha256(" ".join((cc, *FLAGS)).encode())
    for source in sorted((*SOURCES.glob("*.h"), SOURCES / f"{name}.c")):
        digest.update(source.read_bytes())
    in_venv = sys.prefix != sys.base_prefix
    folder = Path(sys.prefix if in_venv else tempfile.gettempdir()) / "kong-pdk-bench"
    program = folder / f"{name}-{digest.hexdigest()[:16]}"
    if not program.exists():
        folder.mkdir(exist_ok=True)
        unfinished = folder / f"{program.name}.{os.getpid()}"  # others may do the same just now
        command = [cc, *FLAGS, "-o", str(unfinished), str(SOURCES / f"{name}.c")]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
        unfinished.rename(program)
    return program


def load(socket: str, *arguments: str, patience: float = 60.0) -> dict[str, Any]:
    """Run the load client to its end.

    Args:
        socket: of the server.
        arguments: further options, see ``load --help``.
        patience: how long the client may take before it is killed, seconds.

    Returns:
        What it has measured; ``first_error`` is added if there were errors.

    Raises:
        LoadError: it could not start, or did not end.
    """
    command = [str(build("load")), "--socket", socket, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience)
    except subprocess.TimeoutExpired:
        raise LoadError(f"the load client has not ended within {patience:g} s") from None
    if done.returncode not in (0, 1) or not done.stdout:
        raise LoadError(done.stderr.strip() or f"the load client ended with {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout)
    if result["errors"]:
        result["first_error"] = done.stderr.strip()
    return result
