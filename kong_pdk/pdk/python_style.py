"""The PDK in Python style, for annotations of plugins whose server runs with ``--no-lua-style``::

    import kong_pdk.pdk.python_style as kong

    class Plugin:
        def access(self, kong: kong.kong): ...

Calls return the data alone. At run time there is one set of classes for both styles; the types are
in ``python_style.pyi``.
"""

from __future__ import annotations

from .kong import *  # noqa: F403
from .kong import __all__ as __all__
