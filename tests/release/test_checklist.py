"""The checklist of a release, in a git repository that is made from this checkout.

What the package, the changelog and the results say there is made up, so that the tests hold for
each version: M.3.0 is released, M.4.0 is next.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable

import pages
import pytest
from recipes import tool

from release import changelog, checklist, checks
from release.checks import Candidate

ROOT = pages.ROOT
MAJOR = int(Candidate("", ROOT).package().partition(".")[0])
LAST, NEXT = f"{MAJOR}.3.0", f"{MAJOR}.4.0"

#: Takes the place of dev.py, whose commands have tests of their own: it fails where it is told to.
STAND_IN = """
import os, pathlib, sys
with open(pathlib.Path(".git", "commands"), "a") as log:
    log.write(" ".join(sys.argv[1:]) + chr(10))
print("a line of", sys.argv[1])
sys.exit(sys.argv[1] == os.environ.get("BROKEN"))
"""


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.search(old, text, re.MULTILINE), f"{path.name}: {old}"
    path.write_text(re.sub(old, new, text, flags=re.MULTILINE), encoding="utf-8")


@pytest.fixture(scope="module", autouse=True)
def settings_of_git() -> object:
    """Nothing of the user's: neither hooks nor keys."""
    who = {
        f"GIT_{who}_{what}": "a@example.com"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            **who,
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
        }.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory, settings_of_git: object) -> Path:
    """A repository in which M.4.0 can be released."""
    tool("git", "apt-get install git")
    folder = tmp_path_factory.mktemp("origin") / "kong-pdk"
    built = (
        "build",
        "dist",
        "__pycache__",
        "findings",
        "corpus",
        "*.egg-info",
        "*.so",
        "_speedups.c",
    )
    hidden = (".git", ".venv*", ".cache", ".*_cache", ".hypothesis", ".benchmarks")
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*built, *hidden))
    (folder / "dev.py").write_text(STAND_IN)
    for path in changelog.fragments(folder):
        path.unlink()
    replace(folder / "kong_pdk/__init__.py", "^__version__ = .*", f'__version__ = "{LAST}"')
    head, marker, _ = (folder / "CHANGELOG.md").read_text().partition(changelog.MARKER)
    (folder / "CHANGELOG.md").write_text(f"{head}{marker}\n## {LAST} (2026-01-01)\n\n- All.\n")
    for path in [folder / "README.md", *checks.texts(folder)]:
        text = path.read_text(encoding="utf-8")
        path.write_text(
            re.sub(r"(kong-pdk(\[[\w,]+\])?)>=[\w.]+", rf"\1>={MAJOR}.3", text), encoding="utf-8"
        )
    replace(
        folder / "benchmarks/results.json",
        '^   "kong-pdk": "[1-9].*"',
        f'   "kong-pdk": "{NEXT}.dev1"',
    )
    git(folder, "init", "--quiet", "--initial-branch", "main")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", f"Release {LAST}")
    git(folder, "tag", f"v{LAST}")
    replace(
        folder / "kong_pdk/__init__.py", "^__version__ = .*", f'__version__ = "{MAJOR}.3.1.dev0"'
    )
    (folder / "changelog.d/more.added.md").write_text("More.\n")
    (folder / "changelog.d/right.fixed.md").write_text("Right.\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "More")
    return folder


@pytest.fixture
def checkout(origin: Path, tmp_path: Path) -> Path:
    """A clone of it, which has it as its upstream."""
    git(tmp_path, "clone", "--quiet", str(origin), "clone")
    return tmp_path / "clone"


def release(checkout: Path, *arguments: str, broken: str = "") -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "release.checklist", *arguments)
    environment = {**os.environ, "BROKEN": broken}
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)


def state(checkout: Path) -> tuple[str, str, str]:
    return (
        git(checkout, "rev-parse", "HEAD"),
        git(checkout, "status", "--porcelain"),
        git(checkout, "tag"),
    )


# --- this checkout --------------------------------------------------------------------------------


def test_what_this_checkout_says_of_versions_agrees() -> None:
    """Else the next release would be held up; or this is the commit of one.

    What is in development is looked at as a pre-release, for until the final one pages may name it.
    """
    version, developing, _ = Candidate("", ROOT).package().partition(".dev")
    it = Candidate(version if "rc" in version or not developing else f"{version}rc1", ROOT)
    of_fragments = checks.fragments if developing else checks.entry
    for check in (checks.form, checks.package, of_fragments, checks.pythons, checks.pages):
        assert checklist.problems(check, it) == [], check


# --- all is well ----------------------------------------------------------------------------------


