"""What a plugin's class asks for: its configuration as a dict, or as an object."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Callable, Optional, Union, get_args, get_origin

from ..exception import SchemaError
from .types import ConfigSchema, describes, schema_of
from .values import named


@dataclass
class Asked:
    """How a plugin's configuration is described, and handed over.

    Attributes:
        schema: the fields.
        entity_checks: of the whole configuration.
        make: called with the configuration as Kong sends it, returns what the plugin's class is
            called with. Raises :class:`.SettingsError` if it does not fit.
        warnings: what may not be as it was meant.
    """

    schema: Any
    entity_checks: list[dict[str, Any]] = field(default_factory=list)
    make: Callable[[Any], Any] = copy.deepcopy
    warnings: list[str] = field(default_factory=list)


def asked_for(factory: type, schema: Any) -> Asked:
    """Find out what a plugin's class wants to be called with.

    An annotation of the first argument of its ``__init__`` that is a dataclass or a pydantic model
    asks for an object of that class. Anything else gets the dict.

    Args:
        factory: the plugin's class.
        schema: its ``Schema``; None for none, which is then made of what the annotation says.

    Raises:
        SchemaError: nothing that fits the Schema would fit the class, or Kong's schema language has
            no word for what is in it.
    """
    wanted, warning = _annotation(factory, schema)
    warnings = [warning] if warning else []
    if wanted is None:
        checks = schema.entity_checks if isinstance(schema, ConfigSchema) else []
        return Asked(() if schema is None else schema, checks, warnings=warnings)
    own = schema_of(wanted) if schema is None else schema
    if isinstance(own, ConfigSchema) and own.config_class is wanted:
        return Asked(own, own.entity_checks, own.make, warnings)
    made = schema_of(wanted)
    warnings += _differences(made, schema)
    checks = schema.entity_checks if isinstance(schema, ConfigSchema) else []
    return Asked(schema, checks, lambda config: made.make(config, derived=False), warnings)


def _annotation(factory: type, schema: Any) -> tuple[Optional[type], str]:
    """The class that is asked for, if one is, and what is doubtful about that."""
    try:
        parameter = next(iter(inspect.signature(factory).parameters.values()), None)
    except (TypeError, ValueError):
        return None, ""
    hint: Any = parameter.annotation if parameter is not None else None
    if isinstance(hint, str):
        text, hint = hint, _evaluate(hint, factory)
        if hint is None:
            own = getattr(schema, "config_class", None)
            if own is not None and text.rpartition(".")[2] == own.__name__:
                return own, ""
            return None, (
                f"the annotation {text!r} of Plugin.__init__ cannot be evaluated, so it gets a dict"
            )
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) is Union:
        rest = [each for each in get_args(hint) if each is not type(None)]
        hint = rest[0] if len(rest) == 1 else None
    return (hint, "") if describes(hint) else (None, "")


def _evaluate(text: str, factory: type) -> Any:
    """What an annotation that is a text stands for; None if that cannot be found out."""
    function: Any = inspect.unwrap(factory.__init__)  # type: ignore[misc]
    names = dict(vars(factory))
    try:
        return eval(text, getattr(function, "__globals__", {}), names)
    except Exception:
        return None


def _differences(made: ConfigSchema, schema: Any) -> list[str]:
    """What a Schema that was written by hand has, and the class has not; the other way round fails.

    Raises:
        SchemaError: the class requires what the Schema does not have.
    """
    name = made.config_class.__name__
    theirs = dict(named(schema)) if isinstance(schema, (list, tuple)) else {}
    ours: Mapping[str, Mapping[str, Any]] = dict(named(list(made)))
    for field_name, definition in ours.items():
        needed = definition.get("required") and "default" not in definition
        if needed and definition["type"] != "record" and field_name not in theirs:
            raise SchemaError(
                f"{name}.{field_name} has no default and is not in Schema: "
                f"Schema = schema_of({name}) has it"
            )
    extra = [field_name for field_name in theirs if field_name not in ours]
    return [
        f"Schema: field {each!r} is none of {name}, so the plugin does not get it" for each in extra
    ]
