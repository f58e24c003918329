"""The person whom a request is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from .._util.records import read_record


@dataclass(frozen=True)
class Person:
    """A person's name, other ways to write it, and identifiers such as e-mail addresses and customer numbers."""

    name: str
    variants: tuple[str, ...] = ()
    identifiers: tuple[str, ...] = ()

    def to_json(self) -> dict[str, JsonValue]:
        """What `from_json` reads."""
        return {"name": self.name, "variants": list(self.variants), "identifiers": list(self.identifiers)}

    @classmethod
    def from_json(cls, data: Mapping[str, JsonValue]) -> Person:
        """Read what `to_json` gives.

        Raises:
            UserError: a key is missing or unknown, or a value is of another type.
        """
        return read_record(cls, data, "the person")
