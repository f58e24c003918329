"""What a run folder holds, read once; a stage that has not run yet leaves its place empty."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .._util.errors import UserError
from ..locate import Localization
from ..model import Edit, EditRecord
from ..verify import Reading, at_common_budget, compare
from ..verify.judge.statistics import Recovery

CHECKS = (
    "recall", "paraphrase", "extraction", "relearn", "relearn_lora", "relearn_sgd", "benign", "quantize",
    "direction_ablation", "soft_prompt", "probe", "logit_lens", "depth", "membership", "collateral",
)  # fmt: skip
Readings = dict[str, dict[str, Reading]]


@dataclass(frozen=True)
class RunFolder:
    """The files of a run.

    `readings` are by model (`before`, `after`, `shallow`, `random`) and check; `edit` is what the edit says
    about how it was made, `None` for a model that another tool made.
    """

    path: Path
    case: dict[str, Any]
    provenance: dict[str, Any]
    localization: Localization | None
    check: dict[str, Any] | None
    edit: EditRecord | None
    readings: Readings
    verdict: dict[str, Any] | None

    @classmethod
    def read(cls, path: Path) -> RunFolder:
        """Read all there is.

        Raises:
            UserError: neither a localization nor a verdict, or a file that cannot be read.
        """
        located, edited = path / "localization.parquet", path / "edit.safetensors"
        if not located.exists() and not (path / "verdict.json").exists():
            raise UserError(
                f"{str(path)!r} holds neither localization.parquet nor verdict.json, so there is nothing to report; "
                f"`loka run CASE --model M --out {path}` makes both."
            )
        return cls(
            path,
            _yaml(path / "case.yaml"),
            _json(path / "provenance.json") or {},
            Localization.load(located) if located.exists() else None,
            _json(path / "localization_check.json"),
            Edit.load(edited).record if edited.exists() else None,
            _readings(path / "readings.json"),
            _json(path / "verdict.json"),
        )

    @property
    def at_common_budget(self) -> Readings:
        """The readings with every attack that trains at the step at which the edited model was judged."""
        return at_common_budget(self.readings)

    @property
    def after(self) -> dict[str, Reading]:
        """The edited model's readings in the order of the page; the twins' are controls of `relearn`."""
        held = self.readings.get("after", {})
        return {c: held[c] for c in sorted(held, key=_place) if c != "relearn_twins"}

    @property
    def recoveries(self) -> dict[str, dict[str, Recovery]]:
        """r by check and model: the edited model's as the verdict has it, the controls' from the readings."""
        own = (self.verdict or {}).get("recoveries", {})
        frozen, seed = self.frozen, int(self.provenance.get("seed") or 0)
        out: dict[str, dict[str, Recovery]] = {}
        for check in sorted(own, key=_place):
            out[check] = {"after": Recovery(**own[check])}
            for model in ("random", "shallow"):
                if check in frozen.get(model, {}) and (r := compare(frozen, check, model=model, seed=seed)):
                    out[check][model] = r
        return out


def _place(check: str) -> int:
    return CHECKS.index(check) if check in CHECKS else len(CHECKS)


def _readings(path: Path) -> Readings:
    held = _json(path) or {}
    try:
        return {m: {c: Reading.from_json(r) for c, r in checks.items()} for m, checks in held.items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{str(path)!r} holds no readings ({error}); delete it and run `loka verify` again.") from error


def _json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except (OSError, ValueError) as error:
        raise UserError(f"{str(path)!r} cannot be read ({error}); delete it and run its stage again.") from error


def _yaml(path: Path) -> dict[str, Any]:
    try:
        return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.exists() else {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{str(path)!r} cannot be read ({error}); put the case file back.") from error
