"""Python's types as types of Kong's schema language, and back: what JSON holds as those types."""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Callable, ClassVar, Literal, Union, get_args, get_origin

from ..exception import SchemaError
from .fields import attributes_of

#: Makes a value of a type from one of JSON that fits; is told where it is, for errors.
Build = Callable[[Any, str], Any]

_SCALARS: dict[Any, str] = {str: "string", bool: "boolean", int: "integer", float: "number"}
_ARRAYS: dict[Any, Callable[[Any], Any]] = {
    list: list, tuple: tuple, collections.abc.Sequence: list, collections.abc.Iterable: list,
    collections.abc.Collection: list, collections.abc.MutableSequence: list,
}  # fmt: skip
_SETS: dict[Any, Callable[[Any], Any]] = {
    set: set, frozenset: frozenset, collections.abc.Set: frozenset, collections.abc.MutableSet: set,
}  # fmt: skip
_MAPS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_UNIONS = (Union, getattr(types, "UnionType", Union))


@dataclass
class Shape:
    """What a type is in the schema language.

    Attributes:
        definition: of a field of that type, without ``required``.
        build: makes a value of that type from one of JSON that fits the definition.
        optional: whether None is one of its values.
    """

    definition: dict[str, Any]
    build: Build
    optional: bool = False


