"""The stubs have what is there at run time, and nothing else: names, parameters and defaults."""

from __future__ import annotations

import os
from pathlib import Path

import checkers
import pytest

PURE_ONLY = os.environ.get("KONG_PDK_TEST_PURE_ONLY", "0") not in ("", "0")
MYPY = """\
[mypy]
[mypy-msgpack.*]
ignore_missing_imports = true
"""

#: What stubtest is to overlook in the compiled module.
ALLOWED = r"""
# Cython's own.
kong_pdk\._speedups\.(\w+\.)?__(reduce|setstate)_cython__
kong_pdk\._speedups\.__test__
# An __init__ without parameters shows as one with *args.
kong_pdk\._speedups\.Waiter\.__init__
# Those of Python's slots, which differ with its release.
kong_pdk\._speedups\.(Child|Function|Method)\.__(get|set)__
# For its own use only.
kong_pdk\._speedups\.Writer
"""


def stubtest(folder: Path, *arguments: str, **env: str) -> None:
    checkers.need("mypy")
    (folder / "mypy.ini").write_text(MYPY, encoding="utf-8")
    options = ("--mypy-config-file", "mypy.ini", "--concise", "--ignore-disjoint-bases")
    done = checkers.run("mypy.stubtest", *options, *arguments, cwd=folder, env=env)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("codec", ["pure"] if PURE_ONLY else ["compiled", "pure"])
def test_the_pdk(tmp_path: Path, codec: str) -> None:
    switch = "KONG_PDK_PUREPYTHON" if codec == "pure" else "KONG_PDK_REQUIRE_EXTENSIONS"
    stubtest(tmp_path, "kong_pdk.pdk.kong", "kong_pdk.pdk.python_style", **{switch: "1"})


@pytest.mark.skipif(PURE_ONLY, reason="only the pure codec is tested")
def test_the_compiled_codec(tmp_path: Path) -> None:
    (tmp_path / "allowed").write_text(ALLOWED, encoding="utf-8")
    stubtest(tmp_path, "kong_pdk._speedups", "--allowlist", "allowed", "--ignore-unused-allowlist")
