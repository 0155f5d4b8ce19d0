"""Whether an installed kong-pdk works: run this with the Python that it is installed for.

    python release/smoke.py --codec compiled

It needs nothing but kong-pdk and this repository: which codec there is, what a plugin's dump says,
and events that the server answers over its socket, in threads and in worker processes. Exit status
1 if something is not as it must be, with what on standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests" / "support"))

EXAMPLE = ROOT / "examples" / "py-hello.py"
COMMANDS = ("kong-pdk", "kong-python-pluginserver")
MODES = ((), ("-m", "--workers", "1"))


def main() -> int:
    """Run the checks; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--codec", choices=("compiled", "pure-Python"), required=True,
                        help="the one that it must have")  # fmt: skip
    args = parser.parse_args()
    try:
        look_at_package(args.codec)
        serve(args.codec)
    except (AssertionError, OSError, subprocess.SubprocessError) as exc:
        print(f"smoke: {exc}", file=sys.stderr)
        return 1
    print(f"kong-pdk {distribution('kong-pdk').version}: {args.codec} codec, works")
    return 0


def look_at_package(codec: str) -> None:
    """See that it is the installed package, has this codec, and has all that belongs to it."""
    import kong_pdk

    package = Path(kong_pdk.__file__).resolve().parent
    places = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    assert package.parent in places, f"kong_pdk comes from {package}, not from this Python"
    told = distribution("kong-pdk").version
    assert told == kong_pdk.__version__, f"the version is {kong_pdk.__version__}, installed: {told}"
    found = "compiled" if kong_pdk.is_compiled() else "pure-Python"
    assert found == codec, f"the codec is {found}, not {codec}"
    for name in ("py.typed", "pdk/kong.pyi", "templates/plugin.py.tmpl"):
        assert (package / name).is_file(), f"{package / name} is missing"
    scripts = Path(sysconfig.get_path("scripts"))
    for name in COMMANDS:
        done = run(str(scripts / name), "--version")
        assert done.endswith(f" {told}\n"), f"{name} --version: {done!r}"
    done = run(str(scripts / "kong-python-pluginserver"), "--version", "-v")
    assert f"({codec} codec, " in done, f"--version -v: {done!r}"


def run(*command: str) -> str:
    """What a command prints, away from the checkout."""
    from servers import run_command

    done = run_command(*command)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def serve(codec: str) -> None:
    """Dump a plugin of a folder, and have it answer events."""
    from servers import SERVER, directory_command, running, short_directory

    with short_directory() as folder:
        plugins = folder / "plugins"
        plugins.mkdir()
        shutil.copy(EXAMPLE, plugins)
        told = json.loads(run(SERVER, "-d", str(plugins), "--dump-all-plugins"))
        names = [(one["Name"], one["Phases"]) for one in told]
        assert names == [(EXAMPLE.stem, ["access"])], f"--dump-all-plugins: {told}"
        for flags in MODES:
            with contextlib.ExitStack() as stack:
                server = stack.enter_context(
                    running(directory_command(plugins, folder, *flags), folder)
                )
                kong = stack.enter_context(server.kong())
                instance = kong.start_instance(EXAMPLE.stem, {"message": "good day"})
                headers = kong.run_event(
                    instance, answers={"kong.request.get_header": "example.com"}
                ).headers
                said = headers.get("x-hello-from-python")
                assert said == "Python says good day to example.com", f"{flags}: {headers}"
                assert re.search(rf"\b{codec} codec\b", server.log), f"the log: {server.log}"


if __name__ == "__main__":
    sys.exit(main())
