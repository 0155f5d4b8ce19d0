#!/usr/bin/env python3
"""Everything that a developer runs, each command setting up what it needs.

    python3 dev.py try       build, start the example plugin, and send a request through it
    python3 dev.py test      build and run all tests; further arguments go to pytest
    python3 dev.py lint      ruff, its formatter, mypy, pyright, and whether what is generated is
                             up to date
    python3 dev.py docs      the site of the documentation, into build/docs; with --links it asks
                             the network whether links to other sites still lead somewhere
    python3 dev.py changelog  what the fragments in changelog.d make of the next version's entry;
                             with a version its entry in CHANGELOG.md
    python3 dev.py generate  what comes from pdkgen/spec: types, table and reference of the PDK
    python3 dev.py sbom      a bill of materials of the files in build/dist, into build/sbom
    python3 dev.py release   what is in the way of a release; --prepare commits and tags it
    python3 dev.py bench     the benchmarks, timed; further arguments go to pytest
    python3 dev.py compare   this package, the published one and the floor, and what that gives for
                             benchmarks/README.md; see --help
    python3 dev.py figures   figures that the documents quote: start-up, abandoned events, what
                             observing costs, and a PDK call in nginx
    python3 dev.py fuzz      broken input for codecs and servers; see --help and fuzz/README.md
    python3 dev.py fuzz-guided  the same, led by coverage; needs atheris (Python 3.11 or newer)
    python3 dev.py soak      clients and plugins that make trouble, and whether the server grows;
                             see --help and soak/README.md
    python3 dev.py kills     whether a request passes while processes are killed under load; with
                             --growths N whether one is refused while workers are replaced
    python3 dev.py dist      the sdist and wheels, into build/dist, each of them looked at
    python3 dev.py wheels    the wheels for all Pythons and C libraries; needs Docker
    python3 dev.py installs  whether they can be installed, in each way, with each Python found here
    python3 dev.py sanitize  tests and fuzz targets of the codec under AddressSanitizer and UBSan

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
SANITIZE = os.environ.get("KONG_PDK_SANITIZE", "0") not in ("", "0")
#: What a wheel is made of, and what decides whether it is compiled.
SOURCES = ("kong_pdk/**/*", "pyproject.toml", "setup.py", "MANIFEST.in")
SWITCHES = (
    "KONG_PDK_NO_EXTENSIONS", "KONG_PDK_REQUIRE_EXTENSIONS", "KONG_PDK_SANITIZE", "CC", "CFLAGS",
)  # fmt: skip

#: For lint, docs and generate, so that none builds the package again after another.
LINT = "try,gevent,metrics,tracing,pydantic,reload,completion,lint,types,docs"
#: What measures, beside pytest.
SCRIPTS = {"compare": "benchmarks/compare.py", "figures": "benchmarks/support/figures.py"}

#: What makes distributions, tries and describes them; modules of release/.
DISTRIBUTIONS = ("dist", "installs", "sbom", "wheels")

#: What makes a release; each has a --help.
RELEASE = {"changelog": "release.changelog", "release": "release.checklist"}


def run(*command: str, **more: object) -> None:
    """Run a command in the repository; end with its status if it fails."""
    status = subprocess.run(command, cwd=ROOT, **more).returncode  # type: ignore[call-overload]
    if status:
        sys.exit(status)


def fingerprint() -> str:
    """Changes when the package must be built again."""
    digest = hashlib.sha256(sys.version.encode())
    for name in SWITCHES:
        digest.update(f"{name}={os.environ.get(name)}\0".encode())
    built = (".pyc", ".so", ".c")
    for pattern in SOURCES:
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file() and path.suffix not in built:
                digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def install(extras: str) -> None:
    """Have the package, built from this checkout, in the virtual environment.

    The wheel is built when something in it has changed, and stays for commands with other extras.
    """
    wanted = fingerprint()
    stamp = VENV / f"kong-pdk-{extras}.stamp"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    if not (BIN / "python").exists():
        print(f"making a virtual environment in {VENV}", file=sys.stderr)
        if subprocess.run([sys.executable, "-m", "venv", str(VENV)]).returncode:
            sys.exit("cannot make a virtual environment: on Debian, apt-get install python3-venv")
    pip = (str(BIN / "python"), "-m", "pip", "--disable-pip-version-check")
    wheels = VENV / "kong-pdk-wheel"
    built = wheels / "stamp"
    if not built.exists() or built.read_text() != wanted:
        print("building kong-pdk", file=sys.stderr)
        for old in VENV.glob("kong-pdk-*.stamp"):
            old.unlink()
        # What setuptools has left of a build before this one; build/dist and build/docs stay.
        for left in (wheels, *(ROOT / "build").glob("lib*"), *(ROOT / "build").glob("bdist*")):
            shutil.rmtree(left, ignore_errors=True)
        run(*pip, "wheel", "-q", "--no-deps", "--no-cache-dir", "-w", str(wheels), ".")
        built.write_text(wanted)
    print(f"installing kong-pdk[{extras}]", file=sys.stderr)
    (wheel,) = wheels.glob("*.whl")
    run(*pip, "install", "-q", f"{wheel}[{extras}]")
    run(*pip, "install", "-q", "--force-reinstall", "--no-deps", str(wheel))  # of the same version
    stamp.write_text(wanted)
    server = (str(BIN / "kong-python-pluginserver"), "--version", "-v")
    run(*server, stdout=sys.stderr, env={**os.environ, **sanitizer_environment()})


def release_tools() -> Path:
    """Have the tools that make and install distributions; returns their Python.

    They are in a virtual environment of their own, with the locked tools that build the package.
    """
    venv = Path(f"{VENV}-release")
    files = ("deploy/docker/build-requirements.txt", "release/requirements.txt")
    wanted = sys.version + "".join((ROOT / name).read_text(encoding="utf-8") for name in files)
    stamp = venv / "stamp"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        print(f"installing the release's tools into {venv}", file=sys.stderr)
        run(sys.executable, "-m", "venv", "--clear", str(venv))
        pip = (str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check")
        run(*pip, "install", "-q", "--require-hashes", "-r", files[0])
        run(*pip, "install", "-q", "-r", files[1])
        stamp.write_text(wanted, encoding="utf-8")
    return venv / "bin" / "python"


def generator_environment() -> dict[str, str]:
    """The environment of what reads the checkout, in which nothing is compiled."""
    return {**os.environ, "KONG_PDK_REQUIRE_EXTENSIONS": "0"}


def fuzz_environment() -> dict[str, str]:
    """The environment of the fuzz targets, which use the tests' client and servers."""
    return {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "support")}


