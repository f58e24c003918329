"""Knowledge neurons: integrated gradients over the neurons of one layer, from silence to what they are.

Dai et al. 2022, "Knowledge Neurons in Pretrained Transformers", arXiv:2104.08696.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from .._util.errors import UserError
from ..knowledge import Case
from ..model import Site, logits, token_logprobs
from ..model.layout import neuron_output
from ..model.run.modules import replace_input
from .counterfactual import Pairs
from .facts import over_facts
from .localization import Localization, Part
from .path import grid

if TYPE_CHECKING:
    from ..model import Model

STEPS = 20


def knowledge_neurons(
    model: Model,
    case: Case,
    *,
    steps: int = STEPS,
    rows: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> Localization:
    """Score every neuron by integrated gradients of the answer's probability.

    A layer's neurons are scaled together from 0 to what they are, where the answer is predicted; a neuron's
    score is its activation times the mean gradient on the way. The scores of a layer add up to how far the
    probability of the whole answer falls when all of its neurons are silent there. They are scaled by the
    probability itself, and contrasted with the retain facts as in `attribution`.

    Args:
        steps: points on the way, by the midpoint rule.
        rows: facts in one batch.
        progress: called with facts done and facts in all.

    Cost: `layers * steps` forward passes, each with a backward pass down to its layer.

    Raises:
        UserError: fewer than one step.
    """
    raw = partial(answer_integral, steps=steps)
    return over_facts(model, case, raw, rows=rows, progress=progress, method="knowledge_neurons", steps=steps)


def answer_integral(model: Model, both: Pairs, *, steps: int = STEPS) -> tuple[dict[Part, np.ndarray], np.ndarray]:
    """Raw scores `[row, layer, neuron]`, in probability, and the probability of each row's whole answer."""
    batch = both.clean
    asked = torch.zeros_like(batch.mask, dtype=torch.bool)
    asked[:, -batch.keep - 1 : -1] = batch.labels >= 0

    def answer() -> Tensor:
        return token_logprobs(logits(model, batch), batch.labels).sum(-1).exp()

    maps = [neuron_output(model, layer) for layer in range(model.n_layers)]
    scores = torch.stack([_integral(answer, module, asked, grid(steps)) for module in maps], 1)
    with torch.no_grad():
        return {"neuron": scores.double().cpu().numpy()}, answer().double().cpu().numpy()


def knowledge_neuron_scores(
    hf: nn.Module,
    maps: Sequence[nn.Module],
    ids: Tensor,
    target: Sequence[int],
    *,
    position: int | None = None,
    steps: int = STEPS,
    convention: Literal["stated", "knowledge-neurons"] = "stated",
) -> Tensor:
    """Scores of one prompt's neurons by the probability of what follows, `[layer, neuron]`.

    Args:
        hf: a language model of transformers, causal or masked.
        maps: for each layer the module whose input is the neurons' activations, such as the down projection.
        ids: the prompt's tokens, `[position]`.
        target: the tokens of the answer.
        position: of the mask, in a masked model, which takes one token; in a causal model the answer follows.
        convention: `knowledge-neurons` integrates with both ends among the points, and of several tokens
            takes the mean over them, each behind the model's own likeliest tokens instead of the answer's.

    Raises:
        UserError: no target, or several tokens for one mask.
    """
    if not target or (position is not None and len(target) > 1):
        raise UserError(f"knowledge neurons need one token for a mask, at least one otherwise, not {list(target)}.")
    if convention == "stated":
        return _target_integral(hf, maps, ids, target, position, grid(steps))
    total = []
    for token in target:
        total.append(_target_integral(hf, maps, ids, [token], position, grid(steps, "ends")))
        with torch.no_grad():
            ids = torch.cat([ids, hf(input_ids=ids[None]).logits[0, -1:].argmax(-1)])
    return torch.stack(total).mean(0)


@torch.no_grad()
def neuron_activations(hf: nn.Module, maps: Sequence[nn.Module], ids: Tensor, *, position: int = -1) -> Tensor:
    """What the neurons are at one position of a prompt, `[layer, neuron]`; `maps` as for the scores."""
    kept: list[Tensor] = []
    with ExitStack() as stack:
        for module in maps:
            stack.enter_context(replace_input(module, lambda x: kept.append(x[0, position])))
        hf(input_ids=ids[None])
    return torch.stack(kept)


