"""The tutorial, followed to the letter: its files are written, its commands run, in its order.

Beside what pages.py says of the comments before blocks, here

- a shell block's lines with ``$`` are run, one after the other, and must print what follows them;
- ``<!-- background -->``: the command goes on running, and what follows it must appear;
- ``<!-- appears -->``: so must this, in the output of the command that goes on;
- ``<!-- shows: NAME -->``: that file has this text.

In what is printed ``...`` stands for anything, and times, ports and process ids may be others.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sysconfig
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE, OutputChecker
from pathlib import Path

import pages
import pytest
from pages import Block
from servers import clean_environment, wait_until

TUTORIAL = pages.ROOT / "docs/tutorial.md"
LANGUAGES = ("sh", "text", "python", "toml", "ini", "json")

#: What differs from one run to the next.
VARIABLE = [
    (re.compile(r"\b\d+(\.\d+)? ?(ms|s|seconds)\b"), "SOME TIME"),
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:PORT"),
    (re.compile(r"\b(pid|PID) \d+"), "PID"),
    (re.compile(r"={3,}"), "==="),
    (re.compile(r"\s+$", re.MULTILINE), ""),
]


def plain(text: str) -> str:
    for pattern, constant in VARIABLE:
        text = pattern.sub(constant, text)
    return text.strip() + "\n"


def matches(wanted: str, got: str) -> bool:
    checker = OutputChecker()
    return checker.check_output(plain(wanted), plain(got), ELLIPSIS | NORMALIZE_WHITESPACE)


class Reader:
    """Somebody at a terminal, with an editor."""

    def __init__(self, home: Path) -> None:
        self.home = self.folder = home
        self.port = _free_port()
        self.others: list[tuple[subprocess.Popen[bytes], Path]] = []
        path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
        self.environment = clean_environment(
            {"PATH": path, "HOME": str(home), "NO_COLOR": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        )

    def follow(self, block: Block) -> None:
        """Do what a block says."""
        if block.key == "not run":
            return
        if block.key == "file":
            path = self.folder / block.value
            assert path.exists() or "new" not in block.value
            path.write_text(block.text, encoding="utf-8")
        elif block.key == "shows":
            shown = (self.folder / block.value).read_text(encoding="utf-8")
            assert matches(block.text, shown), f"{block}: {block.value} is\n{shown}"
        elif block.key == "appears":
            self.appears(block, block.text)
        else:
            assert block.language == "sh", f"{block}: say what this is for"
            for command, output in _commands(block.text):
                if block.key == "background":
                    self.start(block, command, output)
                else:
                    self.run(block, command, output)

    def run(self, block: Block, command: str, output: str) -> None:
        if command.startswith("cd "):
            self.folder = (self.folder / command[3:]).resolve()
            assert self.folder.is_dir(), f"{block}: {command}"
            return
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {self.here(command)}"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
            cwd=self.folder, env=self.environment,
        )  # fmt: skip
        assert matches(self.here(output), done.stdout), f"{block}: $ {command}\n{done.stdout}"
        fails = re.search(r"^kong-pdk \w+: |\bfailed\b", output, re.MULTILINE) is not None
        assert (done.returncode != 0) == fails, f"{block}: $ {command}: status {done.returncode}"

    def start(self, block: Block, command: str, output: str) -> None:
        """Leave a command running, as in a second terminal; the one before it is ended."""
        self.stop()
        log = self.home / f"background-{len(self.others)}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {self.here(command)} --port {self.port}"],
                stdout=out, stderr=subprocess.STDOUT, cwd=self.folder, env=self.environment,
            )  # fmt: skip
        self.others.append((process, log))
        self.appears(block, output)

    def appears(self, block: Block, wanted: str) -> None:
        process, log = self.others[-1]
        lines = [plain(line).strip() for line in self.here(wanted).splitlines() if line.strip()]

        def there() -> bool:
            text = log.read_text(encoding="utf-8", errors="replace")
            printed = iter([plain(line).strip() for line in text.splitlines()])
            found = all(any(matches(line, each) for each in printed) for line in lines)
            assert found or process.poll() is None, f"{block}: it has ended:\n{text}"
            return found

        wait_until(there, f"{block}: {wanted!r} in {log.name}")

    def stop(self) -> None:
        """Press Ctrl-C."""
        for process, log in self.others:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0, log.read_text(encoding="utf-8")

    def here(self, text: str) -> str:
        """A command or its output with a port that is free here."""
        return text.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}")


def _commands(text: str) -> list[tuple[str, str]]:
    """The commands of a shell block, each with what it prints."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            assert found, f"output without a command: {line}"
            found[-1][1].append(line)
    return [(command, "\n".join(lines)) for command, lines in found]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.skipif(shutil.which("curl") is None, reason="the tutorial uses curl")
def test_the_tutorial(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    try:
        for block in pages.blocks(TUTORIAL):
            if block.language in LANGUAGES:
                reader.follow(block)
    finally:
        reader.stop()
