"""Type checkers as their users run them, on the package as it is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Optional

import pytest

#: Seconds that a checker may take; it needs a few.
LIMIT = 110


class Problem(NamedTuple):
    """An error that a type checker reports."""

    file: str
    line: int
    message: str


def need(module: str) -> None:
    """Skip the test if a type checker is not installed; fail where that must not be."""
    if importlib.util.find_spec(module) is None:
        text = f"{module} is not installed: pip install 'kong-pdk[types]'"
        if os.environ.get("KONG_PDK_REQUIRE_E2E", "0") not in ("", "0"):
            pytest.fail(text)
        pytest.skip(text)


def run(
    *arguments: str, cwd: Path, env: Optional[Mapping[str, str]] = None
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m`` with these arguments in a folder outside of the checkout."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("KONG_", "MYPY", "PYTHON"))
    }
    # Without that, pyright looks for a newer release.
    kept["PYRIGHT_PYTHON_IGNORE_WARNINGS"] = "1"
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=cwd,
        env={**kept, **(env or {})},
        capture_output=True,
        encoding="utf-8",
        timeout=LIMIT,
    )


def mypy(folder: Path, *paths: str) -> list[Problem]:
    """What mypy finds, with the folder's ``mypy.ini``; it must find something."""
    need("mypy")
    options = ("--config-file", "mypy.ini", "--cache-dir", "cache", "--output", "json")
    done = run("mypy", *options, *paths, cwd=folder)
    assert done.returncode == 1, done.stdout + done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return [
        Problem(one["file"], one["line"], one["message"])
        for one in found
        if one["severity"] == "error"
    ]


def pyright(folder: Path) -> list[Problem]:
    """What pyright finds, with the folder's ``pyrightconfig.json``; it must find something."""
    need("pyright")
    done = run("pyright", "--outputjson", "--pythonpath", sys.executable, cwd=folder)
    assert done.returncode == 1, done.stdout + done.stderr
    return [
        Problem(
            str(Path(one["file"]).relative_to(folder)),
            one["range"]["start"]["line"] + 1,
            one["message"],
        )
        for one in json.loads(done.stdout)["generalDiagnostics"]
        if one["severity"] == "error"
    ]
