"""Counterfactual pairs: a prompt, and one of the same form to which another answer is right."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from .._util.errors import UserError
from ..knowledge import Case, Item
from ..knowledge.kinds import kind_of
from ..model import Batch, Model, encode
from .counterpart import counterpart


@dataclass(frozen=True)
class Pairs:
    """Prompts and their counterfactuals, row by row.

    Rows of `clean` and `corrupted` end in the same answer and are aligned from the right.

    Attributes:
        facts: the item of each row.
        clean: the prompts with their answers.
        corrupted: the counterfactual prompts with the same answers.
        foils: int64 `[row, foil, 2]`: the label position at which a foil departs from the answer, and its token there;
            -1 where a row has fewer foils.
    """

    facts: tuple[Item, ...]
    clean: Batch
    corrupted: Batch
    foils: Tensor

    def repeated(self, row: int, times: int) -> Pairs:
        """One row repeated, without padding or other rows' label positions, for `log_odds` of several runs."""
        n_labels = int((self.clean.labels[row] >= 0).sum())
        foils = self.foils[row].clone()
        foils[:, 0] -= self.clean.keep - n_labels

        def rows(batch: Batch) -> Batch:
            real = batch.mask[row].bool()
            tokens = [t[row][real] for t in (batch.ids, batch.mask, batch.positions)]
            return Batch(*(t.expand(times, -1) for t in (*tokens, batch.labels[row, batch.keep - n_labels :])))

        return Pairs((self.facts[row],) * times, rows(self.clean), rows(self.corrupted), foils.expand(times, -1, -1))

    @cached_property
    def lengths(self) -> Tensor:
        """What each row's log-probability is divided by, `[row]`: the length of a long answer, or one."""
        n = (self.clean.labels >= 0).sum(-1)
        long = torch.tensor([kind_of(f).long for f in self.facts], device=n.device)
        return torch.where(long, n, 1)

    def reversed(self) -> Pairs:
        """The same pairs with `clean` and `corrupted` exchanged."""
        return replace(self, clean=self.corrupted, corrupted=self.clean)


def pairs(model: Model, case: Case, facts: Sequence[Item], *, others: Sequence[str] | None = None) -> Pairs:
    """Pair each item's prompt with a counterfactual one.

    That is the item's own counterfactual if it has one; or the same prompt about another subject of its relation; or,
    where no subject stands in the prompt, the prompt of another item of its kind. Where none of these has another
    answer, it is a prompt about something that the model was never taught, or else neutral text.

    Args:
        others: the other subjects; by default drawn by the case's seed.

    Raises:
        UserError: nothing to put in an item's place, or an answer among its own foils.
    """
    for fact in facts:
        if same := set(fact.answers) & set(fact.foils):
            raise UserError(
                f"the answer {same.pop()!r} of {fact.prompt!r} is one of its foils, so its log-odds say nothing; "
                "give foils that are wrong."
            )
    prompts = [f.prompt for f in facts]
    swapped = (
        [f.prompt.about(other) for f, other in zip(facts, others, strict=True)]
        if others
        else [counterpart(model, case, f) for f in facts]
    )
    both = encode(model, [*prompts, *swapped], [f.answer for f in facts] * 2)
    n = len(facts)
    clean, corrupted = (
        Batch(both.ids[part], both.mask[part], both.positions[part], both.labels[part])
        for part in (slice(0, n), slice(n, 2 * n))
    )
    return Pairs(tuple(facts), clean, corrupted, _foils(model, facts, clean))


def log_odds(logits: Tensor, pairs: Pairs) -> Tensor:
    """The log-probability of each whole answer minus the mean over its foils, `[row]`.

    Of kinds with long answers it is the mean over the answer's tokens, without foils. A foil is scored up to the token
    at which it departs from the answer. The answer's own row already has these logits, so foils cost no forward pass.
    """
    logp = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    labels = pairs.clean.labels
    per_token = logp.gather(-1, labels.clamp(min=0)[..., None])[..., 0] * (labels >= 0)
    answer = per_token.sum(-1) / pairs.lengths
    if pairs.foils.shape[1] == 0:
        return answer
    at, token = pairs.foils[..., 0], pairs.foils[..., 1]
    real = token >= 0
    shared = torch.cat([torch.zeros_like(per_token[:, :1]), per_token.cumsum(-1)[:, :-1]], -1)
    rows = torch.arange(len(labels), device=logits.device)[:, None]
    foil = shared.gather(-1, at.clamp(min=0)) + logp[rows, at.clamp(min=0), token.clamp(min=0)]
    mean = (foil * real).sum(-1) / real.sum(-1).clamp(min=1)
    return answer - mean


def _foils(model: Model, facts: Sequence[Item], clean: Batch) -> Tensor:
    compared = [() if kind_of(f).long else f.foils for f in facts]
    width = max(map(len, compared), default=0)
    out = torch.full((len(facts), width, 2), -1)
    alike: list[tuple[Item, str]] = []
    for row, fact in enumerate(facts):
        if not compared[row]:
            continue
        wrong = encode(model, [fact.prompt] * len(fact.foils), fact.foils)
        right = [t for t in clean.labels[row].tolist() if t >= 0]
        start = clean.keep - len(right)
        for i, labels in enumerate(wrong.labels.tolist()):
            foil = [t for t in labels if t >= 0]
            departure = next((k for k, (a, b) in enumerate(zip(right, foil, strict=False)) if a != b), None)
            if departure is not None:
                out[row, i] = torch.tensor([start + departure, foil[departure]])
            else:
                alike.append((fact, fact.foils[i]))
        if (out[row] < 0).all():
            raise UserError(
                f"each foil of {fact.answer!r} begins with it or is its beginning ({', '.join(fact.foils)}), so there "
                "is nothing to compare it with; give others."
            )
    if alike:
        warnings.warn(
            f"{len(alike)} foils are left out, because one of answer and foil begins the other, such as "
            f"{alike[0][1]!r} of {alike[0][0].answer!r}.",
            stacklevel=3,
        )
    return out.to(model.device)
