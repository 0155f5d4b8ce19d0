"""``field``: what a class that describes a configuration says of its fields beyond their types."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable, NoReturn, Optional, TypedDict, TypeVar, overload

if TYPE_CHECKING:
    from typing_extensions import Unpack  # which type checkers have

T = TypeVar("T")

#: Where the attributes are in the metadata of a dataclass's field.
METADATA = "kong_pdk.schema"


class Attributes(TypedDict, total=False):
    """The attributes of Kong's schema language that are of use in a configuration."""

    required: bool
    description: str
    examples: Sequence[Any]
    one_of: Sequence[Any]
    not_one_of: Sequence[Any]
    between: Sequence[float]
    gt: float
    len_eq: int
    len_min: int
    len_max: int
    match: str
    not_match: str
    match_all: Sequence[Mapping[str, str]]
    match_none: Sequence[Mapping[str, str]]
    match_any: Mapping[str, Any]
    starts_with: str
    is_regex: bool
    uuid: bool
    timestamp: bool
    eq: Any
    ne: Any
    contains: Any
    mutually_exclusive_subsets: Sequence[Sequence[str]]
    referenceable: bool
    encrypted: bool
    auto: bool
    err: str
    entity_checks: Sequence[Mapping[str, Any]]
    json_schema: Mapping[str, Any]
    deprecation: Mapping[str, Any]


# Three ways to call it, so that type checkers take it for what it stands for.
@overload
def field(default: T, **attributes: Unpack[Attributes]) -> T: ...
@overload
def field(*, default_factory: Callable[[], T], **attributes: Unpack[Attributes]) -> T: ...
@overload
def field(*, default_factory: NoReturn = ..., **attributes: Unpack[Attributes]) -> Any: ...


def field(
    default: Any = dataclasses.MISSING,
    *,
    default_factory: Any = dataclasses.MISSING,
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
        attributes: of Kong's schema language, each with its value; see below.

    Returns:
        What :func:`dataclasses.field` would.

    Raises:
        ValueError: both default and default_factory were given.

    The attributes that are of use in a configuration:

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
        examples: of values, for documentation; only Kong 3.6 and newer take them.
        eq, ne: the value that it must have, or must not have.
        mutually_exclusive_subsets: of a set; only one of these lists may have items in it.
        auto: Kong makes up a text, or with ``uuid`` a UUID, where there is none.
        json_schema: ``{"inline": ...}`` for a value of any type, from Kong 3.5 on.
        deprecation: Kong 3.7 and newer warn whoever uses the field.
    """
    made: dict[str, Any] = {"metadata": {METADATA: attributes}}
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
