"""Task arithmetic: fine-tune on the facts to forget, then subtract the change."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from ..knowledge import Case, accepts_spec
from ..model import Edit, Site, capture, encode, scratch
from ..model.train.distill import record_outputs
from .common import Progress, edit_record, target_slices
from .objectives import ForgetBatch, Objective, likelihood
from .training.batches import Batches
from .training.config import TrainingConfig
from .training.loop import Callbacks, Task, train_slices

if TYPE_CHECKING:
    from ..model import Model

TASK_VECTOR = TrainingConfig(objective=None)
TAKEN = ("steps", "lr", "warm_up", "checkpointing", "bfloat16", "seed")


class _Learn(Objective):
    def __call__(self, asked: ForgetBatch) -> Tensor:
        return likelihood(asked.logits, asked.labels)


@accepts_spec
def task_vector(
    model: Model,
    case: Case,
    sites: Iterable[Site] | None,
    config: TrainingConfig = TASK_VECTOR,
    *,
    scale: float = 1.0,
    progress: Progress | None = None,
) -> Edit:
    """Negate the task vector of the forget facts: Ilharco et al. 2023, arXiv:2212.04089.

    The slices are fine-tuned on the forget facts' answers to their working prompts. Then `scale` times the change is
    subtracted from the original weights.

    Args:
        sites: the sites that may change; `None` means every weight of every block.
        config: the steps and learning rate of the fine-tuning, which has no forget objective and no retain term.
        scale: the factor of the change that is subtracted.
        progress: see `tune`.

    Cost: `config.steps` forward and backward passes over one row per forget fact.

    Raises:
        UserError: no sites, or a field of the configuration that this method does not use.
        LokaError: training diverged.
    """
    config = config.restrict("task_vector", TAKEN, TASK_VECTOR)
    sites = None if sites is None else list(sites)
    where = target_slices(model, sites)
    record = edit_record("task_vector", model, case, sites, {"scale": scale, "config": config.to_json()})
    before, digest = [part.read(model.parameters[part.name]).cpu() for part in where], model.digest()
    with scratch(model, where):
        train_slices(model, where, Task(_batches(model, case), _Learn()), config, Callbacks(progress))
        learned = capture(model, where, digest, record)
    values = tuple(b - scale * (a - b) for b, a in zip(before, learned.values, strict=True))
    return replace(learned, values=values)


def _batches(model: Model, case: Case) -> Batches:
    """The forget facts with their answers; each fact cycles through its working prompts."""
    facts = case.forget.working
    turns = [[f.prompts[i % len(f.prompts)] for f in facts] for i in range(max(len(f.prompts) for f in facts))]
    return Batches(
        [record_outputs(model, encode(model, prompts, [f.answer for f in facts])) for prompts in turns], [], []
    )
