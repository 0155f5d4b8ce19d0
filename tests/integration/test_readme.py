"""What the README shows: its plugin, its commands' output, and its flags."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
from pathlib import Path

from servers import SERVER, clean_environment, run_command

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PLUGIN = re.search(r"```python\n(#!.*?)```", README, re.DOTALL)
KONG_PDK = str(Path(sysconfig.get_path("scripts")) / "kong-pdk")


def test_its_plugin_runs_as_it_says(tmp_path: Path) -> None:
    assert PLUGIN is not None
    path = tmp_path / "my-plugin.py"
    path.write_text(PLUGIN.group(1), encoding="utf-8")
    config = re.search(r"try my-plugin.py --config '(.*?)'", README)
    assert config is not None
    done = subprocess.run(
        [KONG_PDK, "try", str(path), "--config", config.group(1), "--request", "GET /"],
        capture_output=True,
        text=True,
        timeout=100,
        env=clean_environment(),
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^x-greeting: good day 127\.0\.0\.1:\d+$", done.stdout, re.MULTILINE)


def test_its_test_passes(tmp_path: Path) -> None:
    test = re.search(r"```python\n(def test_.*?)```", README, re.DOTALL)
    assert PLUGIN is not None and test is not None
    (tmp_path / "my-plugin.py").write_text(PLUGIN.group(1), encoding="utf-8")
    (tmp_path / "test_it.py").write_text(test.group(1), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
        env=clean_environment(),
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_flags_are_the_servers(tmp_path: Path) -> None:
    path = tmp_path / "my-plugin.py"
    assert PLUGIN is not None
    path.write_text(PLUGIN.group(1), encoding="utf-8")
    table = README[README.index("## Flags") : README.index("Flags with a long name")]
    documented = set(re.findall(r"--[a-z][a-z-]+", table))
    known: set[str] = set()
    for command in ([SERVER], [sys.executable, str(path)]):
        known |= set(re.findall(r"--[a-z][a-z-]+", run_command(*command, "--help").stdout))
    assert documented == known - {"--help"}


def test_its_files_are_there() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page} links to {target}"
