"""--reload: changed code is taken over, in each mode, and no request is lost over it."""

from __future__ import annotations

import collections
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from clients import Clients
from kongwire import Kong
from servers import Server, Start, directory_command, run_command, running, wait_until

pytest.importorskip("watchfiles")

#: What the codecs have to do with it, tests/unit/codec holds.
ONE_CODEC = True

#: Says its version and its helper's in a header; notes what becomes of its objects.
SOURCE = """
import os
import helper

assert helper.WORD  # half a helper, while it is saved in steps, must not be taken for a whole one
VERSION = "one"
version = "1.0.0"
priority = 10
Schema = ({"notes": {"type": "string"}},)


def note(config, what):
    with open(config["notes"], "a") as file:
        file.write(f"{os.getpid()} {what} {VERSION}\\n")


class Plugin:
    def __init__(self, config):
        self.config = config
        note(config, "made")

    def access(self, kong):
        import helper as lazily

        assert lazily is helper
        kong.response.set_header("x-is", f"{VERSION} {helper.WORD}")

    def close(self):
        note(self.config, "closed")
"""
HELPER = 'WORD = "a"\n'
#: In place of the note that an object has been made.
BLOCKS = """note(config, "begun")
        import time
        while not os.path.exists({gate!r}):
            time.sleep(0.005)
        note(config, "made")"""
EMBEDDED = """

if __name__ == "__main__":
    from kong_pdk.cli import start_dedicated_server

    start_dedicated_server("changing", Plugin, version, priority)
"""


def save(path: Path, text: str) -> None:
    """Save as many editors do: another file takes the place."""
    draft = path.with_name(path.name + ".draft")
    draft.write_text(text)
    draft.replace(path)


def save_in_steps(path: Path, text: str) -> None:
    """Save as others do: the file is empty, then half of it is there, then all of it."""
    with open(path, "w") as file:
        time.sleep(0.03)
        half = len(text) // 2
        file.write(text[:half])
        file.flush()
        time.sleep(0.03)
        file.write(text[half:])


class Seeing(Clients):
    """Clients that run events, and count what they get."""

    def __init__(self, server: Server, instance: int) -> None:
        super().__init__(server, self._look, count=3)
        self._instance = instance
        self.seen: collections.Counter[str] = collections.Counter()

    def _look(self, kong: Kong) -> None:
        self.seen[kong.run_event(self._instance).headers["x-is"]] += 1

    def __enter__(self) -> Seeing:
        super().__enter__()
        return self

    def wait(self, text: str) -> None:
        """Wait until somebody gets that, with no request lost before."""
        wait_until(lambda: self.failures or self.seen[text], text)
        assert self.failures == []


