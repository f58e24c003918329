"""The finished cells of a sweep, in memory or in a file from which the sweep resumes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialize

from ..._util.errors import UserError
from ..._util.files import write_atomic

FORMAT = "loka-sweep-2"


class SweepCheckpoint:
    """The values of a sweep's cells, and which of them are finished.

    `values` and `done`: `[prompt, cell]`; `base`: `[prompt]`, each prompt's own metric; `settings`: the settings that
    determine the batches. Only a sweep with the same `fingerprint` reads the file.

    Raises:
        UserError: a file of another sweep, or of another kind.
    """

    def __init__(self, path: str | Path | None, fingerprint: str, shape: tuple[int, int]) -> None:
        self.path, self.fingerprint = path and Path(path), fingerprint
        self.values, self.done = np.full(shape, np.nan), np.zeros(shape, bool)
        self.base = np.full(shape[0], np.nan)
        self.settings: dict[str, Any] = {}
        if self.path and self.path.exists():
            self._load(self.path)

    def put(self, row: int, cells: slice, values: np.ndarray | float) -> None:
        """Set the values of some cells of a prompt, and write the file."""
        self.values[row, cells], self.done[row, cells] = values, True
        if self.path:
            arrays = {"values": self.values, "done": self.done, "base": self.base}
            head = {
                "format": FORMAT, "fingerprint": self.fingerprint, "settings": self.settings, "digest": _digest(arrays),
            }  # fmt: skip
            write_atomic(self.path, serialize(arrays, metadata={"loka": json.dumps(head, sort_keys=True)}))

    def put_base(self, row: int, base: float) -> None:
        """Set a prompt's own metric. If one is stored already, it must be the same."""
        before = self.base[row]
        if not np.isnan(before) and abs(before - base) > 1e-3 * max(1.0, abs(before)):
            raise UserError(
                f"{str(self.path)!r} is the checkpoint of a sweep with another metric "
                f"({before:.4g}, now {base:.4g}); {_NEXT}"
            )
        self.base[row] = base

    def _load(self, path: Path) -> None:
        try:
            with safe_open(path, framework="np") as file:
                head = json.loads((file.metadata() or {}).get("loka", "{}"))
                if head.get("format") == FORMAT and head["fingerprint"] == self.fingerprint:
                    arrays = {name: file.get_tensor(name) for name in ("values", "done", "base")}
                    if head["digest"] != _digest(arrays):
                        raise ValueError("it has changed since it was written")
                    self.values, self.done, self.base = arrays.values()
                    self.settings = head["settings"]
                    return
        except (SafetensorError, ValueError, KeyError, OSError) as error:
            raise UserError(f"{str(path)!r} cannot be read as a sweep's checkpoint ({error}); {_NEXT}") from error
        what = "is the checkpoint of another sweep" if head.get("format") == FORMAT else "is not a sweep's checkpoint"
        raise UserError(f"{str(path)!r} {what}; {_NEXT}")


def _digest(arrays: dict[str, np.ndarray]) -> str:
    total = hashlib.sha256()
    for array in arrays.values():
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


_NEXT = "name another file, or delete this one."
