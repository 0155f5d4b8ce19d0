"""What must be true before a release: one function for each thing that is looked at.

None changes anything. Each takes a Candidate and yields a sentence for whatever is wrong, with what
to do about it. release/checklist.py runs them.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from . import changelog
from .changelog import ChangelogError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

#: The one place of the version, and how it stands there.
VERSION_FILE = "kong_pdk/__init__.py"
VERSION_LINE = re.compile(r'^__version__ = "([^"]*)"$', re.MULTILINE)
#: 1.2.3 and, before it, 1.2.3a1, 1.2.3b1 or 1.2.3rc1: Semantic Versioning, as Python writes it.
FORM = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)((a|b|rc)[1-9]\d*)?")
#: From the least to the most that a version can go up.
LEVELS = ("patch", "minor", "major")
#: Where the package is named with a version that pip is to take.
REQUIREMENT = re.compile(r"kong-pdk(?:\[[\w,]+\])?\s*([><=~!][^\s'\"`;]*)")
OLDEST = re.compile(r"\bPython (3\.\d+) or newer")


@dataclass
class Candidate:
    """What is to be released: a checkout, and the version that it is to be.

    Attributes:
        text: the version as it was given.
        root: the folder of the checkout.
    """

    text: str
    root: Path

    @property
    def version(self) -> Version:
        """The version; raises InvalidVersion if it is none."""
        return Version(self.text)

    @property
    def tag(self) -> str:
        return f"v{self.text}"

    def read(self, name: str) -> str:
        """A file of the checkout, or nothing if it is not there."""
        path = self.root / name
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    def git(self, *arguments: str) -> str:
        """What a git command prints; raises GitError if it fails."""
        done = subprocess.run(
            ("git", *arguments), cwd=self.root, capture_output=True, text=True, encoding="utf-8"
        )
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["no reason given"]
            raise GitError(f"git {' '.join(arguments[:2])}: {said[-1]}")
        return done.stdout.rstrip()

    def tags(self) -> list[Version]:
        """The versions that were released before this commit, in order."""
        found = []
        for name in self.git("tag", "--list", "v*", "--merged", "HEAD").split():
            if FORM.fullmatch(name[1:]):
                found.append(Version(name[1:]))
        return sorted(found)

    def package(self) -> str:
        """The version of the package; nothing if its line is not as it must be."""
        found = VERSION_LINE.search(self.read(VERSION_FILE))
        return found[1] if found else ""


class GitError(Exception):
    """A git command has failed."""


def bumped(version: Version, level: str) -> tuple[int, int, int]:
    """The version after another one, if the part that is named goes up."""
    major, minor, patch = version.major, version.minor, version.micro
    return {
        "major": (major + 1, 0, 0),
        "minor": (major, minor + 1, 0),
        "patch": (major, minor, patch + 1),
    }[level]


def dotted(release: tuple[int, ...]) -> str:
    return ".".join(map(str, release))


# --- the version ----------------------------------------------------------------------------------


def form(it: Candidate) -> Iterator[str]:
    """The version is one."""
    if not FORM.fullmatch(it.text):
        yield f"{it.text!r} is no version: name it as 1.2.3, or 1.2.3rc1 before that"


def step(it: Candidate) -> Iterator[str]:
    """It goes one step up from the last one, and far enough for what has changed."""
    tags = it.tags()
    if it.version in tags or it.git("tag", "--list", it.tag):
        yield f"{it.tag} is released: choose a version behind it"
        return
    if not tags:
        return
    if it.version < tags[-1]:
        yield f"{it.text} is before {tags[-1]}, which is released: choose a version behind it"
        return
    finals = [tag for tag in tags if not tag.is_prerelease]
    if not finals:
        return
    last, release = finals[-1], it.version.release
    possible = [bumped(last, level) for level in LEVELS]
    if release not in possible:
        yield f"{last} is followed by {', '.join(map(dotted, possible))}: choose one of them"
        return
    kinds = set(changelog.fragments(it.root).values())
    for kind, level in changelog.KINDS.items():
        least = bumped(last, level)
        if kind in kinds and release < least:
            yield (
                f"{it.text} has fragments of the kind {kind} (changelog.d/*.{kind}.md), "
                f"which ask for a {level} version: {dotted(least)}"
            )
            return


def package(it: Candidate) -> Iterator[str]:
    """kong_pdk.__version__ is the version, or one before it that is in development."""
    current = it.package()
    try:
        known = Version(current)
    except InvalidVersion:
        yield f'{VERSION_FILE}: write __version__ = "{it.text}.dev0"'
        return
    if known != it.version and not (known.is_devrelease and known < it.version):
        yield (
            f"{VERSION_FILE}: __version__ is {current}, neither {it.text} nor in development "
            f'before it: write "{it.text}.dev0"'
        )


def package_exactly(it: Candidate) -> Iterator[str]:
    """kong_pdk.__version__ is the version."""
    if it.package() != it.text:
        yield (
            f"{VERSION_FILE}: __version__ is {it.package() or 'not to be found'}, not {it.text}: "
            f"tags are made by python3 dev.py release {it.text} --prepare"
        )


# --- the repository -------------------------------------------------------------------------------


def tree(it: Candidate) -> Iterator[str]:
    """All is committed, on a branch that is released."""
    changed = it.git("status", "--porcelain").splitlines()
    if changed:
        yield f"{len(changed)} files are not committed ({changed[0][3:]}): commit or stash them"
    branch = it.git("rev-parse", "--abbrev-ref", "HEAD")
    old = f"{it.version.major}.{it.version.minor}.x"
    if branch not in ("main", old):
        yield f"this is the branch {branch}: switch to main, or {old} to fix an old version"


def upstream(it: Candidate) -> Iterator[str]:
    """The branch is where its upstream is, if it has one, and the tag is not there."""
    branch = it.git("rev-parse", "--abbrev-ref", "HEAD")
    try:
        remote = it.git("config", f"branch.{branch}.remote")
        merges = it.git("config", f"branch.{branch}.merge")
    except GitError:
        return  # none
    try:
        listed = it.git("ls-remote", remote, merges, f"refs/tags/{it.tag}")
    except GitError as error:
        yield f"{remote} does not answer ({error}): try again, or --skip upstream"
        return
    refs = {name: commit for commit, name in map(str.split, listed.splitlines())}
    if f"refs/tags/{it.tag}" in refs:
        yield f"{remote} has a tag {it.tag}: fetch it, and choose a version behind it"
    if refs.get(merges) != it.git("rev-parse", "HEAD"):
        yield f"{branch} is not what {remote} has: pull or push, and wait for its checks"


def tagged(it: Candidate) -> Iterator[str]:
    """The commit is that of the tag."""
    if it.git("rev-list", "-n", "1", it.tag, "--") != it.git("rev-parse", "HEAD"):
        yield f"this is not the commit of {it.tag}: check it out"


# --- what is written ------------------------------------------------------------------------------


def fragments(it: Candidate) -> Iterator[str]:
    """The fragments give an entry of the changelog, and there is none yet."""
    if not changelog.fragments(it.root) and it.version.micro == 0:
        yield "changelog.d has no fragments: a version with nothing new is a patch"
    changelog.pending(it.root)
    changelog.with_pending(it.root)
    try:
        changelog.entry(it.text, it.root)
    except ChangelogError:
        return
    yield f"CHANGELOG.md has an entry for {it.text}: take it out, its fragments write it"


def entry(it: Candidate) -> Iterator[str]:
    """CHANGELOG.md has an entry, and no fragment is left; a pre-release leaves all of them."""
    if it.version.is_prerelease:
        changelog.pending(it.root)
        return
    changelog.entry(it.text, it.root)
    left = list(changelog.fragments(it.root))
    if left:
        yield f"changelog.d/{left[0].name} is not in CHANGELOG.md: release it with the next version"


def pythons(it: Candidate) -> Iterator[str]:
    """Classifiers, requires-python, wheels, workflows and pages name the same Pythons."""
    project = tomllib.loads(it.read("pyproject.toml"))
    prefix = "Programming Language :: Python :: 3."
    listed = [
        name[len(prefix) - 2 :] for name in project["project"]["classifiers"] if prefix in name
    ]
    oldest = project["project"]["requires-python"]
    if oldest != f">={listed[0]}":
        yield f"pyproject.toml: requires-python is {oldest}, the oldest classifier {listed[0]}"
    wheels = wheel_pythons(project)
    if wheels != listed:
        yield (
            f"pyproject.toml: [tool.cibuildwheel] builds for {', '.join(wheels) or 'nothing'}, "
            f"the classifiers are {', '.join(listed)}"
        )
    matrix = re.search(
        r"^ +python: \[([^\]]*)\]", it.read(".github/workflows/ci.yml"), re.MULTILINE
    )
    tested = re.findall(r"3\.\d+", matrix[1]) if matrix else []
    if tested != listed:
        yield (
            f".github/workflows/ci.yml tests {', '.join(tested) or 'nothing'}, "
            f"the classifiers are {', '.join(listed)}"
        )
    for name in ("README.md", "docs/tutorial.md", "docs/how-to/migration.md"):
        for said in OLDEST.findall(it.read(name)):
            if said != listed[0]:
                yield f"{name}: says Python {said} or newer, it is {listed[0]}"


def wheel_pythons(project: dict[str, Any]) -> list[str]:
    """The Pythons of ``build`` in [tool.cibuildwheel], as 3.9; braces are unfolded."""
    build = project.get("tool", {}).get("cibuildwheel", {}).get("build", ())
    words = build.split() if isinstance(build, str) else build
    found = []
    for word in words:
        folded = re.match(r"cp3\{([\d,]+)\}", word)
        minors = folded[1].split(",") if folded else re.findall(r"^cp3(\d+)-", word)
        found += [f"3.{minor}" for minor in minors]
    return sorted(set(found), key=lambda name: int(name[2:]))


def pages(it: Candidate) -> Iterator[str]:
    """What README, docs, recipes and SECURITY.md say of versions holds for this one."""
    final = not it.version.is_prerelease
    names = ["README.md", *(f"{path.relative_to(it.root)}" for path in texts(it.root))]
    for name in names:
        for number, line in enumerate(it.read(name).splitlines(), 1):
            for wanted in REQUIREMENT.findall(line):
                try:
                    specifiers = SpecifierSet(wanted)
                except InvalidSpecifier:
                    continue  # prose
                if all(one.operator in ("<", "<=", "!=") for one in specifiers):
                    continue  # the published package of the same name, which was before
                if not specifiers.contains(it.version, prereleases=True):
                    yield f"{name}:{number}: kong-pdk{wanted} does not allow {it.text}: change it"
                elif final and any(Version(one.version).is_prerelease for one in specifiers):
                    least = f"{it.version.major}.{it.version.minor}"
                    yield (
                        f"{name}:{number}: kong-pdk{wanted} lets pip take pre-releases of later "
                        f"versions, too: write >={least}"
                    )
    if f"| {it.version.major}." not in it.read("SECURITY.md"):
        yield f"SECURITY.md: its table has no line for {it.version.major}.x: add it"


def texts(root: Path) -> list[Path]:
    """The pages and recipes that may name a version of the package."""
    found = [*(root / "docs").rglob("*.md"), *(root / "examples").glob("*.md")]
    if (root / "deploy").is_dir():
        found += [path for path in (root / "deploy").rglob("*") if path.is_file()]
    return sorted(path for path in found if "__pycache__" not in path.parts)


def measured(it: Candidate) -> Iterator[str]:
    """The benchmarks that are shown are of this version, up to its patches."""
    data = json.loads(it.read("benchmarks/results.json") or "{}")
    of = data.get("versions", {}).get("ours", {}).get("kong-pdk", "0")
    if Version(of).release[:2] != it.version.release[:2]:
        yield (
            f"benchmarks/results.json is of {of} ({data.get('date', 'no date')}): "
            "python3 dev.py compare, on a quiet machine"
        )


# --- what is run ----------------------------------------------------------------------------------


def command(it: Candidate, *arguments: str) -> Iterator[str]:
    """A command of dev.py passes; what it prints goes to standard error."""
    line = "python3 dev.py " + " ".join(arguments)
    print(f"-- {line}", file=sys.stderr, flush=True)
    done = subprocess.run((sys.executable, "dev.py", *arguments), cwd=it.root, stdout=sys.stderr)
    if done.returncode:
        yield f"{line} fails: see above"


def lint(it: Candidate) -> Iterator[str]:
    """Ruff, mypy and pyright are content, and what is generated is up to date."""
    return command(it, "lint")


def docs(it: Candidate) -> Iterator[str]:
    """The site can be built."""
    return command(it, "docs")


def tests(it: Candidate) -> Iterator[str]:
    """All tests pass."""
    return command(it, "test", "-q")


def dist(it: Candidate) -> Iterator[str]:
    """The sdist and the wheels of this machine can be built, and pass their checks."""
    return command(it, "dist")
