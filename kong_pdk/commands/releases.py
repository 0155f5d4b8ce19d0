"""A release of Kong that a flag is given."""

from __future__ import annotations

import argparse

from ..exception import ConfigError
from ..kongconf.releases import Release, release


def kong_release(text: str) -> Release:
    """The value of ``--kong-version``.

    Raises:
        argparse.ArgumentTypeError: it is not known; names those that are.
    """
    try:
        return release(text)
    except ConfigError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
