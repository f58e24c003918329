"""Frozen dataclasses from JSON values, with one clear sentence about what does not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from .errors import UserError

T = TypeVar("T")


def read_record(kind: type[T], values: object, what: str) -> T:
    """A dataclass from a mapping of its fields; fields that are dataclasses, or tuples of these, are read the same way.

    Args:
        kind: the dataclass.
        values: what JSON or YAML gave.
        what: how an error names the record, such as "the recipe 'quick.yaml'".

    Raises:
        UserError: an unknown key, a missing one, or a value of another type.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{what} must map names to values, but it is {values!r}.")
    hints = get_type_hints(kind)
    names = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    if unknown := [key for key in values if key not in names]:
        raise UserError(f"{what} has no {str(unknown[0])!r}; choose from {', '.join(names)}.")
    given = {name: _nested(hints[name], value, f"{name} of {what}") for name, value in values.items()}
    try:
        return TypeAdapter(kind).validate_python(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{what} cannot have {where} = {first['input']!r}: {first['msg'].lower()}.") from None


def _nested(hint: Any, value: object, what: str) -> object:
    """The value, with mappings read as the dataclasses that the hint names."""
    if get_origin(hint) in (Union, UnionType):
        options = [_nested(option, value, what) for option in get_args(hint) if option is not type(None)]
        return next((o for o in options if o is not value), value)
    if get_origin(hint) is tuple and isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_nested(get_args(hint)[0], one, what) for one in value)
    if is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
        return read_record(hint, value, what)
    return value
