"""What Kong's configuration must say so that it starts and asks a plugin server.

``releases.py`` is what differs between Kong's releases, ``settings.py`` the settings by key,
``formats.py`` how kong.conf, a shell and Docker Compose want them written. Which commands serve a
plugin is said by ``kong_pdk.commands``.
"""
