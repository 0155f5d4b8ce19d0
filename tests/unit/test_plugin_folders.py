"""Plugins in a folder: which files are loaded, what they can import, what is skipped."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from kong_pdk.exception import PluginError
from kong_pdk.plugins import (
    load_directory,
    load_file,
)

GOOD = """
version = "1.2.3"
priority = 7
Schema = ({"message": {"type": "string"}},)

class Plugin:
    def __init__(self, config):
        self.config = config
    def access(self, kong):
        pass
"""


@pytest.fixture(autouse=True)
def same_imports() -> Iterator[None]:
    """What a test loads is not there for the next one; and nobody changes the path."""
    path, modules = list(sys.path), dict(sys.modules)
    yield
    assert sys.path == path
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., str]:
    """A function that writes files, by name and text, and returns their folder."""

    def write(**files: str) -> str:
        for name, text in files.items():
            tmp_path.joinpath(name.replace("__DOT__", ".") + ".py").write_text(text)
        return str(tmp_path)

    return write


def test_every_plugin_of_a_folder(folder: Callable[..., str]) -> None:
    directory = folder(**{"b-two": GOOD, "a_one": GOOD.replace("1.2.3", "3.2.1")})
    plugins = load_directory(directory)
    assert list(plugins) == ["a_one", "b-two"]
    assert [plugin.version for plugin in plugins.values()] == ["3.2.1", "1.2.3"]
    assert plugins["a_one"].priority == 7
    assert plugins["a_one"].schema == [{"message": {"type": "string"}}]
    assert plugins["a_one"].modified > 1_600_000_000
    assert plugins["a_one"].factory({"x": 1}).config == {"x": 1}


def test_files_that_are_no_plugins_are_skipped_with_a_line(
    folder: Callable[..., str], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """One that cannot be a plugin is not even run."""
    directory = folder(
        good=GOOD,
        helper="raise SystemExit\n",
        broken="def f(: Plugin\n",
        missing=f"import there_is_no_such_module\n{GOOD}",
        leaves="import sys  # no Plugin\n\nsys.exit(3)\n",
        dies="raise BaseException('odd')  # Plugin\n",
        unversioned=GOOD.replace('version = "1.2.3"', ""),
    )
    tmp_path.joinpath("readme.txt").write_text("no Python")
    tmp_path.joinpath(".hidden.py").write_text("raise RuntimeError")
    tmp_path.joinpath("__init__.py").write_text("raise RuntimeError")
    tmp_path.joinpath("data").mkdir()
    tmp_path.joinpath("folder").mkdir()
    tmp_path.joinpath("folder", "plugin.py").write_text(GOOD)
    with caplog.at_level(logging.INFO, "kong_pdk.server"):
        assert list(load_directory(directory)) == ["good"]
    lines = sorted(record.getMessage() for record in caplog.records)
    assert len(lines) == 7
    for line, (name, words) in zip(
        lines,
        [
            ("broken.py", "cannot be imported: SyntaxError: "),
            ("dies.py", "cannot be imported: BaseException: odd ("),
            ("folder", "a folder is a plugin if it has an __init__.py"),
            ("helper.py", "it has no class Plugin"),
            ("leaves.py", "cannot be imported: SystemExit: 3 ("),
            ("missing.py", "cannot be imported: ModuleNotFoundError"),
            ("unversioned.py", "version is missing"),
        ],
    ):
        assert line.startswith(f"skipped what is no plugin: {tmp_path / name}: {words}")
    assert f"({tmp_path / 'broken.py'}, line 1)" in lines[0]
    assert f"({tmp_path / 'leaves.py'}, line 3)" in lines[4]
    assert {record.levelname for record in caplog.records} == {"WARNING"}


def test_what_plugins_import_is_where_it_belongs(
    folder: Callable[..., str], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Even what they import when it is needed, or another helper does."""
    directory = folder(
        good=f"import words\n{GOOD}    def log(self, kong):\n        from parts import numbers\n",
        words="def f():\n    import more_words\n",
        more_words="",
        alone="",
    )
    tmp_path.joinpath("parts").mkdir()
    tmp_path.joinpath("parts", "numbers.py").write_text("ONE = 1\n")
    with caplog.at_level(logging.INFO, "kong_pdk.server"):
        assert list(load_directory(directory)) == ["good"]
    (line,) = (record.getMessage() for record in caplog.records)
    assert "alone.py" in line