def coarse_neurons(
    scores: Tensor | np.ndarray,
    *,
    share: float | None = None,
    percentile: float | None = None,
    threshold: float | None = None,
) -> list[Site]:
    """The neurons of one prompt whose score is above a limit, in their order.

    Args:
        scores: `[layer, neuron]`.
        share: of the highest score (the paper: 0.2).
        percentile: of all scores.
        threshold: the limit itself.

    Raises:
        UserError: none of the three, or more than one.
    """
    if sum(limit is not None for limit in (share, percentile, threshold)) != 1:
        raise UserError("coarse_neurons takes one limit: share (of the highest score), percentile or threshold.")
    values = np.asarray(scores)
    if share is not None:
        threshold = float(values.max()) * share
    elif percentile is not None:
        threshold = float(np.percentile(values, percentile))
    return [Site(int(layer), "neuron", int(i)) for layer, i in zip(*np.nonzero(values > threshold), strict=True)]


def refined_neurons(
    coarse: Sequence[Sequence[Site]], *, share: float = 0.7, negative: Sequence[Sequence[Site]] = ()
) -> list[Site]:
    """The neurons that more than a share of the prompts about one fact have in common, by first occurrence.

    Args:
        coarse: each prompt's coarse neurons.
        share: of the prompts, 0 to below 1.
        negative: coarse neurons of prompts about something else, which are taken out. (In published code
            this has no effect: it compares lists with single neurons.)

    Raises:
        UserError: a share that no neuron could exceed.
    """
    if not 0 <= share < 1:
        raise UserError(f"a share of {share} of the prompts cannot be exceeded; give 0 to below 1.")
    counts = Counter(site for sites in coarse for site in sites)
    other = {site for sites in negative for site in sites}
    return [site for site, n in counts.items() if n > share * len(coarse) and site not in other]


@contextmanager
def scaled_neurons(
    maps: Sequence[nn.Module], neurons: Sequence[Site], *, factor: float, position: int | None = None
) -> Iterator[None]:
    """Neurons times a factor for as long as the context lasts: 0 suppresses, 2 enhances what they hold.

    Args:
        maps: for each layer the module whose input is the neurons' activations.
        position: where; everywhere by default.
    """
    where = slice(None) if position is None else position

    def scale(units: list[int], x: Tensor) -> Tensor:
        factors = torch.ones_like(x)
        factors[:, where, units] = factor
        return x * factors

    with ExitStack() as stack:
        for layer in sorted({site.layer for site in neurons}):
            units = [site.index for site in neurons if site.layer == layer and site.index is not None]
            stack.enter_context(replace_input(maps[layer], partial(scale, units)))
        yield


def _target_integral(
    hf: nn.Module,
    maps: Sequence[nn.Module],
    ids: Tensor,
    target: Sequence[int],
    position: int | None,
    shares: Sequence[float],
) -> Tensor:
    answer = torch.tensor(target, device=ids.device)
    row = torch.cat([ids, answer[:-1]])[None]
    at = torch.arange(len(target), device=ids.device) + (len(ids) - 1 if position is None else position)
    asked = torch.zeros(row.shape, dtype=torch.bool, device=ids.device)
    asked[0, at] = True

    def probability() -> Tensor:
        return hf(input_ids=row).logits[:, at].softmax(-1).gather(-1, answer[None, :, None]).prod(1)

    return torch.cat([_integral(probability, module, asked, shares) for module in maps])


@torch.enable_grad()
def _integral(output: Callable[[], Tensor], module: nn.Module, where: Tensor, shares: Sequence[float]) -> Tensor:
    """Activations times mean gradients on the way, summed over positions, `[row, neuron]`.

    `output`: runs the model, and gives a number for each row; `where`: bool `[row, position]`, what is scaled.
    """
    total = torch.zeros(())
    for share in shares:
        kept: list[Tensor] = []

        def scale(x: Tensor, share: float = share, kept: list[Tensor] = kept) -> Tensor:
            moved = torch.where(where[..., None], share * x, x).detach().requires_grad_(True)
            kept.extend((x.detach(), moved))
            return moved

        with replace_input(module, scale):
            value = output()
        x, moved = kept
        grad = torch.autograd.grad(value.sum(), moved)[0]
        total = total + (x * grad * where[..., None]).sum(1)
    return total / len(shares)