class Notes:
    """What the plugin has noted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def count(self, what: str) -> int:
        return [line.split(" ", 1)[1] for line in self.path.read_text().splitlines()].count(what)

    def wait_even(self, version: str) -> None:
        """Wait until each object of a version that was made has been closed, once."""
        made, closed = f"made {version}", f"closed {version}"
        wait_until(lambda: self.count(made) == self.count(closed) > 0, f"{version} is closed")


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path / "notes")


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "changing.py").write_text(SOURCE)
    (folder / "helper.py").write_text(HELPER)
    return folder


def start_changing(kong: Kong, notes: Notes) -> int:
    return kong.start_instance("changing", {"notes": str(notes.path)})


def changed(version: str, source: str = SOURCE) -> str:
    return source.replace('"one"', f'"{version}"')


# --- in each mode ---------------------------------------------------------------------------------


def test_no_request_is_lost(start: Start, plugins: Path, notes: Notes) -> None:
    server = start("--reload", "-v", plugins=plugins)
    path, helper = plugins / "changing.py", plugins / "helper.py"
    with server.kong() as kong:
        instance = start_changing(kong, notes)
        slow = kong.handle_event(instance)  # an event that begins before, and ends after
        with Seeing(server, instance) as clients:
            clients.wait("one a")
            save(path, changed("two"))
            clients.wait("two a")
            save_in_steps(helper, 'WORD = "b"\n')
            clients.wait("two b")
            save_in_steps(path, changed("three"))
            clients.wait("three b")
            save(path, changed("broken") + "\ndef (:\n")
            server.wait_log(f"({path}, line {len(SOURCE.splitlines()) + 2})")
            save(path, changed("fails").replace('note(config, "made")', "config['missing']"))
            server.wait_log("KeyError: 'missing'")
            save(path, changed("four"))
            clients.wait("four b")
        assert clients.failures == []
        assert not {"broken b", "fails b"} & set(clients.seen)
        notes.wait_even("two")
        assert notes.count("closed one") < notes.count("made one")  # an event is under way there
        assert kong.step(slow.event_id).is_return
        notes.wait_even("one")
        assert notes.count("made broken") == 0

        def takes_fourth() -> bool:
            return kong.run_event(start_changing(kong, notes)).headers["x-is"] == "four b"

        wait_until(takes_fourth, "the worker that is asked has taken over, too")
    server.stop()
    notes.wait_even("four")
    log = server.log
    assert "SyntaxError" in log
    assert "not taken over, the former serves on" in log
    assert log.count("[ERROR]") == 1 + log.count("KeyError: 'missing'"), log


@pytest.mark.one_process
def test_what_kong_does_not_know_is_pointed_out(start: Start, plugins: Path, notes: Notes) -> None:
    server = start("--reload", plugins=plugins)
    path = plugins / "changing.py"
    with server.kong() as kong:
        instance = start_changing(kong, notes)
        other = (
            changed("two")
            .replace('"1.0.0"', '"1.1.0"').replace("priority = 10", "priority = 11")
            .replace('"type": "string"}},', '"type": "string"}}, {"more": {"type": "number"}},')
            .replace("def access", "def rewrite")
        )  # fmt: skip
        save(path, other)
        server.wait_log(
            "plugin changing: Kong does not know what has changed of it until it is reloaded (kong "
            "reload): version (from 1.0.0 to 1.1.0), priority (from 10 to 11), phases (new: "
            "rewrite; gone: access), Schema (new: more)"
        )
        # Kong still asks for the phase that was; it does nothing there.
        assert kong.run_event(instance, "access").calls == []
        assert kong.run_event(instance, "rewrite").headers["x-is"] == "two a"
        save(path, changed("three"))
        server.wait_log("plugin changing is as Kong knows it again")
        assert kong.run_event(instance).headers["x-is"] == "three a"
        (plugins / "new.py").write_text(SOURCE)
        (plugins / "other.py").write_text(HELPER)
        server.wait_log(f"{plugins / 'new.py'} may be a new plugin: it is served when Kong")
        path.unlink()
        server.wait_log(f"{path} is gone: what is loaded goes on until Kong is reloaded")
        assert kong.run_event(instance).headers["x-is"] == "three a"
        assert "other.py" not in server.log
        save(path, changed("four"))
        wait_until(lambda: kong.run_event(instance).headers["x-is"] == "four a", "it is back")
    assert "cannot be imported" not in server.log


@pytest.mark.one_process
def test_a_configuration_that_changed_code_does_not_take(
    start: Start, plugins: Path, notes: Notes
) -> None:
    server = start("--reload", plugins=plugins)
    config = "@dataclass\nclass Config:\n    notes: str\n    more: str{}\n\n\nclass Plugin:"
    typed = (
        changed("typed")
        .replace("import os", "import os\nfrom dataclasses import asdict, dataclass")
        .replace('"type": "string"}},', '"type": "string"}}, {"more": {"type": "string"}},')
        .replace("class Plugin:", config)
        .replace("self, config):\n", "self, config: Config):\n        config = asdict(config)\n")
    )
    with server.kong() as kong:
        instance = start_changing(kong, notes)
        save(plugins / "changing.py", typed.replace("more: str{}", "more: str"))
        server.wait_log(
            "former serves on: it does not take the configuration of an instance that there is: "
            f"config field 'more': required field missing (instance {instance}): give the field"
        )
        assert kong.run_event(instance).headers["x-is"] == "one a"
        save(plugins / "changing.py", typed.replace("more: str{}", "more: str = 'x'"))
        wait_until(lambda: kong.run_event(instance).headers["x-is"] == "typed a", "typed")
    assert "Traceback" not in server.log


@pytest.mark.one_process
def test_an_init_that_blocks_holds_up_nobody(
    start: Start, plugins: Path, notes: Notes, tmp_path: Path
) -> None:
    server = start("--reload", "-v", plugins=plugins)
    path, gate = plugins / "changing.py", tmp_path / "gate"
    blocks = BLOCKS.format(gate=str(gate))
    with server.kong() as kong:
        instance = start_changing(kong, notes)
        save(path, changed("two").replace('note(config, "made")', blocks))
        wait_until(lambda: notes.count("begun two"), "it is being made")
        for _ in range(100):
            assert kong.run_event(instance).headers["x-is"] == "one a"
        # A further change does not wait for it either, and its object is not left behind.
        save(path, changed("three"))
        wait_until(lambda: kong.run_event(instance).headers["x-is"] == "three a", "three")
        assert notes.count("made two") == 0
        gate.touch()
        notes.wait_even("two")
        assert kong.run_event(instance).headers["x-is"] == "three a"


def test_a_script_that_is_its_own_server(
    start_embedded: Start, plugins: Path, notes: Notes
) -> None:
    path = plugins / "changing.py"
    path.write_text(SOURCE + EMBEDDED)
    server = start_embedded(path, "--reload", "-v", sockets=("changing.sock",))
    with server.kong() as kong:
        instance = start_changing(kong, notes)
        with Seeing(server, instance) as clients:
            clients.wait("one a")
            save(path, changed("two") + EMBEDDED)
            clients.wait("two a")
            save(plugins / "helper.py", 'WORD = "b"\n')
            clients.wait("two b")
            save(path, changed("broken") + EMBEDDED + "1 / 0\n(")
            server.wait_log(f"({path}, line ")
            save(path, changed("renamed") + EMBEDDED.replace('"changing"', '"other"'))
            server.wait_log("its name has become 'other'")
            save(
                path, changed("three") + EMBEDDED.replace('if __name__ == "__main__":', "if True:")
            )
            clients.wait("three b")
        assert clients.failures == []
        notes.wait_even("two")
    server.stop()
    notes.wait_even("one")
    notes.wait_even("three")


# --- workers --------------------------------------------------------------------------------------


@pytest.mark.modes("processes")
@pytest.mark.parametrize("kind", ["directory", "script"])
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_worker_that_is_started_later_has_the_changed_code(
    start: Start, start_embedded: Start, plugins: Path, notes: Notes, kind: str, method: str
) -> None:
    flags, path = ("--reload", "--start-method", method), plugins / "changing.py"
    end = EMBEDDED if kind == "script" else ""
    path.write_text(SOURCE + end)
    if kind == "script":
        server = start_embedded(path, *flags, sockets=("changing.sock",))
    else:
        server = start(*flags, plugins=plugins)
    with server.kong() as kong:
        instance = start_changing(kong, notes)
        save(path, changed("two") + end)
        says = lambda: kong.run_event(instance).headers["x-is"]  # noqa: E731
        wait_until(lambda: says() == "two a", "it is taken over")
        before = server.workers()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: server.log.count("is ready again") == len(before), "new workers")
        connections = [kong.connect() for _ in range(4)]
        turns = [one.handle_event(instance) for one in connections]
        assert [turn.args[1] for turn in turns] == ["two a"] * 4
        for connection, turn in zip(connections, turns):
            assert connection.step(turn.event_id).is_return


# --- scripts of other kinds -----------------------------------------------------------------------

MAIN = """
from acme_app.plugin import Plugin, priority, version


