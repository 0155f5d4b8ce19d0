"""What a start or query command of kong.conf runs: a Python plugin server, or something else."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shlex
import shutil
from dataclasses import dataclass, field
from typing import Optional

from ..flags import dedicated_parser, directory_parser
from ..gateway.plugin import calls_starter
from ..kongconf.serving import SERVER_SCRIPT

DIRECTORY, DEDICATED, OTHER = "directory", "dedicated", "other"

_PYTHON = re.compile(r"(python|pypy)[0-9.]*t?")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)
#: Options of Python that are followed by a value.
_PYTHON_VALUES = ("-X", "-W")
#: Programs that run the command behind their options, with those that are followed by a value.
_WRAPPERS: dict[str, tuple[str, ...]] = {
    "env": ("-u", "-C", "--unset", "--chdir"),
    "exec": ("-a",),
    "nice": ("-n",),
    "nohup": (),
    "setsid": (),
    "stdbuf": ("-i", "-o", "-e"),
    "sudo": ("-u", "-g"),
    "timeout": ("-s", "-k"),
    "tini": (),
    "dumb-init": (),
}
_SHELLS = ("sh", "bash", "dash", "ash")
#: Other servers of Kong's, which stay as they are.
_OTHERS = {"go-pluginserver": "Go", "kong-js-pluginserver": "JavaScript"}


@dataclass
class Launch:
    """What a command runs.

    Attributes:
        kind: the directory server, a script that starts its own server, or something else.
        words: the command without what is around it: redirections, env, a cd before it.
        python: the Python that runs it; None if that cannot be seen.
        script: the script, an absolute path.
        args: the flags of the server.
        reason: of something else: why it is taken for that.
        missing: of something else: the file is not there, so nobody knows what it is.
        foreign: of something else: it is certain that this is no Python.
    """

    kind: str
    words: list[str] = field(default_factory=list)
    python: Optional[str] = None
    script: str = ""
    args: list[str] = field(default_factory=list)
    reason: str = ""
    missing: bool = False
    foreign: bool = False


@dataclass
class Flags:
    """The flags of a server, read by its own parser.

    Attributes:
        values: what they say; None if they are refused.
        problem: why they are refused.
    """

    values: Optional[argparse.Namespace] = None
    problem: str = ""


def read_command(text: str, folder: str = "/") -> Launch:
    """Find out what a command runs, without running it.

    Args:
        text: the command, for a shell.
        folder: where it is run.
    """
    try:
        words, folder = _unwrapped(*_simple_command(text, folder))
    except ValueError as exc:
        return Launch(OTHER, reason=f"a shell could not read it: {exc}")
    if not words:
        return Launch(OTHER, reason="there is nothing in it")
    program = os.path.basename(words[0])
    if program in _OTHERS:
        reason = f"it is Kong's server for {_OTHERS[program]}, which stays as it is"
        return Launch(OTHER, words, reason=reason, foreign=True)
    if _PYTHON.fullmatch(program):
        return _of_python(words, folder)
    if program in _SHELLS and len(words) > 1:
        return _of_script(words, _place(words[1], folder), words[2:], None)
    script = _place(words[0], folder)
    if program == SERVER_SCRIPT:
        return Launch(DIRECTORY, words, _interpreter(script), script, words[1:])
    return _of_script(words, script, words[1:], _interpreter(script))


def _simple_command(text: str, folder: str) -> tuple[list[str], str]:
    """The last command of a line for a shell, without redirections, and the folder it runs in."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars="&|;<>")
    lexer.commenters = ""
    lexer.whitespace_split = True
    words: list[str] = []
    programs = ""  # of a virtual environment that was activated before
    tokens = list(lexer)
    while tokens:
        token = tokens.pop(0)
        if set(token) <= set("<>&") and set(token) & set("<>"):
            if words and words[-1].isdigit():
                words.pop()
            del tokens[:1]
        elif token and set(token) <= set("&;"):
            if words[:1] == ["cd"] and len(words) == 2:
                folder = os.path.join(folder, words[1])
            elif words[:1] in (["."], ["source"]) and words[1:2]:
                programs = os.path.dirname(os.path.join(folder, words[1]))
            if tokens:
                words = []
        elif token and set(token) <= set("|"):
            break  # what comes first prints, and what comes next reads it
        else:
            words.append(token)
    if words and programs and os.access(os.path.join(programs, words[0]), os.X_OK):
        words[0] = os.path.join(programs, words[0])
    return words, folder


def _unwrapped(words: list[str], folder: str) -> tuple[list[str], str]:
    """A command without what is around it: env, exec, nice, a shell with -c, variables."""
    words = list(words)
    while words:
        program = os.path.basename(words[0])
        if program in _WRAPPERS:
            words.pop(0)
            while words and words[0].startswith("-"):
                del words[: 2 if words[0] in _WRAPPERS[program] else 1]
            if program == "timeout":
                del words[:1]
        elif _ASSIGNMENT.fullmatch(words[0]):
            words.pop(0)
        elif program in _SHELLS and _script_of(words):
            words, folder = _simple_command(_script_of(words), folder)
        else:
            break
    return words, folder


