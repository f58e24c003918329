"""Knowledge neurons: integrated gradients over the neurons of one layer, from zero to their activations.

Dai et al. 2022, "Knowledge Neurons in Pretrained Transformers", arXiv:2104.08696.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from .._util.errors import UserError
from ..knowledge import Case, accepts_spec
from ..model import Model, Site, logits, token_logprobs
from ..model.layout import neuron_output
from ..model.run.modules import replace_input
from .contrast import Progress, Scores, contrast_items
from .counterfactual import Pairs
from .integration import integration_points
from .localization import Localization

STEPS = 20


@accepts_spec
def knowledge_neurons(
    model: Model,
    case: Case,
    *,
    steps: int = STEPS,
    rows: int = 16,
    progress: Progress | None = None,
) -> Localization:
    """Score every neuron by integrated gradients of the answer's probability.

    A layer's neurons are scaled together from zero to their activations, at the positions that predict the answer. A
    neuron's score is its activation times the mean gradient on this path. A layer's scores add up to how far the
    probability of the whole answer falls when all its neurons are zero there. Scores are divided by that probability,
    and contrasted with the retain facts as in `attribution`.

    Args:
        steps: points on the path, by the midpoint rule.
        rows: facts in one batch.
        progress: called with the number of facts done and the number of all facts.

    Raises:
        UserError: fewer than one step.

    Cost: `layers * steps` forward passes, each with a backward pass down to its layer.
    """
    scorer, settings = partial(answer_probability_scores, steps=steps), {"steps": steps}
    return contrast_items(
        model, case, scorer, method="knowledge_neurons", rows=rows, settings=settings, progress=progress
    )


def answer_probability_scores(model: Model, both: Pairs, *, steps: int = STEPS) -> tuple[Scores, np.ndarray]:
    """Raw scores `[row, layer, neuron]`, in probability, and the probability of each row's whole answer."""
    batch = both.clean
    predicts = torch.zeros_like(batch.mask, dtype=torch.bool)
    predicts[:, -batch.keep - 1 : -1] = batch.labels >= 0

    def answer() -> Tensor:
        return token_logprobs(logits(model, batch), batch.labels).sum(-1).exp()

    maps = [neuron_output(model, layer) for layer in range(model.n_layers)]
    scores = torch.stack([_integral(answer, module, predicts, integration_points(steps)) for module in maps], 1)
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
    """Scores of the neurons on one prompt, by the probability of its answer, `[layer, neuron]`.

    Args:
        hf: a transformers language model, causal or masked.
        maps: for each layer, the module whose input is the neurons' activations, such as the down projection.
        ids: the prompt's tokens, `[position]`.
        target: the answer's tokens.
        position: the position of the mask in a masked model; its answer has one token. In a causal model the answer
            follows the prompt.
        convention: `knowledge-neurons` includes both ends among the points of integration. For several tokens, it
            takes the mean of their scores, each token after the model's own likeliest tokens rather than the answer's.

    Raises:
        UserError: an empty target, or several tokens for one mask.
    """
    if not target or (position is not None and len(target) > 1):
        raise UserError(
            f"knowledge neurons need one token for a mask and at least one otherwise; change the target {list(target)}."
        )
    if convention == "stated":
        return _target_integral(hf, maps, ids, target, position, integration_points(steps))
    total = []
    for token in target:
        total.append(_target_integral(hf, maps, ids, [token], position, integration_points(steps, "ends")))
        with torch.no_grad():
            ids = torch.cat([ids, hf(input_ids=ids[None]).logits[0, -1:].argmax(-1)])
    return torch.stack(total).mean(0)


@torch.no_grad()
def neuron_activations(hf: nn.Module, maps: Sequence[nn.Module], ids: Tensor, *, position: int = -1) -> Tensor:
    """The neurons' activations at one position of a prompt, `[layer, neuron]`; `maps` as in the scores."""
    activations: list[Tensor] = []
    with ExitStack() as stack:
        for module in maps:
            stack.enter_context(replace_input(module, lambda x: activations.append(x[0, position])))
        hf(input_ids=ids[None])
    return torch.stack(activations)


def coarse_neurons(
    scores: Tensor | np.ndarray,
    *,
    share: float | None = None,
    percentile: float | None = None,
    threshold: float | None = None,
) -> list[Site]:
    """The neurons whose score on one prompt is above a limit, by layer and index.

    Args:
        scores: `[layer, neuron]`.
        share: the limit as a share of the highest score (0.2 in the paper).
        percentile: the limit as a percentile of all scores.
        threshold: the limit itself.

    Raises:
        UserError: no limit, or more than one.
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
        share: share of the prompts, at least 0 and below 1.
        negative: coarse neurons of prompts about something else, to be removed. In the published code this has no
            effect, because it compares lists with single neurons.

    Raises:
        UserError: a share that no neuron can exceed.
    """
    if not 0 <= share < 1:
        raise UserError(f"a share of {share} of the prompts cannot be exceeded; give at least 0 and less than 1.")
    counts = Counter(site for sites in coarse for site in sites)
    other = {site for sites in negative for site in sites}
    return [site for site, n in counts.items() if n > share * len(coarse) and site not in other]


@contextmanager
def scaled_neurons(
    maps: Sequence[nn.Module], neurons: Sequence[Site], *, factor: float, position: int | None = None
) -> Iterator[None]:
    """Multiply neurons by a factor within this context: 0 suppresses them, 2 enhances them.

    Args:
        maps: for each layer, the module whose input is the neurons' activations.
        position: the position to scale at; all by default.
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
    predicts = torch.zeros(row.shape, dtype=torch.bool, device=ids.device)
    predicts[0, at] = True

    def probability() -> Tensor:
        return hf(input_ids=row).logits[:, at].softmax(-1).gather(-1, answer[None, :, None]).prod(1)

    return torch.cat([_integral(probability, module, predicts, shares) for module in maps])


@torch.enable_grad()
def _integral(output: Callable[[], Tensor], module: nn.Module, where: Tensor, shares: Sequence[float]) -> Tensor:
    """Activations times mean gradients on the path, summed over positions, `[row, neuron]`.

    Args:
        output: runs the model and returns one number per row.
        where: the positions to scale, bool `[row, position]`.
    """
    total = torch.zeros(())
    for share in shares:
        states: list[Tensor] = []

        def scale(x: Tensor, share: float = share, states: list[Tensor] = states) -> Tensor:
            chosen = where.view(*x.shape[:-1], 1)
            moved = torch.where(chosen, share * x, x).detach().requires_grad_(True)
            states.extend((x.detach(), moved))
            return moved

        with replace_input(module, scale):
            value = output()
        x, moved = states
        grad = torch.autograd.grad(value.sum(), moved)[0]
        total = total + ((x * grad).view(*where.shape, -1) * where[..., None]).sum(1)
    return total / len(shares)
