"""``[tool.cibuildwheel]``: which wheels it makes, and whether its tests work here."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from recipes import missing
from servers import run_command

from release import dist

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

VENV = os.environ.get("KONG_PDK_VENV", str(dist.ROOT / ".venv"))
MINORS = ("39", "310", "311", "312", "313", "314")
WHEELS = {
    f"cp{minor}-{library}_{processor}"
    for minor in MINORS
    for library in ("manylinux", "musllinux")
    for processor in ("x86_64", "aarch64")
}


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((dist.ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def settings(pyproject: dict[str, Any]) -> dict[str, Any]:
    return pyproject["tool"]["cibuildwheel"]


def test_it_makes_these_wheels_and_no_others() -> None:
    """As cibuildwheel itself says; it refuses settings that it does not know."""
    if sys.version_info < (3, 11):
        missing("cibuildwheel, which needs Python 3.11")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CIBW_")}
    done = subprocess.run(
        [sys.executable, "dev.py", "wheels", "--print-build-identifiers", "--platform", "linux",
         "--archs", "x86_64,aarch64"],
        cwd=dist.ROOT, env={**kept, "KONG_PDK_VENV": VENV}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = done.stdout.split()
    assert len(names) == len(WHEELS) == 24
    assert set(names) == WHEELS


def test_classifiers_name_the_pythons(pyproject: dict[str, Any]) -> None:
    prefix = "Programming Language :: Python :: 3."
    named = {
        "3" + one[len(prefix) :]
        for one in pyproject["project"]["classifiers"] if one.startswith(prefix)
    }  # fmt: skip
    assert named == set(MINORS)
    assert pyproject["project"]["requires-python"] == ">=3.9"


def test_a_wheel_without_the_compiled_codec_is_an_error(settings: dict[str, Any]) -> None:
    assert settings["environment"] == {"KONG_PDK_REQUIRE_EXTENSIONS": "1"}
    assert "test-skip" not in settings


def test_the_build_tools_are_the_locked_ones(settings: dict[str, Any]) -> None:
    assert settings["build-frontend"] == {"name": "build", "args": ["--no-isolation"]}
    program, *arguments, path = shlex.split(settings["before-build"])
    assert [program, *arguments] == ["pip", "install", "--require-hashes", "-r"]
    assert (dist.ROOT / path.replace("{package}/", "")).is_file()


def test_its_tests_run_with_the_libraries_that_they_get(pyproject: dict[str, Any]) -> None:
    wanted = set(pyproject["tool"]["cibuildwheel"]["test-requires"])
    assert wanted <= set(pyproject["project"]["optional-dependencies"]["test"])
    named = {re.split(r"[^\w-]", one)[0] for one in wanted}
    imported = set()
    folder = dist.ROOT / "tests" / "unit" / "codec"
    for path in (*folder.glob("*.py"), dist.ROOT / "tests" / "support" / "pdkcalls.py"):
        found = re.findall(r"^(?:from|import) (\w+)", path.read_text(encoding="utf-8"), re.M)
        imported.update(found)
    own = {"kong_pdk", "msgpack", "pdkcalls", "__future__"}
    if sys.version_info >= (3, 10):
        assert imported - own - sys.stdlib_module_names <= named


def test_its_first_command_passes_here(settings: dict[str, Any]) -> None:
    """With the package that is installed here, away from the checkout."""
    import kong_pdk

    program, *arguments = shlex.split(
        settings["test-command"][0].replace("{project}", str(dist.ROOT))
    )
    assert program == "python"
    assert arguments[-2:] == ["--codec", "compiled"]
    done = run_command(sys.executable, *arguments)
    assert done.returncode == (0 if kong_pdk.is_compiled() else 1), done.stderr


def test_its_second_command_finds_the_tests(settings: dict[str, Any], tmp_path: Path) -> None:
    program, *arguments = shlex.split(
        settings["test-command"][1].replace("{project}", str(dist.ROOT))
    )
    assert program == "pytest"
    done = run_command(sys.executable, "-m", "pytest", *arguments, "--collect-only", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    # Nothing but what is about the pure codec is left out, and most is about the compiled one.
    selected, whole = re.findall(r"(\d+)/(\d+) tests collected", done.stdout)[0]
    assert int(selected) > int(whole) / 2 > 1000
    assert "[compiled" in done.stdout and "[pure" not in done.stdout


def test_without_its_python_it_says_so(tmp_path: Path) -> None:
    """cibuildwheel is not beside the Python of the tests."""
    done = subprocess.run(
        [sys.executable, "-m", "release.wheels"], cwd=dist.ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "cibuildwheel needs Python 3.11 or newer" in done.stderr
