"""What names a plugin, and that no two have the same name."""

from __future__ import annotations

import importlib
import logging
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from kong_pdk.exception import PluginError
from kong_pdk.plugins import importing, load, load_directory
from kong_pdk.plugins.installed import load_all_installed
from kong_pdk.plugins.loading import load_places

Write = Callable[[dict[str, str]], Path]
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path) -> Iterator[Install]:
    """Have distributions with entry points and modules, as pip leaves them."""
    site = tmp_path / "site"
    site.mkdir()

    def install(distribution: str, points: str, files: dict[str, str]) -> Path:
        info = site / f"{distribution}-1.0.dist-info"
        info.mkdir()
        info.joinpath("METADATA").write_text(f"Name: {distribution}\nVersion: 1.0\n")
        info.joinpath("entry_points.txt").write_text(f"[kong_pdk.plugins]\n{points}")
        for name, text in files.items():
            (site / name).parent.mkdir(parents=True, exist_ok=True)
            (site / name).write_text(text)
        return site

    sys.path.append(str(site))
    importlib.invalidate_caches()
    yield install
    sys.path.remove(str(site))
    importlib.invalidate_caches()


def test_a_class(good: str) -> None:
    module = types.ModuleType("some_module")
    exec(good, vars(module))
    plugin = load(module.Plugin, version="0.0.1", priority=0)
    assert (plugin.version, plugin.priority, plugin.schema) == ("0.0.1", 0, [])
    sys.modules["some_module"] = module
    plugin = load(module.Plugin, version="0.0.1", name="other")
    assert (plugin.name, plugin.version, plugin.priority) == ("other", "1.2.3", 7)


def test_a_module(good: str, tmp_path: Path) -> None:
    module = types.ModuleType("pack.some_module")
    module.__file__ = None
    exec(good, vars(module))
    plugin = load(module)
    assert (plugin.name, plugin.version) == ("some_module", "1.2.3")
    with pytest.raises(PluginError, match="module empty: it has no class Plugin"):
        load(types.ModuleType("empty"))