def soak_environment() -> dict[str, str]:
    """The environment of a soak: beside the tests' client, the load client and broken frames."""
    folders = ("tests/support", "benchmarks/support", "fuzz")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in folders)}


def sanitizer_environment() -> dict[str, str]:
    """What a Python needs that loads the module built with sanitizers; nothing for other builds.

    Python itself is not built with them: so their library is loaded first, its own memory comes
    from malloc, where they see it, and is not looked at for leaks, of which it has many.
    """
    if not SANITIZE:
        return {}
    compiler = os.environ.get("CC", "gcc")
    libraries = []
    for name in ("libasan.so", "libubsan.so", "libstdc++.so.6"):  # the last for greenlet
        found = subprocess.run(
            [compiler, f"-print-file-name={name}"], capture_output=True, text=True
        )
        path = found.stdout.strip()
        if not os.path.isabs(path):
            sys.exit(f"{compiler} has no {name}: on Debian, apt-get install gcc libstdc++6")
        libraries.append(path)
    return {
        "LD_PRELOAD": " ".join(libraries),
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "KONG_PDK_TEST_TIMEOUT_SCALE": "5",
        "KONG_PDK_HYPOTHESIS_EXAMPLES": "10",
    }


def sanitize(arguments: list[str]) -> None:
    """Run tests and fuzz targets of the codec with the sanitizers; a report ends the process."""
    if not SANITIZE:
        switches = {
            "KONG_PDK_SANITIZE": "1",
            "KONG_PDK_REQUIRE_EXTENSIONS": "1",
            "KONG_PDK_VENV": str(ROOT / ".venv-sanitize"),
        }
        run(sys.executable, __file__, "sanitize", *arguments, env={**os.environ, **switches})
        return
    install("gevent,test")
    environment = {**fuzz_environment(), **sanitizer_environment()}
    # What leaks is measured without the sanitizers, which keep freed memory for a while.
    # A report goes to standard error as the process ends, so pytest must leave that alone.
    leaks = "--ignore=tests/unit/codec/test_leaks.py"
    tests = ("tests/unit/codec", "-q", "--capture=sys", leaks)
    run(str(BIN / "pytest"), *tests, env=environment)
    for target in ("decoder", "encoder", "function", "server", "server-processes"):
        fuzz = ("fuzz", "--target", target, *(arguments or ("--seconds", "10")))
        run(str(BIN / "python"), *fuzz, env=environment)


