"""The changelog: ``python3 dev.py changelog [VERSION]``.

Without a version it prints what the fragments in changelog.d make of the next one, with a version
its entry in CHANGELOG.md, which is the text of its release on GitHub.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: The heading of what is not released, in the terms of towncrier.
NEXT = ("--version", "Next version", "--date", "unreleased")
MARKER = "<!-- towncrier release notes start -->\n"
#: What CHANGELOG.md has for a version begins with this, and ends before the next.
HEADING = "## "
#: The kinds of fragments, in order, and which part of the version must go up at least for one.
KINDS = {
    "breaking": "major",
    "added": "minor",
    "changed": "minor",
    "fixed": "patch",
    "different": "minor",
    "security": "patch",
}


class ChangelogError(Exception):
    """The changelog is not as it must be; the text says where, and what to do."""


def fragments(root: Path = ROOT) -> dict[Path, str]:
    """The fragments in changelog.d, each with its kind.

    Raises ChangelogError for a name that is not ``<slug>.<kind>.md``.
    """
    found = {}
    for path in sorted((root / "changelog.d").iterdir()):
        if path.name in ("README.md", "template.md"):
            continue
        slug, _, rest = path.name.partition(".")
        kind, _, suffix = rest.partition(".")
        if not slug or kind not in KINDS or suffix != "md":
            kinds = ", ".join(KINDS)
            raise ChangelogError(
                f"changelog.d/{path.name}: name it <slug>.<kind>.md, of the kinds {kinds}"
            )
        found[path] = kind
    return found


def towncrier(*arguments: str, root: Path = ROOT) -> str:
    """Run ``towncrier build`` and return what it prints; raises ChangelogError if it fails."""
    command = (sys.executable, "-m", "towncrier", "build", "--dir", str(root), *arguments)
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise ChangelogError(f"towncrier fails: {reason[-1] if reason else done.returncode}")
    return done.stdout


def pending(root: Path = ROOT) -> str:
    """What the fragments make of the next version's entry."""
    fragments(root)
    return towncrier("--draft", *NEXT, root=root).strip() + "\n"


def with_pending(root: Path = ROOT) -> str:
    """The text of CHANGELOG.md with what comes next in its place, for the site."""
    head, marker, released = (root / "CHANGELOG.md").read_text(encoding="utf-8").partition(MARKER)
    if not marker:
        raise ChangelogError(f"CHANGELOG.md: put back the line {MARKER.strip()}")
    return f"{head}{marker}\n{pending(root)}\n{released.lstrip()}"


def entry(version: str, root: Path = ROOT) -> str:
    """A version's entry in CHANGELOG.md, without its heading.

    Raises ChangelogError if it has none.
    """
    lines = (root / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    starts = [index for index, line in enumerate(lines) if line.startswith(HEADING)]
    for start, end in zip(starts, [*starts[1:], len(lines)]):
        if lines[start][len(HEADING) :].split()[:1] == [version]:
            return "\n".join(lines[start + 1 : end]).strip() + "\n"
    raise ChangelogError(
        f"CHANGELOG.md has no entry for {version}: "
        f"python3 dev.py release {version} --prepare writes it"
    )


def notes(version: str, root: Path = ROOT) -> str:
    """What to say of a release; of a pre-release, what will be said of the final one.

    Raises ChangelogError for a final version without an entry.
    """
    if version.replace(".", "").isdigit():
        return entry(version, root)
    return pending(root).partition("\n")[2].lstrip()


def main() -> None:
    """Print an entry of the changelog."""
    parser = argparse.ArgumentParser(prog="dev.py changelog", description="Print the changelog.")
    parser.add_argument(
        "version", nargs="?", help="print what is said of this release, not what comes next"
    )
    version = parser.parse_args().version
    try:
        print(notes(version) if version else pending(), end="")
    except ChangelogError as error:
        sys.exit(f"changelog: {error}")


if __name__ == "__main__":
    main()
