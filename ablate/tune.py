"""Train the slices of the sites, and nothing else, until the facts are gone from the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from .._util.errors import UserError
from ..knowledge import Case
from ..model import Edit, Site, Slice, capture, merge, scratch, slices
from .objectives import objective as named
from .training.batches import prepare
from .training.early_stopping import warn, watching
from .training.loop import Progress, Schedule, descend
from .training.preconditioner import whitening
from .training.relearning import SimulatedRelearning

if TYPE_CHECKING:
    from ..model import Model


def tune(
    model: Model,
    case: Case,
    sites: Iterable[Site] | None,
    *,
    objective: str = "undial",
    settings: Mapping[str, Any] | None = None,
    steps: int = 40,
    lr: float = 1e-3,
    alpha: float = 1.0,
    beta: float = 1.0,
    push: float = 0.0,
    retain_rows: int = 12,
    neutral_rows: int = 4,
    between: int = 0,
    states: float = 0.0,
    whiten: float | None = None,
    warm_up: int = 5,
    relapse: Mapping[str, float] | None = None,
    every: int = 0,
    bounds: Mapping[str, float] | None = None,
    checkpointing: bool = False,
    bfloat16: bool = False,
    seed: int = 0,
    begun: Edit | None = None,
    progress: Progress | None = None,
    stop: Callable[[int], bool] | None = None,
) -> Edit:
    """Train the sites' slices on the working facts with a forget objective and a retain term.

    Args:
        sites: what may change; `None` is every weight of every block, the baseline to compare with.
        objective: `undial`, `ascent`, `difference`, `npo`, `simnpo`, `idk`, `wga`, `satimp`, `ceu`, `pdu`, `rmu`,
            `twin`, `stranger` or `alternative`; their losses, with their sources, are the functions of those names in
            `objectives` (`dpo` for `idk`).
        settings: the objective's own hyper-parameters, such as `{"beta": 0.1}` for `npo`; what is left out is as in
            its paper. Not to be confused with `alpha` and `beta` beside it.
        alpha, beta: weight of the divergence from the original on retain facts and on neutral text.
        push: weight of `excess` beside the objective. A distillation hardly notices an answer that has become
            rare but is still far likelier than others of its kind; the push does, and ends at chance.
        between: rehearse beside the retain facts what the original says of so many subjects between two that are kept
            (`mixtures`), in batches of 32.
        states: weight, beside the divergence, of how far residual states move on retain facts (`model.distill.drift`),
            for which four states or so are kept of each of their tokens.
        whiten: damping of `whitening`, such as 0.1: steps of rows go in coordinates in which what they read is white;
            `None` leaves them as they are.
        warm_up: steps over which the learning rate rises to `lr`.
        relapse: settings of `SimulatedRelearning`, to simulate relearning inside the training; `None` leaves it out.
        every: how many steps from one measurement to the next; 0 measures nothing. A quarter of the retain facts and of
            the neutral text is then held out of the training and measured, and the state nearest to the bounds is what
            remains. The training ends early inside the bounds, when it diverges, or when the collateral is far out of
            bounds (recall and perplexity together one whole worse) and twice running got no better; of the latter two
            it warns. `about["training"]` says which, and how the kept state stands.
        bounds: of `Bounds`: `forget`, `retain_drop`, `perplexity_rise`.
        checkpointing: run the blocks once more in the backward pass instead of keeping their activations: about a third
            more time, for a model whose activations do not fit.
        bfloat16: multiply with factors rounded to it, with weights, sums and steps as they are, where the processor is
            faster at that (600 neurons of SmolLM2, two cores with AMX: 1.7 s a step, 2.7 without; others do not round).
            On other devices, and with `checkpointing`, torch's autocast.
        begun: an edit to train from. The retain terms draw back to the original all the same, and what is returned is
            both as one, of which nobody can make a control on other sites; `follow_up` makes one of which they can.
        stop: asked after each step, by its number from 1 on, with the model as it then is; true ends the training.
            An edit made again by `rerun_on` knows nothing of it, and takes all `steps`.

    Cost: `steps` forward and backward passes over one row a forget fact, `retain_rows` retain facts and
    `neutral_rows` passages; optimizer state for the slices alone. With `whiten`, a forward pass over the neutral text
    and the retain facts' prompts before, and for each map a matrix of `[d_in, d_in]` and its eigendecomposition.

    Raises:
        UserError: no sites, an unknown objective, settings that it or `SimulatedRelearning` does not
            take, or a negative weight of states, number of mixtures or damping.
        LokaError: training diverged, and nothing good was measured before.

    Example:
        edit = loka.ablate.tune(model, case, found.top(200, part="neuron"))
    """
    schedule = Schedule(
        steps, lr, alpha, beta, push, SimulatedRelearning.of(relapse), warm_up,
        checkpointing=checkpointing, bfloat16=bfloat16, states=states,
    )  # fmt: skip
    arguments = {
        "objective": objective, "steps": steps, "lr": lr, "alpha": alpha, "beta": beta,
        "push": push, "retain_rows": retain_rows,
        "neutral_rows": neutral_rows, "seed": seed,
        "relapse": None if relapse is None else dict(relapse),
        **({"settings": dict(settings)} if settings else {}),
        **({"between": between} if between else {}),
        **({"states": states} if states else {}),
        **({"whiten": whiten} if whiten is not None else {}),
        **({"begun": begun.digest()} if begun else {}),
        **({"warm_up": warm_up} if warm_up != 5 else {}),
        **({"every": every, "bounds": dict(bounds or {})} if every else {}),
        **({"checkpointing": True} if checkpointing else {}),
        **({"bfloat16": True} if bfloat16 else {}),
    }  # fmt: skip
    where = chosen(model, sites)
    case, watch = watching(model, case.on(model), every=every, bounds=bounds)
    goal = named(objective, settings).on(model, where)
    roots = () if whiten is None else whitening(model, case, where, whiten)
    about = described("tune", model, case, sites, arguments)
    lessons = prepare(
        model,
        case,
        retain_rows=retain_rows,
        neutral_rows=neutral_rows,
        seed=seed,
        states=states > 0,
        between=between,
        instead=goal.alternatives(),
        goal=goal,
    )
    with begun.applied(model) if begun else nullcontext():
        digest = model.digest()
        if begun:
            lessons = replace(lessons, forget=goal.begun(model, lessons.forget))
        with scratch(model, where):
            course = descend(
                model, where, lessons, goal, schedule, seed=seed, progress=progress, watch=watch, stop=stop,
                roots=roots,
            )  # fmt: skip
            made = capture(model, where, digest, about)
    if watch:
        warn(course)
        about["training"] = watch.told(course)
    if not begun:
        return made
    del about["sites"]
    return replace(merge(model, [begun, made]), about=about)


def chosen(model: Model, sites: Iterable[Site] | None) -> list[Slice]:
    """The slices of sites, or for `None` all rows of every matrix and bias of the blocks."""
    if sites is None:
        inside = model.block(0).removesuffix("0")
        blocks = {n: p for n, p in model.parameters.items() if n.startswith(inside)}
        maps = {n.rsplit(".", 1)[0] for n, p in blocks.items() if p.ndim == 2}
        return [Slice(n, 0, torch.arange(p.shape[0])) for n, p in blocks.items() if n.rsplit(".", 1)[0] in maps]
    where = slices(model, set(sites))
    if not where:
        raise UserError("there are no sites to train; take them from a localization's `top`.")
    return where


def described(
    method: str, model: Model, case: Case, sites: Iterable[Site] | None, arguments: dict[str, object]
) -> dict[str, object]:
    """What an edit says about how it was made."""
    listed: Sequence[str] | None = None if sites is None else [str(s) for s in sorted(set(sites))]
    return {"method": method, "model": model.name, "case": case.name, "sites": listed, "arguments": arguments}
