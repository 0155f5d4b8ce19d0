"""Files that change, and when. The only module that imports watchfiles (extra kong-pdk[reload])."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Collection

from .exception import ConfigError

#: Milliseconds in which further changes are waited for; an editor makes several of one save.
GATHER = 300
_STEP = 30


def require() -> None:
    """See that files can be watched.

    Raises:
        ConfigError: watchfiles is missing; says how to install it.
    """
    try:
        import watchfiles  # noqa: F401
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "watchfiles":
            raise
        raise ConfigError(
            "--reload needs watchfiles, which is missing: install it with "
            "pip install 'kong-pdk[reload]'"
        ) from error


def folders_of(path: str) -> list[str]:
    """Return the folders that a plugin's code is in.

    Args:
        path: a package's folder, whose inner folders all count, or a file. Beside a file lie the
            modules that it imports, and packages: folders with an ``__init__.py``.
    """
    path = os.path.realpath(path)
    is_package = os.path.isdir(path)
    top = path if is_package else os.path.dirname(path)
    found = []
    for folder, inner, files in os.walk(top):
        if folder != top and not is_package and "__init__.py" not in files:
            inner.clear()
            continue
        found.append(folder)
        inner[:] = [name for name in inner if not name.startswith((".", "__"))]
    return found


async def changes(path: str, others: Collection[str] = ()) -> AsyncIterator[list[str]]:
    """Yield the files of a plugin that have been changed, added or removed, some at a time.

    Only Python's source files count, so that a plugin may write beside its code.

    Args:
        path: the plugin's file, or its package's folder.
        others: further files to watch.
    """
    import watchfiles

    wanted = {os.path.realpath(other) for other in others}
    folders = folders_of(path) + [os.path.dirname(other) for other in wanted]

    def counts(_: watchfiles.Change, changed: str) -> bool:
        return changed.endswith(".py") or changed in wanted

    async for batch in watchfiles.awatch(
        *dict.fromkeys(folders), watch_filter=counts, recursive=False, debounce=GATHER, step=_STEP
    ):
        yield sorted({changed for _, changed in batch})
