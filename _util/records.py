"""Frozen dataclasses from JSON values, with one clear sentence about what does not fit."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from .errors import UserError

T = TypeVar("T")
MOST = 100_000  # steps, rows and other counts
SEEDS = 2**32


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
        raise UserError(f"{what} must map names to values, but it is {reprlib.repr(values)}.")
    hints = get_type_hints(kind)
    names = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    if unknown := [key for key in values if key not in names]:
        raise UserError(f"{what} has no {str(unknown[0])!r}; choose from {', '.join(names)}.")
    try:
        given = {name: _nested(hints[name], value, f"{name} of {what}") for name, value in values.items()}
        return _adapter(kind).validate_python(given)
    except ValidationError as error:
        raise UserError(_refused(what, error)) from None
    except RecursionError:
        raise UserError(f"{what} is nested too deeply.") from None


def check_types(record: object, what: str) -> None:
    """Refuse a dataclass with a value of another type than its field's; `read_record` has converted what it can.

    Raises:
        UserError: as `read_record`, or as `check_size`.
    """
    for name, adapter in _adapters(type(record)).items():
        value = getattr(record, name)
        try:
            adapter.validate_python(value, strict=True)
        except ValidationError as error:
            raise UserError(_refused(what, error, name)) from None
        check_size(name, value, what)


def check_size(name: str, value: object, what: str) -> None:
    """Refuse a whole number that no job can use: a count above 100,000, or a seed that random generators do not take.

    Raises:
        UserError: such a number, by itself or in a list.
    """
    numbers = value if isinstance(value, list | tuple) else [value]
    most = SEEDS - 1 if name == "seed" else MOST
    for number in numbers:
        if isinstance(number, int) and (number > most or (name == "seed" and number < 0)):
            least = "from 0 to" if name == "seed" else "at most"
            raise UserError(f"{what} cannot have {name} = {reprlib.repr(number)}; give {least} {most:,}.")


@cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    """How to check a dataclass as a whole; making it takes some milliseconds."""
    return TypeAdapter(kind)


@cache
def _adapters(kind: type) -> dict[str, TypeAdapter[Any]]:
    """How to check the fields of a dataclass; a mapping is checked by what reads it."""
    hints = get_type_hints(kind)
    plain = [f.name for f in fields(kind) if get_origin(hints[f.name]) is not Mapping]
    return {name: TypeAdapter(hints[name]) for name in plain}


def _refused(what: str, error: ValidationError, *at: str) -> str:
    first = error.errors()[0]
    where = ".".join(map(str, (*at, *first["loc"])))
    if first["type"] == "missing":
        return f"{what} lacks {where!r}; add it."
    return f"{what} cannot have {where} = {reprlib.repr(first['input'])}: {first['msg'].lower()}."


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
