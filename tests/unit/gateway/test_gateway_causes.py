"""Why a plugin cannot be loaded, read from real output."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from kong_pdk.gateway.causes import find_cause, read_output


def output(folder: Path, source: str) -> str:
    path = folder / "plugin.py"
    path.write_text(source)
    command = [sys.executable, str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stderr


def test_the_last_line_of_the_authors_own(tmp_path: Path) -> None:
    text = output(tmp_path, "import json\nprint('x')\njson.loads('{')\n")
    cause = find_cause(read_output(text).tracebacks, str(tmp_path))
    assert cause is not None
    assert cause.startswith("json.decoder.JSONDecodeError: Expecting")
    assert cause.endswith(f"({tmp_path}/plugin.py:3)")


def test_the_last_exception_counts(tmp_path: Path) -> None:
    source = "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise KeyError('k') from e\n"
    cause = find_cause(output(tmp_path, source).splitlines(), str(tmp_path))
    assert cause == f"KeyError: 'k' ({tmp_path}/plugin.py:4)"


def test_an_exception_without_a_text(tmp_path: Path) -> None:
    cause = find_cause(output(tmp_path, "assert False\n").splitlines(), str(tmp_path))
    assert cause == f"AssertionError ({tmp_path}/plugin.py:1)"


def test_the_servers_own_error_is_second_best() -> None:
    lines = [
        "Traceback (most recent call last):",
        '  File "/x/plugins.py", line 1, in f',
        "kong_pdk.exception.PluginError: p.py: version is missing",
    ]
    assert find_cause(lines, "/") == "p.py: version is missing"
    theirs = [lines[0], '  File "/a/p.py", line 7, in g', "NameError: x", "", *lines]
    assert find_cause(theirs, "/a") == "NameError: x (/a/p.py:7)"
    assert find_cause(["nothing of the kind"], "/") is None


def test_log_lines_are_told_from_the_rest() -> None:
    record = {
        "logger": "kong_pdk.server",
        "level": "debug",
        "message": "cause",
        "exception": "a\nb",
    }
    told = read_output(
        "\n".join(
            [
                "printed",
                json.dumps(record),
                json.dumps({**record, "level": "warning", "message": "skipped", "exception": ""}),
                '{"a": 1}',
                "{broken",
            ]
        )
    )
    assert told.lines == ["printed", "[WARNING] skipped", '{"a": 1}', "{broken"]
    assert told.tracebacks == ["printed", "a", "b", '{"a": 1}', "{broken"]
