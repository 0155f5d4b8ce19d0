"""Generates the PDK's typed surface, run-time table and reference pages from ``spec/*.toml``.

    python3 dev.py generate           writes them
    python3 dev.py generate --check   fails if they are not what the specification gives

A file of the specification is one page of the reference. A function of a future Kong is one entry
there; :mod:`.spec` says what an entry may hold. What is generated is committed.
"""
