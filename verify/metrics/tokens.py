"""What a model's logits say about an answer, token by token.

Every function takes `scores`, logits `[row, position, vocabulary]`, and `labels` `[row, position]`: the token that
`scores` should predict at the same position, -100 where no token is scored. `loka.model.logits` and its batch have this
form. Hugging Face shifts them by one, so give `logits[:, :-1]` and `labels[:, 1:]`.

`convention="open-unlearning"` leaves out the last label of a row, because it takes it for the end of the sequence;
github.com/locuslab/open-unlearning does this for everything but the probability. Ours includes it, so an answer of one
token has a score.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...model import token_logprobs
from .conventions import OPEN_UNLEARNING, STATED, check_convention


def answer_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """The mean negative log-probability of a row's labels, `[row]`, in nats per token; NaN without labels."""
    return -token_logprobs(precise(scores), labels).sum(-1) / (labels >= 0).sum(-1)


def probability(scores: Tensor, labels: Tensor) -> Tensor:
    """The probability of each answer to the power of one over its length, `[row]`, from 0 to 1.

    Maini et al. 2024, TOFU, arXiv:2401.06121, section 2.2.
    """
    return (-answer_loss(scores, labels)).exp()


def answer_logprobs(scores: Tensor, labels: Tensor, *, convention: str = STATED) -> list[Tensor]:
    """The log-probability of each label in nats: one tensor `[token]` for each row.

    Raises:
        UserError: a convention that is neither `stated` nor `open-unlearning`.
    """
    logp = token_logprobs(precise(scores), labels)
    return [row[counted] for row, counted in zip(logp, scored(labels, convention=convention), strict=True)]


def exact_memorization(scores: Tensor, labels: Tensor, *, convention: str = STATED) -> Tensor:
    """The share of a row's labels that are the most likely token after the true ones before them, `[row]`, 0 to 1.

    NaN for a row without labels to score, which averages leave out, or with scores that are NaN. Tirumala et al. 2022,
    arXiv:2205.10770.

    Raises:
        UserError: a convention that is neither `stated` nor `open-unlearning`.
    """
    counted = scored(labels, convention=convention)
    right = counted & (scores.argmax(-1) == labels)
    return _of_numbers(right.sum(-1) / counted.sum(-1), scores, counted)


def extraction_strength(scores: Tensor, labels: Tensor, *, convention: str = STATED) -> Tensor:
    """The share of an answer, from its end, that follows greedily from the part before it, `[row]`, 0 to 1.

    `1 - k / T`, where k is the length of the shortest prefix after which all T - k remaining labels are the most likely
    tokens. With a wrong last label it is 0; without labels, or with scores that are NaN, it is NaN.
    Carlini et al. 2021, arXiv:2012.07805; in this form Wang et al. 2025, arXiv:2406.09179.

    `convention="open-unlearning"` leaves out the last label; the value is then never below `1 / T`, and 0, which enters
    averages, if no label is left.

    Raises:
        UserError: a convention that is neither `stated` nor `open-unlearning`.
    """
    counted = scored(labels, convention=convention)
    wrong = counted & (scores.argmax(-1) != labels)
    suffix = (counted & (_from_here_on(wrong) == 0)).sum(-1)
    total = counted.sum(-1)
    if convention == OPEN_UNLEARNING:
        return _of_numbers(suffix.clamp(min=1).minimum(total) / total.clamp(min=1), scores, counted)
    return _of_numbers(suffix / total, scores, counted)


def scored(labels: Tensor, *, convention: str = STATED) -> Tensor:
    """A mask of the labels that count, `[row, position]`.

    Raises:
        UserError: a convention that is neither `stated` nor `open-unlearning`.
    """
    check_convention(convention, OPEN_UNLEARNING)
    asked = labels >= 0
    return asked & (_from_here_on(asked) > 1) if convention == OPEN_UNLEARNING else asked


def _of_numbers(found: Tensor, scores: Tensor, counted: Tensor) -> Tensor:
    """What was found for each row, NaN if one of its scores is: the likeliest of such scores means nothing."""
    return found.masked_fill((scores.isnan().any(-1) & counted).any(-1), float("nan"))


def _from_here_on(mask: Tensor) -> Tensor:
    """How many are true at a position or after it."""
    return mask.flip(-1).cumsum(-1).flip(-1)


def precise(scores: Tensor) -> Tensor:
    """Half-precision logits in single precision, others unchanged."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))