def test_paths(write: Write, good: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write({"x.py": good, "y/__init__.py": good, "z/a.py": good})
    assert load(root / "x.py").name == load(str(root / "x.py")).name == "x"
    assert load(root / "y").name == "y"
    assert load(root / "x.py", "other").name == "other"
    monkeypatch.chdir(root)
    assert load("y").origin == str(root / "y")
    assert load("x.py").files == {str(root / "x.py")}
    with pytest.raises(PluginError, match=r"z: a folder is a plugin if it has an __init__\.py"):
        load(root / "z")
    with pytest.raises(PluginError, match="no plugin 'z' is installed"):
        load("z")
    with pytest.raises(PluginError, match="cannot be imported: FileNotFoundError"):
        load("./nowhere.py")


def test_what_is_installed(install: Install, good: str) -> None:
    install(
        "acme", "acme-auth = acme_kong.auth\nacme-log = acme_kong.log:Inner.Logger\n",
        {
            "acme_kong/__init__.py": "",
            "acme_kong/auth.py": f"from acme_kong.words import WORD\nfrom . import words\n{good}",
            "acme_kong/words.py": "WORD = 1\n",
            "acme_kong/log.py": good.replace("class Plugin", "class Base")
            + "class Inner:\n    class Logger(Base): pass\n",
        },
    )  # fmt: skip
    plugin = load("acme-auth")
    assert (plugin.name, plugin.version) == ("acme-auth", "1.2.3")
    assert plugin.origin == "entry point acme-auth = acme_kong.auth of acme 1.0"
    assert plugin.factory.__module__ == "acme_kong.auth"
    assert {Path(path).name for path in plugin.files} == {"__init__.py", "auth.py", "words.py"}
    assert load("acme-log").factory.__name__ == "Logger"
    assert sorted(load_all_installed()) == ["acme-auth", "acme-log"]
    with pytest.raises(PluginError, match=r"no plugin 'x' is .*\(installed: acme-auth, acme-log\)"):
        load("x")


def test_changed_code_of_what_is_installed(install: Install, good: str) -> None:
    """By absolute imports too; and the library of that name stays what it is."""
    source = "from acme_re.words import WORD\nimport acme_re.words as named\n" + good.replace(
        "access(self, kong): pass", "access(self, kong): return WORD, named.WORD"
    )
    files = {"acme_re/__init__.py": "", "acme_re/p.py": source, "acme_re/words.py": "WORD = 1\n"}
    site = install("acme", "p = acme_re.p\n", files)
    plugin = load("p")
    (site / "acme_re" / "words.py").write_text("WORD = 22\n")
    assert plugin.code is not None
    assert plugin.code.changed() == {str(site / "acme_re" / "words.py")}
    new = plugin.code.load_again()
    assert plugin.factory({}).access(None) == (1, 1)
    assert new.factory({}).access(None) == (22, 22)
    assert sys.modules["acme_re.words"].WORD == 1
    (site / "acme_re" / "words.py").write_text("WORD = (\n")
    assert new.code is not None
    assert new.code.changed()
    with pytest.raises(PluginError, match=r"SyntaxError: .*words\.py, line 1\)"):
        new.code.load_again()
    assert new.factory({}).access(None) == (22, 22)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("acme_bad.nowhere", "No module named 'acme_bad.nowhere'"),
        ("acme_bad.p:Nothing", "there is no Nothing in acme_bad.p"),
        ("acme_bad.raises", r"ValueError: x \(.*raises\.py, line 2\)"),
        ("acme_bad", "it has no class Plugin"),
    ],
)
def test_what_is_installed_and_wrong(
    install: Install, good: str, value: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    files = {
        "acme_bad/__init__.py": "", "acme_bad/p.py": good,
        "acme_bad/raises.py": "\nraise ValueError('x')\n",
    }  # fmt: skip
    install("acme", f"bad = {value}\ngood = acme_bad.p\n", files)
    with pytest.raises(PluginError, match=f"^entry point bad = {value} of acme 1.0: .*{text}"):
        load("bad")
    assert list(load_all_installed()) == ["good"]
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith(f"skipped an installed plugin: entry point bad = {value}")


def test_two_of_one_name(install: Install, write: Write, good: str) -> None:
    root = write({"d/x.py": good, "d/x/__init__.py": good, "e/y.py": good, "f/y.py": good})
    with pytest.raises(PluginError) as caught:
        load_directory(str(root / "d"))
    for path in ("d/x.py", "d/x"):
        assert f"{root / path}" in str(caught.value)
    folders = [str(root / "e"), str(root / "f")]
    with pytest.raises(PluginError, match=rf"two plugins 'y': {root}/e/y.py and {root}/f/y.py: "):
        load_places(folders, [], False)
    with pytest.raises(PluginError, match=rf"two plugins 'y': {root}/e/y.py and {root}/f/y.py: "):
        load_places(folders[:1], [str(root / "f" / "y.py")], False)
    install("one", "y = mod_y\nz = mod_y\n", {"mod_y.py": good})
    with pytest.raises(PluginError, match=r"'y': .*/y.py and entry point y = mod_y of one 1.0"):
        load_places(folders[:1], ["y"], False)
    assert sorted(load_places([], ["y"], True)) == ["y", "z"]  # named, and among all
    install("two", "y = mod_y\n", {})
    for ask in (lambda: load("y"), load_all_installed):
        with pytest.raises(PluginError, match=r"y = mod_y of one 1.0 and .*y = mod_y of two 1.0"):
            ask()
    assert load("z").name == "z"


def test_places_without_plugins(write: Write) -> None:
    root = write({"d/readme.txt": ""})
    with pytest.raises(PluginError, match=f"there is no plugin in {root}/d"):
        load_places([str(root / "d")], [], False)
    with pytest.raises(PluginError, match="no plugin is installed in this Python"):
        load_places([], [], True)


def test_an_import_that_takes_long_is_told(
    write: Write, good: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kong waits for it without a word: the module waits here until that line is logged."""
    monkeypatch.setattr(importing, "SLOW", 0.01)
    told = tmp_path / "told"

    class Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "takes longer than" in record.getMessage():
                told.write_text(record.getMessage(), encoding="utf-8")

    wait = (
        "import pathlib, time\n"
        f"path, deadline = pathlib.Path({str(told)!r}), time.monotonic() + 30\n"
        "while not path.exists():\n"
        "    assert time.monotonic() < deadline\n"
        "    time.sleep(0.005)\n"
    )
    folder = write({"slow.py": wait + good})
    watch = Watch()
    logging.getLogger("kong_pdk.server").addHandler(watch)
    try:
        assert load(folder / "slow.py").name == "slow"
    finally:
        logging.getLogger("kong_pdk.server").removeHandler(watch)
    assert str(folder / "slow.py") in told.read_text(encoding="utf-8")
    assert not [one for one in threading.enumerate() if isinstance(one, threading.Timer)]
