"""Where an audit stores its finished readings and control edits."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .._util.errors import UserError
from .._util.files import private_folder, read_json, write_json
from .._util.ledger import check_files, dropping, finishing
from ..knowledge import Case, Redactor
from ..model import Edit, Model
from ..verify import Reading
from .jobs import MAKING, Failed

PARTS = "parts.json"  # what finished parts of unfinished checks found
SHARED = "shared"  # edits for other processes
ADVICE = "delete it and run `loka verify` again"


class Store:
    """In-memory store; `FolderStore` persists.

    `readings` are by model and check, `edits` by the name of the control, `seconds` by `CHECK on MODEL`. `parts` holds
    what the finished parts of unfinished checks found, by model and check.
    """

    def __init__(self) -> None:
        self.readings: dict[str, dict[str, Reading]] = {}
        self.edits: dict[str, Edit] = {}
        self.seconds: dict[str, float] = {}
        self.parts: dict[tuple[str, str], dict[str, Any]] = {}
        self._shared: TemporaryDirectory[str] | None = None

    def keep(self, model: str, reading: Reading, *, seconds: float = 0.0) -> None:
        """Store a finished reading, in place of its parts, and how long it took."""
        self._count(f"{reading.check} on {model}", seconds)
        self.readings.setdefault(model, {})[reading.check] = reading
        self.parts.pop((model, reading.check), None)

    def keep_part(self, model: str, check: str, part: str, found: Any, *, seconds: float = 0.0) -> None:
        """Store what a part of a check found, `Failed` if it gave nothing."""
        self._count(f"{check} on {model}", seconds)
        self.parts.setdefault((model, check), {})[part] = found

    def keep_edit(self, name: str, edit: Edit, *, seconds: float = 0.0) -> None:
        """Store a finished control edit."""
        self._count(f"{MAKING} {name}", seconds)
        self.edits[name] = edit

    def file_of(self, name: str, edit: Edit) -> Path:
        """A file of an edit, from which other processes read it. It lasts until `tidy`."""
        path = self._for_others() / f"{name}.safetensors"
        return path if path.exists() else edit.save(path)

    def tidy(self) -> None:
        """Remove what was written for other processes."""
        if self._shared:
            self._shared.cleanup()
            self._shared = None

    def _for_others(self) -> Path:
        self._shared = self._shared or TemporaryDirectory(prefix="loka-")
        return Path(self._shared.name)

    def _count(self, what: str, seconds: float) -> None:
        self.seconds[what] = self.seconds.get(what, 0.0) + seconds


class FolderStore(Store):
    """Readings in `readings.json` and control edits in `controls/NAME.safetensors`, each written when it is finished.

    Parts of a check stand in `parts.json` until the check is finished. With a redactor, the files have labels in the
    place of texts.

    Raises:
        UserError: the folder holds the audit of other models or of another case, or a file that cannot be read or that
            has changed since it was finished.
    """

    def __init__(
        self, folder: Path, before: Model, after: Edit | Model, case: Case, redactor: Redactor | None = None
    ) -> None:
        super().__init__()
        self.folder, self.redactor = folder, redactor
        self.audited = {
            "before": before.digest(),
            "after": after.digest(),
            "case": redactor.token(case.digest) if redactor else case.digest,
        }
        check_files(folder)
        self._check_same()
        path = folder / "readings.json"
        if path.exists():
            self.readings = read_readings(path, redactor)
        self.parts = self._read_parts()
        for file in sorted((folder / "controls").glob("*.safetensors")):
            edit = Edit.load(file)
            self.edits[file.stem] = redactor.show_edit(edit) if redactor else edit

    def _check_same(self) -> None:
        path = self.folder / "controls" / "audited.json"
        if not path.exists():
            return
        stored = read_json(path, "name another --out")
        known = stored if isinstance(stored, dict) else {}
        other = [what for what, value in self.audited.items() if known.get(what) != value]
        if other:
            raise UserError(
                f"{str(self.folder)!r} holds the audit of another pair ({', '.join(other)} differ); name another --out."
            )

    def keep(self, model: str, reading: Reading, *, seconds: float = 0.0) -> None:
        """Store a finished reading, and write the file."""
        had_parts = (model, reading.check) in self.parts
        super().keep(model, reading, seconds=seconds)
        self._begin()
        hide = self.redactor.hide_reading if self.redactor else dict
        data = {m: {c: hide(r.to_json()) for c, r in checks.items()} for m, checks in self.readings.items()}
        with finishing(self.folder, "readings.json") as path:
            write_json(path, data)
        if had_parts:
            self._write_parts()

    def keep_part(self, model: str, check: str, part: str, found: Any, *, seconds: float = 0.0) -> None:
        """Store what a part of a check found, and write the file."""
        super().keep_part(model, check, part, found, seconds=seconds)
        self._begin()
        self._write_parts()

    def keep_edit(self, name: str, edit: Edit, *, seconds: float = 0.0) -> None:
        """Store a finished control edit, and write its file."""
        super().keep_edit(name, edit, seconds=seconds)
        self._begin()
        with finishing(self.folder, f"controls/{name}.safetensors") as path:
            self._hidden(edit).save(path)

    def file_of(self, name: str, edit: Edit) -> Path:
        """The control's own file; for the audited edit, one in `shared/`, which lasts until `tidy`."""
        path = self.folder / "controls" / f"{name}.safetensors"
        return (path if path.exists() else super().file_of(name, self._hidden(edit))).resolve()

    def tidy(self) -> None:
        """Remove what was written for other processes, also by a call that was killed."""
        shutil.rmtree(self.folder / SHARED, ignore_errors=True)

    def _for_others(self) -> Path:
        return private_folder(self.folder / SHARED)

    def _hidden(self, edit: Edit) -> Edit:
        return self.redactor.hide_edit(edit) if self.redactor else edit

    def _write_parts(self) -> None:
        if not self.parts:
            dropping(self.folder, PARTS)
            return
        hide = self.redactor.hide if self.redactor else dict
        rows = [
            {"model": model, "check": check, "part": part, **hide(_written(found))}
            for (model, check), parts in self.parts.items()
            for part, found in parts.items()
        ]
        with finishing(self.folder, PARTS) as path:
            write_json(path, rows)

    def _read_parts(self) -> dict[tuple[str, str], dict[str, Any]]:
        """The parts of checks that have no reading yet."""
        path, found = self.folder / PARTS, {}
        rows = read_json(path, ADVICE) if path.exists() else []
        for row in self.redactor.show(rows) if self.redactor else rows:
            if not isinstance(row, dict) or row.keys() - {"found", "failed"} != {"model", "check", "part"}:
                raise UserError(f"{str(path)!r} is not a file of parts of checks; {ADVICE}.")
            if row["check"] not in self.readings.get(row["model"], {}):
                result = Failed(row["failed"]) if "failed" in row else row["found"]
                found.setdefault((row["model"], row["check"]), {})[row["part"]] = result
        return found

    def _begin(self) -> None:
        """Say what is audited here, before the first file of the audit."""
        private_folder(self.folder)
        if not (self.folder / "controls" / "audited.json").exists():
            with finishing(self.folder, "controls/audited.json") as path:
                write_json(path, self.audited)


def read_readings(path: Path, redactor: Redactor | None = None) -> dict[str, dict[str, Reading]]:
    """The readings of a `readings.json`, by model and check; a redactor puts the units' names back.

    Raises:
        UserError: a file that cannot be read, or that holds something else.
    """
    data = read_json(path, ADVICE)
    if redactor:
        data = redactor.show(data)
    try:
        if not isinstance(data, dict) or not all(isinstance(checks, dict) for checks in data.values()):
            raise UserError("it does not map models to checks.")
        return {m: {c: Reading.from_json(r) for c, r in checks.items()} for m, checks in data.items()}
    except UserError as error:
        reason = str(error).rstrip(".")
        raise UserError(f"{str(path)!r} is not a file of readings ({reason}); {ADVICE}.") from error


def _written(found: Any) -> dict[str, Any]:
    return {"failed": found.reason} if isinstance(found, Failed) else {"found": found}
