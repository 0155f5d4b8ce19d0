"""Plugins: what one is, and where it comes from."""

from __future__ import annotations

from .definition import Plugin, define_plugin, plugin_of_class
from .loading import load_directory, load_file

__all__ = ["Plugin", "define_plugin", "load_directory", "load_file", "plugin_of_class"]
