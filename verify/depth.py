"""From which layer on is it missing? States of the edited model, put into the original.

The unlearning depth score (`unlearning_depth`) as a check. Where no model was retrained without the facts, the
original's own states for a subject that it never heard of take that model's place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..knowledge import Case, Fact
from ..model import encode
from ..model.blocks import block_outputs, run_patched
from .pools import against
from .reading import Reading, reading, refused
from .recall import key
from .unlearning_depth import THRESHOLD, Question, answer_logprob, share_of_fall

if TYPE_CHECKING:
    from ..model import Model


def depth(
    model: Model, case: Case, *, original: Model, never: Model | None = None, threshold: float = THRESHOLD
) -> Reading:
    """How much of an answer the edited model's states still carry, put into the original: 0 nothing, 1 all.

    One minus the unlearning depth score of each fact to forget, by patching each block's output where the answer is
    read. What a layer holds is measured by how far the answer falls with states that cannot know it: those of
    `never`, or of the original itself reading a twin in the subject's place. Facts that no layer holds have no number.

    The control `twins` is the same with the edited model's states for that twin: what a model carries that
    is not about the subject. `details` has by layer, in nats a token, how far the answer falls with states that cannot
    know it (`never`) and with the edited model's (`edited`), and from which layer on at least half is missing.

    Args:
        original: the model before the edit. Given the same one, nothing is missing.
        never: a model trained without the facts.
        threshold: by how many nats a token an answer must fall for a layer to count as holding it.

    Cost: a fact takes four rows, and three for each layer.
    """
    case = case.on(original)
    facts = against(case)
    sources = _Sources(original, model, never or original)
    falls = {}
    for fact, twin in _paired(facts["forget"], facts["twins"]):
        if (found := sources.falls(fact, twin, own=never is not None)) is not None:
            falls[key(fact)] = found
    left = {
        name: {s: 1 - score for s, f in falls.items() if (score := _score(f[0], f[i], threshold)) is not None}
        for i, name in ((1, "forget"), (2, "twins"))
    }
    if not left["forget"]:
        return refused("depth", "No layer of the original holds an answer where it is read, so none can be missing.")
    mean = np.mean([f for s, f in falls.items() if s in left["forget"]], axis=0)
    return reading(
        "depth",
        left,
        f"The edited model's states still carry {np.mean(list(left['forget'].values())):.0%} of the answers.",
        seed=case.seed,
        details={
            "never": mean[0].tolist(), "edited": mean[1].tolist(), "missing_from": _missing_from(mean, threshold),
            "asked": len(falls),
        },
        cost=len(falls) * (4 + 3 * original.n_layers),
    )  # fmt: skip


class _Sources:
    """The original, and the models whose states are put into it."""

    def __init__(self, original: Model, edited: Model, never: Model) -> None:
        self.original, self.edited, self.never = original, edited, never

    def falls(self, fact: Fact, twin: Fact, *, own: bool) -> np.ndarray | None:
        """By how much the answer falls, `[3, layer]`: with states of `never`, `edited`, and `edited` on the twin."""
        ids, n = _tokens(self.original, fact.prompt, fact.answer)
        other, m = _tokens(self.original, twin.prompt, fact.answer)
        if n != m:
            return None
        span = slice(len(ids) - n - 1, len(ids) - 1)
        question = Question(ids, (span.start, span.stop), (span.start, span.stop))
        with torch.no_grad():
            full = float(answer_logprob(self.original.hf(input_ids=ids[None], use_cache=False).logits, question)[0])
        states = [
            block_outputs(self.never.hf, ids if own else other),
            block_outputs(self.edited.hf, ids),
            block_outputs(self.edited.hf, other),
        ]
        return np.stack([full - self._patched(question, _aligned(s, span, len(ids))) for s in states])

    def _patched(self, question: Question, states: Tensor) -> np.ndarray:
        layers = range(self.original.n_layers)
        logits = run_patched(self.original.hf, question.ids, states, layers=layers, span=slice(*question.patched))
        return answer_logprob(logits, question).double().cpu().numpy()


def _aligned(states: Tensor, span: slice, length: int) -> Tensor:
    """A text's states where its answer is read, moved to where the question's is: both end in the same tokens."""
    out = states.new_zeros(states.shape[0], length, states.shape[2])
    out[:, span] = states[:, span.start - length : -1]
    return out


def _paired(facts: Sequence[Fact], twins: Sequence[Fact]) -> list[tuple[Fact, Fact]]:
    """Each fact with a twin of its relation, in turn; facts without one are left out."""
    by_relation = {r: [t for t in twins if t.relation == r] for r in {f.relation for f in facts}}
    taken = dict.fromkeys(by_relation, 0)
    out = []
    for fact in facts:
        if others := by_relation[fact.relation]:
            out.append((fact, others[taken[fact.relation] % len(others)]))
            taken[fact.relation] += 1
    return out


def _tokens(model: Model, prompt: str, answer: str) -> tuple[Tensor, int]:
    batch = encode(model, [prompt], [answer])
    return batch.ids[0], batch.keep


def _score(never: np.ndarray, edited: np.ndarray, threshold: float) -> float | None:
    holding = never > threshold
    return share_of_fall(never[holding], edited[holding]) if holding.any() else None


def _missing_from(mean: np.ndarray, threshold: float) -> int | None:
    """The first layer that holds the answers on average and where at least half of their fall is there."""
    found = (mean[0] > threshold) & (mean[1] >= mean[0] / 2)
    return int(found.argmax()) if found.any() else None
