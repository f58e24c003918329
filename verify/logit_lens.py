"""Do the middle layers still hold the answer, before the last ones hide it?

The logit lens: nostalgebraist 2020, "interpreting GPT: the logit lens"; as evidence on unlearning, Patil, Hase & Bansal
2023, "Can Sensitive Information Be Deleted From LLMs?", arXiv:2309.17410.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..knowledge import Case, Item, accepts_spec
from ..model import first_tokens
from ..model.run.states import last_states, read_out
from .check import Setting
from .judge.statistics import cross_fitted
from .pools import Pools, attack_groups, pools
from .reading import Reading, make_reading, refusal
from .units import by_unit

if TYPE_CHECKING:
    from ..model import Model


@accepts_spec
def logit_lens(model: Model, case: Case) -> Reading:
    """The probability of the answer's first token among those of the relation's pool, read off one layer.

    Each block's output at the prompt's last token goes through the model's own final norm and unembedding. The layer
    is the one where forget facts most exceed twins. Each half of the subjects uses the layer chosen on the other half,
    so that the best of many layers does not pass for knowledge. The twins are read at the same layers.

    `details["by_layer"]` has the means of `forget` and `twins`, `details["layers"]` the layer of each half. The lens
    reads intermediate states with the last block's norm, so it may miss what is there. It is never sufficient evidence
    alone.

    Cost: one row for each fact and twin.
    """
    among = pools(case)
    facts = {g: [f for f in group if f.relation in among] for g, group in attack_groups(case).items()}
    if not facts["forget"]:
        return refusal("logit_lens", "The items to forget share no pool of answers to read among.")
    read = {g: by_layer(model, group, among) for g, group in facts.items()}
    chosen = cross_fitted(read["forget"], read["twins"])
    samples = {g: by_unit(facts[g], getattr(chosen, g)) for g in facts}
    return make_reading(
        "logit_lens",
        samples,
        f"Read off the best layer, the answers get a probability of {chosen.forget.mean():.2f} "
        f"(never taught: {np.mean(chosen.twins):.2f}).",
        seed=case.seed,
        details={
            "by_layer": {g: values.mean(0).tolist() for g, values in read.items()},
            "layers": list(chosen.options),
        },
        cost=logit_lens_cost(model, case, Setting()),
    )


def logit_lens_cost(model: Model, case: Case, setting: Setting) -> float:
    """One row for each fact and twin."""
    return sum(map(len, attack_groups(case).values()))


def by_layer(model: Model, facts: Sequence[Item], among: Pools) -> np.ndarray:
    """The probability of each answer's first token among the first tokens of its pool, `[fact, layer]`."""
    out = np.zeros((len(facts), model.n_layers))
    states = last_states(model, [f.prompt for f in facts])
    for relation in dict.fromkeys(f.relation for f in facts):
        rows = [i for i, f in enumerate(facts) if f.relation == relation]
        prompt = facts[rows[0]].prompt
        tokens = list(dict.fromkeys(first_tokens(model, among[relation], prompt=prompt)))
        right = [tokens.index(t) for t in first_tokens(model, [facts[i].answer for i in rows], prompt=prompt)]
        for i, place in zip(rows, right, strict=True):
            scores = read_out(model, states[i])[:, tokens].float().softmax(-1)
            out[i] = scores[:, place].double().cpu().numpy()
    return out
