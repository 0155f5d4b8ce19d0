#!/usr/bin/env python3
"""Everything that a developer runs, each command setting up what it needs.

    python3 dev.py try       build, start the example plugin, and send a request through it
    python3 dev.py test      build and run all tests; further arguments go to pytest
    python3 dev.py lint      ruff, its formatter, mypy, pyright, and whether what is generated is
                             up to date
    python3 dev.py generate  what comes from pdkgen/spec: types, table and reference of the PDK
    python3 dev.py bench     the benchmarks, timed; further arguments go to pytest
    python3 dev.py compare   this package, the published one and the floor, and what that gives for
                             benchmarks/README.md; see --help

Needs Python 3.9 or newer with venv, and uses a C compiler if there is one. The package is built
into a wheel and installed into .venv (KONG_PDK_VENV names another folder), so that what is tested
is what users install, not the checkout.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = Path(os.environ.get("KONG_PDK_VENV", ROOT / ".venv"))
BIN = VENV / "bin"
#: What a wheel is made of, and what decides whether it is compiled.
SOURCES = ("kong_pdk/**/*", "pyproject.toml", "setup.py", "MANIFEST.in")
SWITCHES = ("KONG_PDK_NO_EXTENSIONS", "KONG_PDK_REQUIRE_EXTENSIONS", "CC", "CFLAGS")


def run(*command: str, **more: object) -> None:
    """Run a command in the repository; end with its status if it fails."""
    status = subprocess.run(command, cwd=ROOT, **more).returncode  # type: ignore[call-overload]
    if status:
        sys.exit(status)


def fingerprint(extras: str) -> str:
    """Changes when the package must be built again."""
    digest = hashlib.sha256(f"{sys.version} {extras}".encode())
    for name in SWITCHES:
        digest.update(f"{name}={os.environ.get(name)}\0".encode())
    built = (".pyc", ".so", ".c")
    for pattern in SOURCES:
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file() and path.suffix not in built:
                digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def install(extras: str) -> None:
    """Have the package, built from this checkout, in the virtual environment."""
    stamp, wanted = VENV / f"kong-pdk-{extras}.stamp", fingerprint(extras)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    if not (BIN / "python").exists():
        print(f"making a virtual environment in {VENV}", file=sys.stderr)
        if subprocess.run([sys.executable, "-m", "venv", str(VENV)]).returncode:
            sys.exit("cannot make a virtual environment: on Debian, apt-get install python3-venv")
    print(f"building and installing kong-pdk[{extras}]", file=sys.stderr)
    for old in VENV.glob("kong-pdk-*.stamp"):
        old.unlink()
    shutil.rmtree(ROOT / "build", ignore_errors=True)  # what a build before this one has left
    pip = (str(BIN / "python"), "-m", "pip", "--disable-pip-version-check", "install", "-q")
    run(*pip, f".[{extras}]")
    run(*pip, "--force-reinstall", "--no-deps", "--no-cache-dir", ".")
    stamp.write_text(wanted)
    run(str(BIN / "kong-python-pluginserver"), "--version", "-v", stdout=sys.stderr)


def main() -> None:
    """Run the command that the first argument names."""
    command, arguments = (sys.argv[1:2] or ["help"])[0], sys.argv[2:]
    if command == "try":
        install("try")
        request = arguments or [
            "examples/py-hello.py", "--config", '{"message": "hello"}', "--port", "0",
            "--request", "GET /",
        ]  # fmt: skip
        run(str(BIN / "kong-pdk"), "try", *request)
    elif command == "test":
        install("try,gevent,test,types")
        run(str(BIN / "pytest"), *arguments)
    elif command == "lint":
        install("try,gevent,lint,types")
        run(str(BIN / "ruff"), "check", ".")
        run(str(BIN / "ruff"), "format", "--check", ".")
        run(str(BIN / "mypy"))
        quiet = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}  # asks for no newer release
        run(str(BIN / "pyright"), "--pythonpath", str(BIN / "python"), env=quiet)
        run(str(BIN / "python"), "-m", "pdkgen", "--check")
    elif command == "generate":
        install("try,gevent,lint,types")
        run(str(BIN / "python"), "-m", "pdkgen", *arguments)
    elif command == "bench":
        install("try,gevent,test")
        run(str(BIN / "pytest"), "benchmarks", "--benchmark-enable", *arguments)
    elif command == "compare":
        install("gevent,bench,test")
        paths = os.pathsep.join(str(ROOT / f"{name}/support") for name in ("benchmarks", "tests"))
        script = (str(BIN / "python"), "benchmarks/compare.py")
        run(*script, *arguments, env={**os.environ, "PYTHONPATH": paths})
    else:
        print(__doc__)
        sys.exit(0 if command in ("help", "-h", "--help") else 2)


if __name__ == "__main__":
    main()
