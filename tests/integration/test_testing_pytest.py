"""The pytest plugin, as a project meets it that has kong-pdk installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = """
Schema = ({"message": {"type": "string", "default": "hello"}},)
version, priority = "1.0.0", 10

class Plugin:
    def __init__(self, config):
        self.config = config

    def access(self, kong):
        kong.response.set_header("X-Message", self.config["message"])
"""

TESTS = """
import os
import pytest

def test_plain(kong_gateway):
    gateway = kong_gateway("my_plugin.py", {"message": "hi"})
    assert gateway.get().headers["x-message"] == "hi"
    assert gateway.mode == os.environ.get("EXPECTED", "in-process")

@pytest.mark.kong_modes("in-process", "threads")
def test_marked(kong_gateway):
    assert kong_gateway("my_plugin.py").get().headers["x-message"] == "hello"

def test_without(tmp_path):
    pass
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "my_plugin.py").write_text(PLUGIN)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_my_plugin.py").write_text(TESTS)
    return tmp_path


def run(folder: Path, *args: str, **environment: str) -> tuple[int, str]:
    """Exit status and output of pytest in a folder, with warnings as errors."""
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--strict-markers",
            "-W", "error", "-v", "--color=no", *args,
        ],
        cwd=folder, capture_output=True, text=True, timeout=100,
        env={"PATH": "/usr/bin:/bin", **environment},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_a_project_of_its_own(project: Path) -> None:
    status, output = run(project)
    assert status == 0, output
    assert "test_plain PASSED" in output  # without a mode in its name
    assert "test_marked[in-process] PASSED" in output
    assert "test_marked[threads] PASSED" in output


def test_from_another_folder(project: Path) -> None:
    """A plugin beside the project's root is found from anywhere."""
    (project / "pytest.ini").write_text("[pytest]\n")
    status, output = run(project / "tests")
    assert status == 0, output


def test_modes_by_the_command_line(project: Path) -> None:
    status, output = run(project, "--kong-modes", "threads", EXPECTED="threads")
    assert status == 0, output
    assert "test_plain[threads] PASSED" in output
    assert "test_marked[threads] PASSED" in output
    assert "test_without PASSED" in output
    status, output = run(project, "--kong-modes", "multiprocessing", "-k", "marked")
    assert status == 0, output
    assert "1 skipped" in output
    status, output = run(project, "--kong-modes", "all", "--collect-only", "-q", "-k", "plain")
    for mode in ("in-process", "threads", "gevent", "multiprocessing"):
        assert f"test_plain[{mode}]" in output


def test_modes_that_do_not_exist(project: Path) -> None:
    status, output = run(project, "--kong-modes", "thread")
    assert status == 4
    assert "there is no mode 'thread', only in-process, threads, gevent, multiprocessing" in output
    file = project / "tests" / "test_my_plugin.py"
    file.write_text(TESTS.replace('"in-process", "threads"', '"inprocess"'))
    status, output = run(project)
    assert status != 0
    assert "test_marked: kong_modes: there is no mode 'inprocess'" in output


def test_gevent_that_is_missing(project: Path) -> None:
    (project / "conftest.py").write_text(
        "import importlib.util\n"
        "find_spec = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: (\n"
        "    None if name == 'gevent' else find_spec(name, *more))\n"
    )
    status, output = run(project, "--kong-modes", "gevent", "-k", "plain", "-rs")
    assert status == 0, output
    assert "mode gevent needs gevent, which is not installed: pip install" in output


def test_without_the_plugin(project: Path) -> None:
    (project / "tests" / "test_my_plugin.py").unlink()
    (project / "test_else.py").write_text("def test_it(): pass\n")
    assert run(project, "-p", "no:kong_pdk")[0] == 0


def test_a_project_that_does_not_use_it_imports_no_server(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys\n"
        "def test_it():\n"
        "    ours = {each for each in sys.modules if each.split('.')[0] == 'kong_pdk'}\n"
        "    assert ours == {'kong_pdk', 'kong_pdk.testing', 'kong_pdk.testing.pytest_plugin'}\n"
        "    assert 'msgpack' not in sys.modules\n"
    )
    status, output = run(tmp_path)
    assert status == 0, output


def test_a_failing_test_explains_itself(project: Path) -> None:
    (project / "tests" / "test_my_plugin.py").write_text(
        "class Plugin:\n"
        "    def __init__(self, config): pass\n"
        "    def access(self, kong):\n"
        "        kong.log.warn('about to fail')\n"
        "        raise KeyError('password')\n"
        "def test_it(kong_gateway):\n"
        "    assert kong_gateway(Plugin).get().status == 200\n"
    )
    status, output = run(project)
    assert status == 1
    assert "<Result 500 ended in access" in output
    assert "access raised KeyError: 'password'" in output
    assert 'warn: "about to fail"' in output
    assert "Traceback (most recent call last)" in output


def test_help_and_markers(project: Path) -> None:
    assert "--kong-modes=MODES" in run(project, "--help")[1]
    assert "@pytest.mark.kong_modes(*modes)" in run(project, "--markers")[1]
