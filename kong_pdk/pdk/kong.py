"""The PDK in Lua style, for annotations::

    import kong_pdk.pdk.kong as kong

    class Plugin:
        def access(self, kong: kong.kong): ...

``kong`` is the root that a handler gets, the other names are the classes of what lies below it.
Calls return ``(data, err)``. :mod:`kong_pdk.pdk.python_style` has the same names for a server that
runs with ``--no-lua-style``. The types are in ``kong.pyi``.
"""

from __future__ import annotations

from .functions import class_name
from .proxy import ITEMS, NAMESPACES, namespace_class

__all__ = [  # pyright: ignore[reportUnsupportedDunderAll]  # the stub has the names
    class_name(path) for path in sorted({*NAMESPACES, *ITEMS})
]
globals().update((class_name(path), namespace_class(path)) for path in {*NAMESPACES, *ITEMS})
