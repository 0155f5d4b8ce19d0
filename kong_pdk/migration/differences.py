"""What differs from the published package on purpose, whatever a plugin is like."""

from __future__ import annotations

from dataclasses import asdict, dataclass

#: The page with all of it, for every version.
PAGE = "docs/how-to/migration.md"


@dataclass(frozen=True)
class Difference:
    """Something that is so for every plugin.

    Attributes:
        text: what it is here.
        link: where the documentation says more.
    """

    text: str
    link: str

    def as_dict(self) -> dict[str, str]:
        """The difference as JSON takes it."""
        return asdict(self)


#: What always applies, the gravest first.
ALWAYS = (
    Difference(
        "a handler that raises refuses the request with status 500, at once; it passed after 60 s. "
        'on_error = "open" in the module, or --on-error open, lets it pass',
        "docs/explanation/failures.md",
    ),
    Difference(
        "kong.response.exit and kong.response.error end the handler; they returned",
        f"{PAGE}#what-differs-on-purpose",
    ),
    Difference(
        "a PDK call that Kong would not take (a name, an argument, a phase) raises in the handler; "
        "it got None, or was never answered",
        "docs/reference/plugins.md#pdk-calls",
    ),
    Difference(
        "handlers of one plugin run side by side: what instances change needs a lock",
        "docs/how-to/choosing-a-mode.md",
    ),
    Difference(
        "the socket is open to the server's user and group alone; --socket-mode changes that",
        "docs/how-to/sockets.md",
    ),
    Difference(
        "a Schema or version that Kong would not take is refused when the plugin is loaded",
        "docs/how-to/configuration.md",
    ),
    Difference(
        "the log has UTC, and goes to standard error; its lines are others",
        "docs/reference/logs.md",
    ),
)
