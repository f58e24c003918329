"""The base class of the objectives, and the batch that they are called on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from ...knowledge import Case, Item
from ...model import Slice, logits
from ...model.train.distill import TeacherOutputs

if TYPE_CHECKING:
    from ...model import Model


@dataclass(frozen=True)
class ForgetBatch:
    """A batch of forget facts for the model that is being trained.

    `memory`: the original's outputs there. The forward pass runs when its result is first used.
    """

    model: Model
    memory: TeacherOutputs

    @property
    def labels(self) -> Tensor:
        """`[row, keep]`, the answers' tokens; -100 marks positions that are not scored."""
        return self.memory.batch.labels

    @cached_property
    def logits(self) -> Tensor:
        """`[row, keep, vocabulary]`, aligned with `labels`, on the graph."""
        return logits(self.model, self.memory.batch)

    @cached_property
    def scores(self) -> Tensor:
        """`[n, vocabulary]`, the logits at the `n` labels."""
        return self.logits[self.labels >= 0]


class Objective(BaseModel):
    """A forget term with its paper's hyper-parameters as fields. Called on a batch it gives the loss, a scalar.

    `whole`: whether each token of an answer is a label; else only those that depend on the subject
    (`batches.decisive`).
    """

    whole: ClassVar[bool] = False
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    def on(self, model: Model, where: Sequence[Slice]) -> Objective:
        """This objective, fitted to the slices that will be trained. Raises `UserError` if it does not fit them."""
        return self

    def alternatives(self) -> tuple[str, ...]:
        """The answers to give in place of the right ones, for objectives that prefer others."""
        return ()

    def prepare_targets(
        self, model: Model, case: Case, turns: Sequence[Sequence[Item]], memories: Sequence[TeacherOutputs]
    ) -> list[TeacherOutputs]:
        """The forget batches, with the targets that this objective takes from the original.

        `turns`: the facts of each batch, with the batch's prompts.
        """
        return list(memories)

    def retarget(self, model: Model, memories: Sequence[TeacherOutputs]) -> list[TeacherOutputs]:
        """The prepared batches for a training that starts from an edit, which is in place on the model."""
        return list(memories)

    def cache_key(self) -> str | None:
        """Everything that the targets depend on, as a cache key; `None` if `prepare_targets` adds nothing."""
        if type(self).prepare_targets is Objective.prepare_targets:
            return None
        return f"{type(self).__name__} {self.model_dump_json()}"

    def __call__(self, asked: ForgetBatch) -> Tensor:
        raise NotImplementedError
