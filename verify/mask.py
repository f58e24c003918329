"""Is the knowledge only overridden by some neurons? Train a mask that switches a few of them off, and ask others.

Holmov et al. 2026, "One Mask to Rule Them All: On Hidden Facts after Editing and How to Find Them", arXiv:2605.28839:
one mask over the edited weights reverses closed-form edits, also those that it was not trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .._util.errors import UserError
from ..knowledge import Case, Item, accepts_spec
from ..model import Batch, Slice, chunks, encode, logits, scratch, token_logprobs
from ..model.run.modules import replace_input
from ..model.run.onednn import bfloat16_products
from .check import Setting
from .edited import OutputMap, output_maps
from .pools import Pools, attack_groups, pool_cost, pool_probability_by_unit, pools
from .reading import Reading, make_reading
from .training import FORWARD_BACKWARD, LABELS
from .units import halves, too_few

if TYPE_CHECKING:
    from ..model import Model

SHARE = 0.1  # of the rows that may be off
STEPS = 20
STEP = 0.25  # how far the row with the largest gradient moves in a step
OFF = 0.5


@accepts_spec
def mask(
    model: Model,
    case: Case,
    *,
    edited: Sequence[str] = (),
    share: float = SHARE,
    steps: int = STEPS,
    progress: Callable[[int, int], None] | None = None,
) -> Reading:
    """The probability of held-out answers in their pools (`verify.pools`), with a trained mask over edited matrices.

    The mask has one number from 0 to 1 for each row: a neuron of an edited MLP, or a feature of an edited attention's
    heads, which it multiplies. It starts at one everywhere. Gradient descent lowers it where that makes the right
    answers of half of the units win over what the model says at present; after each step, all but the lowest `share` of
    the rows are one again. Rows below a half are then switched off, and the other half of the units is asked; then the
    halves swap. Twins get masks of their own, trained alike. Nothing of the original is needed.

    Args:
        edited: the names of the matrices that an edit changed, where that is known; by default the output maps of all
            MLPs. A map that reads the stream counts as its output map.
        share: the largest share of the rows that may be off, up to 0.5.
        steps: of gradient descent, each over all answers of the half.

    `details["off"]` has the share of rows that each half switched off, by group; `details["rows"]` their number.

    Cost: for each group of items, `steps` training steps over all answers, and the pools asked once.

    Raises:
        UserError: a share that is not above 0 and at most 0.5, no steps, facts of one unit, or a name that is not a
            matrix of a block.
    """
    if not 0 < share <= 0.5:
        raise UserError(f"share is {share:g}; let a mask switch off more than 0 and at most 0.5 of the rows.")
    if steps < 1:
        raise UserError(f"steps is {steps}; train a mask for at least 1 step.")
    facts, among = attack_groups(case), pools(case)
    if few := too_few(facts["forget"], facts["twins"]):
        raise UserError(few)
    maps = output_maps(model, edited)
    samples: dict[str, dict[str, float]] = {group: {} for group in facts}
    off: dict[str, list[float]] = {group: [] for group in facts}
    for name, items in facts.items():
        for known, asked in halves(items, case.seed) if items else ():
            rows = _trained(model, maps, [items[i] for i in known], share, steps)
            with switched_off(model, rows):
                samples[name] |= pool_probability_by_unit(model, [items[i] for i in asked], among)
            off[name].append(sum(len(where.index) for where in rows) / _size(maps))
            if progress:
                progress(sum(map(len, off.values())), 2 * len(facts))
    mean = np.mean(list(samples["forget"].values()))
    return make_reading(
        "mask",
        samples,
        f"With at most {share:.0%} of the rows of the weights switched off by a trained mask, held-out answers get a "
        f"probability of {mean:.2f}.",
        seed=case.seed,
        details={"off": off, "rows": _size(maps), "steps": steps},
        cost=_cost(model, facts, among, steps),
    )


def mask_cost(model: Model, case: Case, setting: Setting) -> float:
    """The training of every group's masks, and every item asked once."""
    return _cost(model, attack_groups(case), pools(case), STEPS)


def _cost(model: Model, facts: Mapping[str, Sequence[Item]], among: Pools, steps: int) -> float:
    return sum(
        FORWARD_BACKWARD * steps * len(items) + pool_cost(model, items, among) for items in facts.values() if items
    )


@contextmanager
def switched_off(model: Model, rows: Sequence[Slice]) -> Iterator[None]:
    """Set these rows to zero, for as long as the context lasts; afterwards they are restored bit for bit."""
    with scratch(model, rows):
        for where in rows:
            where.write_(model.parameters[where.name], torch.zeros_like(where.read(model.parameters[where.name])))
        yield


def _trained(model: Model, maps: Sequence[OutputMap], items: Sequence[Item], share: float, steps: int) -> list[Slice]:
    """The rows that a mask switches off when it is trained on these items."""
    batch = encode(model, [i.prompt for i in items], [i.answer for i in items])
    gates = [torch.ones(m.size, device=model.device, requires_grad=True) for m in maps]
    most = int(share * _size(maps))
    with ExitStack() as stack:
        for m, gate in zip(maps, gates, strict=True):
            stack.enter_context(replace_input(m.module, lambda x, gate=gate: x * gate.to(x.dtype)))
        for _ in range(steps):
            _descend(gates, _gradients(model, batch, gates), most)
    below = [(m, (gate < OFF).nonzero()[:, 0].cpu()) for m, gate in zip(maps, gates, strict=True)]
    return [Slice(m.name, m.dim, index) for m, index in below if len(index)]


def _gradients(model: Model, batch: Batch, gates: Sequence[Tensor]) -> list[Tensor]:
    """The gradients of the mean loss of a label."""
    out = [torch.zeros_like(gate) for gate in gates]
    for part in chunks(len(batch.ids), max(1, LABELS // batch.keep)):
        rows = batch.rows(part)
        with torch.enable_grad(), bfloat16_products(model):
            loss = -token_logprobs(logits(model, rows), rows.labels).sum() / (batch.labels >= 0).sum()
            for total, gradient in zip(out, torch.autograd.grad(loss, gates), strict=True):
                total += gradient
    return out


@torch.no_grad()
def _descend(gates: Sequence[Tensor], gradients: Sequence[Tensor], most: int) -> None:
    """One step down, its size set by the largest gradient; all but the `most` lowest gates are one again."""
    largest = float(torch.cat(list(gradients)).abs().max())
    if not (largest > 0 and np.isfinite(largest)):
        return
    moved = torch.cat([(gate - STEP * g / largest).clamp(0, 1) for gate, g in zip(gates, gradients, strict=True)])
    order = moved.argsort(stable=True)
    moved[order[most:]] = 1.0
    for gate, values in zip(gates, moved.split([len(g) for g in gates]), strict=True):
        gate.copy_(values)


def _size(maps: Sequence[OutputMap]) -> int:
    return sum(m.size for m in maps)
