"""Configurations described by a class, as the guide shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Optional

import kong_pdk.pdk.kong as kong
from kong_pdk.schema import ConfigSchema, check_fields, field, kong_keys, schema_of


@dataclass
class Limit:
    count: int = field(100, gt=0)
    window: float = 60.0


@dataclass
class Config:
    host: str
    port: Annotated[int, field(between=(1, 65535))]
    greeting: str = field("hello", len_max=80)
    style: Literal["plain", "loud"] = "plain"
    token: Optional[str] = field(None, referenceable=True, encrypted=True)
    paths: list[Annotated[str, field(starts_with="/")]] = field(["/"])
    tags: set[str] = field(default_factory=set[str], len_max=3)
    limit: Limit = field(Limit())
    by_client: dict[str, Limit] = field({})


Schema = schema_of(Config, entity_checks=[{"at_least_one_of": ["token", "tags"]}])
same: ConfigSchema = Schema
made = Config("h", 1, tags={"a"})
counted: int = made.limit.count
levels: list[str] = [problem.level for problem in check_fields(Schema)]


class Plugin:
    def __init__(self, config: Config) -> None:
        self.config = config
        self.plugin_id = kong_keys(config)["__plugin_id"]

    def access(self, kong: kong.kong) -> None:
        kong.response.set_header("x-greeting", self.config.greeting.upper())