def main():
    from kong_pdk.cli import start_dedicated_server

    start_dedicated_server("changing", Plugin, version, priority)


if __name__ == "__main__":
    main()
"""
#: As pip makes it for an entry point in [project.scripts].
WRAPPER = """#!/usr/bin/env python3
import sys
from acme_app.__main__ import main
if __name__ == '__main__':
    sys.exit(main())
"""


@pytest.mark.parametrize("kind", ["wrapper", "module"])
def test_a_script_of_a_package(prefix: Path, tmp_path: Path, notes: Notes, kind: str) -> None:
    package = tmp_path / "site" / "acme_app"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(MAIN)
    source = SOURCE.replace("import os\nimport helper", "import os\nfrom acme_app import helper")
    source = source.replace("import helper as lazily", "from . import helper as lazily")
    (package / "plugin.py").write_text(source)
    (package / "helper.py").write_text(HELPER)
    wrapper = tmp_path / "bin" / "acme-app"
    wrapper.parent.mkdir()
    wrapper.write_text(WRAPPER)
    program = [str(wrapper)] if kind == "wrapper" else ["-m", "acme_app"]
    command = [sys.executable, *program, "-p", str(prefix), "--reload"]
    env = {"PYTHONPATH": str(tmp_path / "site")}
    sockets = ("changing.sock",)
    with running(command, prefix, sockets, env) as server, server.kong() as kong:
        instance = start_changing(kong, notes)
        assert kong.run_event(instance).headers["x-is"] == "one a"
        save(package / "helper.py", 'WORD = "b"\n')
        wait_until(lambda: kong.run_event(instance).headers["x-is"] == "one b", "b")
        save(package / "plugin.py", changed("two", source))
        wait_until(lambda: kong.run_event(instance).headers["x-is"] == "two b", "two")


def test_without_the_library(prefix: Path, plugins: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "watchfiles.py").write_text("raise ImportError('not here')\n")
    env = {"PYTHONPATH": str(tmp_path / "none")}
    done = run_command(*directory_command(plugins, prefix, "--reload"), env=env)
    assert (done.returncode, done.stdout) == (1, "")
    assert "--reload needs watchfiles (not here): pip install 'kong-pdk[reload]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
