"""What is found out of changed files, and what of it Kong does not know."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest

from kong_pdk.exception import PluginError
from kong_pdk.plugins import Plugin, load, load_directory
from kong_pdk.plugins.changes import Changes, differences
from kong_pdk.plugins.embedded import hold_guard
from kong_pdk.plugins.loading import LoadFailed

Write = Callable[[dict[str, str]], Path]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("", "", []),
        ("'1.2.3'", "'1.2.4'", ["version (from 1.2.3 to 1.2.4)"]),
        ("3', 7", "3', -7", ["priority (from 7 to -7)"]),
        ("def access", "def log", ["phases (new: log; gone: access)"]),
        ("    def access", "    def log(self, kong): pass\n    def access", ["phases (new: log)"]),
        ("'message'", "'other'", ["Schema (new: other; gone: message)"]),
        ("'string'", "'number'", ["Schema (changed: message)"]),
        ("},)", "}, {'b': {'type': 'number'}})", ["Schema (new: b)"]),
        (
            "class Plugin:", "on_error = 'open'\nclass Plugin:",
            ["on_error (from none to open; instances that there are keep the former one)"],
        ),
    ],
)  # fmt: skip
def test_differences(write: Write, good: str, before: str, after: str, expected: list[str]) -> None:
    root = write({"a/x.py": good, "b/x.py": good.replace(before, after)})
    assert differences(load(root / "a" / "x.py"), load(root / "b" / "x.py")) == expected


def test_another_order_of_fields(write: Write, good: str) -> None:
    fields = ["{'a': {'type': 'string'}}", "{'b': {'type': 'string'}}"]
    for name, order in (("a", fields), ("b", fields[::-1])):
        text = good.replace("{'message': {'type': 'string'}},", ", ".join(order))
        write({f"{name}/x.py": text})
    root = write({})
    old, new = (load(root / name / "x.py") for name in "ab")
    assert differences(old, new) == ["Schema (in another order)"]


class Served:
    """Plugins of a folder, looked at as a server does it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.plugins = load_directory(str(root), fresh=True)
        self.changes = Changes(self.plugins, [str(root)])

    def found(self, *paths: str) -> list[str]:
        given = {str(self.root / path) for path in paths}
        return [one.name for one in self.changes.find(given)]

    def reload(self, name: str) -> Plugin:
        code: Any = self.plugins[name].code
        try:
            plugin: Plugin = code.load_again()
        except PluginError as exc:
            self.changes.note_failure(self.plugins[name], exc)
            raise
        self.changes.note_success(plugin)
        self.plugins[name] = plugin
        return plugin


def test_whose_files_have_changed(write: Write, good: str) -> None:
    served = Served(
        write({"x.py": f"import a\n{good}", "y.py": f"import a, b\n{good}", "a.py": "", "b.py": ""})
    )
    assert served.found() == served.found("x.py", "a.py") == []  # nothing is different
    write({"b.py": "changed = 1\n"})
    assert served.found() == ["y"]
    write({"a.py": "changed = 1\n"})
    assert served.found() == ["x", "y"]
    served.reload("x")
    served.reload("y")
    assert served.found() == []


def test_what_has_failed_is_tried_again_when_that_may_help(write: Write, good: str) -> None:
    served = Served(write({"x.py": good, "a.py": ""}))
    write({"x.py": f"import a, missing\n{good}"})
    assert served.found("x.py") == ["x"]
    with pytest.raises(LoadFailed) as caught:
        served.reload("x")
    assert served.found("x.py") == []
    assert not served.changes.note_failure(served.plugins["x"], caught.value), "it is no news"
    assert served.found("notes.txt") == []
    write({"a.py": "changed = 1\n"})  # it was not there before, but is what has failed
    assert served.found("a.py") == ["x"]
    with pytest.raises(LoadFailed):
        served.reload("x")
    write({"missing.py": ""})
    assert served.found("missing.py") == ["x"]
    assert "missing.py" in {Path(path).name for path in served.reload("x").files}
    assert served.found() == []


def test_plugins_that_come_and_go(write: Write, good: str) -> None:
    root = write({"x.py": good, "p/__init__.py": good, "helper.py": "", "data/a.txt": ""})
    served = Served(root)
    assert served.changes.take_new() == served.changes.take_gone() == []
    write({"new.py": good, "helper2.py": "", "folder/a.py": "", "package/__init__.py": good})
    assert served.changes.take_new() == [str(root / "new.py"), str(root / "package")]
    assert served.changes.take_new() == []
    (root / "x.py").unlink()
    (root / "p" / "__init__.py").unlink()
    assert served.found() == []
    assert sorted(one.name for one in served.changes.take_gone()) == ["p", "x"]
    assert served.changes.take_gone() == []
    write({"x.py": good + "\n"})
    assert served.found() == ["x"]
    served.reload("x")
    assert served.changes.take_gone() == []
    (root / "x.py").unlink()
    assert [one.name for one in served.changes.take_gone()] == ["x"], "once more"


def test_a_link_that_leads_elsewhere(write: Write, good: str) -> None:
    root = write({"v1/x.py": good, "v2/x.py": good, "d/readme.txt": ""})
    (root / "d" / "x.py").symlink_to(root / "v1" / "x.py")
    served = Served(root / "d")
    (root / "d" / "new").symlink_to(root / "v2" / "x.py")
    (root / "d" / "new").replace(root / "d" / "x.py")
    assert served.found() == ["x"]
    assert served.reload("x").files == {str(root / "v2" / "x.py")}


@pytest.mark.parametrize("guard", ['__name__ == "__main__"', "'__main__' == __name__"])
def test_a_guard_holds_under_another_name(guard: str) -> None:
    source = f"ran = name = None\nif {guard}:\n    ran = True\nelse:\n    name = __name__\n"
    source += "other = __name__ == 'x'\nnot_main = __name__ != '__main__'\n"
    names: dict[str, Any] = {"__name__": "other"}
    exec(hold_guard(source.encode(), "x.py"), names)
    assert (names["ran"], names["name"], names["other"], names["not_main"]) == (
        True, None, False, True,
    )  # fmt: skip


def test_the_code_of_a_script_keeps_its_lines() -> None:
    source = b"# -*- coding: latin-1 -*-\nword = '\xe4'\n\nif __name__ == '__main__':\n    1 / 0\n"
    names: dict[str, Any] = {"__name__": "other"}
    with pytest.raises(ZeroDivisionError) as caught:
        exec(hold_guard(source, "x.py"), names)
    assert caught.traceback[-1].lineno == 4
    assert names["word"] == "ä"
