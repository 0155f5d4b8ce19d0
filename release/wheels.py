"""Builds a release's wheels from the sdist: [tool.cibuildwheel] in pyproject.toml says which.

    python3 dev.py wheels                             this machine's processor's, into build/dist
    python3 dev.py wheels --only cp313-musllinux_x86_64
    python3 dev.py wheels --print-build-identifiers   which there are
    python3 dev.py wheels --help                      everything else that cibuildwheel can do

Needs Docker or Podman, and Python 3.11 or newer. Each wheel is tested in its image, and then looked
at as `python3 dev.py dist --check` does.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from . import dist

PROGRAM = Path(sys.executable).parent / "cibuildwheel"
OUTPUT = dist.ROOT / "build" / "dist"


def main() -> int:
    """Run the command; returns the exit status."""
    arguments = sys.argv[1:]
    if not PROGRAM.exists():
        print("wheels: cibuildwheel needs Python 3.11 or newer to run itself", file=sys.stderr)
        return 1
    told = {"--help", "-h", "--print-build-identifiers"} & set(arguments)
    if told & {"--help", "-h"}:
        print(__doc__, flush=True)
    if told:
        return subprocess.run([str(PROGRAM), *arguments, str(dist.ROOT)]).returncode
    try:
        with tempfile.TemporaryDirectory(prefix="kong-pdk-") as name:
            (sdist,) = dist.make(("sdist",), Path(name, "sdist"))
            wheels = Path(name, "wheels")
            places = ("--platform", "linux", "--output-dir", str(wheels))
            done = subprocess.run(
                [str(PROGRAM), *places, *arguments, str(sdist)],
                env={**os.environ, "SOURCE_DATE_EPOCH": str(dist.epoch())},
            )
            if done.returncode:
                return done.returncode
            made = sorted(wheels.glob("*.whl"))
            dist.check(made)
            OUTPUT.mkdir(parents=True, exist_ok=True)
            for path in made:
                path.replace(OUTPUT / path.name)
                print(OUTPUT / path.name)
    except (dist.DistError, OSError) as exc:
        print(f"wheels: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
