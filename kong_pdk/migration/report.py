"""All that ``kong-pdk migrate`` has to say of one configuration."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..checking.findings import Finding
from ..config import DEFAULT_PREFIX
from ..exception import ConfigError
from ..kongconf import formats
from ..kongconf.reading import PROGRAMS, Configuration, plugin_servers, unread_keys
from ..kongconf.releases import Release
from ..kongconf.serving import Python
from ..kongconf.settings import Server, settings
from .differences import ALWAYS
from .entries import Entry, Examiner
from .launching import DIRECTORY
from .source import CHANGE, LOOK, NOTE

#: How many lines that Kong passes over are named beside an error.
_NOTES = 5


@dataclass
class Report:
    """What there is, and what must be changed.

    Attributes:
        kong: the release that it is for.
        sources: what has been read.
        entries: of ``pluginserver_names``.
        findings: what is of no entry.
        lines: of kong.conf, by the name of the entry whose place they take.
    """

    kong: Release
    sources: Sequence[str]
    entries: list[Entry] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    lines: dict[str, str] = field(default_factory=dict)

    def count(self, level: str) -> int:
        """How many findings of a level there are."""
        return sum(one.level == level for one in self._all())

    def _all(self) -> list[Finding]:
        return [*self.findings, *(one for entry in self.entries for one in entry.findings)]

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON takes it."""
        return {
            "kong": str(self.kong),
            "sources": list(self.sources),
            "entries": [entry.as_dict() for entry in self.entries],
            "findings": [one.as_dict() for one in self.findings],
            "lines": self.lines,
            "always": [each.as_dict() for each in ALWAYS],
            "to_change": self.count(CHANGE),
            "to_look_at": self.count(LOOK),
        }


def examine(
    conf: Configuration,
    kong: Release,
    python: Python,
    run: bool = True,
    sources: Sequence[str] = (),
    programs: str = PROGRAMS,
) -> Report:
    """Look at all entries of a configuration.

    Args:
        conf: Kong's settings.
        kong: its release.
        python: the Python with this package, that is to run the plugins.
        run: whether the queries are run.
        sources: what has been read, for people.
        programs: the folder of programs that Kong runs without being told.

    Raises:
        ConfigError: it has no entry.
    """
    servers = plugin_servers(conf, kong, programs)
    if not servers:
        where = " and ".join(sources) or "it"
        text = (
            f"there is no pluginserver_names in {where}: name the file that Kong is started with "
            f"(--kong-conf FILE), or the environment (--env FILE)"
        )
        if conf.get("go_pluginserver_exe") is not None:
            text += "; go_pluginserver_exe is for plugins in Go only, which are none of ours"
        raise ConfigError("\n".join([text, *conf.notes[:_NOTES]]))
    report = Report(kong, sources)
    for text in [*conf.notes, *unread_keys(conf, servers)]:
        report.findings.append(Finding(LOOK, "not-seen", text))
    examiner = Examiner(conf, kong, python, run)
    report.entries = [examiner.entry(server) for server in servers]
    _check_coverage(report, conf)
    _check_wanted(report, conf)
    return report


def _check_coverage(report: Report, conf: Configuration) -> None:
    """Find plugins that no entry makes known, and write down the entries that do."""
    known = {name for entry in report.entries for name in entry.registers}
    for entry in report.entries:
        # One that cannot be loaded is told with its reason: an entry for it would stop Kong.
        unknown = [name for name in entry.loaded if name not in known]
        if not unknown or entry.launch.kind != DIRECTORY:
            continue
        if not report.kong.first_plugin_only or entry.server.query is None:
            continue
        known.update(unknown)
        entry.add(
            CHANGE, "first-plugin-only",
            f"Kong {report.kong} takes the first plugin of a query, so that it does not know "
            f"{', '.join(unknown)}: each needs an entry, with --dump-plugin-info NAME",
        )  # fmt: skip
        if entry.starts or entry.server.start is None:
            report.lines[entry.server.name] = _lines(entry, report.kong, conf.prefix)


def _lines(entry: Entry, kong: Release, prefix: str) -> str:
    """The entries for all plugins of a directory server, which take the place of one."""
    launch, values = entry.launch, entry.flags.values
    assert values is not None
    base = tuple(launch.words[: len(launch.words) - len(launch.args)])
    folders = [os.path.normpath(os.path.join(prefix, folder)) for folder in values.directories]
    where = [part for folder in folders for part in ("-d", folder)]
    where += [part for plugin in values.plugins for part in ("--plugin", plugin)]
    ask = (*base, *where)
    queries = {name: (*ask, "--dump-plugin-info", name) for name in entry.loaded}
    socket = os.path.normpath(entry.server.socket.value)
    server = Server(queries, (*ask, "--dump-all-plugins"), tuple(launch.words), socket)
    # The start command says already where the prefix is.
    made = settings([server], kong, DEFAULT_PREFIX)
    if not entry.starts:
        made.entries = [replace(each, start=None) for each in made.entries]
    return formats.conf(made)


def _check_wanted(report: Report, conf: Configuration) -> None:
    """Find plugins that Kong would know, and is not to use."""
    wanted = conf.items("plugins")
    for entry in report.entries:
        for name in entry.registers:
            if entry.is_python and name not in wanted:
                entry.add(NOTE, "not-wanted", f"{name} is not in plugins, so Kong does not use it")
