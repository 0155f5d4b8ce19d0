"""HTTP headers as nginx keeps them: in order, repeated, and looked up without regard to case."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator

#: Headers that belong to one connection, which a proxy must not pass on (RFC 9110, 7.6.1).
HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


@functools.lru_cache(512)
def normal(name: str) -> str:
    """Return the form of a header name under which it is looked up.

    Case does not matter, and an underscore equals a dash.
    """
    return name.lower().replace("_", "-")


class Headers:
    """An ordered list of header lines with lookups by name.

    Values are strings in which bytes that are not UTF-8 are surrogate escapes.
    """

    def __init__(self, lines: Iterable[tuple[str, str]] = ()) -> None:
        self._lines: list[tuple[str, str]] = list(lines)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __getitem__(self, name: str) -> str:
        """The first value of a header. Raises KeyError where there is none."""
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Headers) and self._lines == other._lines

    __hash__ = None  # type: ignore[assignment]  # they can be changed

    def __repr__(self) -> str:
        return f"Headers({self._lines!r})"

    def copy(self) -> Headers:
        """Return headers with the same lines, which can be changed apart from these."""
        return Headers(self._lines)

    def get(self, name: str) -> str | None:
        """Return the first value of a header, or ``None`` where there is none."""
        wanted = normal(name)
        for line, value in self._lines:
            if normal(line) == wanted:
                return value
        return None

    def get_all(self, name: str) -> list[str]:
        """Return all the values of a header, in order."""
        wanted = normal(name)
        return [value for line, value in self._lines if normal(line) == wanted]

    def set(self, name: str, *values: str) -> None:
        """Replace a header by the values given; without a value it is removed."""
        self.remove(name)
        self.add(name, *values)

    def add(self, name: str, *values: str) -> None:
        """Append one line for each value."""
        self._lines.extend((name, value) for value in values)

    def remove(self, name: str) -> None:
        """Remove every line of a header; one that is not there is no error."""
        wanted = normal(name)
        self._lines = [line for line in self._lines if normal(line[0]) != wanted]

    def as_map(self, limit: int | None = None) -> dict[str, list[str]]:
        """Return the values by lower-case name, as they cross the wire.

        Args:
            limit: how many lines are looked at; ``None`` for all.
        """
        result: dict[str, list[str]] = {}
        for name, value in self._lines[:limit]:
            result.setdefault(name.lower(), []).append(value)
        return result

    def without_hop_by_hop(self) -> Headers:
        """Return a copy without the headers of one connection, those in ``Connection`` included."""
        dropped = set(HOP_BY_HOP)
        for value in self.get_all("connection"):
            dropped.update(normal(token.strip()) for token in value.split(","))
        return Headers(line for line in self._lines if normal(line[0]) not in dropped)
