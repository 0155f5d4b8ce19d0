"""The workflows on GitHub: what they may do, and that they run what is run at home."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pages
import pytest
import yaml
from recipes import tool

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = pages.ROOT
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
INSTALL = "pip install -r tests/release/requirements.txt"
COMMAND = re.compile(r"\bdev\.py ([a-z-]+)")

#: What ci.yml has and .ci/run has not, or the other way round, with the reason.
DEVIATIONS: dict[str, str] = {}


def load(path: Path) -> dict[str, Any]:
    # YAML 1.1 reads the key `on` as true.
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {("on" if key is True else key): value for key, value in found.items()}


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    found = load(path)["jobs"]
    assert found
    return found


def steps(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every step, with the name of its job."""
    for name, job in jobs(path).items():
        for step in job.get("steps", ()):
            yield name, step


def scripts(path: Path) -> list[str]:
    return [step["run"] for _, step in steps(path) if "run" in step]


def commands(text: str) -> set[str]:
    """The commands of dev.py in a script, comments apart."""
    return set(COMMAND.findall(re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)))


def known_commands() -> set[str]:
    """The commands that dev.py says it has."""
    documented = ast.get_docstring(ast.parse((ROOT / "dev.py").read_text(encoding="utf-8")))
    return commands(documented or "")


def by_name(path: Path) -> str:
    return path.name


# --- the same as at home --------------------------------------------------------------------------


def test_ci_runs_what_is_run_at_home() -> None:
    at_home = commands((ROOT / ".ci/run").read_text(encoding="utf-8"))
    on_github = set().union(*(commands(script) for script in scripts(GITHUB / "workflows/ci.yml")))
    assert {"lint", "test", "dist", "installs", "sbom"} <= at_home
    assert at_home ^ on_github == set(DEVIATIONS)


@pytest.mark.parametrize("path", WORKFLOWS, ids=by_name)
def test_its_commands_are_there(path: Path) -> None:
    named = set().union(*(commands(script) for script in scripts(path)))
    if path.name == "long.yml":
        (job,) = jobs(path).values()
        named = {line.split()[0] for line in job["strategy"]["matrix"]["command"]}
    assert named and named <= known_commands()


def test_flags_of_commands_are_the_same_at_home() -> None:
    """A test that is shorter on GitHub than at home would be believed to be the same."""
    at_home = (ROOT / ".ci/run").read_text(encoding="utf-8")
    for script in scripts(GITHUB / "workflows/ci.yml"):
        for line in re.findall(r"dev\.py .*", script):
            assert line in at_home.replace('"python$version" ', ""), line


def test_the_last_job_waits_for_all_others() -> None:
    """A branch's protection asks for it alone."""
    found = jobs(GITHUB / "workflows/ci.yml")
    assert set(found["passed"]["needs"]) == set(found) - {"passed"}
    assert found["passed"]["if"] == "always()"


@pytest.mark.parametrize(
    ("results", "passes"),
    [("success", True), ("success,success", True), ("success,failure", False),
     ("success,skipped", False), ("cancelled,success", False), ("", False)],
)  # fmt: skip
def test_what_the_last_job_makes_of_results(results: str, passes: bool) -> None:
    (script,) = (
        step["run"] for name, step in steps(GITHUB / "workflows/ci.yml") if name == "passed"
    )
    done = subprocess.run(
        ["bash", "-e", "-c", script], env={"RESULTS": results}, capture_output=True, timeout=60
    )
    assert (done.returncode == 0) is passes


def test_all_pythons_are_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    prefix = "Programming Language :: Python :: "
    listed = [name[len(prefix) :] for name in project["classifiers"] if f"{prefix}3." in name]
    matrix = jobs(GITHUB / "workflows/ci.yml")["tests"]["strategy"]["matrix"]
    assert matrix["python"] == listed
    assert [one["runner"] for one in matrix["include"]] == ["ubuntu-24.04-arm"]


# --- what they may do -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", WORKFLOWS, ids=by_name)
def test_a_job_may_do_no_more_than_it_must(path: Path) -> None:
    """Only those that publish may write, and they run no code of the repository's."""
    assert load(path)["permissions"] == {}
    may_write = {"attest", "pypi", "github", "deploy"}
    for name, job in jobs(path).items():
        writes = {right for right, level in job["permissions"].items() if level == "write"}
        assert bool(writes) is (name in may_write), name
        if writes:
            assert "dev.py" not in str(job) and "checkout" not in str(job)


