"""Whose module a name is: each plugin has its own, and libraries are everybody's."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import linecache
import logging
import os
import pickle
import sys
import threading
import traceback
import typing
from pathlib import Path
from typing import Any, Callable

import pytest

from kong_pdk.exception import PluginError
from kong_pdk.plugins import Plugin, load, load_directory, names

Write = Callable[[dict[str, str]], Path]


def handler(plugin: Plugin) -> Any:
    """What its handler returns."""
    return plugin.factory({}).access(None)


def returning(good: str, expression: str, before: str = "", inside: str = "pass") -> str:
    """A plugin whose handler returns something."""
    body = f"def access(self, kong):\n        {inside}\n        return {expression}\n"
    return f"{before}\n{good}".replace("def access(self, kong): pass\n", body)


def test_two_folders_with_a_helper_of_one_name(write: Write, good: str) -> None:
    """At the top of a file, in functions, and in helpers of helpers."""
    source = returning(
        good, "(utils.WORD, again.WORD, utils.deep(), nested.WORD)", "import utils",
        "import utils as again; from utils_of import nested",
    )  # fmt: skip
    files = {}
    for where in ("a", "b"):
        files[f"{where}/{where}_plugin.py"] = source
        files[f"{where}/utils.py"] = (
            f"WORD = '{where}'\ndef deep():\n    import deeper\n    return deeper.WORD\n"
        )
        files[f"{where}/deeper.py"] = "from utils import WORD as W\nWORD = 'deep ' + W\n"
        files[f"{where}/utils_of/nested.py"] = f"WORD = 'nested {where}'\n"
    root = write(files)
    plugins = [load(root / where / f"{where}_plugin.py") for where in ("a", "b")]
    assert handler(plugins[0]) == ("a", "a", "deep a", "nested a")
    assert handler(plugins[1]) == ("b", "b", "deep b", "nested b")
    assert "utils" not in sys.modules
    assert {os.path.basename(path) for path in plugins[0].files} == {
        "a_plugin.py", "utils.py", "deeper.py", "nested.py",
    }  # fmt: skip


def test_two_plugins_of_one_folder_have_a_helper_each(write: Write, good: str) -> None:
    source = returning(good, "len(state.seen)", "import state", "state.seen.append(1)")
    root = write({"one.py": source, "two.py": source, "state.py": "seen = []\n"})
    plugins = load_directory(str(root))
    assert [handler(plugins["one"]) for _ in range(3)] == [1, 2, 3]
    assert handler(plugins["two"]) == 1


def test_linked_plugins_have_the_helpers_of_both_folders(write: Write, good: str) -> None:
    source = returning(good, "(home.WORD, here.WORD)", "import home, here")
    root = write({"lives/x.py": source, "lives/home.py": "WORD = 1\n", "d/here.py": "WORD = 2\n"})
    os.symlink(root / "lives" / "x.py", root / "d" / "x.py")
    plugins = load_directory(str(root / "d"))
    assert handler(plugins["x"]) == (1, 2)


def test_a_plugin_does_not_stand_in_for_a_library(write: Write, good: str) -> None:
    uses = returning(good, "(json.dumps, colorsys.__name__)", "import json", "import colorsys")
    root = write({"json.py": uses, "colorsys.py": good, "other.py": uses})
    plugins = load_directory(str(root))
    assert handler(plugins["json"]) == handler(plugins["other"]) == (json.dumps, "colorsys")
    assert plugins["json"].name == "json"


def test_a_helper_that_a_library_hides_is_told(
    write: Write, good: str, caplog: pytest.LogCaptureFixture
) -> None:
    root = write(
        {
            "x.py": returning(good, "(queue, own)", "import queue\nfrom . import queue as own"),
            "queue.py": "MINE = 1\n",
        }
    )
    with caplog.at_level(logging.WARNING, "kong_pdk.server"):
        library, own = handler(load(root / "x.py"))
    assert library is importlib.import_module("queue")
    assert own.MINE == 1
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith("plugin x: `import queue` is the library ")
    assert str(root / "queue.py") in line


def test_a_package(write: Write, good: str) -> None:
    """Its own modules by relative imports and by its name, what lies beside it by theirs."""
    before = (
        "from . import helper\nfrom .inner.leaf import LEAF\nimport x.helper as named\n"
        "import beside\n"
    )
    source = returning(
        good, "(helper.WORD, LEAF, named is helper, beside.WORD, lazy)", before,
        "from .later import WORD as lazy",
    )  # fmt: skip
    root = write(
        {
            "x/__init__.py": source,
            "x/helper.py": "WORD = 'own'\n",
            "x/later.py": "WORD = 'later'\n",
            "x/inner/__init__.py": "",
            "x/inner/leaf.py": "from ..helper import WORD\nLEAF = WORD + ' leaf'\n",
            "beside.py": "WORD = 'beside'\n",
            "helper.py": "WORD = 'wrong'\n",
        }
    )
    plugins = load_directory(str(root))
    assert list(plugins) == ["x"]
    assert plugins["x"].origin == str(root / "x")
    assert handler(plugins["x"]) == ("own", "own leaf", True, "beside", "later")


def test_what_a_package_says_may_stand_beside_its_class(write: Write, good: str) -> None:
    root = write(
        {
            "x/__init__.py": "from .handler import Plugin\npriority = 3\non_error = 'open'\n",
            "x/handler.py": good,
        }
    )
    plugin = load(root / "x")
    assert (plugin.name, plugin.version, plugin.priority) == ("x", "1.2.3", 3)
    assert plugin.schema == [{"message": {"type": "string"}}]
    assert plugin.on_error == "open"


CLASSES = """
from __future__ import annotations
import dataclasses, enum, typing
from shapes import Shape

