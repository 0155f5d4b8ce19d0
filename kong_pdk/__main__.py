"""``python -m kong_pdk`` is the directory server, kong-python-pluginserver."""

from .cli import start_server

if __name__ == "__main__":
    start_server()
