"""A sweep gives what plain interventions give, one at a time, with a hook written out by hand."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from loka.model import Batch, Model, Site, encode
from loka.model.layout import Tap, taps
from loka.model.sweep import sweep

PROMPTS = ["the capital of a dog is", "my sister looks for the old man and", "the red house is"]
OTHERS = ["the capital of a river is", "my sister looks for the small bird and", "the sea at night is"]
ANSWERS = ["warm bread", "the garden", "red"]
PARTS = ["resid", "attn", "mlp", "head", "neuron", "kv", "q", "k", "v"]


def single(batch: Batch, row: int) -> tuple[Tensor, Tensor]:
    """A row's tokens without padding `[1, position]` and its labels."""
    labels = batch.labels[row]
    return batch.ids[row][batch.mask[row].bool()][None], labels[labels >= 0]


def logprob(labels: Tensor, logits: Tensor) -> Tensor:
    """Of the whole answer behind each row."""
    logp = logits.log_softmax(-1)
    return logp.gather(-1, labels.expand(len(logp), -1)[..., None])[..., 0].sum(-1)


def plain(
    model: Model, ids: Tensor, labels: Tensor, changes: Sequence[tuple[Tap, Callable[[Tensor], Tensor]]]
) -> float:
    """One forward pass of one prompt, with hooks on the modules of transformers."""
    handles = []
    for tap, change in changes:

        def out(module: nn.Module, given: object, value: object, change=change) -> object:
            return change(value) if isinstance(value, Tensor) else (change(value[0]), *value[1:])

        def into(module: nn.Module, given: tuple[Tensor, ...], change=change) -> object:
            return (change(given[0]), *given[1:])

        handles.append(tap.module.register_forward_hook(out) if tap.out else tap.module.register_forward_pre_hook(into))
    try:
        with torch.no_grad():
            logits = model.hf(input_ids=ids, use_cache=False).logits[:, -len(labels) - 1 : -1]
    finally:
        for handle in handles:
            handle.remove()
    return float(logprob(labels, logits))


def activation(model: Model, ids: Tensor, tap: Tap) -> Tensor:
    seen: list[Tensor] = []
    plain(model, ids, ids[0, -1:], [(tap, lambda value: (seen.append(value.clone()), value)[1])])
    return seen[0]


def patched(model: Model, clean: Batch, other: Batch, site: Site, row: int, at: int | None = None) -> float:
    """The answer's log-probability with one site set to what it is on the counterfactual prompt."""
    (ids, labels), (ids_other, _) = single(clean, row), single(other, row)
    changes = []
    for tap in taps(model, site.part, site.layer):
        source = activation(model, ids_other, tap)
        shared = min(ids.shape[1], ids_other.shape[1])
        span = range(-shared, 0) if at is None else [at - len(labels)]
        features = tap.index[site.index or 0]

        def change(value: Tensor, source=source, span=span, features=features) -> Tensor:
            value = value.clone()
            for position in span:
                value[0, position, features] = source[0, position, features]
            return value

        changes.append((tap, change))
    return plain(model, ids, labels, changes)


def some_sites(model: Model, parts: Sequence[str] = PARTS) -> list[Site]:
    """A few of every part in every layer, in no order."""
    units = {p: [None] if model.units(p) == 1 else [model.units(p) - 1, 0] for p in parts}
    return [Site(layer, part, unit) for layer in (2, 0, 1) for part in parts for unit in units[part]]  # type: ignore[arg-type]


def test_patching_is_that_of_plain_hooks(tiny: Callable[[str], Model], architecture: str) -> None:
    model = tiny(architecture)
    clean, other = (encode(model, prompts, ANSWERS) for prompts in (PROMPTS, OTHERS))
    sites = some_sites(model)
    found = sweep(model, clean, sites, metric=lambda row, x: logprob(single(clean, row)[1], x), other=other)
    wanted = np.array([[patched(model, clean, other, site, row) for site in sites] for row in range(3)])
    base = np.array([plain(model, *single(clean, row), []) for row in range(3)])
    print(
        architecture,
        np.abs(found.values - wanted).max(),
        np.abs(wanted - base[:, None]).min(),
        np.abs(wanted - base[:, None]).max(),
    )
    assert np.abs(found.base - base).max() < 1e-9
    assert np.abs(found.values - wanted).max() < 1e-9
    assert np.abs(wanted - base[:, None]).max() > 0.1
