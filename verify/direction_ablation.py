"""Is the knowledge only covered by one direction?

Find the mean difference between edited and original activations on some facts, ablate it, and ask for others. After
Arditi et al. 2024, "Refusal in Language Models Is Mediated by a Single Direction", arXiv:2406.11717, and Łucki et al.
2024, arXiv:2409.18025, who use it on unlearned models.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .._util.errors import UserError
from ..knowledge import Case, Item, accepts_spec
from ..model.run.blocks import replace_block_outputs
from ..model.run.states import last_states
from .check import Setting
from .pools import Pools, attack_groups, pool_cost, pool_costs, pool_probability_by_unit, pools
from .reading import Reading, make_reading
from .units import too_few

if TYPE_CHECKING:
    from ..model import Model

FOLDS = 2
SAME = 1e-6


@accepts_spec
def direction_ablation(model: Model, case: Case, *, original: Model, layers: int = 8) -> Reading:
    """The probability of held-out answers in their pools (`verify.pools`), with the edit's direction ablated.

    At each of several layers, the difference between the edited and the original residual stream at the prompts' last
    token is averaged over half of the facts to forget. This direction is set to its mean in the original, at all
    positions. The layer where this helps these facts most is chosen, and the other half of the facts is asked; then the
    halves swap. The ablation inserts one number for all facts, so it cannot carry any of the answers. Twins are asked
    with the same directions.

    Args:
        original: the model before the edit, as a separate object. If `model` is the original, nothing differs and
            nothing is ablated.
        layers: how many evenly spaced layers to try.

    Cost: two rows for each fact to find the directions; all facts once for each layer tried, if anything differs; and
    all facts and twins once more.

    Raises:
        UserError: no layers, or facts of one unit.
    """
    if layers < 1:
        raise UserError(f"layers is {layers}; try at least 1.")
    facts, among = attack_groups(case), pools(case)
    if few := too_few(facts["forget"], facts["twins"]):
        raise UserError(few)
    tried = _layers(model, layers)
    samples: dict[str, dict[str, float]] = {group: {} for group in facts}
    chosen, cost = [], 2 * len(facts["forget"]) + sum(pool_cost(model, group, among) for group in facts.values())
    before, after = (last_states(m, [f.prompt for f in facts["forget"]]) for m in (original, model))
    for fold, (found_on, asked) in enumerate(_halves(len(facts["forget"]), case.seed)):
        half = [facts["forget"][i] for i in found_on]
        layer = tried[0]
        if any(_difference(before[found_on], after[found_on], at) is not None for at in tried):
            layer = _best(model, half, among, before[found_on], after[found_on], tried)
            cost += len(tried) * pool_cost(model, half, among)
        chosen.append(layer)
        rest = {"forget": [facts["forget"][i] for i in asked], "twins": facts["twins"][fold::FOLDS]}
        for group, others in rest.items():
            samples[group] |= _asked(model, others, among, before[found_on], after[found_on], layer)
    mean = np.mean(list(samples["forget"].values()))
    return make_reading(
        "direction_ablation",
        samples,
        f"With the direction between edited and original states ablated, held-out answers get a probability of "
        f"{mean:.2f}.",
        seed=case.seed,
        details={"layers": chosen, "tried": tried},
        cost=cost,
    )


def direction_ablation_cost(model: Model, case: Case, setting: Setting) -> float:
    """The original itself differs nowhere, so no layer is tried on it."""
    groups = pool_costs(model, case)
    tried = 0 if setting.original is None else len(_layers(model, setting.effort.layers))
    return 2 * len(case.forget.sealed) + tried * groups["forget"] + sum(groups.values())


def _layers(model: Model, n: int) -> list[int]:
    """So many evenly spaced layers, the first and the last among them."""
    return sorted({round(i) for i in np.linspace(0, model.n_layers - 1, min(n, model.n_layers))})


def _halves(n: int, seed: int) -> Iterator[tuple[list[int], list[int]]]:
    order = random.Random(f"{seed}/direction").sample(range(n), n)
    for fold in range(FOLDS):
        asked = sorted(order[fold::FOLDS])
        yield [i for i in range(n) if i not in asked], asked


def _best(
    model: Model, facts: Sequence[Item], among: Pools, before: Tensor, after: Tensor, tried: Sequence[int]
) -> int:
    """The layer whose ablated direction helps these facts most."""
    means = [np.mean(list(_asked(model, facts, among, before, after, layer).values())) for layer in tried]
    return tried[int(np.argmax(means))]


def _asked(
    model: Model, facts: Sequence[Item], among: Pools, before: Tensor, after: Tensor, layer: int
) -> dict[str, float]:
    """The probability of the answers, with one layer's direction set to its mean in the original."""
    difference = _difference(before, after, layer)
    if difference is None:
        return pool_probability_by_unit(model, facts, among)
    unit = difference / torch.linalg.vector_norm(difference)
    mean = before[:, layer].mean(0) @ unit

    def ablate(at: int, value: Tensor) -> Tensor | None:
        return value + (mean - value @ unit)[..., None] * unit if at == layer else None

    with replace_block_outputs(model.hf, ablate):
        return pool_probability_by_unit(model, facts, among)


def _difference(before: Tensor, after: Tensor, layer: int) -> Tensor | None:
    """The difference of the mean states at a layer; `None` where they are the same."""
    difference = (after[:, layer] - before[:, layer]).mean(0)
    size = torch.linalg.vector_norm(difference)
    return None if size <= SAME * torch.linalg.vector_norm(before[:, layer].mean(0)) else difference
