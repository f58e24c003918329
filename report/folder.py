"""The contents of a run folder, read once. Parts that a later stage writes are empty until then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._util.errors import UserError
from .._util.files import read_json
from .._util.ledger import check_files
from .._util.yaml_text import read_yaml
from ..audit.controls import CONTROLS, Control, with_column
from ..audit.plan import check_names
from ..audit.store import read_readings
from ..audit.summary import Column, columns
from ..locate import Localization
from ..model import Edit, EditRecord
from ..verify import Reading, Summary, at_common_budget, compare
from ..verify.check import Check
from ..verify.checks import CHECKS, place
from ..verify.judge.statistics import Recovery
from .scores import TaskScore, task_scores
from .words import Words, words_of

Readings = dict[str, dict[str, Reading]]


@dataclass(frozen=True)
class RunFolder:
    """The files of a run.

    `readings` are by model (`before`, `after` and the controls) and check. `edit` says how the edit was made; it is
    `None` for a model that another tool made. `checks` and `controls` are the tables that the readings belong to.
    `tasks` are scores of lm-evaluation-harness.
    """

    path: Path
    case: dict[str, Any]
    provenance: dict[str, Any]
    localization: Localization | None
    check: dict[str, Any] | None
    edit: EditRecord | None
    readings: Readings
    verdict: dict[str, Any] | None
    checks: tuple[Check, ...] = CHECKS
    controls: tuple[Control, ...] = CONTROLS
    tasks: tuple[TaskScore, ...] = ()

    @classmethod
    def read(cls, path: Path, *, checks: Sequence[Check] = CHECKS, controls: Sequence[Control] = CONTROLS) -> RunFolder:
        """Read all files that are there.

        Raises:
            UserError: neither a localization nor a verdict, a file that cannot be read, or readings of a check or a
                control that the tables lack.
        """
        located, edited = path / "localization.parquet", path / "edit.safetensors"
        if not located.exists() and not (path / "verdict.json").exists():
            raise UserError(
                f"{str(path)!r} holds neither localization.parquet nor verdict.json, so there is nothing to report; "
                f"`loka run CASE --model M --out {path}` makes both."
            )
        check_files(path)
        stored = path / "readings.json"
        readings = read_readings(stored) if stored.exists() else {}
        check_names(readings, checks, controls, repr(str(stored)))
        return cls(
            path,
            _yaml(path / "case.yaml"),
            _json(path / "provenance.json") or {},
            Localization.load(located) if located.exists() else None,
            _json(path / "localization_check.json"),
            Edit.load(edited).record if edited.exists() else None,
            readings,
            _json(path / "verdict.json"),
            tuple(checks),
            with_column(controls, readings),
            tuple(task_scores(path)),
        )

    @property
    def at_common_budget(self) -> Readings:
        """The readings, with every attack that trains cut to the budget that the edited model faced."""
        return at_common_budget(self.readings)

    @property
    def after(self) -> dict[str, Reading]:
        """The edited model's readings, in the order of the table of checks."""
        found = self.readings.get("after", {})
        return {c: found[c] for c in sorted(found, key=self._place)}

    @property
    def recoveries(self) -> dict[str, dict[str, Recovery]]:
        """r by check and model: the edited model's from the verdict, the controls' from the readings."""
        edited = (self.verdict or {}).get("recoveries", {})
        readings, seed = self.at_common_budget, int(self.provenance.get("seed") or 0)
        out: dict[str, dict[str, Recovery]] = {}
        for check in sorted(edited, key=self._place):
            out[check] = {"after": Recovery(**edited[check])}
            for model in (c.name for c in self.controls):
                if check in readings.get(model, {}) and (r := compare(readings, check, model=model, seed=seed)):
                    out[check][model] = r
        return out

    @property
    def summary(self) -> Summary:
        """The flat numbers of the verdict; all `None` where there is no verdict yet."""
        return Summary.from_json((self.verdict or {}).get("summary", {}))

    @property
    def words(self) -> Words:
        """How to speak of the items."""
        return words_of(self.readings.get("after", {}))

    @property
    def columns(self) -> dict[str, Column]:
        """The numbers of original, edited model and controls, by model."""
        return columns(self.summary, self.at_common_budget, tuple(c.name for c in self.controls))

    def _place(self, check: str) -> int:
        return place(check, self.checks)


def _json(path: Path) -> dict[str, Any] | None:
    return read_json(path, "delete it and run its stage again") if path.exists() else None


def _yaml(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = read_yaml(path.read_text(encoding="utf-8"), "its text")
        if not isinstance(found, dict):
            raise UserError("it holds no mapping.")
        return found
    except (OSError, ValueError, UserError) as error:
        raise UserError(f"{str(path)!r} cannot be read ({str(error).rstrip('.')}); put the case file back.") from error
