"""``kong-pdk try --reload``: changed code is taken over, and no request is lost by that."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from trying import COMMAND, LIMIT, Running, run

pytest.importorskip("aiohttp")
pytest.importorskip("watchfiles")

pytestmark = pytest.mark.skipif(not COMMAND.exists(), reason="kong-pdk is not installed")

PLUGIN = """
import os
import time
import beside

version, priority, Schema = "1.0.0", 1, ({"word": {"type": "string", "default": "none"}},)


class Plugin:
    def __init__(self, config):
        self.config = config

    def access(self, kong):
        wait = kong.request.get_query_arg("wait")
        while wait and not os.path.exists(wait):
            time.sleep(0.01)
        kong.response.exit(200, {"beside": beside.WORD, "config": self.config["word"]})
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "changing.py"
    path.write_text(PLUGIN)
    (tmp_path / "beside.py").write_text("WORD = 'one'\n")
    (tmp_path / "config.json").write_text('{"word": "first"}')
    return path


def words(running: Running, target: str = "/") -> tuple[str, str]:
    status, body = running.ask("GET", target)
    assert status == 200, body
    found = json.loads(body)
    return found["beside"], found["config"]


def test_changes_are_taken_over_and_requests_under_way_end(
    plugin: Path, tmp_path: Path, scratch: Path
) -> None:
    running = Running(plugin, scratch, "--reload", "--config", f"@{tmp_path}/config.json")
    try:
        assert words(running) == ("one", "first")
        running.wait_for("GET / -> 200")
        # A request is under way, in the code before the change, until a file is there.
        late: list[tuple[str, str]] = []
        go = tmp_path / "go"
        thread = threading.Thread(target=lambda: late.append(words(running, f"/?wait={go}")))
        thread.start()
        (tmp_path / "beside.py").write_text("WORD = 'two'\n")
        running.wait_for("reloaded in ")
        assert words(running) == ("two", "first")
        assert not late
        go.touch()
        thread.join(LIMIT)
        # It may have come after the change, on a slow machine.
        assert late in ([("one", "first")], [("two", "first")])

        (tmp_path / "beside.py").write_text("WORD = tree\n")
        said = running.wait_for("the old code still runs: ")
        assert "NameError" in said and "beside.py, line 1" in said
        assert words(running) == ("two", "first")

        (tmp_path / "beside.py").write_text("WORD = 'three'\n")
        running.wait_for("reloaded in ")
        (tmp_path / "config.json").write_text('{"word": "second"}')
        running.wait_for("reloaded in ")
        assert words(running) == ("three", "second")

        (tmp_path / "config.json").write_text('{"wrong": "third"}')
        assert "wrong" in running.wait_for("the old code still runs: ")
        (tmp_path / "config.json").write_text("{}")
        running.wait_for("reloaded in ")

        changed = PLUGIN.replace('"1.0.0", 1, (', '"1.0.1", 2, ({"more": {"type": "string"}}, ')
        plugin.write_text(changed + "    def log(self, kong):\n        pass\n")
        said = running.wait_for("changed: ")
        assert "version 1.0.0 -> 1.0.1; priority 1 -> 2; phases +log; Schema +more" in said
        assert "kong reload" in said
        assert words(running) == ("three", "none")

        # An instance that cannot be started is no better than code that cannot be loaded.
        plugin.write_text(PLUGIN.replace("self.config = config", "1 / 0"))
        assert "instance" in running.wait_for("the old code still runs: ")
        assert words(running) == ("three", "none")
    finally:
        assert running.stop() == 0


def test_the_extra_is_named_when_it_is_missing(plugin: Path, tmp_path: Path, scratch: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "watchfiles.py").write_text("raise ModuleNotFoundError('gone', name='watchfiles')")
    done = run(plugin, scratch, "--reload", PYTHONPATH=str(hidden))
    assert done.returncode == 1
    assert b"pip install 'kong-pdk[reload]'" in done.stderr.splitlines()[-1]
