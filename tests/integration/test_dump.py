"""The query commands: standard output is one JSON document, whatever the plugins do."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from servers import EXAMPLES, SERVER, run_command

PLUGINS = Path(__file__).parent / "plugins"
GOOD = """
Schema = ({"message": {"type": "string"}},)
version = "1.2.3"
priority = 5

class Plugin:
    def __init__(self, config): pass
    def access(self, kong): pass
"""
EMBEDDED = """
if __name__ == "__main__":
    from kong_pdk.cli import start_dedicated_server
    start_dedicated_server({arguments})
"""
ARGUMENTS = '"good", Plugin, version, priority'

#: What a plugin may do to standard output while it is imported, and even later.
NOISE = """
import atexit, logging, os, subprocess, sys, warnings
print("printed")
print("printed and flushed", flush=True)
sys.stdout.write("x" * 100_000)
os.write(1, b"written to the descriptor")
subprocess.run(["echo", "by a child"])
os.system("echo by a shell")
sys.__stdout__.write("to the original")
logging.basicConfig(stream=sys.stdout, level="DEBUG")
logging.getLogger("x").debug("logged")
atexit.register(print, "at the end")
"""
DUMPS = [
    ["--dump-all-plugins"],
    ["-dump-all-plugins"],
    ["--dump-plugin-info", "good"],
    ["-dump-plugin-info", "good"],
    ["--dump-plugin-info=good"],
    ["-dump-plugin-info=good"],
    ["-v", "--dump-all-plugins"],
    ["--dump-all-plugins", "-vv", "-p", "/nonexistent"],
]


def info(name: str, **changes: Any) -> dict[str, Any]:
    fields = changes.pop("fields", [{"message": {"type": "string"}}])
    return {
        "Name": name,
        "Phases": ["access"],
        "Priority": 5,
        "Version": "1.2.3",
        "Schema": {"name": name, "fields": [{"config": {"type": "record", "fields": fields}}]},
        **changes,
    }


def dump(*command: str) -> tuple[Any, str]:
    """What is on standard output, which must be JSON and no more, and on standard error."""
    done = run_command(*command)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def refusal(*command: str) -> str:
    """What a dump that fails says."""
    done = run_command(*command)
    assert (done.returncode, done.stdout) == (1, ""), done
    assert done.stderr
    return done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one plugin."""
    (tmp_path / "good.py").write_text(GOOD)
    return tmp_path


# --- the directory server -------------------------------------------------------------------------


@pytest.mark.parametrize("flags", DUMPS)
def test_a_dump(folder: Path, flags: list[str]) -> None:
    found, _ = dump(SERVER, "-d", str(folder), *flags)
    assert found == [info("good")]


def test_a_dump_without_v_is_silent(folder: Path) -> None:
    assert dump(SERVER, "-d", str(folder), "--dump-all-plugins")[1] == ""


def test_all_of_several_and_each_by_its_name(folder: Path) -> None:
    (folder / "a-b_c2.py").write_text(GOOD.replace("def access", "def log"))
    both = [info("a-b_c2", Phases=["log"]), info("good")]
    assert dump(SERVER, "-d", str(folder), "--dump-all-plugins")[0] == both
    for one in both:
        found, _ = dump(SERVER, "-d", str(folder), "--dump-plugin-info", one["Name"])
        assert found == [one]


@pytest.mark.parametrize("flags", DUMPS)
@pytest.mark.parametrize("unbuffered", [False, True])
def test_a_noisy_import(folder: Path, flags: list[str], unbuffered: bool) -> None:
    (folder / "good.py").write_text(NOISE + GOOD)
    env = {"PYTHONUNBUFFERED": "1"} if unbuffered else {}
    done = run_command(SERVER, "-d", str(folder), *flags, env=env)
    assert (done.returncode, json.loads(done.stdout)) == (0, [info("good")])
    for text in ("printed and flushed", "by a child", "by a shell", "to the descriptor"):
        assert text in done.stderr