def _script_of(words: list[str]) -> str:
    """What a shell is given with -c, or -lc; "" if it is given a file."""
    rest = words[1:]
    while len(rest) > 1 and rest[0].startswith(("-", "+")):
        if not rest[0].startswith("--") and "c" in rest[0]:
            return rest[1]
        del rest[: 2 if rest[0][1:] == "o" else 1]
    return ""


def _of_python(words: list[str], folder: str) -> Launch:
    python, rest = _found(words[0], folder), words[1:]
    while rest and rest[0].startswith("-") and rest[0] not in ("-m", "-c", "-"):
        del rest[: 2 if rest[0] in _PYTHON_VALUES else 1]
    if rest[:1] == ["-m"] and len(rest) > 1:
        if rest[1] in ("kong_pdk", "kong_pdk.cli"):
            return Launch(DIRECTORY, words, python, "", rest[2:])
        return Launch(OTHER, words, python, reason=f"it runs the module {rest[1]}")
    if not rest or rest[0] in ("-c", "-"):
        return Launch(OTHER, words, python, reason="it runs no file")
    script = _place(rest[0], folder)
    if os.path.basename(script) == SERVER_SCRIPT:
        return Launch(DIRECTORY, words, python, script, rest[1:])
    return _of_script(words, script, rest[1:], python)


def _of_script(words: list[str], script: str, args: list[str], python: Optional[str]) -> Launch:
    try:
        with open(script, "rb") as file:
            source = file.read(4_000_000)
    except OSError as exc:
        text = f"cannot read {script}: {exc.strerror}"
        if len(words) == 1 and " " in words[0]:
            text += "; the quotes make one word of the whole command, so take them out"
        return Launch(OTHER, words, python, script, args, text, missing=True)
    if b"\0" in source:
        reason = "it is a program, and no Python script"
        return Launch(OTHER, words, python, script, args, reason, foreign=True)
    try:
        if calls_starter(source, script):
            return Launch(DEDICATED, words, python, script, args)
    except (SyntaxError, ValueError):
        text = "it is no Python"
        if b"kong-python-pluginserver" in source or b"start_dedicated_server" in source:
            text += ", but starts a Python server: put that command into kong.conf to have it read"
        return Launch(OTHER, words, python, script, args, text)
    return Launch(
        OTHER, words, python, script, args, "it does not call start_dedicated_server itself"
    )


def _place(path: str, folder: str) -> str:
    """The absolute path of a program: without a slash it is looked for in PATH."""
    if os.sep in path:
        return os.path.normpath(os.path.join(folder, path))
    return shutil.which(path) or os.path.normpath(os.path.join(folder, path))


def _found(python: str, folder: str) -> Optional[str]:
    path = _place(python, folder)
    return path if os.access(path, os.X_OK) else None


def _interpreter(script: str) -> Optional[str]:
    """The Python in the first line of a script."""
    try:
        with open(script, "rb") as file:
            first = file.readline(4096)
    except OSError:
        return None
    if not first.startswith(b"#!"):
        return None
    words, _ = _unwrapped(first[2:].decode("utf-8", "replace").split(), "/")
    if words and _PYTHON.fullmatch(os.path.basename(words[0])):
        return _found(words[0], "/")
    return None


def read_flags(launch: Launch, query: bool = False) -> Flags:
    """Let the server's own parser read the flags of a command.

    Args:
        launch: of a Python server.
        query: it is to print, so one of the flags that do so is needed.
    """
    parser = dedicated_parser("plugin") if launch.kind == DEDICATED else directory_parser()
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            values = parser.parse_args(launch.args)
    except SystemExit:
        lines = said.getvalue().strip().splitlines()
        problem = lines[-1].rpartition("error: ")[2] if lines else "it only prints its help"
        return Flags(None, problem + _abbreviated(parser, launch.args))
    dumps = [getattr(values, each, None) for each in ("dump", "dump_all", "dump_name")]
    wanted = "--dump" if launch.kind == DEDICATED else "--dump-all-plugins"
    if query and not any(dumps):
        return Flags(values, f"it does not print the plugins: it needs {wanted}")
    if not query and any(dumps):
        return Flags(values, "it prints the plugins and ends, in place of serving them")
    if launch.kind == DIRECTORY and not (values.directories or values.plugins or values.installed):
        return Flags(values, "the plugins are missing: name their folder with -d DIR")
    return Flags(values)


def _abbreviated(parser: argparse.ArgumentParser, args: list[str]) -> str:
    """The published package takes the begin of a flag for the flag."""
    known = [flag for action in parser._actions for flag in action.option_strings]
    for arg in args:
        flag = arg.partition("=")[0]
        if not flag.startswith("--") or flag in known:
            continue
        longer = [each for each in known if each.startswith(flag)]
        if longer:
            return f"; flags are not abbreviated here: write {' or '.join(longer)} for {flag}"
    return ""
