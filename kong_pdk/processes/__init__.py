"""The multiprocessing mode: plugin code runs in worker processes, connections are dealt to them.

The parent owns the sockets and runs no plugin. ``run`` is the way in for both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from ..config import ServerConfig

if TYPE_CHECKING:
    from ..plugins.definition import Plugin


def run(load: Callable[[], dict[str, Plugin]], config: ServerConfig) -> None:
    """Be the parent of a server with workers, or one of the workers if this process is one.

    Args:
        load: loads the plugins; called in workers only.
        config: the server's settings, with ``workers``.

    Raises:
        ListenError: a socket cannot be opened.
        WorkerError: a worker cannot start.
    """
    from .. import _again
    from .link import Link

    given = _again.get_purpose().get("worker")
    if given is not None:
        link = Link(**given)
    else:
        from ..modes import check_mode
        from .parent import Parent

        check_mode(config.mode)  # what it lacks is said once, here
        forked = Parent(config).serve()
        if forked is None:
            return
        link = forked
    from .worker import work

    work(link, load, config)
