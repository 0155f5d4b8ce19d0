"""What is published: the sdist, the wheel for this Python, and the pure wheel.

    python3 dev.py dist                    all three, into build/dist
    python3 dev.py dist sdist pure         only these
    python3 dev.py dist --check FILE...    looks at files that were made elsewhere

Wheels are built from the sdist, with the locked tools that the images in deploy/ are built with.
The same sources give the same bytes: times in them are SOURCE_DATE_EPOCH, or that of the last
commit. Each file is then looked at: twine's strict check, the version, and that what belongs into
it is there and nothing else.
"""

from __future__ import annotations

import argparse
import ast
import configparser
import email
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("sdist", "compiled", "pure")
#: What the build adds to the files of the checkout.
GENERATED = ("PKG-INFO", "setup.cfg", "kong_pdk.egg-info/")
#: Files of the package that are for building it.
NOT_INSTALLED = (".pyx", ".h")
DIST_INFO = {
    "METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt", "licenses/LICENSE",
}  # fmt: skip
#: No time in a zip archive is earlier: 1980-01-01.
FIRST_TIME = 315532800


class DistError(Exception):
    """A distribution cannot be made, or is not what it must be."""


def sources(root: Path = ROOT) -> list[str]:
    """The files that the sdist is made of, sorted, as paths relative to the checkout.

    Args:
        root: a checkout, of which git knows the files, with those that are not committed yet but
            without what is ignored; or an unpacked sdist, which has a list of them.

    Raises:
        DistError: it is neither of them.
    """
    listed = root / "kong_pdk.egg-info" / "SOURCES.txt"
    if (root / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True)
        if done.returncode:
            raise DistError(f"git cannot list the files of {root}: {done.stderr.strip()}")
        names = done.stdout.split("\0")[:-1]
    elif listed.exists():
        names = listed.read_text(encoding="utf-8").splitlines()
    else:
        raise DistError(f"{root} is no git checkout and no unpacked sdist: its files are not known")
    # A file that was deleted but not committed is still in git's list.
    return sorted(
        {name for name in names if not name.startswith(GENERATED) and (root / name).is_file()}
    )


def version(root: Path = ROOT) -> str:
    """``kong_pdk.__version__``, without importing it."""
    path = root / "kong_pdk" / "__init__.py"
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            return str(ast.literal_eval(node.value))
    raise DistError(f"{path} has no __version__")


def project(root: Path = ROOT) -> dict[str, Any]:
    """The part ``project`` of pyproject.toml."""
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    table: dict[str, Any] = tomllib.loads(text)["project"]
    return table


def epoch(root: Path = ROOT) -> int:
    """The time that files get, in seconds: SOURCE_DATE_EPOCH, the last commit's, or the sdist's."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given is not None:
        if not given.isdecimal() or int(given) < FIRST_TIME:
            raise DistError(f"SOURCE_DATE_EPOCH must be seconds, {FIRST_TIME} or more: {given!r}")
        return int(given)
    if (root / ".git").exists():
        command = ["git", "log", "-1", "--format=%ct"]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True)
        if done.returncode:
            raise DistError(f"set SOURCE_DATE_EPOCH: {done.stderr.strip()}")
        return int(done.stdout)
    return int((root / "PKG-INFO").stat().st_mtime)


# --- making ---------------------------------------------------------------------------------------


def run_build(folder: Path, target: Path, time: int, *arguments: str, **switches: str) -> Path:
    """Build in a folder with the tools of this environment; returns the new file."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KONG_PDK_")}
    environment = {**kept, "SOURCE_DATE_EPOCH": str(time), "PYTHONHASHSEED": "0", **switches}
    command = [sys.executable, "-m", "build", "--no-isolation", *arguments, "-o", str(target), "."]
    done = subprocess.run(
        command, cwd=folder, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    if done.returncode:
        raise DistError(f"{' '.join(command)}:\n{done.stdout[-4000:]}")
    (built,) = target.iterdir()
    return built


def make_sdist(root: Path, target: Path, time: int) -> Path:
    """Make the sdist of a copy of the sources, into which nothing else can slip."""
    with tempfile.TemporaryDirectory(prefix="kong-pdk-") as name:
        copy, made = Path(name, "copy"), Path(name, "made")
        for source in sources(root):
            (copy / source).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / source, copy / source)
        raw = run_build(copy, made, time, "--sdist")
        return repack(raw, target, time)


