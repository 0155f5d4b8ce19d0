"""Gets its configuration as a pydantic model."""

from typing import Optional

from pydantic import BaseModel, Field, SecretStr

import kong_pdk.pdk.kong as kong
from kong_pdk.schema import schema_of


class Config(BaseModel):
    name: str = Field("abc", pattern=r"^\w+$")
    secret: Optional[SecretStr] = None


Schema = schema_of(Config)
version = "1.0.0"
priority = 1


class Plugin:
    def __init__(self, config: Config) -> None:
        self.config = config

    def access(self, kong: kong.kong) -> None:
        kong.response.set_header("x-config", repr(self.config))
