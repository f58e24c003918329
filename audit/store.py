"""Where an audit stores its finished readings and control edits."""

from __future__ import annotations

from pathlib import Path

from .._util.errors import UserError
from .._util.files import private_folder, read_json, write_json
from .._util.ledger import check_files, finishing
from ..knowledge import Case, Redactor
from ..model import Edit, Model
from ..verify import Reading


class Store:
    """In-memory store; `FolderStore` persists.

    `readings` are by model and check, `edits` by the name of the control, `seconds` by `CHECK on MODEL`.
    """

    def __init__(self) -> None:
        self.readings: dict[str, dict[str, Reading]] = {}
        self.edits: dict[str, Edit] = {}
        self.seconds: dict[str, float] = {}

    def keep(self, model: str, reading: Reading, *, seconds: float = 0.0) -> None:
        """Store a finished reading, and how long it took."""
        self.seconds[f"{reading.check} on {model}"] = seconds
        self.readings.setdefault(model, {})[reading.check] = reading

    def keep_edit(self, name: str, edit: Edit) -> None:
        """Store a finished control edit."""
        self.edits[name] = edit


class FolderStore(Store):
    """Readings in `readings.json` and control edits in `controls/NAME.safetensors`, each written when it is finished.

    With a redactor, the files have labels in the place of texts.

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
        super().keep(model, reading, seconds=seconds)
        self._begin()
        hide = self.redactor.hide_reading if self.redactor else dict
        data = {m: {c: hide(r.to_json()) for c, r in checks.items()} for m, checks in self.readings.items()}
        with finishing(self.folder, "readings.json") as path:
            write_json(path, data)

    def keep_edit(self, name: str, edit: Edit) -> None:
        """Store a finished control edit, and write its file."""
        super().keep_edit(name, edit)
        self._begin()
        hidden = self.redactor.hide_edit(edit) if self.redactor else edit
        with finishing(self.folder, f"controls/{name}.safetensors") as path:
            hidden.save(path)

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
    advice = "delete it and run `loka verify` again"
    data = read_json(path, advice)
    if redactor:
        data = redactor.show(data)
    try:
        if not isinstance(data, dict) or not all(isinstance(checks, dict) for checks in data.values()):
            raise UserError("it does not map models to checks.")
        return {m: {c: Reading.from_json(r) for c, r in checks.items()} for m, checks in data.items()}
    except UserError as error:
        reason = str(error).rstrip(".")
        raise UserError(f"{str(path)!r} is not a file of readings ({reason}); {advice}.") from error