def test_ctrl_c_while_loading_ends_it(folder: Callable[..., str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        load_directory(folder(good=GOOD, slow="raise KeyboardInterrupt  # Plugin\n"))


def test_siblings_can_be_imported(folder: Callable[..., str]) -> None:
    directory = folder(
        aaa_uses=f"import zzz_shared_words\n{GOOD}\nPlugin.words = zzz_shared_words.WORDS\n",
        zzz_shared_words="WORDS = ['a']\n",
    )
    plugins = load_directory(directory)
    assert list(plugins) == ["aaa_uses"]
    assert plugins["aaa_uses"].factory.words == ["a"]  # type: ignore[attr-defined]


def test_a_linked_plugin_finds_the_siblings_of_where_it_lives(
    folder: Callable[..., str], tmp_path: Path
) -> None:
    home = folder(
        linked=f"import zzz_at_home\n{GOOD}\nPlugin.words = zzz_at_home.WORDS\n",
        zzz_at_home="WORDS = ['b']\n",
    )
    served = tmp_path / "served"
    served.mkdir()
    os.symlink(home + "/linked.py", served / "linked.py")
    plugins = load_directory(str(served))
    assert plugins["linked"].factory.words == ["b"]  # type: ignore[attr-defined]


def test_a_plugin_does_not_shadow_a_library(folder: Callable[..., str]) -> None:
    """A plugin jwt.py is no stand-in for the library jwt, in whatever order they come."""
    assert "colorsys" not in sys.modules  # so that the import below is the first
    directory = folder(
        json=GOOD,
        colorsys=GOOD,
        zuses=f"import json, colorsys\n{GOOD}\nPlugin.used = (json.dumps, colorsys.rgb_to_hsv)\n",
    )
    plugins = load_directory(directory)
    assert list(plugins) == ["colorsys", "json", "zuses"]
    assert plugins["zuses"].factory.used[0] is json.dumps  # type: ignore[attr-defined]
    assert sys.modules["json"] is json
    assert sys.modules["colorsys"].rgb_to_hsv(0, 0, 0) == (0.0, 0.0, 0)


def test_dataclasses_and_annotations_work_in_a_plugin(folder: Callable[..., str]) -> None:
    """Both look their module up in sys.modules."""
    text = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "import kong_pdk.pdk.kong as kong\n\n@dataclass\nclass Options:\n    size: int = 1\n"
        + GOOD.replace("self, kong", "self, kong: kong.kong")
    )
    assert list(load_directory(folder(good=text))) == ["good"]


def test_two_files_of_one_name(folder: Callable[..., str]) -> None:
    directory = folder(good=GOOD, good__DOT__more=GOOD)
    with pytest.raises(PluginError) as caught:
        load_directory(directory)
    assert str(caught.value) == (
        f"there are two plugins 'good': {directory}/good.more.py and {directory}/good.py: "
        f"rename or remove one of them"
    )


@pytest.mark.parametrize("what", ["missing", "file"])
def test_a_folder_that_cannot_be_read(tmp_path: Path, what: str) -> None:
    path = tmp_path / what
    if what == "file":
        path.write_text("")
    with pytest.raises(PluginError, match=rf"^plugins directory {path}: "):
        load_directory(str(path))


def test_an_empty_folder(tmp_path: Path) -> None:
    assert load_directory(str(tmp_path)) == {}


def test_one_file(folder: Callable[..., str]) -> None:
    path = folder(good=GOOD) + "/good.py"
    assert load_file(path, "good").describe()["Version"] == "1.2.3"
    with pytest.raises(PluginError, match="cannot be imported: FileNotFoundError"):
        load_file(path + ".missing.py", "good")
    with pytest.raises(PluginError, match="Python cannot import such a file"):
        load_file(path.replace(".py", ".txt"), "good")


def test_a_file_that_fails_leaves_no_module(folder: Callable[..., str]) -> None:
    directory = folder(broken="raise RuntimeError\n")
    before = set(sys.modules)
    assert load_directory(directory) == {}
    assert set(sys.modules) - before <= {"kong_pdk.plugin"}
