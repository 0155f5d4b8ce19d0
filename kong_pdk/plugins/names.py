"""The names of modules that a plugin's code sees: its own modules, which no other plugin gets.

Python knows each module by one name, so two plugins that both have a ``utils`` beside them would
get the same one. Here each plugin has a package of its own, ``kong_pdk.plugin.NAME``, that exists
in memory only; what lies beside the plugin's file is imported into it, as
``kong_pdk.plugin.NAME.utils``. So all of it is in ``sys.modules``, where pickle, dataclasses and
type hints look, under a name of its own. The plugin itself goes on writing ``import utils``, at the
top of a file or in a function: code finds ``__import__`` in the ``__builtins__`` of its module, and
a plugin's modules have one that knows what is theirs.

Libraries come first: a plugin's file ``jwt.py`` does not stand in for the library of that name.

Each time that a plugin is loaded anew it gets another package, ``NAME@2`` and so on, so that former
code goes on with its own modules until it is no longer needed.
"""

from __future__ import annotations

import builtins
import contextlib
import glob
import importlib
import importlib.machinery
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import (
    ExtensionFileLoader,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from types import CodeType, ModuleType
from typing import Any, Callable, Optional

from .definition import Stamp

logger = logging.getLogger("kong_pdk.server")

#: Where all those packages are; a logger of a module's name is below the server's.
ROOT = "kong_pdk.plugin"

#: In a source that may define a plugin: nothing else binds the name ``Plugin``.
_MAY_BE_PLUGIN = re.compile(rb"\bPlugin\b|\bimport\s*\(?\s*\*")

_spaces: dict[str, Space] = {}


def stamp(path: str) -> Stamp:
    """The present state of a file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


class Enough(BaseException):
    """Raised where a plugin's own module has done all that it is wanted for."""


class Space:
    """The modules of one plugin, loaded once.

    Args:
        name: of the plugin.
        folders: where its own modules lie, in the order in which they are looked through.
        main: the name that its own module has among them.
        path: the file of that module, or the folder of a package; None: to be looked for.
        roots: names that are its own even if a library has them: where each is found, a file or
            the folders of a package. None: none.
        fresh: compile each file, and neither trust nor write what Python keeps of it, which is
            only told apart by the second.
        rewrite: makes the code of the plugin's own module; as Python does it if None.

    Attributes:
        package: the name of the package that they are in.
        stamps: the files that have been loaded, or were about to be, as they were then.
        enough: what has ended the plugin's own module before its end, if anything has.
    """

    def __init__(
        self,
        name: str,
        folders: Sequence[str],
        main: str,
        path: Optional[str] = None,
        roots: Optional[Mapping[str, Sequence[str]]] = None,
        fresh: bool = False,
        rewrite: Optional[Callable[[bytes, str], CodeType]] = None,
    ) -> None:
        self.name = name
        self.main = main
        self.stamps: dict[str, Stamp] = {}
        key, number = name, 1
        while _spaces.setdefault(key, self) is not self:  # in one step: plugins load in threads
            number += 1
            key = f"{name}@{number}"
        self.package = f"{ROOT}.{key}"
        self.enough: Optional[Enough] = None
        self.folders = list(dict.fromkeys(folders))
        self.fresh = fresh
        self.rewrite = rewrite
        self._key = key
        self._path = path
        self._roots = dict(roots or {})
        self._own: dict[str, bool] = {}
        self._pips: Optional[set[str]] = None
        self._told = False
        self.builtins = {**vars(builtins), "__import__": self._import}
        self._importlib = _Importlib(self._import_module)
        if fresh:  # a file may be newer than what Python knows of a folder
            importlib.invalidate_caches()
        if _finder not in sys.meta_path:
            sys.meta_path.insert(0, _finder)
        if _last not in sys.meta_path:
            sys.meta_path.append(_last)
        for package in (ROOT, self.package):
            if package not in sys.modules:
                sys.modules[package] = _empty_package(package)

    def load(self, module: Optional[str] = None) -> ModuleType:
        """Import one of its modules.

        Args:
            module: as the plugin calls it; its own if None.

        Raises:
            Exception: whatever importing it raises.
        """
        return importlib.import_module(f"{self.package}.{module or self.main}")

    def find_sharers(self, path: str) -> list[str]:
        """The names of other plugins that have loaded a file too, each as a module of its own."""
        others = [one for one in list(_spaces.values()) if one.name != self.name]
        return sorted({one.name for one in others if path in one.stamps})

    def forget(self) -> None:
        """Forget all modules; objects that are in use go on, but what they import later is gone."""
        if _spaces.get(self._key) is not self:  # done before; the name may be another's now
            return
        del _spaces[self._key]
        inside = self.package + "."
        for name in [one for one in list(sys.modules) if one.startswith(inside)]:
            sys.modules.pop(name, None)
        sys.modules.pop(self.package, None)

    # --- for the plugin's code --------------------------------------------------------------------

    def _import(
        self,
        name: str,
        globals: Optional[Mapping[str, Any]] = None,
        locals: Optional[Mapping[str, Any]] = None,
        fromlist: Optional[Sequence[str]] = (),
        level: int = 0,
    ) -> ModuleType:
        """What ``import`` does in the plugin's modules."""
        if not level:
            top = name.partition(".")[0]
            if self.owns(top):
                # Not importlib.import_module: of threads that import in a circle it fails one.
                inner = f"{self.package}.{name}"
                module = builtins.__import__(inner, globals, locals, fromlist or ())
                return module if fromlist else sys.modules[f"{self.package}.{top}"]
        module = builtins.__import__(name, globals, locals, fromlist or (), level)
        return self._importlib if module is importlib else module

    def _import_module(self, name: str, package: Optional[str] = None) -> ModuleType:
        """What ``importlib.import_module`` does in the plugin's modules."""
        full = importlib.util.resolve_name(name, package) if package and name[:1] == "." else name
        if self.owns(full.partition(".")[0]):
            full = f"{self.package}.{full}"
        return importlib.import_module(full, package)

    def owns(self, top: str) -> bool:
        """Whether a name is that of a module of the plugin's own."""
        known = self._own.get(top)
        if known is None:
            known = self._own[top] = self._find_out(top)
        return known

    def _find_out(self, top: str) -> bool:
        if top in self._roots:
            return True
        here = self._find_here(top)
        if here is None:
            return False
        library = self._find_library(top)
        if library is None and top in self._installed():
            self._tell_installed(top)
            return True
        # Any folder of that name, in the current directory, say, would be a package of this kind.
        if library is None or (library.origin is None and here.origin is not None):
            return True
        hidden = here.origin and here.origin != library.origin and not may_be_plugin(here.origin)
        if top != self.main and hidden:
            logger.warning(
                "plugin %s: `import %s` is the library %s, not %s: libraries come first "
                "(an import that begins with dots, `from . import %s`, is always the plugin's own)",
                self.name, top, library.origin or "of that name", here.origin, top,
            )  # fmt: skip
        return False

    def _find_here(self, top: str) -> Optional[ModuleSpec]:
        return PathFinder.find_spec(top, self.folders)

    def _find_library(self, top: str) -> Optional[ModuleSpec]:
        """A module that all may import, unless it is found in the plugin's own folder."""
        found: Optional[ModuleSpec] = None
        if top in sys.modules:
            found = getattr(sys.modules[top], "__spec__", None)
            if found is None:  # __main__, say
                return ModuleSpec(top, None, origin="of that name")
        else:
            for finder in sys.meta_path:
                find = getattr(finder, "find_spec", None)  # older ones have none
                if find is not None and finder not in (_finder, _last):
                    found = find(top, None)
                if found is not None:
                    break
        if found is None:
            return None
        places = list(found.submodule_search_locations or ())
        if not places and found.has_location and found.origin:
            places = [found.origin]
        beside = {os.path.realpath(folder) for folder in self.folders}
        if not places or any(
            os.path.realpath(os.path.dirname(each)) not in beside for each in places
        ):
            return found
        return found if top in self._installed() else None

    def _installed(self) -> set[str]:
        """The names of the libraries that pip has put beside the plugin."""
        if self._pips is None:
            self._pips = set().union(*map(installed_in, self.folders))
        return self._pips

    def _tell_installed(self, top: str) -> None:
        if not self._told:
            logger.warning(
                "plugin %s: the library %s beside it is loaded for this plugin alone, which many "
                "libraries do not bear: put its folder into PYTHONPATH (%s), or install it into "
                "this Python", self.name, top, ", ".join(self.folders),
            )  # fmt: skip
        self._told = True

    # --- for Python's import ----------------------------------------------------------------------

    def find_spec(self, fullname: str, path: Optional[Sequence[str]]) -> Optional[ModuleSpec]:
        """Where a module of the package is, by its full name."""
        parent, _, top = fullname.rpartition(".")
        if parent != self.package:
            return self._take(fullname, PathFinder.find_spec(fullname, path))
        if top == self.main and self._path is not None:
            return self._take(fullname, _spec_of_path(fullname, self._path))
        if top in self._roots:
            return self._take(fullname, _spec_of_root(fullname, self._roots[top]))
        return self._take(fullname, self._find_here(top))

    def _take(self, fullname: str, found: Optional[ModuleSpec]) -> Optional[ModuleSpec]:
        """The same place with the plugin's name for it, and a loader that knows whose it is."""
        if found is None:
            return None
        loader: Any = found.loader
        path = getattr(loader, "path", None)
        if isinstance(loader, SourceFileLoader):
            loader = _SourceLoader(fullname, loader.path, self)
        elif isinstance(loader, SourcelessFileLoader):
            loader = _SourcelessLoader(fullname, loader.path, self)
        elif isinstance(loader, ExtensionFileLoader):
            loader = ExtensionFileLoader(fullname, str(path))
        else:
            path, loader = None, None
        if path is None:  # a folder without __init__.py
            spec = ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = list(found.submodule_search_locations or ())
            return spec
        path, real = os.path.abspath(path), os.path.realpath(path)
        self.stamps[real] = stamp(real)  # before it is read: what changes later is seen
        return importlib.util.spec_from_file_location(
            fullname, path, loader=loader,
            submodule_search_locations=found.submodule_search_locations,
        )  # fmt: skip


class _SourceLoader(SourceFileLoader):
    def __init__(self, fullname: str, path: str, space: Space) -> None:
        super().__init__(fullname, path)
        self._space = space

    def get_code(self, fullname: str) -> Optional[CodeType]:
        space = self._space
        path = self.get_filename(fullname)
        if space.rewrite is not None and fullname == f"{space.package}.{space.main}":
            return space.rewrite(self.get_data(path), path)
        if space.fresh:
            code: CodeType = self.source_to_code(self.get_data(path), path)
            return code
        return super().get_code(fullname)

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = self._space.builtins
        try:
            super().exec_module(module)
        except Enough as exc:
            if module.__name__ != f"{self._space.package}.{self._space.main}":
                raise
            self._space.enough = exc


class _SourcelessLoader(SourcelessFileLoader):
    def __init__(self, fullname: str, path: str, space: Space) -> None:
        super().__init__(fullname, path)
        self._space = space

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = self._space.builtins
        super().exec_module(module)


class _Finder:
    """Finds the modules of all plugins; the first of Python's finders."""

    def find_spec(
        self, fullname: str, path: Optional[Sequence[str]] = None, target: Any = None
    ) -> Optional[ModuleSpec]:
        """As Python's import wants it."""
        if not fullname.startswith(ROOT + "."):
            return None
        space = _spaces.get(fullname[len(ROOT) + 1 :].partition(".")[0])
        return None if space is None else space.find_spec(fullname, path)


class _Importlib(ModuleType):
    """``importlib`` as a plugin's code has it.

    Args:
        import_module: the function of that name, which knows the plugin's own modules.
    """

    def __init__(self, import_module: Callable[..., ModuleType]) -> None:
        super().__init__(importlib.__name__, importlib.__doc__)
        self.__spec__ = importlib.__spec__
        self.import_module = import_module

    def __getattr__(self, name: str) -> Any:
        """All else is Python's."""
        return getattr(importlib, name)


class _LastFinder:
    """Finds what ``importlib`` is asked for by a plugin's code; the last of the finders.

    It knows one name for a module, and asks for it each time (``importlib.util.find_spec`` does, or
    ``importlib.resources``): so the module of the plugin's name is what it gets. Not a package that
    something is looked for in: that could not be found in this way.
    """

    def find_spec(
        self, fullname: str, path: Optional[Sequence[str]] = None, target: Any = None
    ) -> Optional[ModuleSpec]:
        """As Python's import wants it."""
        if path is not None or "." in fullname:
            return None
        frame, inner = sys._getframe(1), ""
        while frame.f_back and _is_importlib(frame.f_globals.get("__name__")):
            wanted = frame.f_locals.get("name")
            if isinstance(wanted, str) and wanted.startswith(fullname + "."):
                inner = wanted
            frame = frame.f_back
        space = getattr(frame.f_builtins.get("__import__"), "__self__", None)
        if not isinstance(space, Space) or not space.owns(fullname):
            return None
        if inner:
            raise ModuleNotFoundError(
                f"the package {fullname} is the plugin's own, of which importlib does not know: "
                f"ask for '.{inner}' in the package {space.package!r}",
                name=fullname,
            )
        module = importlib.import_module(f"{space.package}.{fullname}")
        loader: Any = _There(module)
        return ModuleSpec(module.__name__, loader, origin=getattr(module, "__file__", None))


def _is_importlib(name: Any) -> bool:
    return str(name).partition(".")[0] in ("importlib", "functools")  # which it dispatches with


class _There:
    """A loader of a module that is loaded already."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """As Python's import wants it."""
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        """As Python's import wants it, which has put another spec there."""
        module.__spec__ = self._spec


_finder: Any = _Finder()
_last: Any = _LastFinder()


def installed_in(folder: str) -> set[str]:
    """The first names of what ``pip install --target`` has put into a folder."""
    found: set[str] = set()
    for record in glob.iglob(os.path.join(glob.escape(folder), "*.dist-info", "RECORD")):
        with contextlib.suppress(OSError), open(record, encoding="utf-8", errors="replace") as file:
            found.update(re.split(r"[/.,]", line, maxsplit=1)[0] for line in file)
    return found - {""}


def may_be_plugin(path: str) -> bool:
    """Whether a file or package may define a plugin, as far as can be seen without running it."""
    if os.path.isdir(path):
        found = PathFinder.find_spec("__init__", [path])
        return found is None or not found.origin or may_be_plugin(found.origin)
    if not path.endswith(".py"):
        return True
    try:
        with open(path, "rb") as file:
            return _MAY_BE_PLUGIN.search(file.read()) is not None
    except OSError:
        return True


def _empty_package(name: str) -> ModuleType:
    module = ModuleType(name)
    module.__path__ = []
    module.__spec__ = ModuleSpec(name, None, is_package=True)
    return module


def _spec_of_path(fullname: str, path: str) -> Optional[ModuleSpec]:
    """The spec of a file, or of a folder with ``__init__``."""
    if not os.path.isdir(path):
        found = importlib.util.spec_from_file_location(fullname, path)
        if found is not None:
            return found
        source = SourceFileLoader(fullname, path)  # a script's name may end as it likes
        return importlib.util.spec_from_file_location(fullname, path, loader=source)
    inner = PathFinder.find_spec("__init__", [path])
    if inner is None or inner.origin is None:
        return None
    return importlib.util.spec_from_file_location(
        fullname, inner.origin, submodule_search_locations=[path]
    )


def _spec_of_root(fullname: str, places: Sequence[str]) -> Optional[ModuleSpec]:
    """The spec of a package that may lie in several folders, or of a file."""
    if len(places) == 1:
        found = _spec_of_path(fullname, places[0])
        if found is not None:
            return found
    spec = ModuleSpec(fullname, None, is_package=True)
    spec.submodule_search_locations = list(places)
    return spec