class Reader:
    """Reads types.

    Args:
        record: gives the shape of a class that describes a record, None for any other type. It is
            called with the class and a text that says where it is, for errors.
        marks: gives the attributes that something within ``Annotated`` stands for, None if it is
            none of its concern.
        other: gives the shape of a type that is not known here, or None.
    """

    def __init__(
        self,
        record: Callable[[Any, str], Any],
        marks: Callable[[Any], Any] = attributes_of,
        other: Callable[[Any, str], Any] = lambda hint, where: None,
    ) -> None:
        self._record = record
        self._marks = marks
        self._other = other

    def read(self, hint: Any, where: str, attributes: Mapping[str, Any]) -> Shape:
        """Return the shape of a type.

        Args:
            hint: the type.
            where: names class and field, for errors.
            attributes: of the field, over those that its type has.

        Raises:
            SchemaError: Kong has no such type.
        """
        given: dict[str, Any] = {}
        while True:
            if get_origin(hint) is Annotated:
                for mark in reversed(get_args(hint)[1:]):
                    given = {**(self._marks(mark) or {}), **given}
                hint = get_args(hint)[0]
            elif hasattr(hint, "__supertype__"):  # a NewType
                hint = hint.__supertype__
            elif hasattr(hint, "__value__"):  # an alias made with type
                hint = hint.__value__
            else:
                break
        given = {**given, **attributes}
        if "json_schema" in given:
            shape = Shape({"type": "json"}, _as_it_is, optional=hint is Any)
        else:
            shape = self._shape(hint, where, given)
        return Shape({**shape.definition, **plain(given)}, shape.build, shape.optional)

    def _shape(self, hint: Any, where: str, given: dict[str, Any]) -> Shape:
        origin, arguments = get_origin(hint), get_args(hint)
        if origin in _UNIONS:
            return self._union(arguments, where, given)
        if origin is Literal:
            return self._choice(arguments, where, _as_it_is)
        if isinstance(hint, type) and not arguments and issubclass(hint, enum.Enum):
            kind: Any = hint
            values = [member.value for member in kind]
            return self._choice(values, where, lambda value, path: kind(value))
        if hint in _SCALARS:
            return Shape({"type": _SCALARS[hint]}, _as_float if hint is float else _as_it_is)
        if origin in _ARRAYS or hint in _ARRAYS:
            return self._array(origin or hint, arguments, where)
        if origin in _SETS or hint in _SETS:
            inner = self._inside(arguments, where, "set[str]")
            make = _SETS[origin or hint]
            return Shape(
                {"type": "set", "elements": inner.definition},
                lambda value, path: make(_items(inner, value, path)),
            )
        if origin in _MAPS or hint in _MAPS:
            return self._map(arguments, where)
        record = self._record(hint, where) or self._other(hint, where)
        if record is not None:
            found: Shape = record
            return found
        raise SchemaError(f"{where}: {_no_type(hint)}")

    def _union(self, arguments: tuple[Any, ...], where: str, given: dict[str, Any]) -> Shape:
        rest = [each for each in arguments if each is not type(None)]
        if len(rest) != 1:
            names = " or ".join(map(name_of, rest))
            raise SchemaError(
                f"{where}: Kong has no type for {names}: a field has one type, or is Optional"
            )
        shape = self.read(rest[0], where, {})
        if len(rest) == len(arguments):
            return shape
        return Shape(shape.definition, shape.build, optional=True)

    def _choice(self, values: Iterable[Any], where: str, build: Build) -> Shape:
        values = list(values)
        optional = None in values
        values = [value for value in values if value is not None]
        kinds = {type(value) for value in values}
        if kinds == {bool}:
            limit = {} if len(values) == 2 else {"eq": values[0]}
            return Shape({"type": "boolean", **limit}, build, optional)
        if kinds == {int, float}:
            kinds = {float}
        kind = _SCALARS.get(next(iter(kinds))) if len(kinds) == 1 else None
        if kind is None:
            raise SchemaError(
                f"{where}: the values to choose from must all be texts or all be numbers, "
                f"got {', '.join(map(repr, values)) or 'none'}"
            )
        empty = {"len_min": 0} if "" in values else {}
        return Shape({"type": kind, "one_of": values, **empty}, build, optional)

    def _array(self, origin: Any, arguments: tuple[Any, ...], where: str) -> Shape:
        make = _ARRAYS[origin]
        if origin is tuple and arguments and arguments[-1] is not Ellipsis:
            if len(set(map(repr, arguments))) != 1:
                raise SchemaError(
                    f"{where}: the items of a tuple must be of one type: tuple[str, ...]"
                )
            inner = self._inside(arguments[:1], where, "tuple[str, ...]")
            limit = {"len_eq": len(arguments)}
        else:
            inner = self._inside(arguments[:1], where, "list[str]")
            limit = {}
        return Shape(
            {"type": "array", "elements": inner.definition, **limit},
            lambda value, path: make(_items(inner, value, path)),
        )

    def _map(self, arguments: tuple[Any, ...], where: str) -> Shape:
        if not arguments:
            raise SchemaError(f"{where}: say what is in it, as in dict[str, str]")
        keys = self._inside(arguments[:1], f"{where}, its keys", "dict[str, str]")
        values = self._inside(arguments[1:], f"{where}, its values", "dict[str, str]")
        if keys.definition["type"] != "string":
            raise SchemaError(f"{where}: the keys of a dict must be texts: dict[str, ...]")
        return Shape(
            {"type": "map", "keys": keys.definition, "values": values.definition},
            lambda value, path: {
                keys.build(key, path): values.build(item, f"{path}[{key}]")
                for key, item in value.items()
            },
        )

    def _inside(self, arguments: tuple[Any, ...], where: str, example: str) -> Shape:
        if not arguments:
            raise SchemaError(f"{where}: say what is in it, as in {example}")
        shape = self.read(arguments[0], where, {})
        if shape.optional:
            raise SchemaError(f"{where}: Kong takes no null inside of lists, sets and dicts")
        return shape


def _as_it_is(value: Any, path: str) -> Any:
    return value


def _as_float(value: Any, path: str) -> float:
    return float(value)


def _items(inner: Shape, value: Any, path: str) -> list[Any]:
    return [inner.build(item, f"{path}[{number}]") for number, item in enumerate(value, 1)]


def name_of(hint: Any) -> str:
    """Return the name of a type as its author would write it."""
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)


def _no_type(hint: Any) -> str:
    if hint is Any or hint is object:
        return "Kong has no type for anything: name one, or give field(json_schema=...)"
    if get_origin(hint) is ClassVar:
        return "a ClassVar is no field"
    return (
        f"Kong has no type for {name_of(hint)}: use str, int, float, bool, Literal, an Enum of "
        f"texts or numbers, list, set, dict[str, ...] or a dataclass"
    )


def plain(value: Any) -> Any:
    """Return a value as JSON holds it: an Enum's value, a dict of a dataclass, a list of a set.

    Args:
        value: of any of the types above; another one is returned as it is.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        members = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
        return {name: plain(item) for name, item in members.items() if item is not None}
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(item) for item in value), key=repr)
    return value
