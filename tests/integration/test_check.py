"""``kong-pdk check`` as a command: what it finds in plugins, and with what status it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from servers import EXAMPLES, SCRIPTS, run_command

COMMAND = str(SCRIPTS / "kong-pdk")
GOOD = """
import kong_pdk.pdk.kong as kong

Schema = ({"host": {"type": "string", "required": True}},)
version = "1.0.0"
priority = 5


class Plugin:
    def __init__(self, config):
        self.host = config["host"]

    def access(self, kong: kong.kong):
        kong.service.request.set_header("x-host", self.host)

    def log(self, kong: kong.kong):
        kong.log.info("done")
        kong.log.info("done")
"""
STARTS = """
if __name__ == "__main__":
    from kong_pdk.cli import start_dedicated_server
    start_dedicated_server("mine", Plugin, version, priority, Schema)
"""


def check(folder: Path, source: str, *args: str) -> tuple[int, str]:
    """Status, and what is said of a plugin."""
    (folder / "plugin.py").write_text(source)
    done = run_command(COMMAND, "check", "plugin.py", *args, cwd=folder)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_a_plugin_that_is_right(tmp_path: Path) -> None:
    status, text = check(tmp_path, GOOD, "--config", '{"host": "h"}', "--strict")
    assert text.splitlines() == [
        "plugin 1.0.0, priority 5, phases: access, log (plugin.py)",
        '  run with {"host": "h"}',
        "  GET / -> 200",
        "  access: 1 round trip: kong.service.request.set_header",
        "  log: 2 round trips: kong.log.info x2",
        "1 plugin: 0 errors, 0 warnings",
    ]
    assert status == 0


#: Changes to the good plugin: what is replaced, by what, and what is said of it in the end.
WRONG = {
    "an import": ("import kong_pdk.pdk.kong", "import none_such\nimport kong_pdk.pdk.kong",
                  "plugin.py:2: error: cannot be imported: ModuleNotFoundError"),
    "no Python": ("class Plugin:", "class Plugin(:", "plugin.py:9: error: SyntaxError"),
    "version": ('"1.0.0"', '"1"', "plugin.py:5: error: version must be"),
    "priority": ("= 5", "= 'high'", "plugin.py:6: error: priority must be"),
    "no phase": ("def access", "def acess", ""),
    "async": ("def log", "async def log", "plugin.py:16: error: Plugin.log must be a plain method"),
    "a type": ('"string"', '"strin"', "plugin.py:4: error: Schema: field 'host': there is no type"),
    "a phase": ("kong.log.info", "kong.response.get_path", "plugin.py:17:9: error: there is no"),
    "a call": ('"x-host", ', "", "plugin.py:14:9: error: kong.service.request.set_header: value"),
    "an exception": ('kong.log.info("done")\n        kong', "self.gone()\n        kong",
                     "plugin.py:17: error: in log: AttributeError: 'Plugin' object has no"),
    "its __init__": ('config["host"]', 'config["hots"]', "cannot be started"),
    "its end": ('kong.log.info("done")\n        kong', "import os; os._exit(3)\n        kong",
                "the plugin server's process ended with status 3"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong(tmp_path: Path, name: str) -> None:
    old, by, said = WRONG[name]
    assert old in GOOD
    status, text = check(tmp_path, GOOD.replace(old, by), "--config", '{"host": "h"}')
    if name == "no phase":  # it has another one
        assert status == 0 and "phases: log" in text
        assert "acess is no phase, so Kong never calls it; did you mean access? [never-c" in text
        return
    assert said in text
    assert status == 1


def test_made_up_values_are_told_and_what_comes_of_them_is_a_warning(tmp_path: Path) -> None:
    source = GOOD.replace('config["host"]', 'config["host"][100]')
    status, text = check(tmp_path, source)
    assert 'run with {"host": "example"}' in text
    assert "made-up values for host: give real ones with --config" in text
    assert status == 0
    assert check(tmp_path, source, "--no-run", "--strict")[0] == 0
    assert check(tmp_path, source, "--config", '{"host": "h"}', "--strict")[0] == 1


def test_warnings_fail_when_they_are_asked_to(tmp_path: Path) -> None:
    source = GOOD.replace('"x-host", self.host', '"x-host", self.host)\n        self.k = (kong')
    assert check(tmp_path, source, "--no-run")[0] == 0
    status, text = check(tmp_path, source, "--no-run", "--strict")
    assert "[stored-kong]" in text
    assert status == 1


def test_two_plugins_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin/__init__.py").write_text(GOOD)
    status, text = check(tmp_path, GOOD, "plugin", "--no-run")
    assert "plugin: error: plugin.py is a plugin plugin too: Kong knows a plugin by" in text
    assert "[name-twice]" in text
    assert status == 1
    assert check(tmp_path, GOOD, "plugin.py", "--no-run")[0] == 0  # the same once more


def test_what_a_script_prints_at_its_import(tmp_path: Path) -> None:
    source = "print('hello', flush=True)\n" + GOOD + STARTS
    status, text = check(tmp_path, source)
    assert "it begins with 'hello'; print to standard error" in text
    assert status == 1


def test_a_module_beside_a_script_that_hides_pythons_own(tmp_path: Path) -> None:
    (tmp_path / "wave.py").write_text("")
    (tmp_path / "mine.py").write_text("")
    status, text = check(tmp_path, "import wave\nwave.open\n" + GOOD + STARTS)
    assert "has no attribute 'open'" in text  # Python 3.13 adds a hint of its own
    assert "(there is wave.py, which scripts beside it import" in text
    assert status == 1
    assert "name it otherwise" not in check(tmp_path, "import mine\nmine.a\n" + GOOD + STARTS)[1]


def test_a_configuration_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"host": "h"}')
    status, text = check(tmp_path, GOOD, "--config", "@config.json", "--strict")
    assert 'run with {"host": "h"}' in text
    assert status == 0


def test_a_configuration_that_does_not_fit(tmp_path: Path) -> None:
    status, text = check(tmp_path, GOOD, "--config", '{"hots": "h"}')
    assert status == 1
    assert "hots" in text and "[not-run]" in text


def test_phases_that_a_request_does_not_come_to_are_run_too(tmp_path: Path) -> None:
    source = GOOD.replace(
        "    def log",
        "    def rewrite(self, kong): kong.response.exit(401)\n"
        "    def certificate(self, kong): kong.log('x')\n"
        "    def preread(self, kong): kong.client.get_port()\n    def log",
    )
    status, text = check(tmp_path, source, "--config", '{"host": "h"}')
    assert "GET / -> 401, by the plugin in rewrite" in text
    for line in (
        "certificate: 1 round trip: kong.log",
        "rewrite: 1 round trip: kong.response.exit",
        "access: 1 round trip: kong.service.request.set_header",
        "preread: 1 round trip: kong.client.get_port",
        "log: 2 round trips",
    ):
        assert f"  {line}" in text
    assert status == 0


def test_what_it_writes_is_gone_with_the_run(tmp_path: Path) -> None:
    source = GOOD.replace('info("done")\n', 'info("done")\n        open("x", "w").close()\n', 1)
    before = sorted(tmp_path.iterdir())
    status, text = check(tmp_path, source)
    assert status == 0 and "log: 2 round trips" in text
    left = {path.name for path in tmp_path.iterdir()} - {path.name for path in before}
    assert left - {"__pycache__"} == {"plugin.py"}


def test_an_init_that_raises(tmp_path: Path) -> None:
    source = GOOD.replace("__init__(self, config):", "__init__(self, config):\n        1 / 0")
    status, text = check(tmp_path, source, "--config", '{"host": "h"}')
    assert "ZeroDivisionError" in text
    assert status == 1


def test_json(tmp_path: Path) -> None:
    source = GOOD.replace('kong.log.info("done")', "kong.cache.get()")
    status, text = check(tmp_path, source, "--config", '{"host": "h"}', "--json")
    found: dict[str, Any] = json.loads(text)
    assert status == 1
    (plugin,) = found["plugins"]
    assert (plugin["name"], plugin["version"], plugin["priority"]) == ("plugin", "1.0.0", 5)
    assert plugin["run"]["round_trips"] == {"access": 1, "log": 0}
    codes = [each["code"] for each in plugin["findings"]]
    assert codes.count("unreachable-function") == 2
    assert found["errors"] == sum(each["level"] == "error" for each in plugin["findings"])
    assert all(each["path"] == str(tmp_path / "plugin.py") for each in plugin["findings"])


def test_a_kong_release(tmp_path: Path) -> None:
    source = GOOD.replace('kong.log.info("done")', 'kong.telemetry.log("plugin", {})')
    args = ("--no-run", "--config", '{"host": "h"}')
    assert "came with Kong" in check(tmp_path, source, *args, "--kong-version", "2.8")[1]
    assert "came with Kong" not in check(tmp_path, source, *args)[1]


def test_a_folder_and_what_is_no_plugin_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "jwt.py").write_text(GOOD)
    (folder / "helper.py").write_text("1 / 0")
    (folder / "test_jwt.py").write_text("Plugin = 1")
    (folder / "broken.py").write_text("def (:")
    (folder / "other").mkdir()
    (folder / "other/__init__.py").write_text("from .code import Plugin, Schema, version, priority")
    (folder / "other/code.py").write_text(GOOD.replace("kong.log.info", "kong.log.infos"))
    done = run_command(COMMAND, "check", "plugins", "--no-run", cwd=tmp_path)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0] == "plugins/broken.py: not a plugin that Kong could load"
    assert lines[1].startswith("plugins/broken.py:1: error: ")
    assert "error: Kong has a plugin jwt of its own" in lines[3]
    assert lines[4].startswith("other 1.0.0, priority 5, phases: access, log")
    assert lines[5].startswith("plugins/other/code.py:17:9: error: there is no kong.log.infos")
    assert lines[-1] == "3 plugins: 4 errors, 0 warnings"


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["none.py"], "there is no file or folder none.py"),
        (["."], "there is no plugin in"),
        (["x.py", "--config", "[]"], "must be a JSON object"),
        (["x.py", "--kong-version", "1"], "is not known"),
        ([], "PLUGIN"),
    ],
)
def test_wrong_use(tmp_path: Path, args: list[str], text: str) -> None:
    done = run_command(COMMAND, "check", *args, cwd=tmp_path)
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_the_examples_pass() -> None:
    plugins = sorted(map(str, EXAMPLES.glob("py-*.py")))  # the others need libraries
    done = run_command(COMMAND, "check", *plugins, "--strict")
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith(f"{len(plugins)} plugins: 0 errors, 0 warnings\n")
    flags = ("--strict", "--no-run", "--kong-version", "3.10")
    done = run_command(COMMAND, "check", str(EXAMPLES), *flags)
    assert done.returncode == 0, done.stdout
