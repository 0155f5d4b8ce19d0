"""A plugin's Schema made of a class that describes its configuration, and objects of that class."""

from __future__ import annotations

import dataclasses
import sys
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional, get_args, get_type_hints

from ..exception import SchemaError, SettingsError
from .fields import METADATA
from .hints import Reader, Shape, name_of, plain
from .language import ERROR, check_fields
from .values import complete, named


class ConfigSchema(tuple[dict[str, Any], ...]):
    """What :func:`schema_of` returns: a tuple of fields that knows where it comes from.

    Attributes:
        config_class: the class that it was made of.
        entity_checks: of the whole configuration.
    """

    config_class: type
    entity_checks: list[dict[str, Any]]
    _shape: Shape

    def make(self, config: Mapping[str, Any], derived: bool = True) -> Any:
        """Return an object of the class from a configuration as Kong sends it.

        Keys that are no fields are left out; see :func:`kong_keys`.

        Args:
            config: the configuration.
            derived: Kong's Schema is this one: it has filled in the defaults, and what it has left
                out all the same is null.

        Raises:
            SettingsError: it does not fit the class; names the field.
        """
        definition: Mapping[str, Any] = {"type": "record", "fields": list(self)}
        known = completed = _known(config, definition, derived)
        if derived:
            completed = complete(known, list(self), self.entity_checks, shown=False)
        elif not is_model(self.config_class):  # which checks all by itself
            fields = _with_empty_texts(definition)["fields"]
            completed = complete(known, fields, self.entity_checks, shown=False)
        made = self._shape.build(completed, "")
        _remember(made, {key: value for key, value in config.items() if key not in known})
        return made


def schema_of(
    config_class: type, *, entity_checks: Sequence[Mapping[str, Any]] = ()
) -> ConfigSchema:
    """Return the Schema of a plugin whose configuration a class describes.

    Args:
        config_class: a dataclass, or a pydantic model.
        entity_checks: relations of its fields, such as ``{"only_one_of": ["key", "key_file"]}``.

    Returns:
        The tuple that a plugin's ``Schema`` is.

    Raises:
        SchemaError: Kong's schema language has no word for it; names class and field.
    """
    if not describes(config_class):
        raise SchemaError(
            f"schema_of needs a dataclass or a pydantic model, got {name_of(config_class)}"
        )
    shape = _Records().record(config_class, config_class.__name__)
    assert shape is not None
    schema = ConfigSchema(shape.definition["fields"])
    schema.config_class = config_class
    schema.entity_checks = plain(list(entity_checks))
    schema._shape = shape
    for problem in check_fields(schema, schema.entity_checks or None):
        if problem.level == ERROR:
            where = f"{config_class.__name__}.{problem.path}" if problem.path else "entity_checks"
            raise SchemaError(f"{where}: {problem.text}")
    return schema


def describes(hint: object) -> bool:
    """Say whether something is a class that :func:`schema_of` takes."""
    if not isinstance(hint, type) or get_args(hint):  # for Python 3.9 dict[str, int] is a type
        return False
    return dataclasses.is_dataclass(hint) or is_model(hint)


def is_model(hint: object) -> bool:
    """Say whether something is a class of pydantic's, without importing that."""
    pydantic = sys.modules.get("pydantic")
    base = getattr(pydantic, "BaseModel", None)
    return base is not None and isinstance(hint, type) and issubclass(hint, base)


class _Records:
    """The shapes of classes, which may contain each other but not themselves."""

    def __init__(self) -> None:
        self._open: list[type] = []

    def record(self, hint: Any, where: str) -> Optional[Shape]:
        """Return the shape of a class that describes a record; None for anything else."""
        if not describes(hint):
            return None
        if hint in self._open:
            raise SchemaError(
                f"{where}: {name_of(hint)} contains itself, which Kong has no way for"
            )
        self._open.append(hint)
        try:
            if is_model(hint):
                from .models import read_model

                return read_model(hint, self.record)
            return self._dataclass(hint)
        finally:
            self._open.pop()

    def _dataclass(self, config_class: type) -> Shape:
        name = config_class.__name__
        hints = _hints(config_class)
        reader = Reader(self.record)
        members: dict[str, Shape] = {}
        fields: list[dict[str, Any]] = []
        _check_annotated(config_class, hints)
        for each in dataclasses.fields(config_class):
            if not each.init:
                continue
            where = f"{name}.{each.name}"
            shape = reader.read(hints[each.name], where, each.metadata.get(METADATA, {}))
            default = each.default
            if each.default_factory is not dataclasses.MISSING:
                default = each.default_factory()
            is_missing = default is dataclasses.MISSING
            fields.append({each.name: finish(shape, is_missing, default, where)})
            members[each.name] = shape
        return Shape({"type": "record", "fields": fields}, record_builder(config_class, members))


def _check_annotated(config_class: type, hints: Mapping[str, Any]) -> None:
    """Refuse a value without a type, which a dataclass passes over in silence."""
    for name in dir(config_class):
        if name.startswith("_") or name in hints or not name.islower():
            continue
        value = getattr(config_class, name, None)
        if isinstance(value, (str, int, float, list, dict, set, tuple)):
            raise SchemaError(
                f"{config_class.__name__}.{name} has no type, so it would be no field: write "
                f"{name}: {type(value).__name__} = ..., or ClassVar if it is to be none"
            )