@pytest.mark.parametrize("path", WORKFLOWS, ids=by_name)
def test_a_job_ends(path: Path) -> None:
    for name, job in jobs(path).items():
        assert "uses" in job or job["timeout-minutes"] <= 120, name
    assert load(path)["concurrency"]["group"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=by_name)
def test_actions_are_pinned(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for used in re.findall(r"uses: (.*)", text):
        pinned = re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used)
        assert pinned or used.startswith("./.github/workflows/"), used


def test_an_action_is_pinned_to_one_commit() -> None:
    commits: dict[str, set[str]] = {}
    for path in WORKFLOWS:
        for name, commit in re.findall(r"uses: ([\w/-]+)@(.*)", path.read_text(encoding="utf-8")):
            commits.setdefault(name, set()).add(commit)
    assert {name: len(found) for name, found in commits.items() if len(found) > 1} == {}


@pytest.mark.parametrize("path", WORKFLOWS, ids=by_name)
def test_nothing_is_put_into_a_script(path: Path) -> None:
    """What others choose, such as a branch's name, would be run; a variable is not."""
    for script in scripts(path):
        assert "${{" not in script


def test_a_release_is_published_from_a_tag_only_after_everything_else() -> None:
    found = jobs(GITHUB / "workflows/release.yml")
    for name in ("checklist", "ci", "attest", "pypi", "github"):
        assert found[name]["if"] == "github.event_name == 'push'"
    assert load(GITHUB / "workflows/release.yml")["on"]["push"] == {"tags": ["v[0-9]*"]}
    before: set[str] = set()
    waiting = ["pypi"]
    while waiting:
        name = waiting.pop()
        before.add(name)
        waiting += found[name].get("needs", [])
    assert before == set(found) - {"github"}
    assert found["pypi"]["environment"]["name"] == "pypi"


def test_both_processors_build_wheels() -> None:
    found = jobs(GITHUB / "workflows/release.yml")
    matrix = found["wheels"]["strategy"]["matrix"]
    assert matrix == {"runner": ["ubuntu-24.04", "ubuntu-24.04-arm"]}


def test_artifacts_that_are_read_are_written() -> None:
    written, read = set(), set()
    for _, step in steps(GITHUB / "workflows/release.yml"):
        name = step.get("with", {}).get("name") or step.get("with", {}).get("pattern")
        if "upload-artifact" in step.get("uses", ""):
            written.add(name)
        elif "download-artifact" in step.get("uses", "") and name:
            read.add(name)
    assert read == {"dist-*", "description"}
    assert written == {"dist-sdist", "dist-wheels-${{ matrix.runner }}", "description", "notes"}


# --- tools ----------------------------------------------------------------------------------------


def test_they_fit_the_schema() -> None:
    checker = tool("check-jsonschema", INSTALL)
    for schema, files in (
        ("vendor.github-workflows", WORKFLOWS),
        ("vendor.dependabot", [GITHUB / "dependabot.yml"]),
    ):
        done = subprocess.run(
            [checker, "--builtin-schema", schema, *map(str, files)],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


def test_zizmor_finds_no_hole(tmp_path: Path) -> None:
    zizmor = tool("zizmor", INSTALL)
    command = (zizmor, "--offline", "--no-progress", "--persona", "pedantic")
    done = subprocess.run([*command, str(GITHUB)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    # It does look.
    text = (GITHUB / "workflows/docs.yml").read_text(encoding="utf-8")
    (tmp_path / ".github/workflows").mkdir(parents=True)
    bad = text.replace("run: python3", "run: echo ${{ github.head_ref }}; python3")
    (tmp_path / ".github/workflows/docs.yml").write_text(bad)
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "template-injection" in done.stdout


def all_scripts() -> list[tuple[str, str]]:
    found = [
        (f"{path.name}-{n}", text) for path in WORKFLOWS for n, text in enumerate(scripts(path))
    ]
    shell = (ROOT / ".ci").iterdir()
    return found + [(path.name, path.read_text(encoding="utf-8")) for path in sorted(shell)]


def test_scripts_are_read_by_bash() -> None:
    for name, text in all_scripts():
        done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
        assert done.returncode == 0, f"{name}: {done.stderr}"


def test_shellcheck_is_content(tmp_path: Path) -> None:
    shellcheck = tool("shellcheck", INSTALL)
    for name, text in all_scripts():
        start = "" if text.startswith("#!") else "set -eo pipefail\n"  # as GitHub starts them
        (tmp_path / name).write_text(start + text)
    files = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run(
        [shellcheck, "--shell", "bash", *files], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout
