"""From which layer on is the knowledge missing? States of the edited model, patched into the original.

The unlearning depth score (`unlearning_depth`) as a check. Without a model that was retrained without the facts, the
original's own states for a subject that it was never taught take the place of that model's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..knowledge import Case, Item, accepts_spec
from ..model import encode, token_logprobs
from ..model.run.block_runner import use_attention
from ..model.run.blocks import block_outputs
from ..model.run.onednn import onednn_linear
from ..model.run.patched_runs import PatchedRuns
from ..model.run.trace import Trace, trace
from .check import Setting
from .metrics.tokens import precise
from .metrics.unlearning_depth import THRESHOLD, share_of_fall
from .pools import attack_groups
from .reading import Reading, make_reading, refusal
from .units import by_unit, unit_key

if TYPE_CHECKING:
    from ..model import Model


@accepts_spec
def depth(
    model: Model, case: Case, *, original: Model, never: Model | None = None, threshold: float = THRESHOLD
) -> Reading:
    """How much of an answer the edited model's states still carry when patched into the original: 0 nothing, 1 all.

    One minus the unlearning depth score of each fact to forget: each block's output is patched where the answer is
    read. What a layer holds of an answer is how far the answer's log-probability falls with states that cannot know it:
    those of `never`, or those of the original itself reading a twin in the subject's place. Facts that no layer holds
    have no number.

    The control `twins` patches the edited model's states for that twin. It shows what states carry that is not about
    the subject. `details` has, by layer and in nats per token, how far the answer falls with states that cannot know it
    (`never`) and with the edited model's (`edited`), and the layer from which at least half is missing.

    States are patched into the original, whose own later weights may answer from the subject alone. An edited model
    that knows nothing may therefore read higher than its twins, so r must exceed a half to contradict a removal.

    Args:
        original: the model before the edit. If `model` is the same, nothing is missing.
        never: a model trained without the facts.
        threshold: by how many nats per token an answer must fall for a layer to count as holding it.

    Cost: four rows for each fact; after each layer, three rows as long as the answer run through the layers that
    follow.
    """
    facts = attack_groups(case)
    sources = _Sources(original, model, never or original)
    falls: list[tuple[Item, np.ndarray]] = []
    for fact, twin in _paired(facts["forget"], facts["twins"]):
        if (found := sources.falls(fact, twin, own=never is not None)) is not None:
            falls.append((fact, found))
    scores = {
        name: [(fact, 1 - score) for fact, f in falls if (score := _score(f[0], f[i], threshold)) is not None]
        for i, name in ((1, "forget"), (2, "twins"))
    }
    left = {name: by_unit([fact for fact, _ in of], [score for _, score in of]) for name, of in scores.items()}
    if not left["forget"]:
        return refusal("depth", "No layer of the original holds an answer where it is read, so nothing can be missing.")
    mean = np.mean([f for fact, f in falls if unit_key(fact) in left["forget"]], axis=0)
    return make_reading(
        "depth",
        left,
        f"The edited model's states still carry {np.mean(list(left['forget'].values())):.0%} of the answers.",
        seed=case.seed,
        details={
            "never": mean[0].tolist(), "edited": mean[1].tolist(), "missing_from": _missing_from(mean, threshold),
            "asked": len(falls),
        },
        cost=_rows(original, [fact for fact, _ in falls]),
    )  # fmt: skip


def depth_cost(model: Model, case: Case, setting: Setting) -> float:
    """As if a layer of the original held every answer."""
    return _rows(model, attack_groups(case)["forget"])


def _rows(model: Model, facts: Sequence[Item]) -> float:
    """The cost of `depth` for these facts, in rows as long as theirs; half of all layers follow a patched one."""
    lengths = [_tokens(model, f.prompt, f.answer) for f in facts]
    return sum(4 + 3 * model.n_layers / 2 * n / len(ids) for ids, n in lengths)


class _Sources:
    """The original, and the models whose states are patched into it."""

    def __init__(self, original: Model, edited: Model, never: Model) -> None:
        self.original, self.edited, self.never = original, edited, never

    def falls(self, fact: Item, twin: Item, *, own: bool) -> np.ndarray | None:
        """How far the answer falls, `[3, layer]`: with states of `never`, of `edited`, and of `edited` on the twin.

        With `own`, the states of `never` are those on the fact itself. `None` if the lengths of the answer differ.
        """
        ids, n = _tokens(self.original, fact.prompt, fact.answer)
        other, m = _tokens(self.original, twin.prompt, fact.answer)
        if n != m:
            return None
        with torch.no_grad(), use_attention(self.original), onednn_linear(self.original):
            run = trace(self.original, ids[:-1], ())
            full = _answered(run, run.leaving[-1][:, -n:], ids[-n:])
            fallen = [
                full - _answered(run, _patched(self.original, run, _where_read(source, text, n)), ids[-n:])
                for source, text in ((self.never, ids if own else other), (self.edited, ids), (self.edited, other))
            ]
        return np.stack(fallen)


def _where_read(model: Model, ids: Tensor, n: int) -> Tensor:
    """A text's states after each block where its last `n` tokens are read, `[layer, n, d_model]`."""
    with onednn_linear(model):
        return block_outputs(model.hf, ids[:-1])[:, -n:]


def _patched(model: Model, run: Trace, states: Tensor) -> Tensor:
    """The last block's output at the last positions with one layer's states patched there, `[layer, n, d_model]`."""
    n, sites, moves = states.shape[1], model.sites("resid"), {}
    for site in sites:
        move = torch.zeros_like(run.leaving[site.layer][0])
        move[-n:] = states[site.layer] - run.leaving[site.layer][0, -n:]
        moves["resid", site.layer] = [move[:, None]]
    return PatchedRuns(model, run, moves, n).ends(sites)


def _answered(run: Trace, ends: Tensor, answer: Tensor) -> np.ndarray:
    """The mean log-probability of an answer's tokens in nats, `[row]`, from the last block's output before each one."""
    logp = token_logprobs(precise(run.runner.logits(ends)), answer.expand(len(ends), -1))
    return logp.mean(-1).double().cpu().numpy()


def _paired(facts: Sequence[Item], twins: Sequence[Item]) -> list[tuple[Item, Item]]:
    """Each item with a twin of its relation, or else of its kind, in turn; items without one are left out."""
    by_relation = {
        f.relation: [t for t in twins if t.relation == f.relation] or [t for t in twins if t.kind == f.kind]
        for f in facts
    }
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
    """The first layer that holds the answers on average and from which at least half of them is missing."""
    found = (mean[0] > threshold) & (mean[1] >= mean[0] / 2)
    return int(found.argmax()) if found.any() else None
