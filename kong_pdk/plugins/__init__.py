"""Plugins: what one is, and where it comes from."""

from __future__ import annotations

from .definition import Plugin, define_plugin
from .loading import load, load_directory, load_file, load_path, plugin_of_class

__all__ = [
    "Plugin",
    "define_plugin",
    "load",
    "load_directory",
    "load_file",
    "load_path",
    "plugin_of_class",
]
