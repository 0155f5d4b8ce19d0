"""The guide to testing: what it shows is run as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "testing.md"
BLOCKS = re.findall(r"```python\n# (\S+\.py)\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("options", [(), ("--kong-modes", "threads")])
def test_the_guides_own_tests(tmp_path: Path, options: tuple[str, ...]) -> None:
    assert len(BLOCKS) == GUIDE.read_text("utf-8").count("```python")
    for name, text in BLOCKS:
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error",
            "--strict-markers", *options,
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None and int(passed[1]) >= 14
