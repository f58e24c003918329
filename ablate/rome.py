"""ROME: write one fact into one layer by a rank-one change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
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
from .rewriting.outcome import MatrixChange, rewrite_record
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
    """Replace the answers of forget facts, one fact after another.

    ROME (Meng et al. 2022, arXiv:2202.05262). The key is the down-projection's input at the subject's last token,
    averaged over contexts. Gradient descent finds the value. For each fact, a rank-one change then makes the matrix
    write the value for the key; of all such changes it is the one that changes the output least on other text, by the
    second moment of that text. A later fact may disturb an earlier one; use `memit` for many facts at once.

    Args:
        sites: the single `mlp` site to edit; by default the one at a quarter of the depth.
        config: contexts, search and second moment, see `RewriteConfig`. The published code uses a `target_loss` of
            0.05.
        answers: the new answer by subject; by default each forget fact's first foil.
        progress: called after each fact with the facts done and their total.

    Cost: per fact, up to `config.steps` forward and backward passes over `contexts + 1` rows from the subject on, and
    over one more row. Once per model and case, a forward pass over the neutral text.

    Raises:
        UserError: sites other than a single MLP, or answers for subjects that are not among the known forget facts.
        LokaError: the search for a value diverged, or the change is too large for the matrix.
    """
    layer = _layer(model, sites)
    wanted = changes(model, case, answers, config.contexts)
    moment = moments_of(model, case, [layer], wanted, retain_weight=config.retain_weight, ridge=config.ridge)[layer]
    arguments = {"answers": None if answers is None else dict(answers), "config": config.to_json()}
    record = edit_record("rome", model, case, [Site(layer, "mlp")], arguments)
    name, digest = neuron_output_name(model, layer), model.digest()
    weight = model.parameters[f"{name}.weight"]
    parts: list[Factors] = []
    size = MatrixChange(name, weight, config.largest_change)
    with scratch(model, [Slice(f"{name}.weight", 0, torch.arange(len(weight)))]):
        for i, change in enumerate(wanted):
            update = _update(model, neuron_output(model, layer), change, moment, config.search)
            parts.append(factors(model, name, update.left, update.right))
            parts[-1].add_(weight)
            size.norm(weight)
            if progress:
                progress(i + 1, len(wanted))
        record = replace(record, rewrite=rewrite_record(model, wanted, [size], [weight]))
    return Edit((), (), digest, record, tuple(parts))


def _layer(model: Model, sites: Iterable[Site] | None) -> int:
    layers = layers_of(model, sites, [model.n_layers // 4])
    if len(layers) > 1:
        raise UserError(f"rome edits one layer, but {len(layers)} are given; name one, or use memit.")
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
