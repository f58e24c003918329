"""What an objective is handed, and what it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from ...knowledge import Case, Fact
from ...model import Slice, logits
from ...model.train.distill import TeacherOutputs

if TYPE_CHECKING:
    from ...model import Model


@dataclass(frozen=True)
class ForgetBatch:
    """A batch of forget facts put to the model that is being trained.

    `memory` is what the original said there. The forward pass is run when something first looks at its result.
    """

    model: Model
    memory: TeacherOutputs

    @property
    def labels(self) -> Tensor:
        """`[row, keep]`, the answers' tokens, -100 where nothing is asked."""
        return self.memory.batch.labels

    @cached_property
    def logits(self) -> Tensor:
        """`[row, keep, vocabulary]`, aligned with `labels`, on the graph."""
        return logits(self.model, self.memory.batch)

    @cached_property
    def scores(self) -> Tensor:
        """`[n, vocabulary]`, the logits where something is asked."""
        return self.logits[self.labels >= 0]


class Objective(BaseModel):
    """A forget term with its paper's hyper-parameters as fields; called on a batch it gives the loss, a scalar."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    def on(self, model: Model, where: Sequence[Slice]) -> Objective:
        """This objective, fitted to the slices that will be trained. Raises `UserError` where it cannot be."""
        return self

    def alternatives(self) -> tuple[str, ...]:
        """Answers to be given in place of the right ones, for objectives that prefer others."""
        return ()

    def prepare_targets(
        self, model: Model, case: Case, turns: Sequence[Sequence[Fact]], memories: Sequence[TeacherOutputs]
    ) -> list[TeacherOutputs]:
        """The forget batches, with what this objective wants to have remembered of the original beside.

        `turns`: the facts of each batch, behind the batch's prompts.
        """
        return list(memories)

    def begun(self, model: Model, memories: Sequence[TeacherOutputs]) -> list[TeacherOutputs]:
        """The furnished batches, as this objective wants them where training begins with an edit, which is applied."""
        return list(memories)

    def cache_key(self) -> str | None:
        """What `prepare_targets` hangs on, for lessons to be kept by; `None` where it adds nothing."""
        if type(self).prepare_targets is Objective.prepare_targets:
            return None
        return f"{type(self).__name__} {self.model_dump_json()}"

    def __call__(self, asked: ForgetBatch) -> Tensor:
        raise NotImplementedError
