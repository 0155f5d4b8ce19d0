"""Why a plugin cannot be loaded, read from real output."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from kong_pdk.gateway.causes import find_cause


def output(folder: Path, source: str) -> str:
    path = folder / "plugin.py"
    path.write_text(source)
    command = [sys.executable, str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stderr


def test_the_last_line_of_the_authors_own(tmp_path: Path) -> None:
    text = output(tmp_path, "import json\nprint('x')\njson.loads('{')\n")
    cause = find_cause(text.splitlines(), "plugin.py", str(tmp_path))
    assert cause is not None
    assert cause.startswith("json.decoder.JSONDecodeError: Expecting")
    assert cause.endswith(f"({tmp_path}/plugin.py, line 3)")


def test_the_last_exception_counts(tmp_path: Path) -> None:
    source = "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise KeyError('k') from e\n"
    cause = find_cause(output(tmp_path, source).splitlines(), "plugin.py", str(tmp_path))
    assert cause == f"KeyError: 'k' ({tmp_path}/plugin.py, line 4)"


def test_an_exception_without_a_text(tmp_path: Path) -> None:
    cause = find_cause(output(tmp_path, "assert False\n").splitlines(), "plugin.py", str(tmp_path))
    assert cause == f"AssertionError ({tmp_path}/plugin.py, line 1)"


def test_what_the_command_says_itself_comes_first() -> None:
    lines = ["Traceback (most recent call last):", '  File "/a/p.py", line 7, in g', "NameError: x"]
    assert find_cause(lines, "server", "/a") == "NameError: x (/a/p.py, line 7)"
    assert find_cause([*lines, "server: no version"], "server", "/a") == "no version"
    assert (
        find_cause([*lines, "printed: later"], "server", "/a") == "NameError: x (/a/p.py, line 7)"
    )
    assert find_cause(["nothing of the kind"], "server", "/") is None
    assert find_cause([], "server", "/") is None
