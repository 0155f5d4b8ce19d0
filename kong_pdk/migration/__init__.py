"""What ``kong-pdk migrate`` says of a Kong that has plugins for the published package.

``launching.py`` is what a command of kong.conf starts, ``source.py`` what plugins rely on that is
not so here, ``differences.py`` what differs on purpose for all of them, ``entries.py`` one entry of
``pluginserver_names``, ``report.py`` all of it.
"""
