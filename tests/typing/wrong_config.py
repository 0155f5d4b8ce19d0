"""Mistakes in configurations that a type checker finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from kong_pdk.schema import field, schema_of


@dataclass
class Config:
    host: str
    port: int = field("80", gt=0)  # wrong: the default is a text
    token: Optional[str] = field(5)  # wrong: the default is a number
    tags: set[str] = field(default_factory=list)  # wrong: it makes a list
    name: str = field("x", lenmax=5)  # wrong: there is no such attribute
    kind: str = field("x", len_max="5")  # wrong: that takes a number


schema_of(Config("h"))  # wrong: an object and no class
Config(5)  # wrong: the host is a number
print(Config("h").greeting)  # wrong: there is no such field