def test_what_is_ready(checkout: Path) -> None:
    before = state(checkout)
    done = release(checkout, NEXT)
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines[:-1]] == [["ok", name] for name in checklist.BEFORE]
    assert lines[-1] == f"{NEXT} is ready; --prepare commits and tags it"
    assert done.returncode == 0 and "a line of test" in done.stderr
    commands = (checkout / ".git/commands").read_text().splitlines()
    assert commands == ["lint", "docs", "dist", "test -q"]
    assert state(checkout) == before


def test_a_release_is_prepared(checkout: Path) -> None:
    done = release(checkout, NEXT, "--prepare")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(f"    git push --atomic origin main v{NEXT}\n")
    assert git(checkout, "log", "--format=%s", "-3").splitlines() == [
        f"After {NEXT}: {MAJOR}.4.1.dev0", f"Release {NEXT}", "More",
    ]  # fmt: skip
    assert git(checkout, "cat-file", "-t", f"v{NEXT}") == "tag"
    assert git(checkout, "status", "--porcelain") == ""
    assert Candidate("", checkout).package() == f"{MAJOR}.4.1.dev0"
    assert changelog.entry(NEXT, checkout) == "### Added\n\n- More.\n\n### Fixed\n\n- Right.\n"
    assert changelog.entry(LAST, checkout) == "- All.\n"
    changed = git(checkout, "show", "--name-only", "--format=", f"v{NEXT}^{{commit}}").split()
    assert set(changed) == {
        "CHANGELOG.md", "changelog.d/more.added.md", "changelog.d/right.fixed.md",
        checks.VERSION_FILE,
    }  # fmt: skip
    # The workflow's look at the tag, and the next release.
    assert release(checkout, NEXT, "--tagged").returncode == 1
    git(checkout, "checkout", "--quiet", f"v{NEXT}")
    tagged = release(checkout, NEXT, "--tagged")
    assert (tagged.returncode, tagged.stdout.splitlines()[-1]) == (0, f"{NEXT} is ready")
    assert Candidate("", checkout).package() == NEXT
    git(checkout, "checkout", "--quiet", "main")
    assert not checklist.problems(checks.step, Candidate(f"{MAJOR}.4.1", checkout))
    assert not checklist.problems(checks.package, Candidate(f"{MAJOR}.5.0", checkout))


def test_a_pre_release_leaves_the_changelog_alone(checkout: Path) -> None:
    done = release(checkout, f"{NEXT}rc1", "--prepare")
    assert done.returncode == 0, done.stdout + done.stderr
    assert Candidate("", checkout).package() == f"{NEXT}rc2.dev0"
    assert len(changelog.fragments(checkout)) == 2
    assert changelog.notes(f"{NEXT}rc1", checkout).startswith("### Added\n\n- More.\n")
    for version in (f"{NEXT}rc2", NEXT):
        it = Candidate(version, checkout)
        assert not [
            checklist.problems(one, it)
            for one in (checks.step, checks.package)
            if checklist.problems(one, it)
        ]
    git(checkout, "checkout", "--quiet", f"v{NEXT}rc1")
    assert release(checkout, f"{NEXT}rc1", "--tagged").returncode == 0


def test_a_tag_is_signed_where_git_has_a_key(checkout: Path, tmp_path: Path) -> None:
    keygen = tool("ssh-keygen", "apt-get install openssh-client")
    key = tmp_path / "key"
    subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    git(checkout, "config", "gpg.format", "ssh")
    git(checkout, "config", "user.signingKey", str(key))
    checklist.prepare(Candidate(NEXT, checkout), "2026-12-01")
    assert "-----BEGIN SSH SIGNATURE-----" in git(checkout, "cat-file", "tag", f"v{NEXT}")


# --- what is wrong --------------------------------------------------------------------------------


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text, encoding="utf-8")


def edit(name: str, old: str, new: str) -> Callable[[Path], object]:
    return lambda folder: replace(folder / name, old, new)


def nothing(folder: Path) -> None:
    pass


