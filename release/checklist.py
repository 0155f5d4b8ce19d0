"""A release, step by step: ``python3 dev.py release VERSION``.

It looks at everything that must be true before a release and changes nothing: a line for each
check, and for what fails what to do; the exit status is 1 if anything does.

With --prepare, if all is well: the version is written into kong_pdk/__init__.py, the changelog is
put together from its fragments, both are committed and tagged (signed, if git has a key), and
a second commit begins the development of the next version. If one of these steps fails, none has
happened. Nothing is pushed: that is the maintainer's last step, and .github/workflows/release.yml
takes the tag from there. A pre-release leaves the fragments for the final version.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Iterator
from typing import Callable

from packaging.version import Version

from . import changelog, checks
from .changelog import ROOT, ChangelogError
from .checks import Candidate, GitError

Check = Callable[[Candidate], Iterator[str]]

#: All that is looked at before a release, in order; what takes long comes last.
BEFORE: dict[str, Check] = {
    "version": checks.form,
    "step": checks.step,
    "package": checks.package,
    "tree": checks.tree,
    "upstream": checks.upstream,
    "changelog": checks.fragments,
    "pythons": checks.pythons,
    "pages": checks.pages,
    "benchmarks": checks.measured,
    "lint": checks.lint,
    "docs": checks.docs,
    "dist": checks.dist,
    "tests": checks.tests,
}
#: What the workflow looks at in the checkout of a tag; its other jobs run the rest.
TAGGED: dict[str, Check] = {
    "version": checks.form,
    "tag": checks.tagged,
    "package": checks.package_exactly,
    "changelog": checks.entry,
    "pythons": checks.pythons,
}
#: Without these --prepare would commit what it should not, or could not undo what it did.
NEEDED = ("version", "step", "package", "tree", "changelog")


def problems(check: Check, it: Candidate) -> list[str]:
    """What a check finds; what it stumbles over is found, too."""
    try:
        return list(check(it))
    except (ChangelogError, GitError, OSError, ValueError, KeyError, IndexError) as error:
        reason = str(error) if isinstance(error, (ChangelogError, GitError)) else repr(error)
        return [reason]


def run(found: dict[str, Check], it: Candidate, skipped: list[str]) -> bool:
    """Run checks and print a line for each; returns whether all have passed."""
    passed = True
    for name, check in found.items():
        if name in skipped:
            print(f"skipped  {name}")
            continue
        wrong = problems(check, it)
        for sentence in wrong:
            print(f"FAILS    {name:<10} {sentence}")
        if not wrong:
            title = (check.__doc__ or "").splitlines()[0]
            print(f"ok       {name:<10} {title}")
        sys.stdout.flush()
        passed = passed and not wrong
        if wrong and name == "version":
            print("the other checks need a version")
            break
    return passed


def following(version: Version) -> str:
    """What kong_pdk.__version__ is after a release, until the next."""
    if version.pre:
        kind, number = version.pre
        return f"{checks.dotted(version.release)}{kind}{number + 1}.dev0"
    return f"{checks.dotted(checks.bumped(version, 'patch'))}.dev0"


def write_version(it: Candidate, version: str) -> None:
    """Write a version into its one place."""
    path = it.root / checks.VERSION_FILE
    text = path.read_text(encoding="utf-8")
    path.write_text(checks.VERSION_LINE.sub(f'__version__ = "{version}"', text), encoding="utf-8")


def signing(it: Candidate) -> bool:
    """Tell whether git is set up to sign tags."""
    for key in ("tag.gpgSign", "user.signingKey"):
        try:
            if it.git("config", "--get", key) not in ("", "false"):
                return True
        except GitError:
            continue
    return False


def prepare(it: Candidate, today: str) -> None:
    """Commit and tag the release, and begin the next version; all of it or nothing.

    Raises GitError or ChangelogError, with the checkout as it was before.
    """
    before = it.git("rev-parse", "HEAD")
    try:
        write_version(it, it.text)
        if not it.version.is_prerelease:  # the final version's entry has all of it
            changelog.towncrier("--yes", "--version", it.text, "--date", today, root=it.root)
        it.git("add", "--all", "CHANGELOG.md", "changelog.d", checks.VERSION_FILE)
        it.git("commit", "--quiet", "--allow-empty", "-m", f"Release {it.text}")
        kind = "--sign" if signing(it) else "--annotate"
        it.git("tag", kind, "-m", f"kong-pdk {it.text}", it.tag)
        upcoming = following(it.version)
        write_version(it, upcoming)
        it.git("commit", "--quiet", "-m", f"After {it.text}: {upcoming}", "--", checks.VERSION_FILE)
    except (GitError, ChangelogError, OSError):
        if it.git("tag", "--list", it.tag):
            it.git("tag", "--delete", it.tag)
        it.git("reset", "--quiet", "--hard", before)
        raise


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dev.py release",
        description="What is in the way of a release, and the release itself.",
    )
    parser.add_argument("version", help="1.2.3, or 1.2.3rc1 before that")
    parser.add_argument(
        "--prepare", action="store_true", help="if all is well: write, commit and tag it"
    )
    parser.add_argument(
        "--tagged",
        action="store_true",
        help="look at the checkout of its tag, as the workflow does",
    )
    parser.add_argument(
        "--skip", action="append", default=[], metavar="CHECK", choices=list(BEFORE),
        help="pass over a check (may be repeated): " + ", ".join(BEFORE),
    )  # fmt: skip
    given = parser.parse_args()
    if given.prepare and given.tagged:
        parser.error("--prepare makes the tag that --tagged looks at: give one of them")
    needed = [name for name in given.skip if name in NEEDED]
    if given.prepare and needed:
        parser.error(f"--prepare cannot do without the check {needed[0]}")
    return given


def main() -> None:
    """Run the checks; with --prepare make the release."""
    given = arguments()
    it = Candidate(given.version, ROOT)
    if not run(TAGGED if given.tagged else BEFORE, it, given.skip):
        print("not ready; nothing was changed")
        sys.exit(1)
    if not given.prepare:
        print(f"{it.text} is ready" + ("" if given.tagged else "; --prepare commits and tags it"))
        return
    try:
        today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
        prepare(it, today)
    except (GitError, ChangelogError, OSError) as error:
        print(f"not prepared, nothing was changed: {error}")
        sys.exit(1)
    branch = it.git("rev-parse", "--abbrev-ref", "HEAD")
    print(f"{it.tag} is committed and tagged. Look at it (git show {it.tag}), then publish it:")
    print(f"    git push --atomic origin {branch} {it.tag}")


if __name__ == "__main__":
    main()
