"""A plugin as Kong is told of it, checked field by field."""

from __future__ import annotations

import copy
import inspect
import json
import logging
import os
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Callable, Optional, Protocol

from ..config import POLICIES
from ..exception import PluginError
from ..pdk.functions import ALIKE, PHASES, close_matches
from ..schema.asking import asked_for
from ..schema.language import ERROR, WARNING, check_fields

logger = logging.getLogger("kong_pdk.server")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\Z")
_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+\Z")
_NOT_PLAIN = (
    inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction,
)  # fmt: skip


#: Tells one state of a file from another: when it was changed, nanoseconds, and its size; None if
#: there is no such file.
Stamp = Optional[tuple[int, int]]


class Code(Protocol):
    """Where a plugin's code is, and how to have it as it is there now."""

    @property
    def origin(self) -> str:
        """The place, for people."""
        ...

    def stamps(self) -> Mapping[str, Stamp]:
        """The files that it has been loaded from so far, without links, as they were then."""
        ...

    def folders(self) -> set[str]:
        """Where further ones may come from."""
        ...

    def changed(self) -> set[str]:
        """Those of the files that are not as they were when they were loaded."""
        ...

    def is_gone(self) -> bool:
        """Whether the plugin's own file is not there any more."""
        ...

    def load_again(self) -> Plugin:
        """The plugin as its files are now, beside the one that is there.

        Raises:
            PluginError: it cannot be loaded.
        """
        ...

    def forget(self) -> None:
        """Release what is only there for this plugin, once no object of it is in use any more."""
        ...


@dataclass
class Plugin:
    """A plugin that Kong can use.

    Attributes:
        name: as kong.conf and Kong's admin API know it.
        version: three numbers, ``x.y.z``.
        priority: plugins of higher priority run first.
        schema: the fields of the configuration, as Kong's schema language describes them.
        phases: the phases that it has a method for.
        factory: called with a configuration, makes an instance; the author's class.
        configure: makes what the factory is called with of a configuration as Kong sends it.
        entity_checks: relations of the fields, as Kong's schema language describes them.
        on_error: what becomes of a request if the plugin fails, one of ``config.POLICIES``; "" for
            what the server is told.
        closes: its instances have a method ``close``.
        modified: time of its file's last change, seconds since the epoch.
        loaded: when it was loaded, seconds since the epoch.
        rows: by phase, where its events are counted; None: nowhere.
        number: of those that are counted.
        stated: the schema as its author has stated it; None for none.
        code: where it comes from; None if that is not known.
        idle: phases that Kong may still call, of former code; there it does nothing.
    """

    name: str
    version: str
    priority: int
    schema: list[dict[str, Any]]
    phases: tuple[str, ...]
    factory: type
    on_error: str = ""
    closes: bool = False
    modified: float = 0.0
    loaded: float = field(default_factory=time.time)
    last_start: float = 0.0
    last_close: float = 0.0
    rows: Optional[dict[str, int]] = None
    number: int = 0
    stated: Any = None
    code: Optional[Code] = None
    idle: tuple[str, ...] = ()
    configure: Callable[[Any], Any] = copy.deepcopy
    entity_checks: list[dict[str, Any]] = field(default_factory=list)

    @property
    def origin(self) -> str:
        """Where it comes from, for people."""
        return f"plugin {self.name!r}" if self.code is None else self.code.origin

    @property
    def files(self) -> set[str]:
        """The files that it has been loaded from so far, without links."""
        return set() if self.code is None else set(self.code.stamps())

    def describe(self) -> dict[str, Any]:
        """What Kong's query command wants to know of the plugin."""
        record: dict[str, Any] = {"type": "record", "fields": self.schema}
        if self.entity_checks:
            record["entity_checks"] = self.entity_checks
        return {
            "Name": self.name,
            "Phases": list(self.phases),
            "Priority": self.priority,
            "Version": self.version,
            "Schema": {
                "name": self.name,
                "fields": [{"config": record}],
            },
        }