OTHERS = {
    "helper.py": "x = 1\n",
    "script.py": "import sys; print('a script'); sys.exit(3)\n",
    "broken.py": "def (:\n",
    "failing.py": "1 / 0\n",
    "interrupting.py": "raise BaseException('odd')\n",
    "null.py": "\0\n",
    "latin.py": b"x = '\xff'\n",
    "__init__.py": "",
    ".hidden.py": "1 / 0\n",
    "_private.py": "x = 1\n",
    "README.md": "# no plugin\n",
    "data.json": "{}",
    "my plugin.py": GOOD,
    "noversion.py": GOOD.replace("version =", "other ="),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_skipped(folder: Path, name: str) -> None:
    content = OTHERS[name]
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    found, said = dump(SERVER, "-d", str(folder), "--dump-all-plugins")
    assert found == [info("good")]
    quiet = not name.endswith(".py") or name.startswith(("__", "."))
    assert (name not in said) == quiet  # one that could have been meant as a plugin is named
    assert "Traceback" not in said


def test_folders_and_dangling_links_are_skipped(folder: Path) -> None:
    (folder / "package").mkdir()
    (folder / "folder.py").mkdir()
    (folder / "__pycache__").mkdir()
    (folder / "gone.py").symlink_to("/nonexistent.py")
    found, said = dump(SERVER, "-d", str(folder), "--dump-all-plugins")
    assert found == [info("good")]
    assert "folder.py" in said
    assert "/nonexistent.py" in said


def test_a_plugin_may_import_what_lies_beside_it(folder: Path) -> None:
    (folder / "helper.py").write_text("text = 'from the helper'\n")
    (folder / "good.py").write_text("import helper\n" + GOOD.replace('"1.2.3"', '"2.0.0"'))
    assert dump(SERVER, "-d", str(folder), "--dump-all-plugins")[0] == [
        info("good", Version="2.0.0")
    ]


@pytest.mark.parametrize("library", ["json", "msgpack", "logging", "socket", "jwt"])
def test_a_plugin_may_be_called_like_a_library(folder: Path, library: str) -> None:
    name = f"{library}.py"
    (folder / name).write_text("import json, socket\njson.dumps\nsocket.socket\n" + GOOD)
    found, _ = dump(SERVER, "-d", str(folder), "--dump-plugin-info", library)
    assert found == [info(library)]


@pytest.mark.parametrize("name", ["absent", "", "helper", "good.py", "../good", "-v"])
def test_a_name_that_is_not_there(folder: Path, name: str) -> None:
    (folder / "helper.py").write_text("x = 1\n")
    said = refusal(SERVER, "-d", str(folder), f"--dump-plugin-info={name}")
    assert repr(name) in said
    assert "good" in said


@pytest.mark.parametrize("flags", [["--dump-all-plugins"], ["--dump-plugin-info", "good"]])
def test_a_dump_of_no_folder(flags: list[str]) -> None:
    assert "/nonexistent" in refusal(SERVER, "-d", "/nonexistent", *flags)


@pytest.mark.parametrize("flags", [["--dump-all-plugins"], ["--dump-plugin-info", "good"]])
def test_a_dump_of_an_empty_folder(tmp_path: Path, flags: list[str]) -> None:
    assert str(tmp_path) in refusal(SERVER, "-d", str(tmp_path), *flags)


# --- what is no plugin, in both servers -----------------------------------------------------------

PASS = "def access(self, kong): pass"
INVALID = {
    "no version": (GOOD.replace("version =", "version = None #"), "version"),
    "version of two": (GOOD.replace('"1.2.3"', '"1.2"'), "'1.2'"),
    "version of four": (GOOD.replace('"1.2.3"', '"1.2.3.4"'), "'1.2.3.4'"),
    "version with a suffix": (GOOD.replace('"1.2.3"', '"1.2.3rc1"'), "'1.2.3rc1'"),
    "version with a newline": (GOOD.replace('"1.2.3"', '"1.2.3\\n"'), "version"),
    "version a number": (GOOD.replace('"1.2.3"', "1.2"), "version"),
    "no priority": (GOOD.replace("priority = 5", "priority = None"), "priority"),
    "priority a text": (GOOD.replace("priority = 5", "priority = '5'"), "priority"),
    "priority true": (GOOD.replace("priority = 5", "priority = True"), "priority"),
    "priority nan": (GOOD.replace("priority = 5", "priority = float('nan')"), "priority"),
    "the Schema's comma is missing": (GOOD.replace("},)", "})"), "comma"),
    "Schema a text": (GOOD.replace('({"message": {"type": "string"}},)', "'message'"), "Schema"),
    "Schema of texts": (GOOD.replace('({"message": {"type": "string"}},)', "('a',)"), "Schema"),
    "a field twice": (GOOD.replace("},)", '}, {"message": {"type": "string"}})'), "'message'"),
    "a field of two keys": (GOOD.replace("}},)", '}, "b": {}},)'), "field 1"),
    "a field that is no JSON": (GOOD.replace('"string"', "object()"), "Schema"),
    "a field with NaN": (GOOD.replace('"string"', "float('nan')"), "Schema"),
    "no phase": (GOOD.replace("access", "acess"), "phase"),
    "a phase that is none": (GOOD.replace("access", "header_filter"), "phase"),
    "async": (GOOD.replace("def access", "async def access"), "access"),
    "a generator": (GOOD.replace(PASS, "def access(self, kong): yield"), "access"),
    "a phase that is no method": (GOOD.replace(PASS, "access = 7"), "access"),
    "Plugin a function": (GOOD + "def Plugin(config): pass\n", "Plugin"),
    "Plugin an instance": (GOOD + "Plugin = Plugin({})\n", "Plugin"),
}


@pytest.mark.parametrize("name", INVALID)
def test_what_is_no_plugin_in_a_folder(folder: Path, name: str) -> None:
    source, text = INVALID[name]
    (folder / "wrong.py").write_text(source)
    found, said = dump(SERVER, "-d", str(folder), "--dump-all-plugins")
    assert found == [info("good")]
    assert "wrong.py" in said
    assert text in said.partition("wrong.py")[2]
    assert "wrong" in refusal(SERVER, "-d", str(folder), "--dump-plugin-info", "wrong")


@pytest.mark.parametrize("flags", [["--dump"], ["-p", "/"]])
@pytest.mark.parametrize("name", INVALID)
def test_what_is_no_plugin_in_its_own_file(tmp_path: Path, name: str, flags: list[str]) -> None:
    source, text = INVALID[name]
    path = tmp_path / "wrong.py"
    path.write_text(source + EMBEDDED.format(arguments=ARGUMENTS))
    said = refusal(sys.executable, str(path), *flags)
    assert "good" in said
    assert text in said
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    "name", ["", "a b", "a/b", "../a", ".a", "-a", "_a", "ä", "a\n", "a.b", None, 7, b"a"]
)
@pytest.mark.parametrize("flags", [["--dump"], ["-p", "/"]])
def test_what_is_no_name(tmp_path: Path, name: Any, flags: list[str]) -> None:
    path = tmp_path / "wrong.py"
    arguments = f"{name!r}, Plugin, version, priority, Schema"
    path.write_text(GOOD + EMBEDDED.format(arguments=arguments), encoding="utf-8")
    said = refusal(sys.executable, str(path), *flags)
    assert repr(name) in said
    assert "name" in said
    assert "Traceback" not in said


