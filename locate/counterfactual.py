"""Counterfactual pairs: a prompt and the same prompt about another subject."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .._util.errors import UserError
from ..knowledge import Case, Fact
from ..model import Batch, Model, encode


@dataclass(frozen=True)
class Pairs:
    """Prompts and their counterfactuals, row by row.

    Rows of `clean` and `corrupted` end in the same answer and are aligned from the right.

    Attributes:
        facts: the fact of each row.
        clean: the prompts with their answers.
        corrupted: the same about another subject of the relation.
        foils: int64 `[row, foil, 2]`: the label position at which a foil departs from the answer, and its token there;
            -1 where a row has fewer foils.
    """

    facts: tuple[Fact, ...]
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

    def reversed(self) -> Pairs:
        """The same pairs with `clean` and `corrupted` exchanged."""
        return replace(self, clean=self.corrupted, corrupted=self.clean)


def pairs(model: Model, case: Case, facts: Sequence[Fact], *, others: Sequence[str] | None = None) -> Pairs:
    """Pair each fact's prompt with the same prompt about another subject.

    Args:
        others: the other subjects; by default drawn by the case's seed.

    Raises:
        UserError: a relation without another subject, or an answer among its own foils.
    """
    for fact in facts:
        if same := set(fact.answers) & set(fact.foils):
            raise UserError(
                f"the answer {same.pop()!r} of {fact.prompt!r} is one of its foils, so its log-odds say nothing; "
                "give foils that are wrong."
            )
    others = others or [_counterpart(case, fact) for fact in facts]
    prompts = [f.prompt for f in facts]
    swapped = [f.prompt.replace(f.subject, other) for f, other in zip(facts, others, strict=True)]
    both = encode(model, [*prompts, *swapped], [f.answer for f in facts] * 2)
    n = len(facts)
    clean, corrupted = (
        Batch(both.ids[part], both.mask[part], both.positions[part], both.labels[part])
        for part in (slice(0, n), slice(n, 2 * n))
    )
    return Pairs(tuple(facts), clean, corrupted, _foils(model, facts, clean))


def log_odds(logits: Tensor, pairs: Pairs) -> Tensor:
    """The log-probability of each whole answer minus the mean over its foils, `[row]`.

    A foil is scored up to the token at which it departs from the answer. The answer's own row already has these
    logits, so foils cost no forward pass.
    """
    logp = logits.log_softmax(-1)
    labels = pairs.clean.labels
    per_token = logp.gather(-1, labels.clamp(min=0)[..., None])[..., 0] * (labels >= 0)
    answer = per_token.sum(-1)
    if pairs.foils.shape[1] == 0:
        return answer
    at, token = pairs.foils[..., 0], pairs.foils[..., 1]
    real = token >= 0
    shared = torch.cat([torch.zeros_like(per_token[:, :1]), per_token.cumsum(-1)[:, :-1]], -1)
    rows = torch.arange(len(labels), device=logits.device)[:, None]
    foil = shared.gather(-1, at.clamp(min=0)) + logp[rows, at.clamp(min=0), token.clamp(min=0)]
    mean = (foil * real).sum(-1) / real.sum(-1).clamp(min=1)
    return answer - mean


def _counterpart(case: Case, fact: Fact) -> str:
    right = set(fact.answers)
    others = [s for s, a in case.spec.relations[fact.relation].facts.items() if s != fact.subject and a[0] not in right]
    if not others:
        raise UserError(
            f"the relation {fact.relation!r} has no other subject to put in place of {fact.subject!r}; add facts to it."
        )
    rng = random.Random(f"{case.seed}/counterpart/{fact.relation}/{fact.subject}")
    return rng.choice(sorted(others))


def _foils(model: Model, facts: Sequence[Fact], clean: Batch) -> Tensor:
    width = max((len(f.foils) for f in facts), default=0)
    out = torch.full((len(facts), width, 2), -1)
    for row, fact in enumerate(facts):
        if not fact.foils:
            continue
        wrong = encode(model, [fact.prompt] * len(fact.foils), fact.foils)
        right = [t for t in clean.labels[row].tolist() if t >= 0]
        start = clean.keep - len(right)
        for i, labels in enumerate(wrong.labels.tolist()):
            foil = [t for t in labels if t >= 0]
            departure = next((k for k, (a, b) in enumerate(zip(right, foil, strict=False)) if a != b), None)
            if departure is not None:
                out[row, i] = torch.tensor([start + departure, foil[departure]])
    return out.to(model.device)
