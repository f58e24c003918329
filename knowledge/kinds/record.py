"""What every kind of record gives."""

from __future__ import annotations

from typing import Protocol

from ..item import Item


class Record(Protocol):
    """One piece of knowledge as a file states it. It becomes items for the working and for the sealed part."""

    @property
    def subject(self) -> str: ...

    @property
    def identity(self) -> str:
        """What identifies the record: two records with the same one, but for spaces and Unicode form, are one."""
        ...

    def working(self, relation: str, unit: str, frame: str) -> list[Item]:
        """The items that locating and editing see.

        Args:
            relation: the name of the set.
            unit: the unit of resampling.
            frame: the text around a question, with `{}` in its place; empty for the kind's own.
        """
        ...

    def sealed(self, relation: str, unit: str, frame: str) -> list[Item]:
        """The items that verifying reports on; arguments as for `working`."""
        ...
