"""What pip takes of all that a release has: the compiled wheel where one fits, else the pure one.

pip goes by the names of files. So here are wheels of all names that a release has, with no more in
them than pip reads; it is asked for other machines than this one, which it knows how to do.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from release import dist

VERSION = dist.version()
MINORS = ("39", "310", "311", "312", "313")
#: What auditwheel makes of wheels from the images in pyproject.toml: for a platform that pip
#: looks for, the tags in the file's name. Those for glibc need no newer one than 2.17.
PLATFORMS = {
    "manylinux_2_28_x86_64": "manylinux2014_x86_64.manylinux_2_17_x86_64.manylinux_2_28_x86_64",
    "manylinux2014_aarch64": "manylinux2014_aarch64.manylinux_2_17_aarch64.manylinux_2_28_aarch64",
    "musllinux_1_2_x86_64": "musllinux_1_2_x86_64",
    "musllinux_1_2_aarch64": "musllinux_1_2_aarch64",
}
PURE = f"kong_pdk-{VERSION}-py3-none-any.whl"
METADATA = f"""\
Metadata-Version: 2.4
Name: kong-pdk
Version: {VERSION}
Requires-Python: >=3.9
"""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of each name."""
    folder = tmp_path_factory.mktemp("release")
    info = f"kong_pdk-{VERSION}.dist-info"
    tags = [f"cp{one}-cp{one}-{platform}" for one in MINORS for platform in PLATFORMS.values()]
    for tag in ("py3-none-any", *tags):
        with zipfile.ZipFile(folder / f"kong_pdk-{VERSION}-{tag}.whl", "w") as wheel:
            wheel.writestr(f"{info}/METADATA", METADATA)
            wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\n")
            wheel.writestr(f"{info}/RECORD", "")
    # Whoever opens it finds that it is none.
    (folder / f"kong_pdk-{VERSION}.tar.gz").write_bytes(b"not to be built")
    return folder


def taken(release: Path, target: Path, *arguments: str) -> str:
    """The name of the file that pip downloads."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--no-index", "--find-links", str(release),
         "--pre", "--no-deps", "--no-cache-dir", "-d", str(target), *arguments, "kong-pdk"],
        env={**kept, "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = target.iterdir()
    return path.name


@pytest.mark.parametrize("platform, python", list(zip(PLATFORMS, ("3.9", "3.13", "3.11", "3.10"))))
def test_the_compiled_one_where_it_fits(
    release: Path, tmp_path: Path, platform: str, python: str
) -> None:
    name = taken(release, tmp_path, "--platform", platform, "--python-version", python,
                 "--implementation", "cp")  # fmt: skip
    minor = python.replace(".", "")
    assert name == f"kong_pdk-{VERSION}-cp{minor}-cp{minor}-{PLATFORMS[platform]}.whl"


@pytest.mark.parametrize("platform, python, implementation", [
    ("manylinux2010_x86_64", "3.9", "cp"),  # an older C library
    ("musllinux_1_2_ppc64le", "3.12", "cp"),
    ("macosx_11_0_arm64", "3.13", "cp"),
    ("manylinux_2_28_x86_64", "3.14", "cp"),
    ("manylinux_2_28_x86_64", "3.11", "pp"),
    ("manylinux_2_28_x86_64", "3.12", "graalpy"),
])  # fmt: skip
def test_the_pure_one_elsewhere(
    release: Path, tmp_path: Path, platform: str, python: str, implementation: str
) -> None:
    """And never the sdist: nobody's compiler is needed."""
    name = taken(release, tmp_path, "--platform", platform, "--python-version", python,
                 "--implementation", implementation)  # fmt: skip
    assert name == PURE


def test_this_machine_compiles_nothing(release: Path, tmp_path: Path) -> None:
    """Asked as people do, without saying for which machine."""
    assert taken(release, tmp_path).endswith(".whl")


def test_the_sdist_for_those_who_want_to_compile(release: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"kong_pdk-.*tar\.gz|not a gzip|invalid|cannot"):
        taken(release, tmp_path, "--no-binary", "kong-pdk")
