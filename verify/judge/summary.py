"""The flat numbers of `verdict.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import cast

from pydantic import JsonValue

from ..._util.errors import UserError


@dataclass(frozen=True)
class Summary:
    """The flat numbers of `verdict.json`; `None` stands for what was not measured.

    Shares are from 0 to 1, on sealed prompts and on items that the original knew. A name says whose number it is:
    `before` and `after` the edit, `random` (the same method on random sites), `shallow` (the shallow sibling), `twins`,
    `original`, `target` (the edited model). `relearn_*` are probabilities of held-out answers, and `*_r` that same
    number on the scale of r: 0 as if never taught, 1 intact.
    """

    forget_before: float | None = None
    forget_after: float | None = None
    retain_same_before: float | None = None
    retain_same_after: float | None = None
    retain_other_before: float | None = None
    retain_other_after: float | None = None
    perplexity_before: float | None = None
    perplexity_after: float | None = None
    shallow_forget_after: float | None = None
    random_forget_after: float | None = None
    random_retain_same_after: float | None = None
    random_retain_other_after: float | None = None
    random_perplexity_after: float | None = None
    relearn_target: float | None = None
    relearn_twins: float | None = None
    relearn_original: float | None = None
    relearn_shallow: float | None = None
    relearn_random: float | None = None
    relearn_r: float | None = None
    relearn_r_low: float | None = None
    relearn_r_high: float | None = None
    shallow_r: float | None = None
    random_relearn_r: float | None = None
    edited_parameters: int | None = None
    edited_share: float | None = None
    facts_known: int | None = None
    facts_total: int | None = None

    def to_json(self) -> dict[str, JsonValue]:
        """All numbers by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, JsonValue]) -> Summary:
        """Read what `to_json` wrote; a number that is missing was not measured.

        Raises:
            UserError: a name that the summary lacks.
        """
        names = [f.name for f in fields(cls)]
        if unknown := [name for name in data if name not in names]:
            raise UserError(f"{unknown[0]!r} is not a number of the summary; it holds {', '.join(names)}.")
        return cls(**cast(dict, data))