@dataclasses.dataclass
class Options:
    shape: Shape
    size: int = 1

class Colour(enum.Enum):
    RED = 1

def explode():
    raise KeyError("here")
"""


def test_what_looks_modules_up_finds_them(write: Write, good: str) -> None:
    """Pickle, type hints, dataclasses, inspect and tracebacks."""
    root = write({"x.py": CLASSES + good, "shapes.py": "class Shape:\n    side = 2\n"})
    plugin = load(root / "x.py")
    module: Any = sys.modules[plugin.factory.__module__]
    options = module.Options(module.Shape())
    again = pickle.loads(pickle.dumps((options, module.Colour.RED)))
    assert type(again[0]) is module.Options and type(again[0].shape) is module.Shape
    assert again[1] is module.Colour.RED
    assert typing.get_type_hints(module.Options) == {"shape": module.Shape, "size": int}
    assert dataclasses.replace(options, size=2).size == 2
    assert "class Plugin" in inspect.getsource(plugin.factory)
    assert inspect.getsource(module.Shape) == "class Shape:\n    side = 2\n"
    linecache.clearcache()
    with pytest.raises(KeyError) as caught:
        module.explode()
    last = traceback.extract_tb(caught.tb)[-1]
    assert (last.filename, last.line) == (str(root / "x.py"), 'raise KeyError("here")')


def test_missing_modules_are_told_by_the_name_that_was_written(write: Write, good: str) -> None:
    root = write({"x.py": f"import nowhere\n{good}"})
    with pytest.raises(PluginError, match=r"No module named 'nowhere' \(.*x\.py, line 1\)"):
        load(root / "x.py")
    assert not [name for name in sys.modules if name.startswith("kong_pdk.plugin.x")]


def test_an_error_in_a_helper_names_its_file_and_line(write: Write, good: str) -> None:
    root = write({"x.py": f"import helper\n{good}", "helper.py": "\n\ndef f(:\n"})
    with pytest.raises(PluginError, match=rf"SyntaxError: .* \({root}/helper\.py, line 3\)"):
        load(root / "x.py")
    write({"helper.py": "a = 1\n1 / 0\n"})
    with pytest.raises(PluginError, match=rf"ZeroDivisionError: .* \({root}/helper\.py, line 2\)"):
        load(root / "x.py")


def test_each_loading_has_modules_of_its_own(write: Write, good: str) -> None:
    """Former code goes on with its own, even with those that it imports later."""
    source = returning(good, "(WORD, lazy)", "from a import WORD", "from b import WORD as lazy")
    root = write({"x.py": source, "a.py": "WORD = 1\n", "b.py": "WORD = 1\n"})
    before = set(sys.modules)  # other tests have left theirs
    first = load(root / "x.py", fresh=True)
    assert handler(first) == (1, 1)
    write({"a.py": "WORD = 2\n", "b.py": "WORD = 2\n"})
    assert first.code is not None
    assert {os.path.basename(path) for path in first.code.changed()} == {"a.py", "b.py"}
    second = first.code.load_again()
    assert handler(second) == (2, 2)
    assert handler(first) == (1, 1)
    first.code.forget()
    assert handler(second) == (2, 2)
    second.code.forget()  # type: ignore[union-attr]
    left = set(sys.modules) - before
    assert not [name for name in left if name.startswith("kong_pdk.plugin.")]


def test_a_change_within_the_same_second_is_seen(write: Write, good: str) -> None:
    """Python's own .pyc files would not tell: same size, same second."""
    source = returning(good, "WORD", "from a import WORD")
    root = write({"x.py": source, "a.py": "WORD = 1\n"})
    plugin = load(root / "x.py", fresh=True)
    for number in range(2, 6):
        write({"a.py": f"WORD = {number}\n"})
        os.utime(root / "a.py", ns=(number, 10**18))
        assert plugin.code is not None
        plugin = plugin.code.load_again()
        assert handler(plugin) == number