def _hints(config_class: type) -> dict[str, Any]:
    try:
        return get_type_hints(config_class, include_extras=True)
    except NameError as exc:
        raise SchemaError(
            f"{config_class.__name__}: {exc}: the types of its fields must be known when the "
            f"module is run, not to type checkers alone"
        ) from exc
    except TypeError as exc:
        raise SchemaError(
            f"{config_class.__name__}: {exc}: Python 3.9 needs Optional[int] for int | None"
        ) from exc


def finish(shape: Shape, is_missing: bool, default: Any, where: str) -> dict[str, Any]:
    """Return the definition of a field, with its default, and with whether it is required.

    Args:
        shape: of its type.
        is_missing: it has no default.
        default: of the field, as Python has it.
        where: names class and field, for errors.

    Raises:
        SchemaError: None is the default of a type that does not have it.
    """
    definition = dict(shape.definition)
    kind = definition["type"]
    required = definition.pop("required", not shape.optional)
    if required or kind == "record":  # which Kong requires unless it is told otherwise
        definition["required"] = required
    if is_missing:
        return definition
    if default is None:
        if required:
            raise SchemaError(f"{where}: None is not of its type: make that Optional[...]")
        return definition
    value = plain(default)
    if kind == "record" and required and _is_made_of_defaults(value, definition):
        return definition
    if kind == "string" and value == "":
        definition.setdefault("len_min", 0)
    definition["default"] = value
    return definition


def _is_made_of_defaults(value: Any, definition: Mapping[str, Any]) -> bool:
    try:
        return bool(complete({}, definition["fields"]) == complete(value, definition["fields"]))
    except SettingsError:
        return False


def record_builder(
    config_class: Callable[..., Any], members: Mapping[str, Shape]
) -> Callable[[Any, str], Any]:
    """Return what makes objects of a class from records that fit, with their defaults."""

    def build(value: Mapping[str, Any], path: str) -> Any:
        arguments = {
            name: None if value.get(name) is None
            else shape.build(value[name], f"{path}.{name}" if path else name)
            for name, shape in members.items()
        }  # fmt: skip
        try:
            return config_class(**arguments)
        except (ValueError, TypeError) as exc:  # of a __post_init__
            raise SettingsError(path or "config", str(exc)) from exc

    return build


def _known(value: Any, definition: Mapping[str, Any], absent_is_null: bool) -> Any:
    """Return a value without what is none of its definition's.

    Args:
        absent_is_null: a field that may be null is null if it is not there, whatever its default.
    """
    kind = definition.get("type")
    if kind == "record" and isinstance(value, Mapping):
        result = {}
        for name, inner in named(definition.get("fields")):
            if value.get(name) is not None:
                result[name] = _known(value[name], inner, absent_is_null)
            elif absent_is_null and not inner.get("required"):
                result[name] = None
        return result
    if kind in ("array", "set") and isinstance(value, list):
        return [_known(item, definition["elements"], absent_is_null) for item in value]
    if kind == "map" and isinstance(value, Mapping):
        inner = definition["values"]
        return {key: _known(item, inner, absent_is_null) for key, item in value.items()}
    return value


def _with_empty_texts(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Return a definition whose texts may be empty unless it says how long they are at least."""
    result = dict(definition)
    if result.get("type") == "string":
        result.setdefault("len_min", 0)
    for name in ("elements", "keys", "values"):
        if name in result:
            result[name] = _with_empty_texts(result[name])
    if "fields" in result:
        result["fields"] = [
            {name: _with_empty_texts(inner)} for name, inner in named(result["fields"])
        ]
    return result


# --- what Kong has added --------------------------------------------------------------------------

#: By the id of an object, a weak reference to it and the keys that it does not have.
_added: dict[int, tuple[Any, dict[str, Any]]] = {}


def _remember(made: object, keys: dict[str, Any]) -> None:
    number = id(made)
    try:
        reference = weakref.ref(made, lambda _: _added.pop(number, None))
    except TypeError:  # a class with __slots__
        return
    _added[number] = (reference, keys)


def kong_keys(config: object) -> dict[str, Any]:
    """Return what Kong has added to a configuration that a plugin got as an object.

    Among it are ``__plugin_id``, the id of the plugin's entity in Kong, and where there are such
    ``route_id``, ``service_id``, ``consumer_id`` and ``plugin_instance_name``.

    Args:
        config: the object, not a copy of it.

    Returns:
        Keys and values; none for an object that was not made from what Kong has sent.

    Raises:
        TypeError: its class has ``__slots__`` without ``__weakref__``, so nothing can be known.
    """
    try:
        weakref.ref(config)
    except TypeError as exc:
        raise TypeError(
            f"{type(config).__name__} has slots: give it dataclass(weakref_slot=True), or none"
        ) from exc
    return dict(_added.get(id(config), (None, {}))[1])
