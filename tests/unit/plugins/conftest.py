"""Folders of plugins for tests of where plugins come from."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from kong_pdk.plugins import names

#: Writes files, by their paths, and returns the folder.
Write = Callable[[dict[str, str]], Path]


@pytest.fixture(autouse=True)
def same_imports() -> Iterator[None]:
    """What a test loads is not there for the next one; and loading leaves the path alone."""
    path, modules, spaces = list(sys.path), dict(sys.modules), dict(names._spaces)
    yield
    names._spaces.clear()
    names._spaces.update(spaces)
    assert sys.path == path
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tmp_path

    return write


@pytest.fixture
def good() -> str:
    """The source of a plugin."""
    return (
        "version, priority = '1.2.3', 7\n"
        "Schema = ({'message': {'type': 'string'}},)\n"
        "class Plugin:\n"
        "    def __init__(self, config): self.config = config\n"
        "    def access(self, kong): pass\n"
    )
