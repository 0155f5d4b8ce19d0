"""The version comes from ``kong_pdk.__version__``; what else names one does not get out of date."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from servers import SERVER

import kong_pdk
from release import dist

PUBLISHED = Version("0.36")  # the last one of the package that this one replaces
#: ``kong-pdk>=1.0.dev1``, with extras or without.
REQUIREMENT = re.compile(r"\bkong[-_]pdk(?:\[[\w,]+\])?((?:[=<>~!]=|[<>])\d[\w.*,<>=!~]*)")
#: What was measured with a version, what has changed in it, and tests of it.
OF_THEIR_TIME = ("CHANGELOG.md", "benchmarks/", "changelog.d/", "tests/")
TEXT = (".md", ".py", ".toml", ".txt", ".yml", ".yaml", ".json", ".tmpl", ".sh", ".ini")


def texts() -> list[tuple[str, str]]:
    """Path and text of what users and machines read."""
    found = []
    for name in dist.sources():
        path = dist.ROOT / name
        plain = path.suffix in TEXT or path.name.startswith("Dockerfile")
        if plain and not name.startswith(OF_THEIR_TIME):
            found.append((name, path.read_text(encoding="utf-8")))
    return found


def test_every_place_tells_the_same() -> None:
    told = subprocess.run([SERVER, "--version"], capture_output=True, text=True, check=True).stdout
    assert told.split()[-1] == kong_pdk.__version__
    assert installed_version("kong-pdk") == kong_pdk.__version__
    assert dist.version() == kong_pdk.__version__
    assert dist.project()["dynamic"] == ["version"]
    assert "version" not in dist.project()
    assert str(Version(kong_pdk.__version__)) == kong_pdk.__version__, "as PyPI writes it"
    assert len(Version(kong_pdk.__version__).release) == 3, "Semantic Versioning has x.y.z"


def test_what_is_to_be_installed_is_this_version_or_the_published_one() -> None:
    """Not one that will be the wrong one with the next release: ``>=``, but no ``==``."""
    found = [(name, one[1]) for name, text in texts() for one in REQUIREMENT.finditer(text)]
    assert len(found) > 5
    for name, one in found:
        specifiers = SpecifierSet(one.rstrip(".,"), prereleases=True)
        ours = Version(kong_pdk.__version__) in specifiers
        assert ours != (PUBLISHED in specifiers), f"{name}: kong-pdk{one}"
        assert "==" not in one, f"{name}: kong-pdk{one}"


@pytest.mark.skipif(
    Version(kong_pdk.__version__).pre is None and Version(kong_pdk.__version__).dev is None,
    reason="1.0.0 is what a plugin's first version is, too",
)
def test_nobody_else_states_it() -> None:
    stated = [name for name, text in texts() if kong_pdk.__version__ in text]
    assert stated == ["kong_pdk/__init__.py"]


def test_version_without_importing(tmp_path: Path) -> None:
    package = tmp_path / "kong_pdk"
    package.mkdir()
    (package / "__init__.py").write_text("import nothing_of_the_kind\n__version__ = '7.8.9'\n")
    assert dist.version(tmp_path) == "7.8.9"
    (package / "__init__.py").write_text("version = '7.8.9'\n")
    with pytest.raises(dist.DistError, match="has no __version__"):
        dist.version(tmp_path)
    assert sys.modules["kong_pdk"] is kong_pdk
