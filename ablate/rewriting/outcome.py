"""What a rewrite did: the size of its change, and the facts that it wrote."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..._util.errors import LokaError
from ...knowledge import recalled
from ...knowledge.rivals import with_answer
from ...model import RewriteRecord
from .rewriting import Change

if TYPE_CHECKING:
    from ...model import Model


class MatrixChange:
    """The change of one matrix, held against the matrix itself.

    Args:
        name, weight: the matrix before the first change.
        limit: the largest norm of the change, as a multiple of the matrix's.
    """

    def __init__(self, name: str, weight: Tensor, limit: float) -> None:
        self.name, self.limit = name, limit
        self.before = weight.detach().clone()
        self.own = float(torch.linalg.vector_norm(self.before, dtype=torch.float64))

    def norm(self, weight: Tensor) -> float:
        """The Euclidean norm of the change up to now.

        Raises:
            LokaError: it is not a finite number, or above the limit.
        """
        norm = float(torch.linalg.vector_norm(weight.detach() - self.before, dtype=torch.float64))
        if not norm <= self.limit * self.own:
            raise LokaError(
                f"the change of {self.name} has the norm {norm:.3g}, more than {self.limit:g} times the matrix's own "
                f"{self.own:.3g}, and would write over what else it holds: the subjects' keys are too much alike, or "
                "too far from their mean over contexts. Use memit, fewer facts, fewer contexts or more neutral text, "
                "or allow more by RewriteConfig(largest_change=...). The model is as it was."
            )
        return norm


def rewrite_record(
    model: Model, wanted: Sequence[Change], changes: Sequence[MatrixChange], weights: Sequence[Tensor]
) -> RewriteRecord:
    """What the changes in place did. It warns if fewer facts were written than asked.

    Cost: a forward pass over the plain prompts.
    """
    written = sum(recalled(model, [with_answer(change.fact, change.answer) for change in wanted]))
    norms = {change.name: (change.norm(weight), change.own) for change, weight in zip(changes, weights, strict=True)}
    if written < len(wanted):
        sizes = ", ".join(f"{norm:.3g} in {name} of norm {own:.3g}" for name, (norm, own) in norms.items())
        warnings.warn(
            f"{written} of {len(wanted)} new answers are written: the edited model does not give the others to the "
            f"plain prompt. The change has the norm {sizes}. Try another layer, more steps or fewer facts.",
            stacklevel=4,
        )
    return RewriteRecord(len(wanted), written, norms)
