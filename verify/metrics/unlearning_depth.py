"""From which layer on is the knowledge missing? Activation patching between models.

The unlearning depth score of github.com/gnueaj/unlearning-depth-score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from ..._util.errors import UserError
from ...model import token_logprobs
from ...model.run.blocks import block_outputs, blocks, run_patched
from .conventions import STATED, UDS, check_convention
from .tokens import precise

THRESHOLD = 0.05


@dataclass(frozen=True)
class Question:
    """A text with its answer: `ids` `[position]`, without padding.

    `asked`: start and end of the positions whose *next* token is scored. `patched`: start and end of the positions
    whose states are replaced. Both are the positions that predict the answer, so they are usually the same.
    """

    ids: Tensor
    asked: tuple[int, int]
    patched: tuple[int, int]


@dataclass(frozen=True)
class Depth:
    """How deep an edit reaches for one question, 0 (surface) to 1 (as if never taught); NaN if no layer holds it.

    `full`: the mean log-probability of an answer token in the original, in nats. `never` and `edited`, `[layer]`: how
    far it falls when a layer's output comes from the model that never learned the answer, or from the edited model.
    `holding`: the layers where `never` exceeds the threshold. `missing`: those of them where `edited` does as well.
    """

    score: float
    full: float
    layers: tuple[int, ...]
    never: np.ndarray = field(repr=False)
    edited: np.ndarray = field(repr=False)
    holding: tuple[int, ...]
    missing: tuple[int, ...]


def unlearning_depth(
    original: nn.Module, question: Question, *, never: nn.Module, edited: nn.Module,
    layers: Sequence[int] | None = None, threshold: float = THRESHOLD, convention: str = STATED,
) -> Depth:  # fmt: skip
    """Replace the original's states, layer by layer, by those of a model without the answer and of the edited model.

    The answer's log-probability falls by `d1` with the former states and by `d2` with the latter. Over the layers that
    hold the answer, the score is `sum(d1 * clip(d2 / d1, 0, 1)) / sum(d1)`. It is the only number here that is higher
    where *less* is left.

    Args:
        original: a causal model of transformers that knows the answer.
        question: the text and the positions of its answer.
        never, edited: models of the same shape.
        layers: the blocks whose outputs are replaced. Default: all.
        threshold: by how many nats per token the answer must fall for a layer to count as holding it.
        convention: `uds` takes the last layer's state after the final norm. The norm is then applied twice, so even the
            original's own state changes the answer there.

    Raises:
        UserError: an unknown convention, or a position or layer that does not exist.
    """
    check_convention(convention, UDS)
    chosen = tuple(range(len(blocks(original))) if layers is None else layers)
    _check(question, chosen, len(blocks(original)))
    with torch.no_grad():
        full = float(answer_logprob(original(input_ids=question.ids[None], use_cache=False).logits, question)[0])
    first, second = (
        full - _patched_answer(original, source, question, chosen, convention) for source in (never, edited)
    )
    holding = first > threshold
    missing = holding & (second > threshold)
    return Depth(
        share_of_fall(first[holding], second[holding]), full, chosen, first, second,
        holding=tuple(np.array(chosen)[holding].tolist()), missing=tuple(np.array(chosen)[missing].tolist()),
    )  # fmt: skip


def mean_depth(found: Sequence[Depth], *, convention: str = STATED) -> float:
    """The mean score of the questions that have one; NaN if none has (`convention="uds"`: 0).

    Raises:
        UserError: a convention that is neither `stated` nor `uds`.
    """
    check_convention(convention, UDS)
    scores = [f.score for f in found if not np.isnan(f.score)]
    return float(np.mean(scores)) if scores else 0.0 if convention == UDS else float("nan")


def share_of_fall(never: np.ndarray, edited: np.ndarray) -> float:
    """The share of the fall over some layers, `[layer]`, that the edited model's states cause; NaN without layers."""
    if not len(never):
        return float("nan")
    return float((never * np.clip(edited / never, 0, 1)).sum() / never.sum())


def _patched_answer(
    original: nn.Module, source: nn.Module, question: Question, layers: tuple[int, ...], convention: str
) -> np.ndarray:
    states = _states(source, question.ids, convention)
    logits = run_patched(original, question.ids, states, layers=layers, span=slice(*question.patched))
    return answer_logprob(logits, question).double().cpu().numpy()


def _states(hf: nn.Module, ids: Tensor, convention: str) -> Tensor:
    if convention == STATED:
        return block_outputs(hf, ids)
    with torch.no_grad():
        found = hf(input_ids=ids[None], use_cache=False, output_hidden_states=True).hidden_states
    return torch.cat(found[1:])


def answer_logprob(logits: Tensor, question: Question) -> Tensor:
    """The mean log-probability of the answer's tokens in nats, `[row]`, from `[row, position, vocabulary]`."""
    start, end = question.asked
    labels = question.ids[start + 1 : end + 1].expand(len(logits), -1)
    return token_logprobs(precise(logits[:, start:end]), labels).mean(-1)


def _check(question: Question, layers: Sequence[int], n_layers: int) -> None:
    last = len(question.ids) - 1
    for name, (start, end) in (("asked", question.asked), ("patched", question.patched)):
        if not 0 <= start < end <= last:
            raise UserError(f"{name} is {start} to {end}; positions must rise within 0 to {last}, the last token.")
    if not layers or not all(0 <= layer < n_layers for layer in layers):
        raise UserError(f"layers is {list(layers)}; choose at least one of 0 to {n_layers - 1}.")
