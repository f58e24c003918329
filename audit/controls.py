"""The positive control of every attack: an edit that shows no more than the audited one, and only hides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .. import ablate, verify
from ..knowledge import Case
from ..model import Edit, Model, Site

LAYERS = 2
# the next where the one before hides too little: small models need more than SmolLM2, which the first silences
TRIES: tuple[dict[str, float], ...] = (
    {"steps": 15, "lr": 3e-4},
    {"steps": 30, "lr": 1e-3},
    {"steps": 60, "lr": 1e-3, "push_weight": 0.25},
    {"steps": 60, "lr": 3e-3, "push_weight": 0.25},
)
MATCH = 0.05
HALVINGS = 4
ROWS = {"retain_rows": 12, "neutral_rows": 2}


def shallow_sibling(
    model: Model,
    case: Case,
    *,
    shown: float,
    objective: str = "npo",
    settings: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Edit:
    """An edit of the last two layers by which the model answers as few forget facts as one that shows `shown` of them.

    It is trained like an edit of ours and then weakened to the least strength at which it still shows no more than
    0.05 above `shown`. All that lies before those layers is as it was, so what it hides is known to be there, and an
    attack that doesn't bring it back cannot testify that something is gone. Training beyond silence would make it hide
    more than what it is compared with: of SmolLM2's 18 capitals relearning in three folds brings back 0.36 after 30
    steps of training, 0.50 at 0.65 of their strength, and 0.57 at 0.6 of the strength of 15 steps. Where even the
    hardest training hides too little, that edit is returned: what it shows is the audit's `shallow_forget_after`.

    Args:
        shown: the share of the forget facts that the audited model answers behind sealed prompts.
        objective, settings: those of the audited edit, so that the attack is tried on what hides in the same way. What
            `undial` hides is hard to bring back even from the last layers; of a model from elsewhere, `npo`.

    Cost: 15 training steps, up to 150 more where these hide too little; the sealed forget prompts five to eight times.
    """
    last = range(model.n_layers - LAYERS, model.n_layers)
    sites = [Site(layer, part) for layer in last for part in ("attn", "mlp")]

    def hides(edit: Edit) -> bool:
        with edit.applied(model):
            return float(np.mean(list(verify.by_subject(model, case.forget.sealed).values()))) <= shown + MATCH

    edit = None
    for how in TRIES:
        config = ablate.TrainingConfig(
            objective, settings or {}, bfloat16=True, **ROWS | how,  # type: ignore[arg-type]
        )  # fmt: skip
        edit = ablate.tune(model, case, sites, config, progress=progress)
        if hides(edit):
            return weakest(model, edit, hides, HALVINGS)
    assert edit is not None
    return edit


def weakest(model: Model, edit: Edit, holds: Callable[[Edit], bool], halvings: int) -> Edit:
    """The edit gone the least share of the way at which something `holds` of it that holds at its end, by halving."""
    low, high = 0.0, 1.0
    for _ in range(halvings):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(edit.scaled(model, middle)) else (middle, high)
    return edit.scaled(model, high)