def test_threads_may_import_at_the_same_time(write: Write, good: str) -> None:
    source = returning(good, "id(slow)", "", "import slow")
    root = write({"x.py": source, "slow.py": "import time\ntime.sleep(0.05)\nDONE = 1\n"})
    plugin = load(root / "x.py")
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(handler(plugin))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_importlib_finds_a_plugins_own_modules(write: Write, good: str) -> None:
    source = returning(
        good, "own is again is named, own.WORD, own.__spec__.name, json.__name__",
        "import importlib",
        "own = importlib.import_module('own'); again = importlib.import_module('own');"
        "import own as named; json = importlib.import_module('json')",
    )  # fmt: skip
    root = write({"a/x.py": source, "a/own.py": "WORD = 1\n", "b/y.py": source})
    write({"b/own.py": "WORD = 2\n"})
    names = [f"kong_pdk.plugin.{name}.own" for name in "xy"]
    plugins = [load(root / "a" / "x.py"), load(root / "b" / "y.py")]
    for _ in range(2):
        assert handler(plugins[0]) == (True, 1, names[0], "json")
        assert handler(plugins[1]) == (True, 2, names[1], "json")
    assert "own" not in sys.modules
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("own")  # who is no plugin does not get it


def test_importlib_and_what_it_cannot_find(write: Write, good: str) -> None:
    source = returning(good, "find(kong)", "from importlib.util import find_spec as find")
    source = source.replace("def access(self, kong)", "def access(self, kong=None)")
    root = write({"x.py": source, "pack/__init__.py": "", "pack/leaf.py": "WORD = 1\n"})
    plugin = load(root / "x.py")
    access = plugin.factory({}).access
    assert access("pack").name == "kong_pdk.plugin.x.pack"
    with pytest.raises(ModuleNotFoundError, match=r"'\.pack\.leaf' in the package '.*\.x'"):
        access("pack.leaf")
    assert access("nowhere") is None


def test_importlib_finds_what_is_in_a_plugins_own_packages(write: Write, good: str) -> None:
    """Rules that register themselves with the package that has them imported, say."""
    before = (
        "import pkgutil, importlib.resources, rules\n"
        "from importlib import import_module\n"
        "for found in pkgutil.iter_modules(rules.__path__): import_module('rules.' + found.name)\n"
    )
    source = returning(
        good, "(rules.KNOWN, again is rules, near is again.one, text, importlib.import_module)",
        before, "again = importlib.import_module('rules');"
        "near = importlib.import_module('.one', 'rules');"
        "text = importlib.resources.files('rules').joinpath('words.txt').read_text()",
    )  # fmt: skip
    files = {
        "x.py": source,
        "rules/__init__.py": "KNOWN = []\n",
        "rules/one.py": "from rules import KNOWN\nKNOWN.append('one')\n",
        "rules/words.txt": "words",
    }
    plugin = load(write(files) / "x.py")
    found = handler(plugin)
    assert found[:4] == (["one"], True, True, "words")
    assert "rules" not in sys.modules
    with pytest.raises(ModuleNotFoundError, match="No module named 'nowhere'"):
        found[4]("nowhere")
    assert found[4]("json.decoder").__name__ == "json.decoder"


def test_threads_may_import_in_a_circle(write: Write, good: str) -> None:
    """Python lets one of them have what there is so far; none fails."""
    source = returning(good, "do", "import threading; BOTH = threading.Barrier(2, timeout=10)")
    source += (
        "    \ndef do(name):\n"
        "    if name == 'one':\n        import one; return one.DONE\n"
        "    import two; return two.DONE\n"
    )
    files = {"x.py": source}
    for name, other in (("one", "two"), ("two", "one")):
        files[f"{name}.py"] = f"from x import BOTH\nBOTH.wait()\nimport {other}\nDONE = '{name}'\n"
    do = handler(load(write(files) / "x.py"))
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda name=name: found.append(do(name))) for name in ("one", "two")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == ["one", "two"]


