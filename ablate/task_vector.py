"""Task arithmetic: learn the facts to forget, then go the other way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from ..knowledge import Case
from ..model import Edit, Site, capture, encode, scratch
from ..model.train.distill import record_outputs
from .objectives import ForgetBatch, Objective, likelihood
from .training.batches import Batches
from .training.loop import Progress, Schedule, descend
from .tune import chosen, described

if TYPE_CHECKING:
    from ..model import Model


class _Learn(Objective):
    def __call__(self, asked: ForgetBatch) -> Tensor:
        return likelihood(asked.logits, asked.labels)


def task_vector(
    model: Model,
    case: Case,
    sites: Iterable[Site] | None,
    *,
    scale: float = 1.0,
    steps: int = 40,
    lr: float = 1e-3,
    seed: int = 0,
    progress: Progress | None = None,
) -> Edit:
    """Negate the task vector of the forget facts: Ilharco et al. 2023, arXiv:2212.04089.

    The slices are fine-tuned on the forget facts' answers behind their working prompts; `scale` times what that
    changed is taken off the original weights.

    Args:
        sites: what may change; `None` is every weight of every block.
        scale: how far to go the other way.

    Cost: `steps` forward and backward passes over one row a forget fact.

    Raises:
        UserError: no sites.
        LokaError: training diverged.
    """
    case, where = case.on(model), chosen(model, sites)
    about = described("task_vector", model, case, sites, {"scale": scale, "steps": steps, "lr": lr, "seed": seed})
    before, digest = [part.read(model.parameters[part.name]).cpu() for part in where], model.digest()
    with scratch(model, where):
        descend(model, where, _lessons(model, case), _Learn(), Schedule(steps, lr), seed=seed, progress=progress)
        learned = capture(model, where, digest, about)
    values = tuple(b - scale * (a - b) for b, a in zip(before, learned.values, strict=True))
    return replace(learned, values=values)


def _lessons(model: Model, case: Case) -> Batches:
    """The forget facts with their answers, a working prompt of each in turn."""
    facts = case.forget.working
    turns = [[f.prompts[i % len(f.prompts)] for f in facts] for i in range(max(len(f.prompts) for f in facts))]
    return Batches(
        [record_outputs(model, encode(model, prompts, [f.answer for f in facts])) for prompts in turns], [], []
    )
