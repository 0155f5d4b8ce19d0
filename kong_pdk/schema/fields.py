"""``field``: what a class that describes a configuration says of its fields beyond their types."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional, TypeVar, overload

T = TypeVar("T")

#: Where the attributes are in the metadata of a dataclass's field.
METADATA = "kong_pdk.schema"


# Three ways to call it, so that type checkers take it for what it stands for.
@overload
def field(default: T, **attributes: Any) -> T: ...
@overload
def field(*, default_factory: Callable[[], T], **attributes: Any) -> T: ...
@overload
def field(**attributes: Any) -> Any: ...


def field(
    default: Any = dataclasses.MISSING,
    *,
    default_factory: Any = dataclasses.MISSING,
    required: Optional[bool] = None,
    description: Optional[str] = None,
    one_of: Optional[Sequence[Any]] = None,
    not_one_of: Optional[Sequence[Any]] = None,
    between: Optional[tuple[float, float]] = None,
    gt: Optional[float] = None,
    len_eq: Optional[int] = None,
    len_min: Optional[int] = None,
    len_max: Optional[int] = None,
    match: Optional[str] = None,
    not_match: Optional[str] = None,
    match_all: Optional[Sequence[Mapping[str, str]]] = None,
    match_none: Optional[Sequence[Mapping[str, str]]] = None,
    match_any: Optional[Mapping[str, Any]] = None,
    starts_with: Optional[str] = None,
    is_regex: Optional[bool] = None,
    uuid: Optional[bool] = None,
    timestamp: Optional[bool] = None,
    contains: Any = None,
    referenceable: Optional[bool] = None,
    encrypted: Optional[bool] = None,
    err: Optional[str] = None,
    entity_checks: Optional[Sequence[Mapping[str, Any]]] = None,
    **attributes: Any,
) -> Any:
    """Describe a field of a configuration, in place of :func:`dataclasses.field`.

    Either as the field's default value, ``port: int = field(8080, between=(1, 65535))``, or within
    its type, ``port: Annotated[int, field(between=(1, 65535))]``, which is the way for a field
    without a default, and for what is inside of a list or dict.

    Args:
        default: of a field that is left out. What can be changed, such as a list, is copied for
            each object.
        default_factory: makes the default; called once more when the Schema is made.
        required: whether the field can be null. Without it that is so for ``Optional`` types alone.
        description: for Kong's own documentation; only Kong 3.4 and newer take one.
        one_of, not_one_of: values that are allowed, or not. Of ``Literal`` and ``Enum`` types the
            former is known.
        between: the lowest and the highest number.
        gt: the number is greater than this one.
        len_eq, len_min, len_max: of a text in bytes, of a list, set or dict in items. Unless it has
            ``len_min = 0`` Kong takes no empty text.
        match, not_match: a Lua pattern.
        match_all, match_none: dicts of ``pattern`` and ``err``.
        match_any: a dict of ``patterns`` and ``err``.
        starts_with: what a text begins with.
        is_regex, uuid, timestamp: that the value is one.
        contains: what a list or set has in it.
        referenceable: a text may be a reference to a vault, which Kong resolves.
        encrypted: Kong Enterprise keeps it encrypted.
        err: what Kong answers if the value does not fit.
        entity_checks: of a field whose type is another such class: relations of its fields.
        attributes: others of `Kong's schema language
            <https://docs.konghq.com/gateway/latest/plugin-development/configuration/>`_.

    Returns:
        What :func:`dataclasses.field` would.

    Raises:
        ValueError: both default and default_factory were given.
    """
    named = {
        "required": required, "description": description, "one_of": one_of,
        "not_one_of": not_one_of, "between": between, "gt": gt, "len_eq": len_eq,
        "len_min": len_min, "len_max": len_max, "match": match, "not_match": not_match,
        "match_all": match_all, "match_none": match_none, "match_any": match_any,
        "starts_with": starts_with, "is_regex": is_regex, "uuid": uuid, "timestamp": timestamp,
        "contains": contains, "referenceable": referenceable, "encrypted": encrypted, "err": err,
        "entity_checks": entity_checks,
    }  # fmt: skip
    given = {name: value for name, value in named.items() if value is not None}
    made: dict[str, Any] = {"metadata": {METADATA: {**given, **attributes}}}
    if default_factory is not dataclasses.MISSING:
        made["default_factory"] = default_factory
    if default is not dataclasses.MISSING:
        can_change = type(default).__hash__ is None
        if can_change and default_factory is dataclasses.MISSING:
            made["default_factory"] = lambda: copy.deepcopy(default)
        else:
            made["default"] = default
    return dataclasses.field(**made)


def attributes_of(marker: object) -> Optional[dict[str, Any]]:
    """Return what was given to :func:`field`; None for what it has not made."""
    if not isinstance(marker, dataclasses.Field):
        return None
    found: Optional[dict[str, Any]] = marker.metadata.get(METADATA)
    return found