def docs(arguments: list[str]) -> None:
    """Build the site; a warning, such as a link that leads nowhere, is an error."""
    target = ROOT / "build" / ("docs-links" if "--links" in arguments else "docs")
    sphinx = (str(BIN / "python"), "-m", "sphinx", "-W", "--keep-going", "-E", "-q")
    builder = "linkcheck" if "--links" in arguments else "html"
    run(*sphinx, "-b", builder, "docs", str(target), env=generator_environment())
    print(f"the site: {target}/index.html" if builder == "html" else "all links lead somewhere")


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
        install(LINT)
        run(str(BIN / "ruff"), "check", ".")
        run(str(BIN / "ruff"), "format", "--check", ".")
        run(str(BIN / "mypy"))
        quiet = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}  # asks for no newer release
        run(str(BIN / "pyright"), "--pythonpath", str(BIN / "python"), env=quiet)
        run(str(BIN / "python"), "-m", "pdkgen", "--check", env=generator_environment())
    elif command == "docs":
        install(LINT)
        docs(arguments)
    elif command == "generate":
        install(LINT)
        run(str(BIN / "python"), "-m", "pdkgen", *arguments, env=generator_environment())
    elif command in RELEASE:
        install(LINT)
        run(str(BIN / "python"), "-m", RELEASE[command], *arguments)
    elif command == "bench":
        install("try,gevent,test")
        run(str(BIN / "pytest"), "benchmarks", "--benchmark-enable", *arguments)
    elif command in SCRIPTS:
        install("gevent,bench,test" if command == "compare" else "try,gevent,test,types")
        paths = os.pathsep.join(str(ROOT / f"{name}/support") for name in ("benchmarks", "tests"))
        script = (str(BIN / "python"), SCRIPTS[command])
        run(*script, *arguments, env={**os.environ, "PYTHONPATH": paths})
    elif command in ("fuzz", "fuzz-guided"):
        guided = command == "fuzz-guided"
        install("gevent,fuzz" if guided else "try,gevent,test,types")  # as test: no build between
        script = "fuzz/guided.py" if guided else "fuzz"
        run(str(BIN / "python"), script, *arguments, env=fuzz_environment())
    elif command in ("soak", "kills"):
        install("try,gevent,test,types")  # as test: no build between
        asked = any(one.startswith(("--kills", "--growths")) for one in arguments)
        if command == "kills" and not asked:
            arguments = ["--kills", "20", *arguments]
        run(str(BIN / "python"), "soak", *arguments, env=soak_environment())
    elif command in DISTRIBUTIONS:
        run(str(release_tools()), "-m", f"release.{command}", *arguments)
    elif command == "sanitize":
        sanitize(arguments)
    else:
        print(__doc__)
        sys.exit(0 if command in ("help", "-h", "--help") else 2)


if __name__ == "__main__":
    main()
