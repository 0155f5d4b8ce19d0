"""JSON objects that flags are given, as they are or in a file: ``--config @config.json``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..gateway.errors import GatewayError


class FromFile:
    """A JSON object in a file, read whenever it is asked for.

    Raises:
        GatewayError: by a call: the file cannot be read, or holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self) -> dict[str, Any]:
        try:
            return _parse(self.path.read_text(encoding="utf-8"))
        except OSError as error:
            raise GatewayError(f"cannot read {self.path}: {error.strerror}") from error
        except ValueError as error:
            raise GatewayError(f"{self.path}: {error}") from error


def json_object(text: str) -> dict[str, Any]:
    """The value of a flag, which is JSON or ``@FILE``.

    Raises:
        argparse.ArgumentTypeError: it is no JSON object, or the file cannot be read.
    """
    try:
        return FromFile(Path(text[1:]))() if text.startswith("@") else _parse(text)
    except (GatewayError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _parse(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"this is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError('it must be a JSON object, like {"key": "value"}')
    return value
