"""The name that plugins use for annotations::

    import kong_pdk.pdk.kong as kong

    class Plugin:
        def access(self, kong: kong.kong): ...

Nothing else is meant to be imported from here.
"""

from __future__ import annotations

from .proxy import Namespace


class kong(Namespace):
    """The root of the PDK, as a handler gets it: ``kong.request.get_header("host")``."""

    __slots__ = ()
    _path = "kong"


__all__ = ["kong"]
