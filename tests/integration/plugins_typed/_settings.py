"""What the plugin beside it is configured with."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated, Optional

from kong_pdk.schema import field


class Mode(enum.Enum):
    FAST = "fast"
    SAFE = "safe"


@dataclass
class Limit:
    count: int = field(5, gt=0)
    window: Optional[float] = None


@dataclass
class Config:
    host: str
    mode: Mode = Mode.SAFE
    port: Optional[int] = field(80, between=(1, 65535))
    tags: set[str] = field({"a"})
    limits: dict[str, Limit] = field({})
    first: Limit = field(Limit())
    paths: list[Annotated[str, field(match="^/")]] = field(["/"])