# --- embedded -------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [["--dump"], ["-dump"], ["-v", "--dump"], ["-dump", "-vv", "-g"]])
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (ARGUMENTS, info("good")),
        (ARGUMENTS + ", Schema", info("good")),
        (ARGUMENTS + ", []", info("good", fields=[])),
        (ARGUMENTS + ", [{'other': {'type': 'number'}}]",
         info("good", fields=[{"other": {"type": "number"}}])),
        ('"other-name", Plugin, "0.0.1", -7', info("other-name", Version="0.0.1", Priority=-7)),
        ('name="good", plugin=Plugin, version=version, priority=5, schema=Schema', info("good")),
        # The published package's names.
        ('"good", Plugin, _version="3.0.0", _priority=0, _schema=[]',
         info("good", Version="3.0.0", Priority=0, fields=[])),
    ],
)  # fmt: skip
def test_an_embedded_dump(
    tmp_path: Path, flags: list[str], arguments: str, expected: dict[str, Any]
) -> None:
    path = tmp_path / "good.py"
    path.write_text(GOOD + EMBEDDED.format(arguments=arguments))
    found, said = dump(sys.executable, str(path), *flags)
    assert found == [expected]
    assert said == ""


def test_an_embedded_plugin_of_another_module(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.py").write_text(GOOD)
    path = tmp_path / "start.py"
    path.write_text("from elsewhere import *\n" + EMBEDDED.format(arguments=ARGUMENTS))
    assert dump(sys.executable, str(path), "--dump")[0] == [info("good")]


def test_an_embedded_dump_after_prints(tmp_path: Path) -> None:
    """What is still in Python's own buffer can be kept out."""
    path = tmp_path / "good.py"
    path.write_text("print('printed')\n" + GOOD + EMBEDDED.format(arguments=ARGUMENTS))
    found, said = dump(sys.executable, str(path), "--dump")
    assert found == [info("good")]
    assert "printed" in said


def test_the_documented_example() -> None:
    found, said = dump(sys.executable, str(EXAMPLES / "py-hello.py"), "--dump")
    assert found == [info("py-hello", Version="0.1.0", Priority=0)]
    assert said == ""
