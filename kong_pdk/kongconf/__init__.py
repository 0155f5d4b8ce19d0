"""What Kong's configuration must say so that it starts and asks a plugin server.

``serving.py`` is what a PLUGIN of the command line is, and which commands serve it, ``releases.py``
what differs between Kong's releases, ``settings.py`` the settings by key, ``formats.py`` how
kong.conf, a shell and Docker Compose want them written.
"""
