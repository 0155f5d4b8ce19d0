"""What differs between Kong's releases for those who configure plugin servers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

from ..exception import ConfigError

#: Releases that are known, the oldest first.
KNOWN = (
    (2, 8), (3, 0), (3, 1), (3, 2), (3, 3), (3, 4), (3, 5), (3, 6), (3, 7), (3, 8), (3, 9), (3, 10),
)  # fmt: skip
_VERSION = re.compile(r"([0-9]+)\.([0-9]+)(\.[0-9x]+)*")

#: Plugins that come with Kong (Kong: kong/constants.lua), with the release that brought them. Kong
#: looks for its own first, so one of a plugin server that has such a name is never asked.
BUNDLED: dict[str, tuple[int, int]] = {
    **dict.fromkeys(
        (
            "acl", "acme", "aws-lambda", "azure-functions", "basic-auth", "bot-detection",
            "correlation-id", "cors", "datadog", "file-log", "grpc-gateway", "grpc-web",
            "hmac-auth", "http-log", "ip-restriction", "jwt", "key-auth", "ldap-auth", "loggly",
            "oauth2", "post-function", "pre-function", "prometheus", "proxy-cache",
            "rate-limiting", "request-size-limiting", "request-termination",
            "request-transformer", "response-ratelimiting", "response-transformer", "session",
            "statsd", "syslog", "tcp-log", "udp-log", "zipkin",
        ),
        (2, 8),
    ),
    "opentelemetry": (3, 0),
    **dict.fromkeys(
        (
            "ai-prompt-decorator", "ai-prompt-guard", "ai-prompt-template", "ai-proxy",
            "ai-request-transformer", "ai-response-transformer",
        ),
        (3, 6),
    ),
    "standard-webhooks": (3, 8),
    "redirect": (3, 9),
}  # fmt: skip


@dataclass(frozen=True)
class Release:
    """A release of Kong, as far as it matters here.

    Attributes:
        version: its first two numbers.
        newer: it is newer than all that are known, and taken for the newest of them.
    """

    version: tuple[int, int]
    newer: bool = False

    def __str__(self) -> str:
        return ".".join(map(str, self.version))

    @property
    def first_plugin_only(self) -> bool:
        """Whether of a query only the first plugin counts (Kong: plugin_servers/process.lua)."""
        return self.version >= (3, 9)

    @property
    def image(self) -> str:
        """The Docker image: from 3.10 on only Kong's own organisation has one."""
        return f"kong:{self}" if self.version < (3, 10) else f"kong/kong-gateway:{self}"

    @property
    def image_python(self) -> str:
        """The Python of the image's Ubuntu: that of 20.04 is too old, but it has another one."""
        return "python3.9" if self.version in ((3, 0), (3, 1)) else "python3"

    @property
    def image_tag(self) -> str:
        """The image with a tag that has apt: some of those without a name are Alpine."""
        return f"{self.image}-ubuntu"

    def bundles(self, name: str) -> bool:
        """Whether it comes with a plugin of that name."""
        return name in BUNDLED and BUNDLED[name] <= self.version


def release(text: Optional[str] = None) -> Release:
    """The release that a version names.

    Args:
        text: such as ``3.10`` or ``3.4.2.1``; None for the newest that is known.

    Raises:
        ConfigError: it is no version, or one that is not known.
    """
    if text is None:
        return Release(KNOWN[-1])
    found = _VERSION.fullmatch(text.strip())
    if found is not None:
        version = int(found.group(1)), int(found.group(2))
        if version in KNOWN:
            return Release(version)
        if KNOWN[-1] < version < (KNOWN[-1][0] + 1, 0):
            return Release(version, newer=True)
    known = ", ".join(".".join(map(str, each)) for each in KNOWN)
    raise ConfigError(f"Kong {text!r} is not known; these are: {known}, and later ones of 3")
