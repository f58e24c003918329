"""ROME: write one fact into one layer by a change of rank one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .._util.errors import UserError
from ..knowledge import Case, accepts_spec
from ..model import Edit, Factors, Site, Slice, factors, scratch
from ..model.layout import neuron_output, neuron_output_name
from ..model.run.lookup import inputs_at
from .common import Progress, edit_record
from .rewriting.closed_form import Update, rome_update
from .rewriting.config import RewriteConfig
from .rewriting.rewriting import Change, changes, layers_of, moments_of
from .rewriting.value import ValueSearch, best_value

if TYPE_CHECKING:
    from ..model import Model


ROME = RewriteConfig()


@accepts_spec
def rome(
    model: Model,
    case: Case,
    sites: Iterable[Site] | None = None,
    config: RewriteConfig = ROME,
    *,
    answers: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Edit:
    """Put other answers in place of forget facts' answers, one fact after another.

    ROME (Meng et al. 2022, arXiv:2202.05262). The key is the down-projection's input where the subject ends, averaged
    over contexts. Descent finds the value. The matrix then changes by rank one per fact: it writes the value for the
    key, and moves least on other text, according to the second moment of that text. A fact that is written later may
    disturb an earlier one; for many at once take `memit`.

    Args:
        sites: the one `mlp` to write to; by default that at a quarter of the depth.
        config: contexts, search and second moment, see `RewriteConfig`. The published code has a `target_loss` of 0.05.
        answers: new answer by subject; by default each forget fact's first foil.
        progress: called after each fact with the facts done and their total.

    Cost: a fact takes up to `config.steps` forward and backward passes over `contexts + 1` rows from the subject on,
    and over one more row. Once for a model and case, a forward pass over the neutral text.

    Raises:
        UserError: sites other than a single MLP, or answers about other subjects than the known forget facts.
        LokaError: the search for a value diverged.
    """
    layer = _layer(model, sites)
    wanted = changes(model, case, answers, config.contexts)
    moment = moments_of(model, case, [layer], wanted, retain_weight=config.retain_weight, ridge=config.ridge)[layer]
    arguments = {"answers": None if answers is None else dict(answers), "config": config.to_json()}
    record = edit_record("rome", model, case, [Site(layer, "mlp")], arguments)
    name, digest = neuron_output_name(model, layer), model.digest()
    weight = model.parameters[f"{name}.weight"]
    parts: list[Factors] = []
    with scratch(model, [Slice(f"{name}.weight", 0, torch.arange(len(weight)))]):
        for i, change in enumerate(wanted):
            update = _update(model, neuron_output(model, layer), change, moment, config.search)
            parts.append(factors(model, name, update.left, update.right))
            parts[-1].add_(weight)
            if progress:
                progress(i + 1, len(wanted))
    return Edit((), (), digest, record, tuple(parts))


def _layer(model: Model, sites: Iterable[Site] | None) -> int:
    layers = layers_of(model, sites, [model.n_layers // 4])
    if len(layers) > 1:
        raise UserError(f"rome writes to one layer and {len(layers)} are given; name one, or take memit.")
    return layers[0]


def _update(model: Model, down: nn.Module, change: Change, moment: Tensor, search: ValueSearch) -> Update:
    wanted = change.rewrite(model)
    (keys,) = inputs_at(model, [down], wanted.batch, wanted.at)
    value = best_value(model, down, wanted, search)
    return rome_update(
        keys[0],
        value.final,
        output=down(keys[0].to(model.dtype)).to(keys),
        key_mean=keys.mean(0),
        moment=moment.to(keys),
    )
