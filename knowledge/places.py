"""Where the files that a case names may lie."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .._util.errors import UserError


@dataclass(frozen=True)
class Places:
    """A case file, and the folders of data that the user named. A case reads nothing outside these and its own."""

    file: Path
    data: tuple[Path, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder of the case file."""
        return self.file.parent

    def find(self, name: str) -> Path | None:
        """The file that a case names relative to its folder; `None` if there is no such file.

        Raises:
            UserError: the file, or what it is a link to, is outside the folders.
        """
        path = self.folder / name
        if "\0" in name or not os.path.lexists(path):
            return None
        real = path.resolve()
        if not any(real.is_relative_to(root.resolve()) for root in (self.folder, *self.data)):
            raise UserError(
                f"{name!r} is outside the folder of the case file; put it there, or name its folder: --data "
                f"{real.parent} (in Python `loka.case(file, data=[folder])`)."
            )
        return path if path.is_file() else None