#: What is done to the checkout, which version is asked for, and the sentence that is expected.
WRONG: list[tuple[str, Callable[[Path], object], str, str]] = [
    ("version", nothing, f"{MAJOR}.4", "is no version: name it as 1.2.3"),
    ("version", nothing, f"v{NEXT}", "is no version"),
    ("version", nothing, f"{NEXT}.dev1", "is no version"),
    ("version", nothing, f"{MAJOR}.04.0", "is no version"),
    ("version", nothing, f"{NEXT}+local", "is no version"),
    ("step", nothing, LAST, f"v{LAST} is released: choose a version behind it"),
    ("step", nothing, f"{MAJOR}.2.9", f"is before {LAST}"),
    (
        "step",
        nothing,
        f"{MAJOR}.5.0",
        f"{LAST} is followed by {MAJOR}.3.1, {NEXT}, {MAJOR + 1}.0.0",
    ),
    ("step", nothing, f"{MAJOR}.3.2", f"{LAST} is followed by"),
    (
        "step",
        nothing,
        f"{MAJOR}.3.1",
        f"the kind added (changelog.d/*.added.md), which ask for a minor version: {NEXT}",
    ),
    (
        "step",
        write("changelog.d/a.breaking.md", "A."),
        NEXT,
        f"ask for a major version: {MAJOR + 1}.0.0",
    ),
    ("step", lambda folder: shutil.rmtree(folder / ".git"), NEXT, "git tag"),
    (
        "package",
        edit(checks.VERSION_FILE, "^__version__ = .*", f'__version__ = "{LAST}"'),
        NEXT,
        f"__version__ is {LAST}, neither",
    ),
    (
        "package",
        edit(checks.VERSION_FILE, "^__version__ = .*", f'__version__ = "{MAJOR}.5.0.dev0"'),
        NEXT,
        f'write "{NEXT}.dev0"',
    ),
    (
        "package",
        edit(checks.VERSION_FILE, "^__version__ = .*", '__version__ = "new"'),
        NEXT,
        f'write __version__ = "{NEXT}.dev0"',
    ),
    (
        "package",
        edit(checks.VERSION_FILE, "^__version__ = ", "version = "),
        NEXT,
        "write __version__ =",
    ),
    (
        "tree",
        edit("README.md", "^# .*", "# Changed"),
        NEXT,
        "1 files are not committed (README.md): commit or stash",
    ),
    ("tree", write("new.txt", ""), NEXT, "(new.txt)"),
    (
        "tree",
        lambda folder: git(folder, "checkout", "-qb", "topic"),
        NEXT,
        f"the branch topic: switch to main, or {MAJOR}.4.x",
    ),
    (
        "upstream",
        lambda folder: git(folder, "commit", "-q", "--allow-empty", "-m", "x"),
        NEXT,
        "main is not what origin has: pull or push",
    ),
    (
        "upstream",
        lambda folder: git(folder, "remote", "set-url", "origin", "/nowhere"),
        NEXT,
        "origin does not answer",
    ),
    ("upstream", nothing, LAST, f"origin has a tag v{LAST}"),
    (
        "changelog",
        write("changelog.d/a.feature.md", "A."),
        NEXT,
        "changelog.d/a.feature.md: name it <slug>.<kind>.md",
    ),
    ("changelog", write("changelog.d/template.md", "{% if %}"), NEXT, "towncrier fails"),
    (
        "changelog",
        edit("CHANGELOG.md", "^<!-- towncrier.*$", ""),
        NEXT,
        "CHANGELOG.md: put back the line",
    ),
    (
        "changelog",
        edit("CHANGELOG.md", f"^## {LAST}", f"## {NEXT}"),
        NEXT,
        f"has an entry for {NEXT}: take it out",
    ),
    (
        "changelog",
        lambda folder: [path.unlink() for path in changelog.fragments(folder)],
        NEXT,
        "a version with nothing new is a patch",
    ),
    (
        "pythons",
        edit("pyproject.toml", r"^requires-python = .*", 'requires-python = ">=3.8"'),
        NEXT,
        "requires-python is >=3.8, the oldest classifier 3.9",
    ),
    (
        "pythons",
        edit("pyproject.toml", r'^ +"Programming Language :: Python :: 3.13",\n', ""),
        NEXT,
        "[tool.cibuildwheel] builds for 3.9, 3.10, 3.11, 3.12, 3.13, 3.14, the classifiers are",
    ),
    (
        "pythons",
        edit(".github/workflows/ci.yml", r'python: \["3.9", ', "python: ["),
        NEXT,
        "ci.yml tests 3.10, 3.11",
    ),
    (
        "pythons",
        edit("README.md", r"Python 3\.9 or newer", "Python 3.8 or newer"),
        NEXT,
        "README.md: says Python 3.8 or newer, it is 3.9",
    ),
    (
        "pages",
        edit("docs/tutorial.md", r"\]>=\d\.3", f"]>={MAJOR}.5"),
        NEXT,
        f"docs/tutorial.md:17: kong-pdk>={MAJOR}.5 does not allow {NEXT}",
    ),
    (
        "pages",
        edit("docs/how-to/docker.md", r">=\d\.3", ">=1.0.dev1"),
        NEXT,
        "kong-pdk>=1.0.dev1 lets pip take pre-releases",
    ),
    (
        "pages",
        edit("SECURITY.md", rf"^\| {MAJOR}\.x .*\n", ""),
        NEXT,
        f"SECURITY.md: its table has no line for {MAJOR}.x",
    ),
    (
        "benchmarks",
        edit("benchmarks/results.json", rf'"{NEXT}.dev1"', f'"{LAST}"'),
        NEXT,
        f"results.json is of {LAST} (2026-",
    ),
    (
        "benchmarks",
        lambda folder: (folder / "benchmarks/results.json").unlink(),
        NEXT,
        "is of 0 (no date)",
    ),
]


