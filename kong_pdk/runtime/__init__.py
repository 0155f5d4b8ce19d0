"""Plugins, their instances, the events that run on them, and the calls that Kong makes.

Nothing in here knows sockets, threads or modes.
"""
