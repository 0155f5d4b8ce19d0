"""The sdist and the pure wheel, as ``python3 dev.py dist`` makes them; and what it refuses.

They are made twice: of this checkout, or whatever it is, and of the sdist unpacked in another
place, which no git knows. Each run looks at its files itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from servers import run_command

import kong_pdk
from release import dist

VENV = os.environ.get("KONG_PDK_VENV", str(dist.ROOT / ".venv"))


def make(root: Path, output: Path, *kinds: str, umask: int = 0o022, **variables: str) -> list[Path]:
    """Run ``dev.py dist``; the tools' environment is that of this checkout."""
    done = subprocess.run(
        [sys.executable, "dev.py", "dist", *kinds, "--output", str(output)],
        cwd=root, env={**os.environ, "KONG_PDK_VENV": VENV, **variables},
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
        preexec_fn=lambda: os.umask(umask) and None,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [Path(line.split("  ")[1]) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The sdist and the pure wheel of this checkout."""
    output = tmp_path_factory.mktemp("dist")
    paths = make(dist.ROOT, output, "sdist", "pure")
    assert sorted(paths) == sorted(output.iterdir())
    return paths


@pytest.fixture(scope="module")
def unpacked(made: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, unpacked as somebody may have it who lets nobody else read his files."""
    folder = dist.unpack(made[0], tmp_path_factory.mktemp("unpacked"))
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode & 0o700)
    return folder


def test_the_sdist_has_every_file_of_the_checkout(made: list[Path]) -> None:
    """If this fails for a new file, or folder: MANIFEST.in has what goes into the sdist."""
    with tarfile.open(made[0]) as archive:
        names = {one.name.partition("/")[2] for one in archive.getmembers()}
    own = {name for name in names if not name.startswith(dist.GENERATED)}
    assert own == set(dist.sources())
    assert {".ci/run", "dev.py", "kong_pdk/_speedups.pyx", "release/dist.py"} <= own
    assert str(Path(__file__).relative_to(dist.ROOT)) in own


def test_nothing_that_was_built_is_in_it(made: list[Path]) -> None:
    with tarfile.open(made[0]) as archive:
        names = [one.name for one in archive.getmembers()]
    built = (".so", ".pyc", "_speedups.c", "__pycache__")
    assert not [name for name in names if name.endswith(built) or "__pycache__" in name]
    assert len(names) == len(set(names))


def test_the_sdist_of_the_sdist_is_the_same(
    made: list[Path], unpacked: Path, tmp_path: Path
) -> None:
    """And so is its wheel, to the byte: it needs no git, and nothing that is not in it."""
    assert not (unpacked / ".git").exists()
    epoch = str(dist.epoch())
    again = make(unpacked, tmp_path, "sdist", "pure", umask=0o077, SOURCE_DATE_EPOCH=epoch)
    assert [path.name for path in again] == [path.name for path in made]
    for one, other in zip(made, again):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_an_unpacked_sdist_knows_its_files_and_its_time(unpacked: Path) -> None:
    assert dist.sources(unpacked) == dist.sources()
    assert dist.version(unpacked) == kong_pdk.__version__
    assert dist.epoch(unpacked) == dist.epoch()


def test_the_wheel_of_the_sdist_is_what_is_installed_here(made: list[Path]) -> None:
    """dev.py has built that from the checkout."""
    here = Path(kong_pdk.__file__).parent
    with zipfile.ZipFile(made[1]) as archive:
        wheel = {
            name: archive.read(name) for name in archive.namelist() if name.startswith("kong_pdk/")
        }
    built = {".so", ".pyc"}
    installed = {
        str(path.relative_to(here.parent)): path.read_bytes()
        for path in here.rglob("*") if path.is_file() and path.suffix not in built
    }  # fmt: skip
    assert wheel.keys() == installed.keys()
    assert [name for name in wheel if wheel[name] != installed[name]] == []


def test_the_pure_wheel_says_that_it_is_pure(made: list[Path], tmp_path: Path) -> None:
    assert made[1].name == f"kong_pdk-{kong_pdk.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(made[1]) as archive:
        archive.extractall(tmp_path)
    # Its own files, before those that are installed here.
    program = "import kong_pdk.cli as cli; cli.start_server(['--version', '-v'])"
    done = run_command(sys.executable, "-c", program, env={"PYTHONPATH": str(tmp_path)})
    assert "(pure-Python codec, " in done.stdout, done.stderr


def test_what_is_installed_passes_the_smoke_test() -> None:
    codec = "compiled" if kong_pdk.is_compiled() else "pure-Python"
    script = str(dist.ROOT / "release" / "smoke.py")
    done = run_command(sys.executable, script, "--codec", codec)
    assert done.returncode == 0, done.stderr
    other = "pure-Python" if kong_pdk.is_compiled() else "compiled"
    done = run_command(sys.executable, script, "--codec", other)
    assert done.returncode == 1
    assert f"the codec is {codec}, not {other}" in done.stderr


# --- what is refused ------------------------------------------------------------------------------


def changed(wheel: Path, target: Path, name: str, data: bytes) -> Path:
    """A copy of a wheel in which a file is another one, or a new one."""
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            if entry.filename != name:
                new.writestr(entry, old.read(entry))
        new.writestr(name, data)
    return target


@pytest.mark.parametrize(
    "name, old, new, message",
    [
        ("kong_pdk/stray.py", "", "", "should not be there: ['kong_pdk/stray.py']"),
        ("kong_pdk/_speedups.so", "", "", "compiled modules: 1, not 0"),
        ("{info}/METADATA", "\nVersion: ", "\nVersion: 9", "version: '9"),
        ("{info}/METADATA", "Provides-Extra: try\n", "", "extras: should not be there: []; is "),
        ("{info}/WHEEL", "Purelib: true", "Purelib: false", "Root-Is-Purelib: 'false', not 'true'"),
        ("{info}/WHEEL", "py3-none-any", "py2-none-any", "should not be there: ['py2-none-any']"),
        ("{info}/entry_points.txt", "kong-pdk =", "kong-pdq =", "entry points: "),
    ],
)
def test_a_wheel_that_is_not_as_it_must_be(
    made: list[Path], tmp_path: Path, name: str, old: str, new: str, message: str
) -> None:
    name = name.replace("{info}", f"kong_pdk-{kong_pdk.__version__}.dist-info")
    text = ""
    if old:
        with zipfile.ZipFile(made[1]) as archive:
            text = archive.read(name).decode()
        assert old in text
    wheel = changed(made[1], tmp_path / made[1].name, name, text.replace(old, new, 1).encode())
    with pytest.raises(dist.DistError) as error:
        dist.check_wheel(wheel)
    assert message in str(error.value)


def test_a_wheel_of_another_version(made: list[Path], tmp_path: Path) -> None:
    wheel = tmp_path / "kong_pdk-0.36-py3-none-any.whl"
    wheel.write_bytes(made[1].read_bytes())
    with pytest.raises(dist.DistError, match=r"version in its name: '0\.36', not "):
        dist.check_wheel(wheel)


@pytest.mark.parametrize("more, less", [("kong_pdk/_speedups.c", ""), ("", "dev.py")])
def test_an_sdist_that_is_not_as_it_must_be(
    made: list[Path], tmp_path: Path, more: str, less: str
) -> None:
    path, folder = tmp_path / made[0].name, made[0].name[: -len(".tar.gz")]
    with tarfile.open(made[0]) as old, tarfile.open(path, "w:gz") as new:
        for member in old.getmembers():
            if member.name != f"{folder}/{less}":
                new.addfile(member, old.extractfile(member))
        if more:
            new.addfile(tarfile.TarInfo(f"{folder}/{more}"))
    with pytest.raises(dist.DistError) as error:
        dist.check_sdist(path)
    listed = [name for name in (more, less) if name]
    assert str(listed) in str(error.value)


def test_a_folder_of_which_the_files_are_not_known(tmp_path: Path) -> None:
    with pytest.raises(dist.DistError, match="no git checkout and no unpacked sdist"):
        dist.sources(tmp_path)


@pytest.mark.parametrize("time", ["yesterday", "-1", "0"])
def test_a_wrong_time(monkeypatch: pytest.MonkeyPatch, time: str) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", time)
    with pytest.raises(dist.DistError, match="SOURCE_DATE_EPOCH must be seconds"):
        dist.epoch()


@pytest.mark.parametrize("arguments, status, message", [
    (["wheel"], 2, "unknown: wheel; there are sdist, compiled, pure"),
    (["--check", "/nowhere/README.md"], 1, "neither an sdist nor a wheel"),
    (["--check", "/nowhere/kong_pdk-1-py3-none-any.whl"], 1, "version in its name: '1', not"),
])  # fmt: skip
def test_the_command_says_what_is_wrong(arguments: list[str], status: int, message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "release.dist", *arguments],
        cwd=dist.ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (status, "")
    assert message in done.stderr


def test_no_compiled_wheel_without_a_compiler(made: list[Path], tmp_path: Path) -> None:
    """As all wheels of a release are built; an installation by pip goes on without."""
    done = subprocess.run(
        [sys.executable, "dev.py", "dist", "compiled", "--output", str(tmp_path)],
        cwd=dist.ROOT, env={**os.environ, "KONG_PDK_VENV": VENV, "CC": "/nowhere/cc"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "/nowhere/cc" in done.stderr
    assert not list(tmp_path.iterdir())
