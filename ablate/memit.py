"""MEMIT: write many facts at once, spread over several layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .._util.errors import UserError
from ..knowledge import Case
from ..model import Edit, Factors, Site, Slice, chunks, factors, scratch
from ..model.layout import neuron_output, neuron_output_name
from ..model.run.lookup import inputs_at, outputs_at
from ..model.run.modules import replace_output
from .rewriting.closed_form import memit_update
from .rewriting.rewriting import ROWS, Change, changes, layers_of, moments_of, named
from .rewriting.value import Search, best_value
from .training.loop import Progress
from .tune import described

if TYPE_CHECKING:
    from ..model import Model


def memit(
    model: Model,
    case: Case,
    sites: Iterable[Site] | None = None,
    *,
    answers: Mapping[str, str] | None = None,
    weight: float | None = None,
    contexts: int = 8,
    steps: int = 25,
    lr: float = 0.5,
    decay: float = 0.5,
    clamp: float = 0.75,
    kl: float = 0.0625,
    enough: float = 0.2,
    keep: float = 1.0,
    ridge: float = 0.01,
    progress: Progress | None = None,
) -> Edit:
    """Put other answers in place of all forget facts' answers at once: MEMIT (Meng et al. 2023, arXiv:2210.07229).

    For each fact the state behind the last layer that the answer needs is found by descent. The layers are then
    written in order, each with the least-squares share of what is still missing there, measured on the weights as
    they are by then. It erases, too, by an untruth; how hard it writes depends on `weight` and on how much text the
    case has, so look at what is left.

    Args:
        sites: the `mlp`s to write to; by default four that end at a quarter of the depth.
        answers: new answer by subject; by default each forget fact's first foil.
        weight: how many keys of other text a second moment counts for: more is gentler. By default twice as many as the
            layer has neurons: on the facts of `bench.updates` (with `enough` of 0.2) it keeps 93% of another relation
            where a tenth of the neurons (with 0.3) keeps 86%, and writes 86% of the answers where that writes 83%; of
            the same relation it keeps 82 and 84%.
        contexts: how many beginnings of neutral text the working prompts are put behind, beside the plain prompt.
        steps, lr, decay, clamp, kl, enough: of the search for the states, see `value.Search`.
        keep: weight of the subjects of facts to keep in the second moment, beside the text; 0 is the published method.
        ridge: share of the second moments' mean diagonal that is added to their diagonal.

    Cost: a fact takes up to `steps` forward and backward passes over what follows the subject in `contexts + 1` rows
    and over one more, and for each layer a forward pass over these rows up to there, and one over the plain prompt up
    to the last; once for a model and case, a forward pass over the neutral text up to the last.

    Raises:
        UserError: sites that are no MLPs, a model that norms what an MLP writes, or answers for other subjects than
            the forget facts that are known.
        LokaError: the search for a state diverged.
    """
    arguments = {
        "answers": None if answers is None else dict(answers), "weight": weight, "contexts": contexts, "steps": steps,
        "lr": lr, "decay": decay, "clamp": clamp, "kl": kl, "enough": enough, "keep": keep, "ridge": ridge,
    }  # fmt: skip
    end = model.n_layers // 4
    case, layers = case.on(model), layers_of(model, sites, range(max(end - 3, 0), end + 1))
    wanted = changes(model, case, answers, contexts)
    block = model.hf.get_submodule(model.block(layers[-1]))
    _refuse_normed(model, block, neuron_output(model, layers[-1]), wanted[0])
    moments = moments_of(model, case, layers, wanted, keep=keep, ridge=ridge)
    digest, strength = model.digest(), 2.0 * model.n_neurons if weight is None else weight
    states = _states(model, block, wanted, Search(steps, lr, decay, clamp, kl, enough), progress)
    names = [neuron_output_name(model, layer) for layer in layers]
    weights = [model.parameters[f"{name}.weight"] for name in names]
    parts: list[Factors] = []
    with scratch(model, [Slice(f"{n}.weight", 0, torch.arange(len(w))) for n, w in zip(names, weights, strict=True)]):
        for i, layer in enumerate(layers):
            keys, now = _read(model, neuron_output(model, layer), block, wanted)
            update = memit_update(keys, states - now, moments[layer], weight=strength, layers=len(layers) - i)
            parts.append(factors(model, names[i], update.left, update.right))
            parts[-1].add_(weights[i])
    about = described("memit", model, case, [Site(layer, "mlp") for layer in layers], arguments)
    return Edit((), (), digest, about, tuple(parts))


def _states(
    model: Model, block: nn.Module, wanted: Sequence[Change], search: Search, progress: Progress | None
) -> Tensor:
    """The state behind the last layer that each new answer needs, `[fact, d_model]`."""
    found = []
    for i, change in enumerate(wanted):
        found.append(best_value(model, block, change.question(model), search).final)
        if progress:
            progress(i + 1, len(wanted))
    return torch.stack(found)


def _read(model: Model, down: nn.Module, block: nn.Module, wanted: Sequence[Change]) -> tuple[Tensor, Tensor]:
    """Keys averaged over contexts `[fact, d_mlp]`, and the states in the plain prompts `[fact, d_model]`."""
    keys, states = [], []
    for part in chunks(len(wanted), max(ROWS // len(wanted[0].prompts), 1)):
        some = wanted[part]
        prompts, subjects = zip(*((p, change.fact.subject) for change in some for p in change.prompts), strict=True)
        batch, at = named(model, prompts, subjects)
        keys += inputs_at(model, [down], batch, at)[0].unflatten(0, (len(some), -1)).mean(1)
        plain, at = named(model, [c.prompts[0] for c in some], [c.fact.subject for c in some])
        states += outputs_at(model, [block], plain, at)[0]
    return torch.stack(keys), torch.stack(states)


@torch.no_grad()
def _refuse_normed(model: Model, block: nn.Module, down: nn.Module, change: Change) -> None:
    """The shares are only right where the stream moves by what the MLP writes: move it, and see."""
    question = change.question(model)
    before = outputs_at(model, [block], question.batch, question.at)[0]
    step = before.std() * torch.ones_like(before[0])
    with replace_output(down, lambda out: out + step.to(out.dtype)):
        after = outputs_at(model, [block], question.batch, question.at)[0]
    if not torch.allclose(after - before, step.expand_as(before), rtol=0.0, atol=0.1 * float(step[0])):
        raise UserError(
            f"{model.name} does not add what an MLP writes to its stream as it is (there is a norm between), and "
            "memit needs that; take rome, which does not."
        )
