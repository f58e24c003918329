"""What a sweep has finished, in memory or in a file that it can go on from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialize

from ..._util.errors import UserError
from ..._util.files import write_atomic

FORMAT = "loka-sweep-1"


class SweepCheckpoint:
    """`values` and `done` `[prompt, cell]`, `base` `[prompt]`, and the `settings` that fix the batches.

    What the file holds counts only for a sweep with the same `fingerprint`.

    Raises:
        UserError: the file is of another sweep, or of another kind.
    """

    def __init__(self, path: str | Path | None, fingerprint: str, shape: tuple[int, int]) -> None:
        self.path, self.fingerprint = path and Path(path), fingerprint
        self.values, self.done = np.full(shape, np.nan), np.zeros(shape, bool)
        self.base = np.full(shape[0], np.nan)
        self.settings: dict[str, Any] = {}
        if self.path and self.path.exists():
            self._load(self.path)

    def put(self, row: int, cells: slice, values: np.ndarray | float) -> None:
        """Take the values of some cells of a prompt, and write all."""
        self.values[row, cells], self.done[row, cells] = values, True
        if self.path:
            head = {"format": FORMAT, "fingerprint": self.fingerprint, "settings": self.settings}
            arrays = {"values": self.values, "done": self.done, "base": self.base}
            write_atomic(self.path, serialize(arrays, metadata={"loka": json.dumps(head, sort_keys=True)}))

    def put_base(self, row: int, base: float) -> None:
        """Take a prompt's own metric, which must be what it was."""
        held = self.base[row]
        if not np.isnan(held) and abs(held - base) > 1e-3 * max(1.0, abs(held)):
            raise UserError(f"{str(self.path)!r} is a sweep with another metric ({held:.4g}, now {base:.4g}); {_NEXT}")
        self.base[row] = base

    def _load(self, path: Path) -> None:
        try:
            with safe_open(path, framework="np") as file:
                head = json.loads((file.metadata() or {}).get("loka", "{}"))
                if head.get("format") == FORMAT and head["fingerprint"] == self.fingerprint:
                    self.values, self.done, self.base = (file.get_tensor(n) for n in ("values", "done", "base"))
                    self.settings = head["settings"]
                    return
        except (SafetensorError, ValueError, KeyError, OSError) as error:
            raise UserError(f"{str(path)!r} cannot be read as a sweep ({error}); {_NEXT}") from error
        what = "another sweep" if head.get("format") == FORMAT else "no sweep"
        raise UserError(f"{str(path)!r} holds {what}; {_NEXT}")


_NEXT = "name another file, or delete this one."
