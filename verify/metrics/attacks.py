"""Membership inference: how familiar a text looks to a model.

Every score here is higher for text that looks more like training data. The benchmarks' scores are losses, lower for
members; `convention="open-unlearning"`, `"muse"` or `"mimir"` gives theirs, with their signs and edge cases:

| | sign | very short texts (less than one token in the share) | spread in min-k++ |
|---|---|---|---|
| stated | higher = member | the lowest token | as it is, but never 0 |
| open-unlearning | lower = member | the lowest token; 0 where none is left | variance at least 1e-6 |
| muse, mimir | lower = member | NaN | as it is |

OpenUnlearning also leaves the last token out of min-k and min-k++, because it takes it for the end of the sequence.

`logp` is always the log-probability of a text's tokens in nats, `[token]`.

Loss: Yeom et al. 2018, arXiv:1709.01604. Reference, zlib and lower case: Carlini et al. 2021, arXiv:2012.07805.
Min-K%: Shi et al. 2024, arXiv:2310.16789. Min-K%++: Zhang et al. 2024, arXiv:2404.02936.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
from sklearn.metrics import roc_auc_score
from torch import Tensor

from ..._util.errors import UserError
from .conventions import MIMIR, MUSE, OPEN_UNLEARNING, STATED, check_convention

SHARE = 0.2
PEERS = (OPEN_UNLEARNING, MUSE, MIMIR)
LEAST_VARIANCE = {STATED: 1e-12, OPEN_UNLEARNING: 1e-6}


def loss_score(logp: Tensor, *, convention: str = STATED) -> float:
    """The mean log-probability of a token, in nats."""
    return _signed(float(logp.mean()), convention)


def zlib_score(logp: Tensor, text: str, *, convention: str = STATED) -> float:
    """The mean log-probability of a token, divided by the length of the compressed text, in nats per byte."""
    return _signed(float(logp.mean()) / len(zlib.compress(text.encode())), convention)


def reference_score(logp: Tensor, reference: Tensor, *, convention: str = STATED) -> float:
    """The mean log-probability of a token, minus that under another model; `reference` is `[token]` as well."""
    return _signed(float(logp.mean() - reference.mean()), convention)


def lowercase_score(logp: Tensor, lower: Tensor, *, convention: str = STATED) -> float:
    """Minus the ratio of the text's loss to the loss of the text in lower case; `lower` is `[lower-case token]`."""
    return _signed(-float(logp.mean() / lower.mean()), convention)


def min_k_score(
    logp: Tensor, *, share: float = SHARE, window: int = 1, stride: int = 1, convention: str = STATED
) -> float:
    """The mean log-probability of the least likely tokens, in nats.

    Args:
        logp: `[token]`.
        share: the share of tokens to average, rounded down, but at least one token.
        window, stride: average windows of `window` tokens, `stride` apart, instead of single tokens. The score of a
            text shorter than a window is NaN.
        convention: decides the edge cases, as in the table above.

    Raises:
        UserError: an unknown convention, or a share, window or stride that is not positive.
    """
    return _signed(_lowest(logp, share, window, stride, convention), convention)


def min_k_plus_plus_score(
    logp: Tensor, all_logp: Tensor, *, share: float = SHARE, window: int = 1, stride: int = 1, convention: str = STATED
) -> float:
    """`min_k_score` of standardised tokens: `(logp - mean) / spread`, with both under the model's own distribution.

    Args:
        logp: `[token]`.
        all_logp: log-probabilities of the whole vocabulary at the same positions, `[token, vocabulary]`.
        share, window, stride, convention: as in `min_k_score`.

    Raises:
        UserError: as in `min_k_score`.
    """
    p = all_logp.exp()
    mean = (p * all_logp).sum(-1)
    variance = ((p * all_logp.square()).sum(-1) - mean.square()).clamp(min=LEAST_VARIANCE.get(convention, -math.inf))
    standard = (logp - mean) / variance.sqrt()
    return _signed(_lowest(standard, share, window, stride, convention), convention)


def attack_auc(members: Sequence[float], others: Sequence[float], *, convention: str = STATED) -> float:
    """The share of pairs in which the member's score is the higher one; a tie counts half, so chance is 0.5.

    Args:
        members, others: scores `[text]` under the same convention.
        convention: the peers' scores are losses; this function reverses their sign. `muse` then gives one minus this
            AUC; `mimir` leaves out scores that are NaN.

    Raises:
        UserError: an unknown convention, a side without scores, or NaN among them.
    """
    sign = _signed(1.0, convention)
    a, b = (sign * np.asarray(side, dtype=float) for side in (members, others))
    if convention == MIMIR:
        a, b = a[~np.isnan(a)], b[~np.isnan(b)]
    if not (len(a) and len(b)) or np.isnan(np.concatenate([a, b])).any():
        raise UserError(
            f"An AUC needs scores on both sides and no NaN. There are {len(a)} and {len(b)} scores; "
            f"{int(np.isnan(a).sum())} and {int(np.isnan(b).sum())} of them are NaN. Leave out texts without a score."
        )
    auc = float(roc_auc_score([1] * len(a) + [0] * len(b), np.concatenate([a, b])))
    return 1 - auc if convention == MUSE else auc


def _signed(score: float, convention: str) -> float:
    check_convention(convention, *PEERS)
    return score if convention == STATED else -score


def _lowest(values: Tensor, share: float, window: int, stride: int, convention: str) -> float:
    if not (0 < share <= 1 and window > 0 and stride > 0):
        raise UserError(
            f"share is {share}, window {window} and stride {stride}; share must be in (0, 1], the others at least 1."
        )
    if convention == OPEN_UNLEARNING:
        values = values[:-1]
        if not len(values):
            return 0.0
    if len(values) < window:
        return float("nan")
    means = values.unfold(0, window, stride).mean(-1)
    least = 0 if convention in (MUSE, MIMIR) else 1
    return float(means.sort().values[: max(least, int(share * len(means)))].mean())
