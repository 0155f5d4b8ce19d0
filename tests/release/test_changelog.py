"""The fragments in changelog.d, and what becomes of them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pages
import pytest

from release import changelog
from release.changelog import ChangelogError

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = pages.ROOT


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """What the changelog is made of, without a fragment."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{changelog.MARKER}")
    (tmp_path / "changelog.d").mkdir()
    for name in ("README.md", "template.md"):
        shutil.copy(ROOT / "changelog.d" / name, tmp_path / "changelog.d")
    return tmp_path


def add(repository: Path, name: str, text: str) -> None:
    (repository / "changelog.d" / name).write_text(text + "\n", encoding="utf-8")


@pytest.mark.parametrize("path", changelog.fragments(), ids=lambda path: path.name)
def test_a_fragment_is_a_few_sentences(path: Path) -> None:
    """Their links are looked at by tests/docs/test_links.py, as for any page."""
    text = path.read_text(encoding="utf-8")
    assert text.strip() == text.rstrip("\n"), "no blank line"
    assert re.search(r"[.!:)]$", text.rstrip()), "it ends as a sentence does"
    assert not text.startswith(("- ", "* ", "#")), "the bullet is put before it"
    assert max(map(len, text.splitlines())) <= 120


def test_links_of_fragments_are_looked_at() -> None:
    assert set(changelog.fragments()) <= set(pages.all_pages())
    assert pages.folder(ROOT / "changelog.d" / "a.added.md") == ROOT
    assert pages.folder(ROOT / "changelog.d" / "README.md") == ROOT / "changelog.d"


def test_all_fragments_are_in_what_comes_next() -> None:
    text = changelog.pending()
    assert text.startswith("## Next version (unreleased)\n\n")
    rendered = " ".join(text.split())
    for path in changelog.fragments():
        assert "- " + " ".join(path.read_text(encoding="utf-8").split()) in rendered, path.name


def test_kinds_are_those_of_towncrier_and_of_the_description() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "towncrier"
    ]
    assert [kind["directory"] for kind in config["type"]] == list(changelog.KINDS)
    described = (ROOT / "changelog.d/README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|.*\| (\w+) \|$", described, re.MULTILINE)
    assert dict(rows) == changelog.KINDS
    assert config["start_string"] == changelog.MARKER


def test_entries_are_written_in_order(repository: Path) -> None:
    add(repository, "b.fixed.md", "B: [sockets](docs/how-to/sockets.md).")
    add(repository, "c.added.md", "C,\nin two lines.")
    add(repository, "a.fixed.md", "A.")
    changelog.towncrier("--yes", "--version", "1.0.0", "--date", "2026-12-01", root=repository)
    assert changelog.entry("1.0.0", repository) == (
        "### Added\n\n- C,\n  in two lines.\n\n"
        "### Fixed\n\n- A.\n- B: [sockets](docs/how-to/sockets.md).\n"
    )
    assert not changelog.fragments(repository)
    changelog.towncrier("--yes", "--version", "1.0.1", "--date", "2026-12-02", root=repository)
    assert changelog.entry("1.0.1", repository) == "Nothing that users see.\n"
    add(repository, "d.security.md", "D.")
    text = changelog.with_pending(repository)
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == [
        "## Next version (unreleased)",
        "## 1.0.1 (2026-12-02)",
        "## 1.0.0 (2026-12-01)",
    ]
    assert "\n\n\n" not in text


@pytest.mark.parametrize(
    "name", ["a.feature.md", "a.md", "a", ".added.md", "a.added.rst", "a.added"]
)
def test_a_fragment_of_no_kind(repository: Path, name: str) -> None:
    add(repository, name, "A.")
    with pytest.raises(ChangelogError, match=re.escape(f"changelog.d/{name}: name it")):
        changelog.pending(repository)


def test_a_version_without_an_entry(repository: Path) -> None:
    with pytest.raises(ChangelogError, match=r"no entry for 1\.0: .*release 1\.0 --prepare"):
        changelog.entry("1.0", repository)


def test_a_lost_marker(repository: Path) -> None:
    (repository / "CHANGELOG.md").write_text("# Changelog\n")
    with pytest.raises(ChangelogError, match="put back the line <!-- towncrier"):
        changelog.with_pending(repository)


def test_a_broken_template(repository: Path) -> None:
    (repository / "changelog.d/template.md").write_text("{% for %}")
    with pytest.raises(ChangelogError, match=r"towncrier fails: .*Error"):
        changelog.pending(repository)


def test_the_command() -> None:
    command = (sys.executable, "-m", "release.changelog")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, changelog.pending())
    done = subprocess.run((*command, "0.1"), cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("changelog: CHANGELOG.md has no entry for 0.1: ")
