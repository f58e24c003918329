"""The table of locators. A new locator is one file and one row here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._util.errors import UserError
from ..knowledge import Case
from ..model import INDEXED, Model, Part, Runner, SweepBudget, in_turn
from ..model.run.interventions import Kind
from .atp_star import atp_star, atp_star_scores
from .attribution import PARTS, RECORDED, attribution, attribution_scores
from .contrast import Progress, Scores
from .counterfactual import Pairs
from .direct_logit import WRITERS, direct_logit, direct_logit_scores
from .exact import sweep
from .integrated_gradients import integrated_gradients, integrated_gradients_scores
from .knowledge_neurons import answer_probability_scores, knowledge_neurons
from .localization import Localization
from .taylor import taylor, taylor_scores


@dataclass(frozen=True)
class Locator:
    """A way to locate knowledge.

    Attributes:
        name: what users call it.
        run: called as `run(model, case, parts=..., progress=...)`.
        parts: the parts that it can score.
        default_parts: the parts that it scores when the user names none.
        scores: raw scores of prompt pairs, called as `scores(model, pairs, parts)`; None if it does not score pairs.
        estimates: the kind of intervention whose effect on the log-odds `scores` estimate, so that `agreement` can
            check them; `None` if they estimate something else.
        needs_gradients: whether it runs backward passes.
        divides: whether `run` takes a `runner` that spreads its jobs, and a `budget` with a checkpoint.
    """

    name: str
    run: Callable[..., Localization]
    parts: tuple[Part, ...]
    default_parts: tuple[Part, ...] = PARTS
    scores: Callable[..., tuple[Scores, np.ndarray]] | None = None
    estimates: Kind | None = None
    needs_gradients: bool = True
    divides: bool = False


def _knowledge_neurons(
    model: Model, case: Case, *, parts: Sequence[Part], progress: Progress | None = None
) -> Localization:
    return knowledge_neurons(model, case, progress=progress)


def _answer_probability_scores(model: Model, pairs: Pairs, parts: Sequence[Part] = ()) -> tuple[Scores, np.ndarray]:
    return answer_probability_scores(model, pairs)


def _sweep(model: Model, case: Case, *, parts: Sequence[Part], **options: Any) -> Localization:
    (part,) = parts
    return sweep(model, case, part=part, **options)


_ROWS = (
    Locator("attribution", attribution, RECORDED, scores=attribution_scores, estimates="patch"),
    Locator(
        "integrated_gradients",
        integrated_gradients,
        RECORDED,
        scores=integrated_gradients_scores,
        estimates="patch",
    ),
    Locator("atp_star", atp_star, (*PARTS, "kv"), (*PARTS, "kv"), scores=atp_star_scores),
    Locator("direct_logit", direct_logit, WRITERS, scores=direct_logit_scores),
    Locator("knowledge_neurons", _knowledge_neurons, ("neuron",), ("neuron",), scores=_answer_probability_scores),
    Locator("taylor", taylor, RECORDED, scores=taylor_scores, estimates="zero"),
    Locator("sweep", _sweep, INDEXED, ("head",), needs_gradients=False, divides=True),
)
METHODS: dict[str, Locator] = {row.name: row for row in _ROWS}


def locator(name: str) -> Locator:
    """The row of the table with that name.

    Raises:
        UserError: no such locator.
    """
    if name not in METHODS:
        raise UserError(f"{name!r} is not a locator; choose one of {', '.join(METHODS)}.")
    return METHODS[name]


def estimates() -> tuple[str, ...]:
    """The names of the locators whose scores estimate the effect of an intervention, so that it can be checked."""
    return tuple(name for name, row in METHODS.items() if row.estimates)


def perform(
    name: str,
    model: Model,
    case: Case,
    *,
    part: Part | None = None,
    progress: Progress | None = None,
    runner: Runner = in_turn,
    checkpoint: Path | None = None,
) -> Localization:
    """Locate by the locator of that name.

    Args:
        part: score this part only; by default the locator's own choice.
        progress: called with the number of steps done and the number of all steps.
        runner, checkpoint: who does the jobs, and a file from which a second call resumes; for locators that divide.

    Raises:
        UserError: no such locator, or a part that it cannot score.

    Example:
        found = loka.locate.perform("integrated_gradients", model, loka.case("capitals"), part="head")
    """
    row = locator(name)
    if part is not None and part not in row.parts:
        raise UserError(f"{name} cannot score {part!r}; choose one of {', '.join(row.parts)}, or another locator.")
    options = {"runner": runner, "budget": SweepBudget(checkpoint=checkpoint)} if row.divides else {}
    return row.run(model, case, parts=row.default_parts if part is None else (part,), progress=progress, **options)
