"""What mypy and pyright say of plugins: nothing of right ones, and something of each mistake.

Each checker runs once, on everything. The folder ``strict`` is for what must pass ``mypy
--strict``, ``plain`` for plugins without annotations, whose bodies are checked all the same.
"""

from __future__ import annotations

import json
import re
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path

import checkers
import pytest
from checkers import Problem

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MISTAKES = sorted(path.name for path in HERE.glob("wrong_*.py"))

MYPY = """\
[mypy]
strict = true
explicit_package_bases = true

[mypy-plain.*]
disallow_untyped_defs = false
disallow_incomplete_defs = false
disallow_untyped_calls = false
"""
#: With the oldest Python that the package runs on.
PYRIGHT = {"pythonVersion": "3.9", "strict": ["strict/good_*.py", "strict/py_*.py"]}


def examples_of_the_reference() -> str:
    """All of them in one module, as methods of a plugin that are called after their functions."""
    lines = ["from typing import Any", "", "import kong_pdk.pdk.kong as kong", ""]
    lines += ["class Plugin:", "    config: dict[str, Any]"]
    heading_or_example = re.compile(
        r"^## (kong\..+?)$|^In `\w+`:\n\n```python\n(.*?)^```", re.DOTALL | re.MULTILINE
    )
    for page in sorted((ROOT / "docs/reference").glob("*.md")):
        for found in heading_or_example.finditer(page.read_text(encoding="utf-8")):
            if found[1] is not None:
                name = found[1].replace(".", "_")
                lines += ["", f"    def {name}(self, kong: kong.kong) -> None:"]
            else:
                lines.append(textwrap.indent(found[2], " " * 8))
    return "\n".join(lines)


def plugins_of_the_docs() -> Iterator[tuple[str, str]]:
    """The annotated whole plugins that README and docs show, with names for their modules."""
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        blocks = re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.M)
        # Without the annotation of kong nobody knows that kong.response.exit does not return.
        whole = (block for block in blocks if "Schema =" in block and "kong: kong.kong" in block)
        for number, block in enumerate(whole):
            yield f"{page.stem.lower().replace('-', '_')}_{number}", block


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that is checked, outside of the checkout."""
    folder = tmp_path_factory.mktemp("typing")
    for name in ("strict", "plain"):
        (folder / name).mkdir()
    for path in [*HERE.glob("good_*.py"), *HERE.glob("wrong_*.py")]:
        shutil.copy(path, folder / "strict")
    (folder / "strict/reference.py").write_text(examples_of_the_reference(), encoding="utf-8")
    for path in (ROOT / "examples").glob("*.py"):
        annotated = "__init__(self, config: " in path.read_text(encoding="utf-8")
        kind = "strict" if annotated else "plain"
        shutil.copy(path, folder / kind / path.name.replace("-", "_"))
    for name, text in plugins_of_the_docs():
        (folder / f"plain/{name}.py").write_text(text, encoding="utf-8")
    (folder / "mypy.ini").write_text(MYPY, encoding="utf-8")
    (folder / "pyrightconfig.json").write_text(json.dumps(PYRIGHT), encoding="utf-8")
    return folder


@pytest.fixture(scope="module", params=["mypy", "pyright"])
def problems(request: pytest.FixtureRequest, folder: Path) -> list[Problem]:
    """What a checker reports."""
    if request.param == "mypy":
        return checkers.mypy(folder, "strict", "plain")
    return checkers.pyright(folder)


def test_everything_is_there(folder: Path) -> None:
    checked = {str(path.relative_to(folder)) for path in folder.glob("*/*.py")}
    assert checked >= {
        "strict/good_lua_style.py", "strict/good_python_style.py", "strict/py_token.py",
        "strict/jwt_guard.py", "plain/py_hello.py", "plain/readme_0.py",
    }  # fmt: skip
    functions = len(re.findall(r"^    def ", examples_of_the_reference(), re.MULTILINE))
    assert functions == (ROOT / "kong_pdk/pdk/_table.py").read_text("utf-8").count("FunctionSpec(")


def test_what_is_right_passes(problems: list[Problem]) -> None:
    assert [one for one in problems if not Path(one.file).name.startswith("wrong_")] == []


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_is_found(problems: list[Problem], name: str) -> None:
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    marked = {number: line for number, line in enumerate(lines, 1) if "# wrong:" in line}
    found = {one.line: one.message for one in problems if Path(one.file).name == name}
    assert marked
    assert {number: line for number, line in marked.items() if number not in found} == {}
    assert {number: text for number, text in found.items() if number not in marked} == {}
