"""What makes a release: its changelog, the checks before it, and what is published.

Each module is a command of dev.py, and runs in the repository: ``python -m release.changelog``.
"""
