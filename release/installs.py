"""Installs kong-pdk in each way that people do, with each Python from 3.9 on that is found here.

    python3 dev.py installs              all of it
    python3 dev.py installs 3.9 3.13     with these Pythons only
    python3 dev.py installs --form uv    in this way only
    python3 dev.py installs --dist DIR   what is there, in place of what would be built here

Pythons are those on the PATH as python3.X, and pyenv's. The sdist is made once, and one wheel for
each Python: what its own pip has built from the sdist, and kept, is installed in the other ways.
After each installation it is asked whether its dependencies are there, and whether it works
(release/smoke.py). Prints a line for each; the exit status is 1 if one has failed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Optional

from . import dist

ROOT = dist.ROOT
TOOLS = Path(sys.executable).parent  # uv and pipx are beside this Python
MINORS = range(9, 40)
#: What was published under this name before, and the plugins of which must go on working.
PUBLISHED = "kong-pdk<1"
#: What would lead pip, uv or pipx to some other place, or change what is built or run.
MISLEADING = re.compile(
    r"KONG_|PYTHON|VIRTUAL_ENV$|PIP_(TARGET|PREFIX|ROOT|USER|REQUIRE_VIRTUALENV|PYTHON)$|"
    r"PIPX_|UV_(PYTHON|PROJECT|SYSTEM|TARGET|PREFIX)|(CC|CFLAGS|LDSHARED|LDFLAGS)$"
)
LIMIT = 600  # seconds for each command


class InstallError(Exception):
    """An installation has failed, or is not as it must be."""


class Bench:
    """What the installations with one Python share: the sdist, wheels, and a folder.

    Args:
        python: its executable.
        sdist: to install from.
        pure: the pure wheel.
        folder: an empty one.
        ready: where wheels are that were built elsewhere, if there are any.
    """

    def __init__(
        self, python: Path, sdist: Path, pure: Path, folder: Path, ready: Optional[Path] = None
    ) -> None:
        self.python, self.sdist, self.pure, self.folder = python, sdist, pure, folder
        self.ready = ready
        self.wheel: Optional[Path] = None

    def run(self, *command: str, **variables: str) -> str:
        """Run a command away from the checkout; returns what it prints.

        Raises:
            InstallError: it has failed, or takes too long.
        """
        kept = {name: value for name, value in os.environ.items() if not MISLEADING.match(name)}
        environment = {
            **kept,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_CACHE_DIR": str(self.folder.parent / "cache"),  # nothing of ours into the user's
            **variables,
        }
        try:
            done = subprocess.run(
                command, cwd=self.folder, env=environment, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, timeout=LIMIT,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise InstallError(str(exc))
        if done.returncode:
            said = (done.stdout + done.stderr).strip()
            raise InstallError(
                f"{' '.join(command)}: exit status {done.returncode}\n{said[-4000:]}"
            )
        return done.stdout

    def venv(self, name: str) -> Path:
        """Make a virtual environment; returns its Python."""
        folder = self.folder / name
        self.run(str(self.python), "-m", "venv", str(folder))
        return folder / "bin" / "python"

    def compiled(self) -> Path:
        """The wheel for this Python: of those that are ready, or built by pip from the sdist.

        Raises:
            InstallError: it cannot be built, or none that is ready fits.
        """
        if self.wheel is None:
            python = self.venv("builds")
            wheels = self.folder / "wheels"
            if self.ready:
                # What pip would choose; offline, so that no other release gets in.
                pip(self, python, "download", "--no-deps", "--no-index", "--pre", "--only-binary",
                    ":all:", "--find-links", str(self.ready), "-d", str(wheels), "kong-pdk",
                    PIP_CONFIG_FILE=os.devnull, PIP_FIND_LINKS="")  # fmt: skip
                (self.wheel,) = wheels.iterdir()
                if self.wheel.name == self.pure.name:
                    raise InstallError(f"{self.ready} has no compiled wheel for {self.python}")
                return self.wheel
            # With its name, by which pip finds what it has built of this file before.
            pip(self, python, "wheel", "--no-deps", "-w", str(wheels),
                f"kong-pdk @ {self.sdist.as_uri()}", KONG_PDK_REQUIRE_EXTENSIONS="1")  # fmt: skip
            (self.wheel,) = wheels.iterdir()
        return self.wheel


def pip(bench: Bench, python: Path, *arguments: str, **variables: str) -> str:
    """Run the pip of a virtual environment."""
    return bench.run(str(python), "-m", "pip", *arguments, **variables)


def works(bench: Bench, python: Path, codec: str) -> None:
    """See that what is installed works, with this codec."""
    bench.run(str(python), str(ROOT / "release" / "smoke.py"), "--codec", codec)


def sound(bench: Bench, python: Path, codec: str) -> str:
    """See that what pip has installed is complete and works; returns the codec."""
    pip(bench, python, "check")
    works(bench, python, codec)
    return codec


# --- the ways -------------------------------------------------------------------------------------


def wheel(bench: Bench) -> str:
    """pip, wheel"""
    python = bench.venv("wheel")
    before = ours(python)
    pip(bench, python, "install", str(bench.compiled()))
    sound(bench, python, "compiled")
    pip(bench, python, "uninstall", "--yes", "kong-pdk")
    dist.same("what uninstall leaves", ours(python), before)
    return "compiled"


def pure_wheel(bench: Bench) -> str:
    """pip, pure wheel"""
    python = bench.venv("pure")
    pip(bench, python, "install", str(bench.pure))
    return sound(bench, python, "pure-Python")


def sdist(bench: Bench) -> str:
    """pip, sdist"""
    python = bench.venv("sdist")
    pip(bench, python, "install", str(bench.sdist))
    return sound(bench, python, "compiled")


def no_compiler(bench: Bench) -> str:
    """pip, sdist, no compiler"""
    python = bench.venv("no-compiler")
    # No gcc there. What pip has built before is of no use.
    pip(bench, python, "install", "--no-cache-dir", str(bench.sdist), PATH=str(python.parent))
    return sound(bench, python, "pure-Python")


def uv(bench: Bench) -> str:
    """uv, wheel"""
    program, folder = str(TOOLS / "uv"), bench.folder / "uv"
    bench.run(program, "venv", "--python", str(bench.python), str(folder))
    python = folder / "bin" / "python"
    bench.run(program, "pip", "install", "--python", str(python), str(bench.compiled()))
    bench.run(program, "pip", "check", "--python", str(python))
    works(bench, python, "compiled")
    return "compiled"


def pipx(bench: Bench) -> str:
    """pipx, wheel"""
    program, home = str(TOOLS / "pipx"), bench.folder / "pipx"
    places = {
        "PIPX_HOME": str(home),
        "PIPX_BIN_DIR": str(home / "bin"),
        "PIPX_MAN_DIR": str(home / "man"),
    }
    wheel = str(bench.compiled())
    bench.run(program, "install", "--python", str(bench.python), wheel, **places)
    found = {path.name for path in (home / "bin").iterdir()}
    dist.same("pipx's commands", found, {"kong-pdk", "kong-python-pluginserver"})
    bench.run(str(home / "bin" / "kong-pdk"), "--version")
    works(bench, home / "venvs" / "kong-pdk" / "bin" / "python", "compiled")
    bench.run(program, "uninstall", "kong-pdk", **places)
    dist.same("pipx's commands after uninstall", list((home / "bin").iterdir()), [])
    return "compiled"


def published_and_back(bench: Bench) -> str:
    """pip, from the published and back"""
    # Its gevent takes minutes to compile, and the newest one has no wheel for each Python.
    python = bench.venv("published")
    pip(bench, python, "install", "--prefer-binary", PUBLISHED)
    dumps(bench, python)
    pip(bench, python, "install", "--upgrade", str(bench.compiled()))
    sound(bench, python, "compiled")
    pip(bench, python, "install", "--prefer-binary", PUBLISHED)
    pip(bench, python, "check")
    dumps(bench, python)
    return "compiled"


def ours(python: Path) -> set[str]:
    """The files and folders of kong-pdk in a virtual environment, of any version."""
    root = python.parents[1]
    return {
        str(path.relative_to(root)) for path in root.rglob("*")
        if any("kong" in part.lower() for part in path.relative_to(root).parts)
    }  # fmt: skip


def dumps(bench: Bench, python: Path) -> None:
    """See that the published server works: it tells of a plugin."""
    plugins = bench.folder / "plugins"
    plugins.mkdir(exist_ok=True)
    shutil.copy(ROOT / "examples" / "py-hello.py", plugins)
    server = str(python.parent / "kong-python-pluginserver")
    told = bench.run(server, "-d", str(plugins), "--dump-all-plugins")
    if "py-hello" not in told:
        raise InstallError(f"the published server: {told!r}")


FORMS: dict[str, Callable[[Bench], str]] = {
    "sdist": sdist, "wheel": wheel, "uv": uv, "pipx": pipx, "published": published_and_back,
    "no-compiler": no_compiler, "pure": pure_wheel,
}  # fmt: skip

# --- all of them ----------------------------------------------------------------------------------


def pythons(wanted: Sequence[str] = ()) -> dict[str, Path]:
    """The Pythons of this machine, the first of each version: ``{"3.9": path...}``.

    Args:
        wanted: versions; all from 3.9 on if there are none.

    Raises:
        InstallError: one of these is not here.
    """
    found: dict[str, Path] = {}
    pyenv = shutil.which("pyenv")
    root = None
    if pyenv:
        done = subprocess.run([pyenv, "root"], capture_output=True, text=True)
        root = Path(done.stdout.strip()) / "versions"
    for version in wanted or [f"3.{minor}" for minor in MINORS]:
        candidates = [shutil.which(f"python{version}")]
        if root is not None:
            candidates += map(str, sorted(root.glob(f"{version}.*/bin/python{version}")))
        for path in filter(None, candidates):
            # pyenv has commands for versions that are not selected: they only say so.
            if not subprocess.run([path, "-c", ""], capture_output=True).returncode:
                found[version] = Path(path)
                break
        else:
            if wanted:
                raise InstallError(f"there is no python{version} here")
    if not found:
        raise InstallError("there is no python3.9 or newer here")
    return found


@contextlib.contextmanager
def distributions(ready: Optional[Path]) -> Iterator[tuple[Path, Path, Path]]:
    """The sdist, the pure wheel, and a folder to install in.

    Args:
        ready: where they are; they are made if it is None.

    Raises:
        InstallError: they are not there.
        DistError: they cannot be made.
    """
    with tempfile.TemporaryDirectory(prefix="kong-pdk-") as name:
        if ready is None:
            sdist, pure = dist.make(("sdist", "pure"), Path(name, "dist"))
        else:
            sdist = ready / f"kong_pdk-{dist.version()}.tar.gz"
            pure = ready / f"kong_pdk-{dist.version()}-py3-none-any.whl"
            for path in (sdist, pure):
                if not path.is_file():
                    raise InstallError(f"{path} is missing: python3 dev.py dist makes it")
        yield sdist, pure, Path(name)


def main() -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(
        "dev.py installs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("versions", nargs="*", metavar="VERSION", help="of Python, as 3.9")
    parser.add_argument("--form", action="append", choices=sorted(FORMS), help="may be repeated")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1),
                        help="how many Pythons at once")  # fmt: skip
    parser.add_argument("--dist", type=Path, metavar="DIR",
                        help="has the sdist, the pure wheel, and compiled ones")  # fmt: skip
    args = parser.parse_args()
    ready = args.dist.resolve() if args.dist else None
    failed: list[str] = []
    printing = threading.Lock()

    def with_python(version: str, path: Path) -> None:
        folder = base / version
        folder.mkdir()
        bench = Bench(path, sdist, pure, folder, ready)
        for name in args.form or FORMS:
            start = time.monotonic()
            label = f"{version:5} {FORMS[name].__doc__:32}"
            try:
                said = f"{label} {FORMS[name](bench):12} {time.monotonic() - start:4.0f} s"
            except (InstallError, dist.DistError, OSError) as exc:
                said = f"{label} failed: {exc}"
                failed.append(f"{version} {name}")
            with printing:
                print(said, flush=True)

    try:
        found = pythons(args.versions)
        with (
            distributions(ready) as (sdist, pure, base),
            ThreadPoolExecutor(max(args.jobs, 1)) as pool,
        ):
            for done in [pool.submit(with_python, *one) for one in found.items()]:
                done.result()
    except (InstallError, dist.DistError, OSError) as exc:
        print(f"installs: {exc}", file=sys.stderr)
        return 1
    if failed:
        print(f"installs: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
