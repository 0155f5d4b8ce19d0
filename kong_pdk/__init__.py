"""A plugin server for Kong Gateway, and the PDK for plugins in Python.

Plugin authors want :mod:`kong_pdk.pdk.kong` for annotations, :mod:`kong_pdk.exception` and
:func:`kong_pdk.cli.start_dedicated_server`; everything else is the machine inside.
"""

__version__ = "1.0.0.dev1"


def is_compiled() -> bool:
    """Tell whether the compiled codec is in use; the pure-Python one behaves the same."""
    from ._codec import is_compiled

    return is_compiled()
