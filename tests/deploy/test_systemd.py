"""The systemd unit: what systemd says of it, and what it has in common with Kong's settings."""

from __future__ import annotations

import re
import subprocess
import sysconfig
from pathlib import Path

from recipes import DEPLOY, PLUGINS, read_conf, read_unit, tool

UNIT = DEPLOY / "systemd" / "kong-python-plugins.service"
SYSTEMD = "apt-get install systemd"


def here(folder: Path) -> Path:
    """A copy of the unit with paths of this machine, as systemd looks for the programs."""
    text = UNIT.read_text(encoding="utf-8")
    text = text.replace("/opt/kong-pdk/bin", sysconfig.get_path("scripts"))
    text = text.replace("/etc/kong/python-plugins ", f"{PLUGINS} ")
    path = folder / UNIT.name
    path.write_text(text, encoding="utf-8")
    return path


def test_systemd_understands_it(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze", SYSTEMD)
    command = [analyze, "verify", "--man=no", "--recursive-errors=no", str(here(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_a_misspelt_setting_would_be_found(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze", SYSTEMD)
    path = here(tmp_path)
    path.write_text(path.read_text().replace("RestrictNamespaces", "RestrictNamespace"))
    command = [analyze, "verify", "--man=no", "--recursive-errors=no", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "RestrictNamespace" in done.stderr


def test_it_is_exposed_to_little(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze", SYSTEMD)
    command = [analyze, "security", "--offline=yes", "--threshold=20", "--no-pager", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-300:]  # above 2.0 of 10


def test_the_kernel_out_of_memory_ends_a_worker_alone() -> None:
    """systemd ends all of a unit otherwise, and with it the parent that lets nothing pass."""
    unit = read_unit(UNIT.name)
    assert unit["MemoryMax"] and unit["OOMPolicy"] == ["continue"]
    assert "--supervise" in unit["ExecStart"][0]
    most = re.search(r"--worker-memory (\d+)", unit["ExecStart"][0])
    assert most and unit["MemoryMax"] == ["1G"] and 2 * int(most[1]) + 40 < 0.9 * 1024


def test_kong_finds_what_it_makes() -> None:
    unit, conf = read_unit(UNIT.name), read_conf(DEPLOY / "systemd" / "kong.conf")
    (folder,) = (f"/run/{name}" for name in unit["RuntimeDirectory"])
    assert conf["pluginserver_greeting_socket"].startswith(folder + "/")
    assert conf["pluginserver_greeting_socket"] in unit["ExecStartPost"][0]
    written = re.search(r"> (\S+)'", unit["ExecStartPre"][0])
    assert written and conf["pluginserver_greeting_query_cmd"] == f"/bin/cat {written[1]}"
    assert "pluginserver_greeting_start_cmd" not in conf
    assert unit["Before"] == ["kong.service"]
    assert read_unit("kong.service.d-python-plugins.conf")["After"] == [UNIT.name]


def test_the_group_is_that_of_those_who_connect() -> None:
    unit = read_unit(UNIT.name)
    assert unit["Group"] == ["kong"] and unit["User"] == ["kong-plugins"]
    assert "--socket-mode 660" in unit["ExecStart"][0]
    assert unit["RuntimeDirectoryMode"] == ["0750"]
    users = (DEPLOY / "systemd" / "kong-python-plugins.sysusers").read_text(encoding="utf-8")
    assert re.search(rf"^u {unit['User'][0]} ", users, re.MULTILINE)
