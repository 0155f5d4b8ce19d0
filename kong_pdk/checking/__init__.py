"""What ``kong-pdk check`` looks at: the plugin as Kong sees it, its PDK calls, and a run of it.

``findings.py`` is what is found, ``modules.py`` the plugin's source, ``values.py`` what names in it
stand for, ``calls.py`` with ``walker.py`` and ``misuse.py`` the PDK calls that can be seen there,
``smoke.py`` a run of the plugin in its own server, ``plugin.py`` all of it.
"""
