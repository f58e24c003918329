"""How far do the states inside the edited model still look like the original's?

Linear CKA: Kornblith et al. 2019, "Similarity of Neural Network Representations Revisited", arXiv:1905.00414. Lynch et
al. 2024, arXiv:2402.16835, compare an unlearned model with its original by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..knowledge import Case, Item, accepts_spec
from ..model.run.states import last_states
from .check import Setting
from .pools import attack_groups
from .reading import Reading, make_reading
from .units import by_unit

if TYPE_CHECKING:
    from ..model import Model


@accepts_spec
def similarity(model: Model, case: Case, *, original: Model) -> Reading:
    """The cosine between the edited and the original residual stream at each item's last token, mean over layers.

    Groups: `forget`, and `retain`: the sealed items to keep of the nearest relations. An edit that changes the states
    of both alike is not specific; one that changes those of neither until the last layers only hides. `details` has,
    by group (twins, too) and layer, the mean `cosine` and the linear `cka` of the group's states, `None` for fewer than
    two items. CKA is high by chance where items are few; compare groups, not a group with 1.

    The reading never decides anything: what a model that never knew would look like is not known, so no r is formed.

    Args:
        original: the model before the edit. If `model` is the original, everything is 1.

    Cost: two rows for each item.
    """
    groups = _groups(case)
    found = {name: _compare(model, original, items) for name, items in groups.items() if items}
    means = {name: by_unit(groups[name], cosine.mean(1).tolist()) for name, (cosine, _) in found.items()}
    kept = f" and of those to keep {_mean(means['retain']):.3f}" if "retain" in means else ""
    return make_reading(
        "similarity",
        {name: of for name, of in means.items() if name != "twins"},
        f"The states of items to forget have a cosine of {_mean(means['forget']):.3f} with the original's{kept}.",
        seed=case.seed,
        details={
            "cosine": {name: cosine.mean(0).tolist() for name, (cosine, _) in found.items()},
            "cka": {name: cka for name, (_, cka) in found.items()},
        },
        cost=similarity_cost(model, case, Setting()),
    )


def similarity_cost(model: Model, case: Case, setting: Setting) -> float:
    """Every item read once by both models."""
    return 2 * sum(map(len, _groups(case).values()))


def linear_cka(a: Tensor, b: Tensor) -> float | None:
    """Linear CKA of two sets of states of the same items `[item, d]`: 1 for the same up to rotation and scale.

    `None` for fewer than two items, or where all states of one set are the same.
    """
    if len(a) < 2:
        return None
    grams = [centred @ centred.t() for states in (a, b) for centred in [states.double() - states.double().mean(0)]]
    norms = [torch.linalg.matrix_norm(gram) for gram in grams]
    if not all(norm != 0 for norm in norms):
        return None
    return float((grams[0] * grams[1]).sum() / (norms[0] * norms[1]))


def _groups(case: Case) -> dict[str, list[Item]]:
    """Items to forget and twins as the attacks ask them, and the sealed items to keep of the nearest relations."""
    near = case.same_relation(case.retain.sealed) or list(case.retain.sealed)
    return {**attack_groups(case), "retain": [i.asked(i.prompt) for i in near]}


def _compare(model: Model, original: Model, items: Sequence[Item]) -> tuple[Tensor, list[float | None]]:
    """The cosine of each item's states at each layer, `[item, layer]`, and the CKA of all items at each layer."""
    prompts = [item.prompt for item in items]
    before = last_states(original, prompts).double().cpu()
    after = before if model is original else last_states(model, prompts).double().cpu()
    cosine = torch.nn.functional.cosine_similarity(before, after, dim=-1)
    return cosine, [linear_cka(before[:, layer], after[:, layer]) for layer in range(before.shape[1])]


def _mean(values: dict[str, float]) -> float:
    return sum(values.values()) / len(values)
