"""``python -m kong_pdk`` is the directory server, kong-python-pluginserver."""

# No relative import: the gevent mode runs this file again as a script.

from kong_pdk.cli import start_server

if __name__ == "__main__":
    start_server()
