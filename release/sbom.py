"""A software bill of materials of what is published: ``python3 dev.py sbom``.

It is one CycloneDX document, build/sbom/kong-pdk-VERSION.cdx.json, of the files in build/dist: the
package, each file with its SHA-256, what pip installs with it today, with versions and licences,
and (in the scope "excluded") the locked tools that it was built with, for the compiled module holds
code of Cython's. What the package asks for are ranges: an installation is better described by a
document of its own, made by ``cyclonedx-py environment`` in the same way.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "build" / "dist"
SPEC = "1.6"
#: What a wheel's and an sdist's name says.
WHEEL = re.compile(r"kong_pdk-(?P<version>[^-]+)-(?P<tags>[^-]+-[^-]+-.+)\.whl")
SDIST = re.compile(r"kong_pdk-(?P<version>[^-]+)\.tar\.gz")


class SbomError(Exception):
    """There is nothing to be described, or it cannot be; the text says what to do."""


def version_of(files: list[Path]) -> str:
    """The version that all files are of; raises SbomError if there is not exactly one."""
    if not files:
        raise SbomError("there are no distributions in build/dist: python3 dev.py dist makes them")
    found = set()
    for path in files:
        match = WHEEL.fullmatch(path.name) or SDIST.fullmatch(path.name)
        if not match:
            raise SbomError(f"{path.name} is no distribution of kong-pdk: take it away")
        found.add(match["version"])
    if len(found) > 1:
        versions = ", ".join(sorted(found))
        raise SbomError(f"the distributions are of {versions}: make them again, in an empty folder")
    return found.pop()


def run(*command: str) -> str:
    """Run a command and return what it prints; raises SbomError if it fails."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        reason = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise SbomError(f"{' '.join(command[1:4])} fails: {reason[-1]}")
    return done.stdout


def environment(python: str) -> dict[str, Any]:
    """What is installed for a Python, as CycloneDX."""
    tool = (
        sys.executable,
        "-m",
        "cyclonedx_py",
        "environment",
        "--output-reproducible",
        "--no-validate",
    )
    about = ("--pyproject", "pyproject.toml", "--mc-type", "library", "--of", "JSON", "--sv", SPEC)
    found: dict[str, Any] = json.loads(run(*tool, *about, python))
    return found


def installed(wheel: Path, extras: str) -> dict[str, Any]:
    """What a wheel brings with it, from an environment with nothing else in it."""
    with tempfile.TemporaryDirectory() as folder:
        run(sys.executable, "-m", "venv", "--without-pip", folder)
        python = str(Path(folder, "bin", "python"))
        pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet")
        run(*pip, "--disable-pip-version-check", f"{wheel}{extras and f'[{extras}]'}")
        return environment(python)


def usable(files: list[Path]) -> Path:
    """A wheel that this Python can install: the pure one, or one that was built for it."""
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}-"
    machine = platform.machine()
    for path in sorted(files, key=lambda path: "-py3-none-any" not in path.name):
        found = WHEEL.fullmatch(path.name)
        if found and (
            found["tags"] == "py3-none-any"
            or (found["tags"].startswith(tag) and machine in path.name and "musl" not in path.name)
        ):
            return path
    raise SbomError(
        f"no wheel in build/dist is for {tag[:-1]} on {machine}: python3 dev.py dist pure"
    )


def tools(names: Iterable[str]) -> list[dict[str, Any]]:
    """The components for what builds the package, which is in this Python's environment."""
    wanted = {name.lower() for name in names}
    found = []
    for component in environment(sys.executable)["components"]:
        if component["name"].lower() in wanted:
            wanted.remove(component["name"].lower())
            found.append({**component, "scope": "excluded"})
    if wanted:
        raise SbomError(f"{', '.join(sorted(wanted))} is not installed: run python3 dev.py sbom")
    return found


def document(files: list[Path], extras: str = "") -> dict[str, Any]:
    """The bill of materials of some distributions.

    Args:
        files: of one version, with a wheel that this Python can install.
        extras: those that are installed with it, separated by commas.

    Raises:
        SbomError: If that cannot be done, or something has no licence.
    """
    version = version_of(files)
    found = installed(usable(files), extras)
    package = found["metadata"]["component"]
    package["version"], package["purl"] = version, f"pkg:pypi/kong-pdk@{version}"
    package["externalReferences"] = [
        {
            "type": "distribution",
            "url": path.name,
            "hashes": [
                {"alg": "SHA-256", "content": hashlib.sha256(path.read_bytes()).hexdigest()}
            ],
        }
        for path in sorted(files)
    ]
    properties = found["metadata"].setdefault("properties", [])
    properties.append({"name": "kong-pdk:python", "value": platform.python_version()})
    properties.append({"name": "kong-pdk:extras", "value": extras})
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    requires = project["build-system"]["requires"]
    known = {component["bom-ref"] for component in found.setdefault("components", [])}
    for component in tools(re.split(r"[^\w-]", one, maxsplit=1)[0] for one in requires):
        if component["bom-ref"] not in known:
            found["components"].append(component)
            found["dependencies"].append({"ref": component["bom-ref"]})
    for component in (package, *found["components"]):
        if not component.get("licenses"):
            raise SbomError(f"{component['name']} {component.get('version')} names no licence")
    return found


def check(text: str) -> None:
    """Hold a document against the schema of CycloneDX; raises SbomError if it does not fit."""
    from cyclonedx.schema import SchemaVersion  # pyright: ignore[reportMissingImports]
    from cyclonedx.validation.json import JsonStrictValidator  # pyright: ignore[reportMissingImports]

    wrong = JsonStrictValidator(SchemaVersion.from_version(SPEC)).validate_str(text)
    if wrong is not None:
        raise SbomError(f"the document is no CycloneDX {SPEC}: {wrong}")


def written(dist: Path, extras: str, target: Path) -> Path:
    """Write the bill of materials of what is in a folder into another one; returns its path.

    Raises SbomError if that cannot be done.
    """
    files = [path for path in dist.glob("*") if path.suffix in (".whl", ".gz")]
    found = document(files, extras)
    text = json.dumps(found, indent=2) + "\n"
    check(text)
    name = f"kong-pdk-{found['metadata']['component']['version']}"
    if extras:
        name += "-" + extras.replace(",", "-")
    target.mkdir(parents=True, exist_ok=True)
    path = target / f"{name}.cdx.json"
    path.write_text(text, encoding="utf-8")
    return path


def main() -> None:
    """Write the bill of materials."""
    parser = argparse.ArgumentParser(
        prog="dev.py sbom", description="A bill of materials of the files in build/dist."
    )
    parser.add_argument("--extras", default="", help="with these extras, as in gevent,metrics")
    parser.add_argument("--dist", type=Path, default=DIST, help="another folder than build/dist")
    given = parser.parse_args()
    os.environ.pop("PYTHONPATH", None)  # what is there is not installed
    try:
        print(written(given.dist, given.extras, ROOT / "build" / "sbom"))
    except SbomError as error:
        sys.exit(f"sbom: {error}")


if __name__ == "__main__":
    main()
