"""A plugin's configuration: described by a class, checked, and handed over as an object.

::

    @dataclass
    class Config:
        host: str
        message: str = field("hello", len_max=80)

    Schema = schema_of(Config)

    class Plugin:
        def __init__(self, config: Config) -> None: ...
"""

from __future__ import annotations

from ..exception import SchemaError, SettingsError
from .fields import field
from .language import Problem, check_fields
from .types import ConfigSchema, kong_keys, schema_of

__all__ = [
    "ConfigSchema",
    "Problem",
    "SchemaError",
    "SettingsError",
    "check_fields",
    "field",
    "kong_keys",
    "schema_of",
]
