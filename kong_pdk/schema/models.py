"""pydantic models as descriptions of a configuration, with the extra ``kong-pdk[pydantic]``.

Kong gets to know what its schema language has a word for. All else that a model says, a ``pattern``
for one, which is a regular expression and no Lua pattern, is checked when the plugin's instance is
made, by pydantic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Callable, Optional

import pydantic
from pydantic.fields import FieldInfo

from ..exception import SchemaError, SettingsError
from .fields import attributes_of
from .hints import Reader, Shape, name_of
from .types import finish

#: Numbers that Lua can tell from their neighbours.
_LOWEST, _HIGHEST = -(2**53), 2**53
_JSON_TYPES = ("string", "integer", "number", "boolean")
_DESCRIPTION = range(10, 501)  # bytes that Kong takes


def read_model(model: Any, record: Callable[[Any, str], Optional[Shape]]) -> Shape:
    """Return the shape of a pydantic model.

    Args:
        model: the class.
        record: returns the shape of a class that is inside of it.

    Raises:
        SchemaError: Kong has no type for a field; names class and field.
    """
    reader = Reader(record, _marks, _other)
    fields: list[dict[str, Any]] = []
    for name, info in model.model_fields.items():
        where = f"{model.__name__}.{name}"
        shape = reader.read(info.annotation, where, _limits(info))
        _fit_numbers(shape.definition)
        is_missing = info.is_required()
        default = None if is_missing else info.get_default(call_default_factory=True)
        fields.append({_key(name, info): finish(shape, is_missing, _json(default), where)})
    return Shape({"type": "record", "fields": fields}, _builder(model))


def _key(name: str, info: FieldInfo) -> str:
    """The field's name in the configuration."""
    alias = info.validation_alias
    return alias if isinstance(alias, str) else info.alias or name


def _json(value: Any) -> Any:
    """A default as JSON holds it; what the schema language has is left to the caller."""
    if isinstance(value, (set, frozenset)):
        return sorted((_json(item) for item in value), key=repr)  # in each process the same
    if isinstance(value, (list, tuple)):
        return [_json(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, pydantic.BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_none=True)
    if isinstance(value, (pydantic.SecretStr, pydantic.SecretBytes)):
        return pydantic.TypeAdapter(Any).dump_python(value.get_secret_value(), mode="json")
    if value is None or isinstance(value, (str, int, float)):
        return value
    return pydantic.TypeAdapter(Any).dump_python(value, mode="json")


def _marks(mark: Any) -> Optional[dict[str, Any]]:
    """The attributes that something in ``Annotated`` stands for."""
    own = attributes_of(mark)
    if own is not None:
        return own
    if isinstance(mark, FieldInfo):
        return _limits(mark)
    return _limit(mark)


def _limits(info: FieldInfo) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    for mark in info.metadata:
        attributes.update(attributes_of(mark) or _limit(mark))
    text = info.description
    if text and len(text.encode()) in _DESCRIPTION and "description" not in attributes:
        attributes["description"] = text
    return attributes


def _limit(mark: Any) -> dict[str, Any]:
    """What limits that are made with ``Field``, ``StringConstraints`` and the like come to."""
    found: dict[str, Any] = {}
    low, high = getattr(mark, "min_length", None), getattr(mark, "max_length", None)
    if low is not None:
        found["len_min"] = low
    if high is not None:
        found["_len_max"] = high
    for name in ("gt", "ge", "lt", "le"):
        limit = getattr(mark, name, None)
        if isinstance(limit, (int, float)):
            found[f"_{name}"] = limit
    return found


def _fit_numbers(definition: dict[str, Any]) -> None:
    """Turn the limits of pydantic into those that Kong has, here and inside."""
    for name in ("elements", "keys", "values"):
        if name in definition:
            _fit_numbers(definition[name])
    longest = definition.pop("_len_max", None)
    above, at_least = definition.pop("_gt", None), definition.pop("_ge", None)
    below, at_most = definition.pop("_lt", None), definition.pop("_le", None)
    kind = definition.get("type")
    if kind == "string":
        # pydantic counts characters and Kong bytes: a longer text is pydantic's to refuse.
        if longest is not None:
            definition["len_max"] = longest * 4
    elif longest is not None:
        definition["len_max"] = longest
    if kind == "integer":
        lows = [at_least] if at_least is not None else []
        lows += [math.floor(above) + 1] if above is not None else []
        highs = [at_most] if at_most is not None else []
        highs += [math.ceil(below) - 1] if below is not None else []
        if lows and not highs:
            definition["gt"] = math.ceil(max(lows)) - 1
        elif highs:
            low = math.ceil(max(lows)) if lows else _LOWEST
            definition["between"] = [low, math.floor(min(highs))]
    elif kind == "number":
        lows = [each for each in (above, at_least) if each is not None]
        highs = [each for each in (below, at_most) if each is not None]
        if above is not None:
            definition["gt"] = above
        if lows and highs:
            definition["between"] = [max(lows), min(highs)]
        elif highs:
            definition["between"] = [_LOWEST, min(highs)]
        elif at_least is not None:
            definition["between"] = [at_least, _HIGHEST]


def _other(hint: Any, where: str) -> Optional[Shape]:
    """The shape of a type that pydantic reads from a simple value of JSON, such as ``HttpUrl``."""
    try:
        schema = pydantic.TypeAdapter(hint).json_schema()
    except Exception as exc:
        raise SchemaError(f"{where}: there is no JSON for {name_of(hint)}: {exc}") from exc
    kind = schema.get("type")
    if kind not in _JSON_TYPES:
        return None
    return Shape({"type": kind}, lambda value, path: value)


def _builder(model: Any) -> Callable[[Any, str], Any]:
    """What makes objects of a model; those inside of it are made by pydantic."""

    def build(value: Any, path: str) -> Any:
        try:
            return model.model_validate(value)
        except pydantic.ValidationError as exc:
            problems = [
                (_path(path, each["loc"]), each["msg"])
                for each in exc.errors(
                    include_url=False, include_context=False, include_input=False
                )
            ]
            raise SettingsError.of(problems) from None  # what caused it shows values

    return build


def _path(path: str, places: tuple[Any, ...]) -> str:
    for place in places:
        if isinstance(place, int):
            path += f"[{place + 1}]"
        else:
            path = f"{path}.{place}" if path else str(place)
    return path or "config"