def repack(raw: Path, target: Path, time: int) -> Path:
    """Write an sdist again, without what differs from build to build: times, owners, order."""
    path = target / raw.name
    with (
        tarfile.open(raw) as old,
        open(path, "wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=time) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda one: one.name):
            if member.isdir():
                continue
            member.mtime, member.uid, member.gid, member.uname, member.gname = time, 0, 0, "", ""
            member.mode = 0o755 if member.mode & 0o100 else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member))
    return path


def make_wheel(sdist: Path, target: Path, time: int, kind: str) -> Path:
    """Build a wheel from the sdist: ``compiled`` or ``pure``."""
    switches = {
        "compiled": {"KONG_PDK_REQUIRE_EXTENSIONS": "1"},
        "pure": {"KONG_PDK_NO_EXTENSIONS": "1"},
    }
    with tempfile.TemporaryDirectory(prefix="kong-pdk-") as name:
        folder = unpack(sdist, Path(name))
        made = run_build(folder, Path(name, "made"), time, "--wheel", **switches[kind])
        return Path(shutil.copy(made, target))


def unpack(sdist: Path, target: Path) -> Path:
    """Unpack an sdist; returns its one folder."""
    with tarfile.open(sdist) as archive:
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(target, **safe)  # type: ignore[arg-type]
    return target / sdist.name[: -len(".tar.gz")]


def make(kinds: Iterable[str], target: Path, root: Path = ROOT) -> list[Path]:
    """Make distributions.

    Args:
        kinds: some of ``sdist``, ``compiled`` and ``pure``.
        target: the folder for them. Those that are there already are removed.
        root: the checkout, or an unpacked sdist.

    Returns:
        The files, in that order.

    Raises:
        DistError: one cannot be built.
    """
    os.umask(0o022)  # decides on the permissions in wheels
    time = epoch(root)
    target.mkdir(parents=True, exist_ok=True)
    for old in (*target.glob("kong_pdk-*.whl"), *target.glob("kong_pdk-*.tar.gz")):
        old.unlink()
    with tempfile.TemporaryDirectory(prefix="kong-pdk-") as name:
        sdist = make_sdist(root, Path(name), time)
        return [
            Path(shutil.copy(sdist, target))
            if kind == "sdist"
            else make_wheel(sdist, target, time, kind)
            for kind in KINDS if kind in kinds
        ]  # fmt: skip


# --- looking at them ------------------------------------------------------------------------------


def same(what: str, found: object, wanted: object) -> None:
    """Raise an error that says what differs."""
    if found == wanted:
        return
    if isinstance(found, set) and isinstance(wanted, set):
        more, less = sorted(found - wanted), sorted(wanted - found)
        raise DistError(f"{what}: should not be there: {more}; is missing: {less}")
    raise DistError(f"{what}: {found!r}, not {wanted!r}")


def check_metadata(name: str, text: str, root: Path) -> None:
    """Compare the metadata of a distribution with the checkout."""
    told, wanted = email.message_from_string(text), project(root)
    same(f"{name}: name", told["Name"], wanted["name"])
    same(f"{name}: version", told["Version"], version(root))
    same(f"{name}: Python", told["Requires-Python"], wanted["requires-python"])
    same(f"{name}: license", told["License-Expression"], wanted["license"])
    extras = set(told.get_all("Provides-Extra") or ())
    same(f"{name}: extras", extras, set(wanted["optional-dependencies"]))