def define_plugin(
    name: object,
    factory: object,
    version: object,
    priority: object,
    schema: object,
    where: str,
    path: Optional[str] = None,
    module: Optional[ModuleType] = None,
) -> Plugin:
    """Check what a plugin says of itself.

    Args:
        name: of the plugin.
        factory: the plugin's class.
        version, priority, schema: as its module states them; a schema that is None is made of the
            class that the plugin asks for its configuration as, and is empty without one.
        where: the file or call that stated them, for errors.
        path: the plugin's file, if there is one.
        module: that the class was found in, if that is another than the one that defines it.

    Raises:
        PluginError: names the field and what is expected.
    """

    def wrong(text: str) -> PluginError:
        return PluginError(f"{where}: {text}")

    if not isinstance(name, str) or not _NAME.match(name):
        raise wrong(
            f"the plugin's name must consist of letters, digits, - and _ and begin with a letter "
            f"or digit, got {name!r}"
        )
    if not isinstance(factory, type):
        raise wrong(f"Plugin must be a class, got {factory!r}")
    if version is None:
        raise wrong("version is missing: give it as a string of three numbers, version = '1.0.0'")
    if not isinstance(version, str) or not _VERSION.match(version):
        raise wrong(f"version must be a string of three numbers like '1.0.0', got {version!r}")
    if priority is None:
        raise wrong("priority is missing: give it as an integer, priority = 10")
    if not isinstance(priority, int) or isinstance(priority, bool):
        raise wrong(f"priority must be an integer, got {priority!r}")
    try:
        asked = asked_for(factory, schema)
    except PluginError as exc:
        raise wrong(str(exc)) from exc
    for warning in asked.warnings:
        logger.warning("%s: %s", where, warning)
    return Plugin(
        name=name,
        version=version,
        priority=priority,
        schema=_check_schema(asked.schema, asked.entity_checks, where),
        stated=schema,
        entity_checks=asked.entity_checks,
        configure=asked.make,
        phases=_find_phases(factory, wrong),
        factory=factory,
        on_error=_check_policy(factory, module, wrong),
        closes=_is_method(factory, "close", wrong),
        modified=os.stat(path).st_mtime if path and os.path.exists(path) else 0.0,
    )


def _check_policy(factory: type, module: Optional[ModuleType], wrong: Any) -> str:
    """The plugin's own ``on_error``, of its class or else of its module or the class's module."""
    home = sys.modules.get(factory.__module__)
    policy = getattr(
        factory, "on_error", getattr(module, "on_error", getattr(home, "on_error", ""))
    )
    if policy not in ("", *POLICIES):
        raise wrong(f"on_error must be one of {', '.join(POLICIES)}, got {policy!r}")
    return str(policy)


def _check_schema(schema: object, entity_checks: list[Any], where: str) -> list[dict[str, Any]]:
    def wrong(text: str) -> PluginError:
        return PluginError(f"{where}: {text}")

    if isinstance(schema, Mapping):
        raise wrong(
            "Schema must be a tuple or list of fields, got one dict: "
            "is the comma missing in Schema = ({...},)?"
        )
    if not isinstance(schema, (tuple, list)):
        raise wrong(f"Schema must be a tuple or list of fields, got {type(schema).__name__}")
    try:
        plain: list[dict[str, Any]] = json.loads(json.dumps(schema, allow_nan=False))
    except (TypeError, ValueError) as exc:
        raise wrong(f"Schema cannot be written as JSON: {exc}") from exc
    problems = check_fields(schema, entity_checks or None)
    errors = [str(problem) for problem in problems if problem.level == ERROR]
    if errors:
        raise wrong("; ".join(errors))
    for problem in problems:
        if problem.level == WARNING:
            logger.warning("%s: %s", where, problem)
    return plain


def _find_phases(factory: type, wrong: Any) -> tuple[str, ...]:
    phases = []
    for phase in PHASES:
        if _is_method(factory, phase, wrong):
            phases.append(phase)
    if not phases:
        names = [name for name in dir(factory) if not name.startswith("_")]
        near = [name for name in names if close_matches(name.lower(), PHASES, cutoff=ALIKE)]
        hint = f" ({near[0]} is none)" if near else ""
        raise wrong(f"Plugin has no phase{hint}: give it a method of {', '.join(PHASES)}")
    return tuple(phases)


def _is_method(factory: type, name: str, wrong: Any) -> bool:
    """Whether a class has a method, which must be a plain one then."""
    method = getattr(factory, name, None)
    if method is None:
        return False
    if not callable(method):
        raise wrong(f"Plugin.{name} must be a method, got {method!r}")
    if any(is_kind(method) for is_kind in _NOT_PLAIN):
        raise wrong(f"Plugin.{name} must be a plain method: async and yield are not supported")
    return True
