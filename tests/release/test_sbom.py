"""The bill of materials: what it says of distributions, and what it refuses."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pages
import pytest
from recipes import missing

from release import sbom
from release.sbom import SbomError

ROOT = pages.ROOT

WHEEL = "kong_pdk-1.2.3-py3-none-any.whl"


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    folder = tmp_path / "dist"
    folder.mkdir()
    return folder


def files(dist: Path, *names: str) -> list[Path]:
    for name in names:
        (dist / name).write_bytes(name.encode())
    return sorted(dist.iterdir())


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ((), "there are no distributions in build/dist: python3 dev.py dist makes them"),
        ((WHEEL, "other-1.2.3.tar.gz"), "other-1.2.3.tar.gz is no distribution of kong-pdk"),
        ((WHEEL, "kong_pdk-1.2.4.tar.gz"), "are of 1.2.3, 1.2.4: make them again"),
    ],
)
def test_files_that_cannot_be_described(dist: Path, names: tuple[str, ...], problem: str) -> None:
    with pytest.raises(SbomError) as error:
        sbom.version_of(files(dist, *names))
    assert problem in str(error.value)


def test_a_wheel_that_can_be_installed_here_is_found(dist: Path) -> None:
    mine = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    machine = platform.machine()
    linux = f"kong_pdk-1.2.3-{mine}-{mine}-manylinux_2_28_{machine}.whl"
    others = (
        "kong_pdk-1.2.3.tar.gz",
        f"kong_pdk-1.2.3-{mine}-{mine}-musllinux_1_2_{machine}.whl",
        f"kong_pdk-1.2.3-{mine}-{mine}-manylinux_2_28_vax.whl",
        f"kong_pdk-1.2.3-cp27-cp27-manylinux_2_28_{machine}.whl",
    )
    with pytest.raises(SbomError, match=f"no wheel in build/dist is for {mine} on {machine}"):
        sbom.usable(files(dist, *others))
    assert sbom.usable(files(dist, linux)).name == linux
    assert sbom.usable(files(dist, WHEEL)).name == WHEEL


def test_a_tool_that_fails_is_named() -> None:
    with pytest.raises(SbomError, match=r"-c import sys; sys\.exit\('no'\) fails: no"):
        sbom.run(sys.executable, "-c", "import sys; sys.exit('no')")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A pure wheel of this checkout and its bill of materials, both made by the real commands."""
    if importlib.util.find_spec("cyclonedx_py") is None:
        missing("cyclonedx-bom: pip install -r tests/release/requirements.txt")
    folder = tmp_path_factory.mktemp("sbom")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, source)
    built = shutil.ignore_patterns("__pycache__", "*.so", "_speedups.c")
    shutil.copytree(ROOT / "kong_pdk", source / "kong_pdk", ignore=built)
    pip = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation")
    pure = {**os.environ, "KONG_PDK_NO_EXTENSIONS": "1", "KONG_PDK_REQUIRE_EXTENSIONS": "0"}
    subprocess.run(
        [*pip, "-w", str(folder / "dist"), "."], cwd=source, env=pure, check=True, timeout=120
    )
    (wheel,) = (folder / "dist").iterdir()
    text = sbom.written(folder / "dist", "", folder).read_text(encoding="utf-8")
    return wheel, json.loads(text)


def test_the_package_and_its_files(made: tuple[Path, dict]) -> None:
    wheel, document = made
    package = document["metadata"]["component"]
    version = wheel.name.split("-")[1]
    assert (package["name"], package["version"]) == ("kong-pdk", version)
    assert package["purl"] == f"pkg:pypi/kong-pdk@{version}"
    assert package["licenses"][0]["license"]["id"] == "Apache-2.0"
    (file,) = package["externalReferences"]
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert file["url"] == wheel.name
    assert file["hashes"] == [{"alg": "SHA-256", "content": digest}]


def test_what_is_installed_with_it_and_what_built_it(made: tuple[Path, dict]) -> None:
    _, document = made
    components = {one["name"].lower(): one for one in document["components"]}
    assert set(components) == {"msgpack", "cython", "setuptools"}
    assert components["msgpack"]["version"].startswith("1.")
    assert components["msgpack"]["licenses"][0]["license"]["id"] == "Apache-2.0"
    assert {name for name, one in components.items() if one.get("scope") == "excluded"} == {
        "cython", "setuptools",
    }  # fmt: skip
    (package,) = (one for one in document["dependencies"] if one["ref"] == "root-component")
    assert package["dependsOn"] == [components["msgpack"]["bom-ref"]]


def test_a_document_of_another_form(made: tuple[Path, dict]) -> None:
    _, document = made
    sbom.check(json.dumps(document))
    del document["components"][0]["name"]
    with pytest.raises(SbomError, match=r"the document is no CycloneDX 1\.6: "):
        sbom.check(json.dumps(document))