def check_sdist(path: Path, root: Path = ROOT) -> None:
    """See that an sdist has all sources and nothing else.

    Raises:
        DistError: says what is wrong.
    """
    with tarfile.open(path) as archive:
        names = {name.name.partition("/")[2] for name in archive.getmembers() if name.isfile()}
        folders = {PurePosixPath(name).parts[0] for name in archive.getnames()}
        info = archive.extractfile(f"kong_pdk-{version(root)}/PKG-INFO")
        assert info is not None  # it is a file
        check_metadata(path.name, info.read().decode(), root)
    same(f"{path.name}: its folder", folders, {f"kong_pdk-{version(root)}"})
    same(f"{path.name}: its name", path.name, f"kong_pdk-{version(root)}.tar.gz")
    found = {name for name in names if not name.startswith(GENERATED)}
    same(f"{path.name}: files", found, set(sources(root)))


def check_wheel(path: Path, root: Path = ROOT) -> None:
    """See that a wheel is what its name says, with the whole package and nothing else.

    Raises:
        DistError: says what is wrong.
    """
    _, told_version, python, abi, platform = path.name[: -len(".whl")].split("-")
    same(f"{path.name}: version in its name", told_version, version(root))
    pure = (abi, platform) == ("none", "any")
    info = f"kong_pdk-{version(root)}.dist-info"
    with zipfile.ZipFile(path) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        texts = {
            name: archive.read(f"{info}/{name}").decode()
            for name in ("METADATA", "WHEEL", "entry_points.txt")
        }
    check_metadata(path.name, texts["METADATA"], root)
    wheel = email.message_from_string(texts["WHEEL"])
    same(f"{path.name}: Root-Is-Purelib", wheel["Root-Is-Purelib"], "true" if pure else "false")
    tags = {f"{python}-{abi}-{one}" for one in platform.split(".")}
    same(f"{path.name}: tags", set(wheel.get_all("Tag") or ()), tags)
    modules = {name for name in names if name.startswith("kong_pdk/_speedups.") and
               name.endswith(".so")}  # fmt: skip
    same(f"{path.name}: compiled modules", len(modules), 0 if pure else 1)
    package = {
        name for name in sources(root)
        if name.startswith("kong_pdk/") and not name.endswith(NOT_INSTALLED)
    }  # fmt: skip
    same(f"{path.name}: files", names - modules, package | {f"{info}/{one}" for one in DIST_INFO})
    check_entry_points(path.name, texts["entry_points.txt"], root)


def check_entry_points(name: str, text: str, root: Path) -> None:
    """Compare entry points with pyproject.toml."""
    parser = configparser.ConfigParser(delimiters="=", interpolation=None)
    parser.read_string(text)
    found = {section: dict(parser[section]) for section in parser.sections()}
    wanted = {"console_scripts": project(root)["scripts"], **project(root)["entry-points"]}
    same(f"{name}: entry points", found, wanted)


def check(paths: Iterable[Path], root: Path = ROOT) -> None:
    """Look at distributions of this checkout.

    Raises:
        DistError: one is not as it must be.
    """
    paths = list(paths)
    for path in paths:
        if path.name.endswith(".tar.gz"):
            check_sdist(path, root)
        elif path.suffix == ".whl":
            check_wheel(path, root)
        else:
            raise DistError(f"{path}: neither an sdist nor a wheel")
    command = [sys.executable, "-m", "twine", "--no-color", "check", "--strict", *map(str, paths)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise DistError(f"twine check --strict: {done.stdout.strip()}")


def main() -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(
        "dev.py dist", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "kinds", nargs="*", metavar="KIND", help="sdist, compiled, pure; default all"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "dist", metavar="FOLDER",
                        help="where they are put; default build/dist")  # fmt: skip
    parser.add_argument("--check", nargs="+", type=Path, metavar="FILE",
                        help="look at these instead of making any")  # fmt: skip
    args = parser.parse_args()
    unknown = sorted(set(args.kinds) - set(KINDS))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(KINDS)}")
    try:
        paths = args.check or make(args.kinds or KINDS, args.output.resolve())
        check(paths)
    except (DistError, OSError) as exc:
        print(f"dist: {exc}", file=sys.stderr)
        return 1
    for path in paths:
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