def test_a_linked_helper_is_where_its_link_is(
    write: Write, good: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in Python: its data lies beside the link. So it is also if the folder is in the path."""
    root = write({"x.py": returning(good, "words.__file__", "import words"), "of/words.py": ""})
    os.symlink(root / "of" / "words.py", root / "words.py")
    for _ in range(2):
        plugin = load(root / "x.py")
        assert handler(plugin) == str(root / "words.py")
        assert str(root / "of" / "words.py") in plugin.files  # which changes
        monkeypatch.syspath_prepend(str(root))
    monkeypatch.undo()


@pytest.mark.filterwarnings("ignore:.*find_spec")
def test_finders_of_former_pythons(
    write: Write, good: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Old:
        """As some libraries have it."""

        def find_module(self, fullname: str, path: Any = None) -> None:
            """Finds nothing."""

    monkeypatch.setattr(sys, "meta_path", [Old(), *sys.meta_path])
    plugin = load(write({"x.py": returning(good, "a.A", "import a"), "a.py": "A = 1"}) / "x.py")
    assert handler(plugin) == 1


def test_a_new_file_is_found_in_a_folder_that_has_the_same_time(write: Write, good: str) -> None:
    """Some file systems tell it by the second."""
    root = write({"x.py": returning(good, "a.A", "import a"), "a.py": "A = 1\n"})
    plugin = load(root / "x.py", fresh=True)
    before = os.stat(root)
    write({"x.py": returning(good, "new.A", "import new"), "new.py": "A = 2\n"})
    os.utime(root, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert plugin.code is not None
    assert handler(plugin.code.load_again()) == 2


def test_forgetting_twice_takes_nothing_from_who_has_the_name_then(write: Write, good: str) -> None:
    root = write({"x.py": returning(good, "a.A", "", "import a"), "a.py": "A = 1\n"})
    first, second = load(root / "x.py"), load(root / "x.py")
    assert first.code is not None and second.code is not None
    first.code.forget()
    third = load(root / "x.py")
    assert third.factory.__module__ == first.factory.__module__
    first.code.forget()
    assert handler(third) == 1


def test_what_can_be_there_once_only_is_told(write: Write, good: str) -> None:
    """A metric that a common helper registers, say."""
    helper = "import sys\nassert not hasattr(sys, 'once_only'), 'twice'\nsys.once_only = 1\n"
    source = f"import helper\n{good}"
    root = write({"one.py": source, "two.py": source, "helper.py": helper})
    try:
        load(root / "one.py")
        with pytest.raises(
            PluginError, match=r"twice \(.*helper\.py, line 2\); plugin one has a module "
        ):
            load(root / "two.py")
    finally:
        del sys.once_only  # type: ignore[attr-defined]


def test_a_package_that_cannot_be_a_plugin_is_not_run(write: Write, good: str) -> None:
    """It is run once, for the plugin that imports it."""
    once = "import sys\nsys.ran_packages.append(__name__)\n"
    sys.ran_packages = []  # type: ignore[attr-defined]
    try:
        root = write(
            {
                "a_helper/__init__.py": once,
                "tests/__init__.py": once,
                "b/__init__.py": "from .inner import *\n" + once,
                "b/inner.py": good,
                "x.py": f"import a_helper\n{good}",
            }
        )
        assert sorted(load_directory(str(root))) == ["b", "x"]
        assert sys.ran_packages == [  # type: ignore[attr-defined]
            "kong_pdk.plugin.b.b", "kong_pdk.plugin.x.a_helper",
        ]  # fmt: skip
    finally:
        del sys.ran_packages  # type: ignore[attr-defined]


def test_libraries_that_lie_beside_the_plugins_are_everybodys(
    write: Write, good: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """``pip install --target``: what is written in C can be loaded once, and under one name."""
    source = returning(good, "(installed.__name__, own.__name__)", "import installed, own")
    record = "installed/__init__.py,,\nacme-1.0.dist-info/METADATA,,\n"
    root = write(
        {
            "one.py": source,
            "two.py": source,
            "own.py": "",
            "installed/__init__.py": "class Plugin: is_of = 'something else'\n",
            "acme-1.0.dist-info/METADATA": "Name: acme\nVersion: 1.0\n",
            "acme-1.0.dist-info/RECORD": record,
        }
    )
    with caplog.at_level(logging.WARNING, "kong_pdk.server"):
        plugin = load(root / "one.py")
        assert handler(plugin) == ("kong_pdk.plugin.one.installed", "kong_pdk.plugin.one.own")
        assert f"put its folder into PYTHONPATH ({root})" in caplog.text
        plugin.code.forget()  # type: ignore[union-attr]
        caplog.clear()
        monkeypatch.syspath_prepend(str(root))
        for name, plugin in load_directory(str(root)).items():
            assert handler(plugin) == ("installed", f"kong_pdk.plugin.{name}.own")
        assert caplog.text == ""
    monkeypatch.undo()


def test_threads_may_load_at_the_same_time() -> None:
    """Each loading has a name of its own."""
    interval = sys.getswitchinterval()
    spaces: list[names.Space] = []
    threads = [
        threading.Thread(
            target=lambda: spaces.extend(names.Space("x", (), "x") for _ in range(100))
        )
        for _ in range(4)
    ]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len({space.package for space in spaces}) == len(spaces) == 400
