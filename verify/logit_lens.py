"""Do the layers still say it, before the last ones hide it?

The logit lens: nostalgebraist 2020, "interpreting GPT: the logit lens"; as evidence on unlearning, Patil, Hase & Bansal
2023, "Can Sensitive Information Be Deleted From LLMs?", arXiv:2309.17410.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..knowledge import Case, Fact
from ..model.run.states import first_tokens, last_states, read_out
from .judge.statistics import cross_fitted
from .pools import Pools, attack_groups, pools
from .reading import Reading, reading
from .recall import key

if TYPE_CHECKING:
    from ..model import Model


def logit_lens(model: Model, case: Case) -> Reading:
    """Probability of the answer's first token among those of the relation's pool, read off a layer's residual stream.

    Each block's output at the prompt's last token goes through the model's own final norm and unembedding. The layer
    is the one where forget facts most exceed twins; for each half of the subjects it is chosen on the other half, so
    that the best of many layers is not taken for knowledge. The twins are read at the same layers.

    `details["by_layer"]` has the means of `forget` and `twins`, `details["layers"]` the layers chosen for the halves.
    A lens reads a block's intermediate states with the last one's norm, so it may miss what is there; and it
    convicts nobody by itself.

    Cost: one row a fact or twin.
    """
    case = case.on(model)
    facts, among = attack_groups(case), pools(case)
    read = {group: by_layer(model, some, among) for group, some in facts.items()}
    chosen = cross_fitted(read["forget"], read["twins"])
    samples = {g: {key(f): float(v) for f, v in zip(facts[g], getattr(chosen, g), strict=True)} for g in facts}
    return reading(
        "logit_lens",
        samples,
        f"Read off the most telling layer, the answers get a probability of {chosen.forget.mean():.2f} "
        f"(never taught: {np.mean(chosen.twins):.2f}).",
        seed=case.seed,
        details={
            "by_layer": {g: values.mean(0).tolist() for g, values in read.items()},
            "layers": list(chosen.options),
        },
        cost=sum(map(len, facts.values())),
    )


def by_layer(model: Model, facts: Sequence[Fact], among: Pools) -> np.ndarray:
    """Probability of each fact's first token among its pool's first tokens, `[fact, layer]`."""
    out = np.zeros((len(facts), model.n_layers))
    states = last_states(model, [f.prompt for f in facts])
    for relation in dict.fromkeys(f.relation for f in facts):
        tokens = list(dict.fromkeys(first_tokens(model, among[relation])))
        rows = [i for i, f in enumerate(facts) if f.relation == relation]
        right = [tokens.index(t) for t in first_tokens(model, [facts[i].answer for i in rows])]
        for i, place in zip(rows, right, strict=True):
            scores = read_out(model, states[i])[:, tokens].float().softmax(-1)
            out[i] = scores[:, place].double().cpu().numpy()
    return out
