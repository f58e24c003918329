"""Where an audit leaves what it has finished."""

from __future__ import annotations

import json
from pathlib import Path

from .._util.errors import UserError
from .._util.files import write_json
from ..knowledge import Case
from ..model import Edit, Model
from ..verify import Reading


class Store:
    """Where an audit leaves its readings and control edits; this one forgets them. A run folder keeps them."""

    def __init__(self) -> None:
        self.readings: dict[str, dict[str, Reading]] = {}
        self.edits: dict[str, Edit] = {}
        self.seconds: dict[str, float] = {}

    def keep(self, model: str, reading: Reading, *, seconds: float = 0.0) -> None:
        """Take a finished reading, and how long it took."""
        self.seconds[f"{reading.check} on {model}"] = seconds
        self.readings.setdefault(model, {})[reading.check] = reading

    def keep_edit(self, name: str, edit: Edit) -> None:
        """Take a finished control edit."""
        self.edits[name] = edit


class FolderStore(Store):
    """An audit's readings in `readings.json`, its control edits under `controls/`; each kept when finished."""

    def __init__(self, folder: Path, before: Model, after: Edit | Model, case: Case) -> None:
        super().__init__()
        self.folder = folder
        self.audited = {
            "before": before.digest(),
            "after": after.digest(),
            "case": case.digest,
        }
        self._check_same()
        path = folder / "readings.json"
        if path.exists():
            data = json.loads(path.read_text(encoding="utf-8"))
            self.readings = {m: {c: Reading.from_json(r) for c, r in held.items()} for m, held in data.items()}
        for name in ("shallow", "random"):
            if (held := folder / "controls" / f"{name}.safetensors").exists():
                self.edits[name] = Edit.load(held)

    def _check_same(self) -> None:
        """Readings of other models or of another case are refused."""
        path = self.folder / "controls" / "audited.json"
        if not path.exists():
            write_json(path, self.audited)
            return
        held = json.loads(path.read_text(encoding="utf-8"))
        other = [what for what, value in self.audited.items() if held.get(what) != value]
        if other:
            raise UserError(
                f"{str(self.folder)!r} holds the audit of another pair ({', '.join(other)} differ); name another --out."
            )

    def keep(self, model: str, reading: Reading, *, seconds: float = 0.0) -> None:
        """Take a finished reading, and write all."""
        super().keep(model, reading, seconds=seconds)
        data = {m: {c: r.to_json() for c, r in held.items()} for m, held in self.readings.items()}
        write_json(self.folder / "readings.json", data)

    def keep_edit(self, name: str, edit: Edit) -> None:
        """Take a finished control edit, and write it."""
        super().keep_edit(name, edit)
        edit.save(self.folder / "controls" / f"{name}.safetensors")
