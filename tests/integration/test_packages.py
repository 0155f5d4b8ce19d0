"""Plugins that are packages or installed, served and dumped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kongwire import Kong
from servers import SERVER, Flavour, run_command, running, wait_until

ONE_CODEC = True  # it is about names

HANDLER = """
from . import words
import beside

version, priority = "1.2.3", 5
Schema = ({"message": {"type": "string"}},)


class Plugin:
    def __init__(self, config):
        self.config = config

    def access(self, kong):
        from .later import LATER

        kong.response.set_header("x-says", f"{words.WORD} {beside.WORD} {LATER}")
"""


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def package(word: str) -> dict[str, str]:
    return {
        "__init__.py": "from .handler import Plugin\n",
        "handler.py": HANDLER,
        "words.py": f"WORD = '{word}'\n",
        "later.py": f"LATER = 'later {word}'\n",
    }


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    """Two packages whose modules have the same names, and what both import."""
    folder = tmp_path / "plugins"
    for word in ("one", "two"):
        write(folder, {f"pack-{word}/{name}": text for name, text in package(word).items()})
    write(folder, {"beside.py": "WORD = 'beside'\n"})
    return folder


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a Python in which a plugin is installed."""
    site = tmp_path / "site"
    files = {f"acme_kong/{name}": text for name, text in package("acme").items()}
    files["acme_kong/handler.py"] = HANDLER.replace("import beside", "import acme_word as beside")
    write(site, {**files, "acme_word.py": "WORD = 'library'\n"})
    write(
        site / "acme-1.0.dist-info",
        {
            "METADATA": "Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n",
            "entry_points.txt": "[kong_pdk.plugins]\nacme = acme_kong.handler:Plugin\n",
        },
    )
    yield {"PYTHONPATH": str(site)}


def says(kong: Kong, name: str) -> Any:
    return kong.run_event(kong.start_instance(name, {})).headers["x-says"]


def test_packages_of_a_folder(flavour: Flavour, plugins: Path, prefix: Path) -> None:
    command = [SERVER, "-d", str(plugins), "-p", str(prefix), *flavour.flags]
    with running(command, prefix, env=flavour.env) as server:
        with server.kong() as kong:
            assert kong.call("plugin.GetPluginNames") == ["pack-one", "pack-two"]
            assert says(kong, "pack-one") == "one beside later one"
            assert says(kong, "pack-two") == "two beside later two"
        assert "WARNING" not in server.log


@pytest.mark.parametrize("flags", [("--plugin", "acme"), ("--installed",)])
def test_what_is_installed(
    flavour: Flavour, installed: dict[str, str], prefix: Path, flags: tuple[str, ...]
) -> None:
    command = [SERVER, *flags, "-p", str(prefix), *flavour.flags]
    env = {**flavour.env, **installed}
    with running(command, prefix, env=env) as server, server.kong() as kong:
        assert says(kong, "acme") == "acme library later acme"


def test_all_kinds_in_one_server(
    installed: dict[str, str], plugins: Path, prefix: Path, tmp_path: Path
) -> None:
    write(tmp_path / "more", {f"third/{name}": text for name, text in package("3").items()})
    write(tmp_path / "more", {"beside.py": "WORD = 'other'\n"})
    command = [
        SERVER, "-d", str(plugins), "--plugin", "acme", "--plugin", str(tmp_path / "more/third"),
        "-p", str(prefix), "--reload", "-v",
    ]  # fmt: skip
    with running(command, prefix, env=installed) as server:
        with server.kong() as kong:
            instances = {
                name: kong.start_instance(name, {})
                for name in ("acme", "pack-one", "pack-two", "third")
            }

            def all_say() -> dict[str, Any]:
                return {
                    name: kong.run_event(one).headers["x-says"] for name, one in instances.items()
                }

            before = all_say()
            assert before["third"] == "3 other later 3"
            # What is installed is loaded anew too, and nobody else for that.
            site = Path(installed["PYTHONPATH"])
            (site / "acme_kong" / "words.py").write_text("WORD = 'changed'\n")
            after = {**before, "acme": "changed library later acme"}
            wait_until(lambda: all_say() == after, "it is taken over")
            (plugins / "pack-one" / "later.py").write_text("LATER = 'sooner'\n")
            after["pack-one"] = "one beside sooner"
            wait_until(lambda: all_say() == after, "it is taken over")
        assert server.log.count("is taken over") == 2


def test_dumps(installed: dict[str, str], plugins: Path) -> None:
    def dump(*flags: str) -> list[str]:
        done = run_command(SERVER, *flags, env=installed)
        assert (done.returncode, done.stderr) == (0, "")
        found = json.loads(done.stdout)
        assert all((one["Version"], one["Phases"]) == ("1.2.3", ["access"]) for one in found)
        return [one["Name"] for one in found]

    assert dump("-d", str(plugins), "--dump-all-plugins") == ["pack-one", "pack-two"]
    assert dump("-d", str(plugins), "--dump-plugin-info", "pack-two") == ["pack-two"]
    assert dump("--plugin", "acme", "--dump-all-plugins") == ["acme"]
    assert dump("--installed", "--dump-plugin-info", "acme") == ["acme"]
    assert dump("-d", str(plugins), "--installed", "--dump-plugin-info", "acme") == ["acme"]


def test_what_is_wrong(installed: dict[str, str], plugins: Path) -> None:
    def refused(*flags: str) -> str:
        done = run_command(SERVER, *flags, "--dump-all-plugins", env=installed)
        assert (done.returncode, done.stdout) == (1, "")
        assert "Traceback" not in done.stderr
        return done.stderr

    write(plugins, {"acme/__init__.py": "from beside import *\n" + HANDLER.replace("from .", "#")})
    text = refused("-d", str(plugins), "--plugin", "acme")
    assert f"two plugins 'acme': {plugins / 'acme'} and entry point acme = acme_kong" in text
    assert "no plugin 'nowhere' is installed in this Python" in refused("--plugin", "nowhere")
    done = run_command(SERVER, "--dump-all-plugins")
    assert done.returncode == 2
    assert "-d DIR" in done.stderr and "--plugin" in done.stderr
