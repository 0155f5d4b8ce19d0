"""The Python code in README and docs is what it claims to be.

A block that is a plugin is checked as ``kong-pdk check`` does, the body of a handler is run in its
phase, and tests are run, with the files that their page shows before them. Everything else must
compile. The tutorial has a test of its own, and the generated reference too.
"""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pages
import pytest
from pages import Block
from servers import clean_environment

from kong_pdk.testing import Gateway

KONG_PDK = str(Path(sysconfig.get_path("scripts")) / "kong-pdk")
TUTORIAL = pages.ROOT / "docs/tutorial.md"
PAGES = [page for page in pages.written_pages() if page != TUTORIAL]
HANDLER = """\
class Plugin:
    def __init__(self, config):
        self.config = config

    def {phase}(self, kong):
{body}"""
NAME = re.compile(r"#!.*\n# (\S+\.py)\n|# (\S+\.py)\n")


def python_blocks() -> Iterator[Block]:
    for page in PAGES:
        yield from (block for block in pages.blocks(page) if block.language == "python")


def file_name(block: Block) -> str:
    """The name that the comment before a block, or its first line, gives it."""
    found = NAME.match(block.text)
    if block.key == "file":
        return block.value
    return (found[1] or found[2]) if found else ""


def is_plugin(block: Block) -> bool:
    return re.search(r"^class Plugin\b", block.text, re.MULTILINE) is not None


def is_test(block: Block) -> bool:
    return re.search(r"^ *(async )?def test_", block.text, re.MULTILINE) is not None


def named(blocks: list[Block]) -> list[object]:
    return [pytest.param(block, id=str(block)) for block in blocks]


EVERYTHING = list(python_blocks())
PLUGINS = [
    block for block in EVERYTHING
    if is_plugin(block) and not is_test(block) and block.key != "not run"
]  # fmt: skip
HANDLERS = [block for block in EVERYTHING if block.key == "handler"]
TESTED = sorted({block.page for block in EVERYTHING if is_test(block) and block.key != "not run"})


def test_there_are_blocks_of_each_kind() -> None:
    assert EVERYTHING and PLUGINS and HANDLERS


@pytest.mark.parametrize("block", named(EVERYTHING))
def test_it_is_python(block: Block) -> None:
    text = block.text
    if block.key == "handler" or re.search(r"^(return|yield)\b", text, re.MULTILINE):
        text = "def handler(kong):\n" + textwrap.indent(text, "    ")
    compile(text, str(block), "exec")


@pytest.mark.parametrize("block", named(PLUGINS))
def test_a_plugin_is_one(block: Block, tmp_path: Path) -> None:
    path = tmp_path / (file_name(block) or "shown.py")
    path.write_text(block.text, encoding="utf-8")
    done = subprocess.run(
        [KONG_PDK, "check", path.name],
        capture_output=True, text=True, timeout=60, cwd=tmp_path, env=clean_environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("block", named(HANDLERS))
def test_a_handler_runs(block: Block) -> None:
    """With a request and an answer that are JSON, as the pages that show bodies speak of."""
    namespace: dict[str, object] = {}
    source = HANDLER.format(phase=block.value, body=textwrap.indent(block.text, " " * 8))
    exec(compile(source, str(block), "exec"), namespace)
    plugin = namespace["Plugin"]
    assert isinstance(plugin, type)
    with Gateway(plugin, {}, schema=()) as gateway:
        gateway.respond(200, json={"password": "x", "name": "y"})
        result = gateway.post("/", json={"order": 1})
    assert result.failures == []
    assert result.calls, "it has not been run"


@pytest.mark.parametrize("page", TESTED, ids=lambda page: str(page.relative_to(pages.ROOT)))
def test_tests_pass(page: Path, tmp_path: Path) -> None:
    """The tests of a page, beside the files that it shows."""
    number = 0
    for block in pages.blocks(page):
        if block.key == "not run" or not (block.language == "python" or block.key == "file"):
            continue
        name = file_name(block)
        if is_test(block) and not name:
            number += 1
            name = f"test_{number}.py"
        if name:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(block.text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "."],
        capture_output=True, text=True, timeout=110, cwd=tmp_path, env=clean_environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
