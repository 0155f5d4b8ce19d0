"""``kong-pdk new``, ``conf``, ``dump``, ``completion``: what they write, and what they refuse."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kongsettings import plugin_servers, read_conf

from kong_pdk.commands import new
from kong_pdk.commands.completion import parser_of
from kong_pdk.commands.main import COMMANDS, main, subparsers_of

PLUGIN = """
version, priority, Schema = "1.0.0", 5, ()
class Plugin:
    def access(self, kong): pass
"""
EMBEDDED = f"""{PLUGIN}
if __name__ == "__main__":
    from kong_pdk.cli import start_dedicated_server
    start_dedicated_server("my-own", Plugin, version, priority)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a plugin of each kind."""
    (tmp_path / "one.py").write_text(PLUGIN)
    (tmp_path / "own.py").write_text(EMBEDDED)
    (tmp_path / "two").mkdir()
    (tmp_path / "two/a-b.py").write_text(PLUGIN)
    (tmp_path / "two/c").mkdir()
    (tmp_path / "two/c/__init__.py").write_text(PLUGIN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def output(capfd: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(args) == 0
    return capfd.readouterr().out


def refusal(capfd: pytest.CaptureFixture[str], *args: str) -> str:
    """What a command that does nothing says: in one line, that begins with its name."""
    assert main(args) == 1
    said = capfd.readouterr()
    assert said.out == ""
    last = said.err.splitlines()[-1]
    assert last.startswith(f"kong-pdk {args[0]}: ")
    return last


# --- all of them ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, *_ in COMMANDS])
def test_each_explains_itself_with_examples(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    text = capfd.readouterr().out
    _, _, examples = text.partition("examples:\n")
    lines = [line for line in examples.splitlines() if line.strip()]
    assert lines
    for line in lines:
        assert f"kong-pdk {name}" in line or line.startswith("      ")


def test_the_examples_are_commands_that_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "order.json").write_text("{}")  # one of them sends it
    parsers = subparsers_of(parser_of("kong-pdk"))
    seen = 0
    for name, parser in parsers.items():
        examples = (parser.epilog or "").partition("examples:\n")[2].replace("\\\n", "")
        for line in examples.splitlines():
            words = shlex.split(line.replace('"$(', "").replace(')"', ""), comments=True)
            if "kong-pdk" not in words:
                continue
            words = words[words.index("kong-pdk") + 2 :]
            ends = [n for n, word in enumerate(words) if word in ("&&", ">", ">>", "|")]
            parser.parse_args(words[: min(ends, default=len(words))])  # else SystemExit
            seen += 1
        assert name in (parser.epilog or "")
    assert seen >= 2 * len(parsers)


# --- dump -----------------------------------------------------------------------------------------


def test_dump(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for spec, names in (
        ("one.py", ["one"]), ("own.py", ["my-own"]), ("two", ["a-b", "c"]), ("two/c", ["c"]),
    ):  # fmt: skip
        found = json.loads(output(capfd, "dump", spec))
        assert [each["Name"] for each in found] == names
    text = output(capfd, "dump", "two", "c", "--pretty")
    assert [each["Name"] for each in json.loads(text)] == ["c"]
    assert len(text.splitlines()) > 5


def test_what_cannot_be_dumped(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "no file or folder none.py" in refusal(capfd, "dump", "none.py")
    assert "no file or folder no/thing" in refusal(capfd, "dump", "no/thing")
    assert "'b'" in refusal(capfd, "dump", "own.py", "b")
    assert "cannot be loaded" in refusal(capfd, "dump", "two", "b")
    assert "cannot be loaded" in refusal(capfd, "dump", "nobodys")
    (folder / "broken.py").write_text("\n\ndef (:\n")
    assert "broken.py:3: this is no Python" in refusal(capfd, "dump", "broken.py")
    assert "--python /nonexistent" in refusal(capfd, "dump", "one.py", "--python", "/nonexistent")
    (folder / "noisy.py").write_text(f"import atexit\natexit.register(print, 'x')\n{EMBEDDED}")
    assert json.loads(output(capfd, "dump", "noisy.py"))


# --- conf -----------------------------------------------------------------------------------------


def test_conf_of_each_kind_of_plugin(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = output(capfd, "conf", "one.py", "own.py", "two", "--kong-version", "3.9")
    found = read_conf(text)
    assert found["plugins"] == "bundled,my-own,one,a-b,c"
    own, *shared = plugin_servers(found)
    script = str(Path(sys.executable).parent / "kong-python-pluginserver")
    assert own.socket == "/usr/local/kong/my-own.socket"
    assert own.start == f"{sys.executable} {folder}/own.py"
    assert [each.name for each in shared] == ["one", "a-b", "c"]
    assert [each.start for each in shared] == [
        f"{script} --plugin {folder}/one.py -d {folder}/two", None, None,
    ]  # fmt: skip
    assert len({each.socket for each in shared}) == 1
    for each in (own, *shared):
        done = subprocess.run(["sh", "-c", each.query or ""], capture_output=True, check=True)
        (plugin,) = json.loads(done.stdout)
        assert plugin["Name"] == each.name


def test_conf_for_an_older_kong(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = read_conf(output(capfd, "conf", "two", "one.py", "--kong-version", "3.4"))
    (one,) = plugin_servers(found)
    done = subprocess.run(["sh", "-c", one.query or ""], capture_output=True, check=True)
    assert [each["Name"] for each in json.loads(done.stdout)] == ["a-b", "c", "one"]


def test_conf_for_compose(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = output(capfd, "conf", "one.py", "own.py", "two", "--format", "compose")
    service = yaml.safe_load(text)["services"]["kong"]
    assert [(each["source"], each["target"]) for each in service["volumes"]] == [
        (str(folder), "/opt/kong-plugins"), (f"{folder}/two", "/opt/kong-plugins-2"),
    ]  # fmt: skip
    environment = service["environment"]
    assert environment["KONG_PLUGINSERVER_MY_OWN_START_CMD"] == (
        "/opt/kong-python/bin/python /opt/kong-plugins/own.py"
    )
    assert environment["KONG_PLUGINSERVER_ONE_START_CMD"] == (
        "/opt/kong-python/bin/kong-python-pluginserver --plugin /opt/kong-plugins/one.py "
        "-d /opt/kong-plugins-2"
    )


def test_conf_looks_at_the_servers_flags(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = output(capfd, "conf", "own.py", "--server-args=-g --on-error open")
    assert "/own.py -g --on-error open\n" in text
    assert "--gevnt" in refusal(capfd, "conf", "own.py", "--server-args=--gevnt")
    assert "invalid choice: 'ajar'" in refusal(
        capfd, "conf", "one.py", "--server-args=--on-error ajar"
    )


def test_conf_of_what_would_not_work(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "cannot be loaded" in refusal(capfd, "conf", "nobodys")
    (folder / "a-b.py").write_text(PLUGIN)
    said = refusal(capfd, "conf", "two", "a-b.py")
    assert f"two plugins are called 'a-b', in {folder}/two and in {folder}/a-b.py" in said
    with pytest.raises(SystemExit) as ended:
        main(["conf", "one.py", "--kong-version", "2.1"])
    assert ended.value.code == 2
    assert "these are: 2.8, 3.0" in capfd.readouterr().err


# --- completion -----------------------------------------------------------------------------------


def completed(script: str, function: str, *words: str) -> list[str]:
    """What bash offers after some words, the last of which is begun."""
    line = " ".join(map(shlex.quote, words))
    code = (
        f"{script}\nCOMP_WORDS=({line}); COMP_CWORD={len(words) - 1}\n{function} {words[0]} "
        f"{shlex.quote(words[-1])} {shlex.quote(words[-2])}\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, timeout=60)
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_completion_in_bash(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    script = output(capfd, "completion", "bash")
    name = next(word for word in script.split() if word.startswith("_shtab_kong_pdk"))
    function = script.rpartition("-F ")[2].split()[0]
    assert name
    assert completed(script, function, "kong-pdk", "co") == ["conf", "completion"]
    assert completed(script, function, "kong-pdk", "conf", "--form") == ["--format"]
    assert completed(script, function, "kong-pdk", "conf", "--format", "c") == ["conf", "compose"]
    script = output(capfd, "completion", "bash", "--command", "kong-python-pluginserver")
    function = script.rpartition("-F ")[2].split()[0]
    assert completed(script, function, "kong-python-pluginserver", "--on") == ["--on-error"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_every_command(shell: str, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    script = output(capfd, "completion", shell)
    for name, *_ in COMMANDS:
        assert name in script
    assert "kong-version" in script


def test_completion_without_its_library(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert "kong-pdk[completion]" in refusal(capfd, "completion", "bash")


# --- new ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "module"),
    [("my-plugin", "my_plugin"), ("a", "a"), ("2fa", "plugin_2fa"), ("My-One_2", "my_one_2")],
)
def test_a_name_and_its_module(name: str, module: str) -> None:
    assert new.module_name(name) == module


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a b", "letters, digits"), ("-a", "letters, digits"), ("", "letters, digits"),
        ("a/b", "letters, digits"), ("jwt", "Kong has a plugin jwt"), ("json", "my-json"),
        ("class", "my-class"), ("kong_pdk", "my-kong_pdk"), ("pytest", "my-pytest"),
    ],
)  # fmt: skip
def test_a_name_that_cannot_be(name: str, text: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(new.Refused, match=text):
        new.module_name(name)


def test_new_leaves_what_is_there(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "mine").mkdir()
    (folder / "mine/README.md").write_text("mine")
    assert "README.md is there already" in refusal(capfd, "new", "mine")
    assert os.listdir(folder / "mine") == ["README.md"]
    assert (folder / "mine/README.md").read_text() == "mine"
    output(capfd, "new", "mine", "-d", "other")
    assert os.access(folder / "other/mine.py", os.X_OK)
    assert "mine.py is there already" in refusal(capfd, "new", "mine", "-d", "other")
    assert "cannot write" in refusal(capfd, "new", "mine", "-d", "one.py/x")


@pytest.mark.parametrize("package", [False, True])
@pytest.mark.parametrize("python_style", [False, True])
def test_each_new_file_is_python_or_has_text(package: bool, python_style: bool) -> None:
    files = new.contents("a-b", "a_b", package, python_style)
    for path, text in files.items():
        assert "$" not in text.replace('w-]+$"', "").replace("# $", "")
        if path.endswith(".py"):
            compile(text, path, "exec")
    joined = "".join(files.values())
    assert ("python_style" in joined) == python_style
    assert ("entry-points" in joined) == package


def test_a_module_for_each_command() -> None:
    for _, module, summary in COMMANDS:
        found = importlib.import_module(f"kong_pdk.commands.{module}")
        parser = argparse.ArgumentParser()
        found.configure(parser)
        assert summary[0].islower() and not summary.endswith(".")


def test_an_interrupt_ends_any_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(args: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    for name, module, _ in COMMANDS:
        monkeypatch.setattr(f"kong_pdk.commands.{module}.run", interrupted)
        flagless: dict[str, list[str]] = {"status": [], "migrate": []}
        needed = {**flagless, "new": ["x"], "completion": ["bash"]}.get(name, ["x.py"])
        assert main([name, *needed]) == 130


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device here")
def test_a_disk_that_is_full(folder: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "kong_pdk.commands.main", "dump", "one.py"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.stderr == "kong-pdk: cannot write the output: No space left on device\n"
    assert done.returncode == 1


@pytest.mark.parametrize("command", [["new", "mine"], ["check", "one.py"], ["dump", "one.py"]])
def test_a_current_folder_that_is_gone(
    command: list[str], folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    gone = folder / "gone"
    gone.mkdir()
    os.chdir(gone)  # the fixture goes back
    gone.rmdir()
    assert main(command) == 1
    said = capfd.readouterr().err
    assert said == "kong-pdk: the current folder has been removed: change into another one\n"