@pytest.mark.parametrize(
    ("name", "break_it", "version", "sentence"),
    WRONG,
    ids=[f"{index}-{one[0]}" for index, one in enumerate(WRONG)],
)
def test_what_is_in_the_way(
    checkout: Path, name: str, break_it: Callable[[Path], object], version: str, sentence: str
) -> None:
    break_it(checkout)
    found = checklist.problems(checklist.BEFORE[name], Candidate(version, checkout))
    assert any(sentence in one for one in found), found


def test_each_check_is_seen_to_fail() -> None:
    run = {"lint", "docs", "dist", "tests"}  # by the next test
    assert {one[0] for one in WRONG} | run == set(checklist.BEFORE)


@pytest.mark.parametrize("command", ["lint", "docs", "dist", "test"])
def test_a_command_that_fails_is_in_the_way(checkout: Path, command: str) -> None:
    before = state(checkout)
    done = release(checkout, NEXT, "--prepare", broken=command)
    assert done.returncode == 1
    assert re.search(
        rf"^FAILS    {command}s? +python3 dev.py {command}.* fails: see above$",
        done.stdout,
        re.MULTILINE,
    )
    assert done.stdout.endswith("not ready; nothing was changed\n")
    assert state(checkout) == before


def test_what_is_skipped_is_said(checkout: Path) -> None:
    done = release(checkout, NEXT, "--skip", "tests", "--skip", "dist", broken="test")
    assert done.returncode == 0
    assert done.stdout.count("skipped  ") == 2


def test_what_cannot_be_skipped(checkout: Path) -> None:
    done = release(checkout, NEXT, "--prepare", "--skip", "tree")
    assert done.returncode == 2 and "cannot do without the check tree" in done.stderr


def test_a_word_that_is_no_version(checkout: Path) -> None:
    done = release(checkout, "next")
    assert done.returncode == 1
    assert done.stdout.startswith("FAILS    version    'next' is no version")


@pytest.mark.parametrize("nth", [1, 2])
def test_a_commit_that_git_refuses_undoes_all(checkout: Path, nth: int) -> None:
    """The first commit, or the second one, after the tag."""
    hook = checkout / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(
        "#!/bin/sh\necho >> .git/count\necho 'no more' >&2\n"
        f'[ "$(wc -l < .git/count)" -lt {nth} ]\n'
    )
    hook.chmod(0o755)
    before = state(checkout)
    done = release(checkout, NEXT, "--prepare")
    assert done.returncode == 1
    assert done.stdout.endswith("not prepared, nothing was changed: git commit --quiet: no more\n")
    assert len((checkout / ".git/count").read_text().splitlines()) == nth
    assert state(checkout) == before


@pytest.mark.parametrize(
    ("break_it", "name"),
    [
        (edit(checks.VERSION_FILE, "^__version__ = .*", f'__version__ = "{LAST}"'), "package"),
        (lambda folder: git(folder, "tag", "-d", f"v{NEXT}"), "tag"),
        (edit("CHANGELOG.md", f"^## {NEXT}", "## 0.1.0"), "changelog"),
        (write("changelog.d/late.fixed.md", "Late."), "changelog"),
    ],
)
def test_a_tag_that_is_not_what_it_must_be(
    checkout: Path, break_it: Callable[[Path], object], name: str
) -> None:
    checklist.prepare(Candidate(NEXT, checkout), "2026-12-01")
    git(checkout, "checkout", "--quiet", f"v{NEXT}")
    break_it(checkout)
    done = release(checkout, NEXT, "--tagged")
    assert done.returncode == 1
    failing = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("FAILS")}
    assert failing == {name}


@pytest.mark.parametrize(
    ("build", "pythons"),
    [
        ("cp39-* cp310-*", ["3.9", "3.10"]),
        (["cp313-manylinux*", "cp313-musllinux*"], ["3.13"]),
        ("cp3{9,10}-*", ["3.9", "3.10"]),
        ("", []),
    ],
)
def test_pythons_of_the_wheels(build: object, pythons: list[str]) -> None:
    assert checks.wheel_pythons({"tool": {"cibuildwheel": {"build": build}}}) == pythons


def test_the_results_are_read_where_they_are() -> None:
    data = json.loads((ROOT / "benchmarks/results.json").read_text())
    assert data["versions"]["ours"]["kong-pdk"]
