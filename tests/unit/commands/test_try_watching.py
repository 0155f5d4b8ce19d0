"""Which folders are watched for a plugin, and which changes count."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from kong_pdk.commands.watching import changes, folders_of, root_of


def tree(folder: Path) -> None:
    for name in (
        "plugin.py", "package/__init__.py", "package/inner/__init__.py", "package/data/x.py",
        "other/x.py", "other/package/__init__.py", ".venv/__init__.py",
        "package/__pycache__/x.py",
    ):  # fmt: skip
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_folders_beside_a_file_are_packages(tmp_path: Path) -> None:
    tree(tmp_path)
    found = {os.path.relpath(each, tmp_path) for each in folders_of(str(tmp_path / "plugin.py"))}
    assert found == {".", "package", "package/inner"}


def test_where_a_plugin_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path)
    metadata = tmp_path / "some-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: some\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[kong_pdk.plugins]\nmine = package.inner:Plugin\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert root_of("mine") == str(tmp_path / "package")
    assert root_of(str(tmp_path / "plugin.py")) == str(tmp_path / "plugin.py")
    assert root_of("another") == ""


def test_all_folders_of_a_package_count(tmp_path: Path) -> None:
    tree(tmp_path)
    package = tmp_path / "package"
    found = {os.path.relpath(each, package) for each in folders_of(str(package))}
    assert found == {".", "inner", "data"}


def test_python_files_and_those_named_count(tmp_path: Path) -> None:
    pytest.importorskip("watchfiles")
    plugin, named = tmp_path / "plugin.py", tmp_path / "config.json"
    (tmp_path / "link").symlink_to(tmp_path)

    async def watch() -> list[str]:
        watching = changes(str(tmp_path / "link" / "plugin.py"), [str(named)])
        first = asyncio.ensure_future(watching.__anext__())
        seen: list[str] = []
        try:
            # Until the watcher is there nothing is seen.
            while not seen:
                (tmp_path / "ignored.log").write_text("x")
                plugin.write_text("x")
                named.write_text("{}")
                done, _ = await asyncio.wait([first], timeout=0.2)
                seen = first.result() if done else []
        finally:
            await watching.aclose()
        return seen

    seen = asyncio.run(asyncio.wait_for(watch(), 60))
    assert {os.path.basename(name) for name in seen} <= {"plugin.py", "config.json"}
    assert seen
