"""ROME: write one fact into one layer by a change of rank one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .._util.errors import UserError
from ..knowledge import Case
from ..model import Edit, Factors, Site, Slice, factors, scratch
from ..model.layout import neuron_output, neuron_output_name
from ..model.run.lookup import inputs_at
from .rewriting.closed_form import Update, rome_update
from .rewriting.rewriting import Change, changes, layers_of, moments_of
from .rewriting.value import Search, best_value
from .training.loop import Progress
from .tune import described

if TYPE_CHECKING:
    from ..model import Model


def rome(
    model: Model,
    case: Case,
    sites: Iterable[Site] | None = None,
    *,
    answers: Mapping[str, str] | None = None,
    contexts: int = 8,
    steps: int = 25,
    lr: float = 0.5,
    decay: float = 0.5,
    clamp: float = 4.0,
    kl: float = 0.0625,
    enough: float = 0.3,
    keep: float = 1.0,
    ridge: float = 0.01,
    progress: Progress | None = None,
) -> Edit:
    """Put other answers in place of forget facts' answers, one fact after another.

    ROME (Meng et al. 2022, arXiv:2202.05262). The key is what the down-projection reads where the subject ends,
    averaged over contexts; the value is found by descent; the matrix changes by rank one a fact, so that it writes
    the value for the key, and moves least on other text, as its second moment tells. Facts written later may disturb
    earlier ones: for many at once take `memit`.

    Args:
        sites: the one `mlp` to write to; by default that at a quarter of the depth.
        answers: new answer by subject; by default each forget fact's first foil.
        contexts: how many beginnings of neutral text the working prompts are put behind, beside the plain prompt.
        steps, lr, decay, clamp, kl, enough: of the search for the value, see `value.Search`. The published code goes on
            to an `enough` of 0.05, which costs neighbours: in `bench.updates` 94% are kept with it and 95 with 0.3, and
            97 and 96% of the answers written.
        keep: weight of the subjects of facts to keep in the second moment, beside the text; 0 is the published method.
        ridge: share of the second moment's mean diagonal that is added to its diagonal.

    Cost: a fact takes up to `steps` forward and backward passes over what follows the subject in `contexts + 1` rows
    and over one more; once for a model and case, a forward pass over the neutral text.

    Raises:
        UserError: sites that are no single MLP, or answers for other subjects than the forget facts that are known.
        LokaError: the search for a value diverged.
    """
    arguments = {
        "answers": None if answers is None else dict(answers), "contexts": contexts, "steps": steps, "lr": lr,
        "decay": decay, "clamp": clamp, "kl": kl, "enough": enough, "keep": keep, "ridge": ridge,
    }  # fmt: skip
    case, layer = case.on(model), _layer(model, sites)
    wanted = changes(model, case, answers, contexts)
    moment = moments_of(model, case, [layer], wanted, keep=keep, ridge=ridge)[layer]
    search = Search(steps, lr, decay, clamp, kl, enough)
    about = described("rome", model, case, [Site(layer, "mlp")], arguments)
    name, digest = neuron_output_name(model, layer), model.digest()
    weight = model.parameters[f"{name}.weight"]
    parts: list[Factors] = []
    with scratch(model, [Slice(f"{name}.weight", 0, torch.arange(len(weight)))]):
        for i, change in enumerate(wanted):
            update = _update(model, neuron_output(model, layer), change, moment, search)
            parts.append(factors(model, name, update.left, update.right))
            parts[-1].add_(weight)
            if progress:
                progress(i + 1, len(wanted))
    return Edit((), (), digest, about, tuple(parts))


def _layer(model: Model, sites: Iterable[Site] | None) -> int:
    layers = layers_of(model, sites, [model.n_layers // 4])
    if len(layers) > 1:
        raise UserError(f"rome writes to one layer and {len(layers)} are given; name one, or take memit.")
    return layers[0]


def _update(model: Model, down: nn.Module, change: Change, moment: Tensor, search: Search) -> Update:
    question = change.question(model)
    (keys,) = inputs_at(model, [down], question.batch, question.at)
    value = best_value(model, down, question, search)
    return rome_update(
        keys[0],
        value.final,
        output=down(keys[0].to(model.dtype)).to(keys),
        key_mean=keys.mean(0),
        moment=moment.to(keys),
    )
