"""MEMIT: write many facts at once, spread over several layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .._util.errors import UserError
from ..knowledge import Case, accepts_spec
from ..model import Edit, Factors, Site, Slice, chunks, factors, scratch
from ..model.layout import neuron_output, neuron_output_name
from ..model.run.lookup import inputs_at, outputs_at
from ..model.run.modules import replace_output
from .common import Progress, edit_record
from .rewriting.closed_form import memit_update
from .rewriting.config import RewriteConfig
from .rewriting.outcome import MatrixChange, rewrite_record
from .rewriting.rewriting import ROWS, Change, changes, layers_of, moments_of, subject_positions
from .rewriting.value import ValueSearch, best_value

if TYPE_CHECKING:
    from ..model import Model


MEMIT = RewriteConfig(clamp=0.75, target_loss=0.2)


@accepts_spec
def memit(
    model: Model,
    case: Case,
    sites: Iterable[Site] | None = None,
    config: RewriteConfig = MEMIT,
    *,
    answers: Mapping[str, str] | None = None,
    weight: float | None = None,
    progress: Progress | None = None,
) -> Edit:
    """Replace the answers of all forget facts at once: MEMIT (Meng et al. 2023, arXiv:2210.07229).

    For each fact, gradient descent finds the state that the new answer needs after the last edited layer. The layers
    are then edited in order. Each takes its share of the residual that remains with the layers edited so far, by least
    squares. This replaces a fact by an untruth. How strongly it writes depends on `weight` and on how much text the
    case has, so check what is left.

    Args:
        sites: the `mlp` sites to edit; by default the four up to a quarter of the depth.
        config: contexts, search and second moments, see `RewriteConfig`; by default with a `clamp` of 0.75 and a
            `target_loss` of 0.2.
        answers: the new answer by subject; by default each forget fact's first foil.
        weight: the weight of the second moment, as a number of keys of other text; a larger weight makes a gentler
            edit. By default twice the number of neurons in a layer.
        progress: called after each fact with the facts done and their total.

    Cost: per fact, up to `config.steps` forward and backward passes over `contexts + 1` rows from the subject on, and
    over one more row; per fact and layer, a forward pass over these rows up to that layer, and one over the plain
    prompt up to the last layer. Once per model and case, a forward pass over the neutral text up to the last layer.

    Raises:
        UserError: sites other than MLPs, a model that normalises the MLP's output, or answers for subjects that are not
            among the known forget facts.
        LokaError: the search for a state diverged, or a change is too large for its matrix.
    """
    end = model.n_layers // 4
    layers = layers_of(model, sites, range(max(end - 3, 0), end + 1))
    names = [neuron_output_name(model, layer) for layer in layers]
    wanted = changes(model, case, answers, config.contexts)
    block = model.hf.get_submodule(model.block(layers[-1]))
    _refuse_normed(model, block, neuron_output(model, layers[-1]), wanted[0])
    moments = moments_of(model, case, layers, wanted, retain_weight=config.retain_weight, ridge=config.ridge)
    digest, strength = model.digest(), 2.0 * model.n_neurons if weight is None else weight
    states = _states(model, block, wanted, config.search, progress)
    weights = [model.parameters[f"{name}.weight"] for name in names]
    parts: list[Factors] = []
    sizes = [MatrixChange(name, w, config.largest_change) for name, w in zip(names, weights, strict=True)]
    given = {"answers": None if answers is None else dict(answers), "weight": weight, "config": config.to_json()}
    record = edit_record("memit", model, case, [Site(layer, "mlp") for layer in layers], given)
    with scratch(model, [Slice(f"{n}.weight", 0, torch.arange(len(w))) for n, w in zip(names, weights, strict=True)]):
        for i, layer in enumerate(layers):
            keys, now = _read(model, neuron_output(model, layer), block, wanted)
            update = memit_update(keys, states - now, moments[layer], weight=strength, layers=len(layers) - i)
            parts.append(factors(model, names[i], update.left, update.right))
            parts[-1].add_(weights[i])
            sizes[i].norm(weights[i])
        record = replace(record, rewrite=rewrite_record(model, wanted, sizes, weights))
    return Edit((), (), digest, record, tuple(parts))


def _states(
    model: Model, block: nn.Module, wanted: Sequence[Change], search: ValueSearch, progress: Progress | None
) -> Tensor:
    """The state after the last layer that each new answer needs, `[fact, d_model]`."""
    found = []
    for i, change in enumerate(wanted):
        found.append(best_value(model, block, change.rewrite(model), search).final)
        if progress:
            progress(i + 1, len(wanted))
    return torch.stack(found)


def _read(model: Model, down: nn.Module, block: nn.Module, wanted: Sequence[Change]) -> tuple[Tensor, Tensor]:
    """Keys averaged over contexts `[fact, d_mlp]`, and the states in the plain prompts `[fact, d_model]`."""
    keys, states = [], []
    for part in chunks(len(wanted), max(ROWS // len(wanted[0].prompts), 1)):
        group = wanted[part]
        batch, at = subject_positions(model, [p for change in group for p in change.prompts])
        keys += inputs_at(model, [down], batch, at)[0].unflatten(0, (len(group), -1)).mean(1)
        plain, at = subject_positions(model, [c.prompts[0] for c in group])
        states += outputs_at(model, [block], plain, at)[0]
    return torch.stack(keys), torch.stack(states)


@torch.no_grad()
def _refuse_normed(model: Model, block: nn.Module, down: nn.Module, change: Change) -> None:
    """Refuse a model whose residual stream does not move by what the MLP writes: the layers' shares would be wrong."""
    wanted = change.rewrite(model)
    before = outputs_at(model, [block], wanted.batch, wanted.at)[0]
    step = before.std() * torch.ones_like(before[0])
    with replace_output(down, lambda out: out + step.to(out.dtype)):
        after = outputs_at(model, [block], wanted.batch, wanted.at)[0]
    if not torch.allclose(after - before, step.expand_as(before), rtol=0.0, atol=0.1 * float(step[0])):
        raise UserError(
            f"{model.name} normalises the MLP's output before adding it to the residual stream, or scales it, so memit "
            "cannot edit it; use rome."
        )
