"""The configuration of trained edits."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Self

from pydantic import JsonValue

from ..._util.errors import UserError
from ..._util.records import check_types, read_record
from ...knowledge import Bounds
from ..objectives import objective as build_objective
from .relearning import SimulatedRelearning


@dataclass(frozen=True)
class TrainingConfig:
    """The configuration of every trained edit: the loss, the schedule, the retain terms and the precision.

    Args:
        objective: a name of `loka.ablate.objectives.OBJECTIVES`. The losses are the functions of those names there
            (`dpo` for `idk`), with their sources. `None` trains on the retain terms alone.
        settings: the objective's own hyper-parameters, such as `{"beta": 0.1}` for `npo`. A setting left out has the
            paper's value.
        steps: the number of AdamW steps.
        lr: the learning rate. It rises over `warm_up` steps and falls along a cosine to zero.
        retain_weight, neutral_weight: weights of the divergence from the original on retain facts and on neutral text,
            each in nats per token.
        push_weight: weight of `objectives.excess`, which is added to the objective. A distillation hardly moves an
            answer that has become rare but is still far likelier than others of its kind; the push does, and ends at
            chance.
        retain_rows, neutral_rows: retain facts and neutral passages per step.
        mixup_rows: the number of hidden-state mixups of two retained subjects to distil on as well (`training.mixup`).
        precondition: damping of the preconditioner, such as 0.1: steps are taken in coordinates in which the inputs of
            a map are white (`training.preconditioner`). `None` turns it off.
        warm_up: steps over which the learning rate rises.
        simulated_relearning: how relearning is simulated inside the training; `None` turns it off.
        every: the number of steps between two measurements; 0 measures nothing. Otherwise a quarter of the retain facts
            and of the neutral text is held out of the training and measured, and the edit holds the state that was
            nearest to the bounds. The training ends early when the measurements are within the bounds, when it
            diverges, or when the collateral is far outside the bounds (recall and perplexity together 1 worse) and has
            not improved at two measurements in a row. The last two cases warn. `edit.record.training` records the
            outcome.
        bounds: the collateral damage that the edit may cause; by default that of `Bounds`.
        checkpointing: run each block again in the backward pass instead of storing its activations. This takes about a
            third more time, and fits larger models.
        bfloat16: round the factors of every product to bfloat16; weights, sums and steps stay exact. Faster on CPUs
            with bfloat16 support; other CPUs do not round. On other devices, and with `checkpointing`, this is
            torch's autocast.
        seed: draws the order of the batches and the mixups.

    Raises:
        UserError: a value that no training can use.
    """

    objective: str | None = "undial"
    settings: Mapping[str, JsonValue] = field(default_factory=dict)
    steps: int = 40
    lr: float = 1e-3
    retain_weight: float = 1.0
    neutral_weight: float = 1.0
    push_weight: float = 0.0
    retain_rows: int = 12
    neutral_rows: int = 4
    mixup_rows: int = 0
    precondition: float | None = None
    warm_up: int = 5
    simulated_relearning: SimulatedRelearning | None = None
    every: int = 0
    bounds: Bounds | None = None
    checkpointing: bool = False
    bfloat16: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self, "a training config")
        _check_objective(self)
        for name in ("steps", "lr", "retain_weight", "neutral_weight", "push_weight", "mixup_rows", "warm_up"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name}={getattr(self, name)} is not allowed; give 0 or more.")
        for name in ("retain_rows", "neutral_rows"):
            if not getattr(self, name) >= 1:
                raise UserError(f"{name}={getattr(self, name)} is not allowed; give 1 or more rows per batch.")
        if self.precondition is not None and not 0 < self.precondition < math.inf:
            raise UserError(
                f"precondition={self.precondition} is not a damping; give a number above 0, such as 0.1, or None."
            )
        if self.every < 0 or (self.bounds and not self.every):
            raise UserError(
                f"every={self.every} measures nothing to compare with bounds; give a number of steps, such as 10."
            )

    def rate(self, step: int) -> float:
        """The learning rate of a step; steps count from 0."""
        warmth = min(1.0, (step + 1) / max(self.warm_up, 1))
        return self.lr * warmth * 0.5 * (1 + math.cos(math.pi * step / self.steps))

    def restrict(self, method: str, taken: Collection[str], default: TrainingConfig) -> TrainingConfig:
        """This configuration for a method that takes some of its fields; the others become the method's own.

        Raises:
            UserError: another field was set.
        """
        others = [f.name for f in fields(self) if f.name not in taken]
        plain = TrainingConfig()
        for name in others:
            if getattr(self, name) not in (getattr(plain, name), getattr(default, name)):
                raise UserError(f"{method} does not use {name}; leave it out. It uses {', '.join(sorted(taken))}.")
        return replace(self, **{name: getattr(default, name) for name in others})

    def to_json(self) -> dict[str, JsonValue]:
        """All fields, as `from_json` reads them."""
        return json.loads(json.dumps(asdict(self)))  # turns tuples in settings into lists

    @classmethod
    def from_json(cls, values: object, default: Self | None = None) -> Self:
        """A configuration from JSON values; fields that are left out are those of `default`.

        Raises:
            UserError: an unknown field, a value of another type, or one that no training can use.
        """
        base = default.to_json() if default else {}
        return read_record(cls, {**base, **values} if isinstance(values, Mapping) else values, "a training config")


def _check_objective(config: TrainingConfig) -> None:
    if not isinstance(config.settings, Mapping):
        raise UserError(f"settings={config.settings!r} must map names to values, such as {{'beta': 0.1}}.")
    if config.objective is not None:
        build_objective(config.objective, config.settings)
    elif config.settings:
        raise UserError(
            f"without an objective, settings {dict(config.settings)} have no effect; name an objective, or leave them "
            "out."
        )
