"""The training loop that all trained edits share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..._util.errors import UserError
from ...model import LowRank, Slice, Trainable, checkpointed, sliced
from ...model.run.onednn import bfloat16_products
from ...model.train.distill import TeacherOutputs, divergence
from ..objectives import ForgetBatch, Objective, excess
from .batches import Batches
from .early_stopping import Diverged, EarlyStopping, Looking, TrainResult
from .preconditioner import Roots, whiten_
from .relearning import SimulatedRelearning, Simulation

if TYPE_CHECKING:
    from ...model import Model

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Schedule:
    """How long, how fast and how exactly: AdamW at `lr`, warmed up over `warm_up` steps and down a cosine to nothing.

    `alpha` weighs the retain term and `beta` that on neutral text, each a divergence from the original
    in nats a token; `states` is the weight of `drift` beside the divergence on retain facts, and `push` that of
    `excess` beside the objective; `relapse` has relearning simulated. With `checkpointing`, blocks run again in the
    backward pass instead of keeping their activations; with `bfloat16`, products are rounded to it
    (`bfloat16_products`); weights and steps stay exact.
    """

    steps: int
    lr: float
    alpha: float = 1.0
    beta: float = 1.0
    push: float = 0.0
    relapse: SimulatedRelearning | None = None
    warm_up: int = 5
    checkpointing: bool = False
    bfloat16: bool = False
    states: float = 0.0

    def __post_init__(self) -> None:
        if not self.states >= 0:
            raise UserError(
                f"states={self.states} is no weight; give 0 to leave states free, or a number above, such as 30."
            )

    def rate(self, step: int) -> float:
        return self.lr * min(1.0, (step + 1) / max(self.warm_up, 1)) * 0.5 * (1 + math.cos(math.pi * step / self.steps))


def descend(
    model: Model,
    slices: Sequence[Slice],
    lessons: Batches,
    objective: Objective | None,
    schedule: Schedule,
    *,
    seed: int,
    progress: Progress | None = None,
    watch: EarlyStopping | None = None,
    stop: Callable[[int], bool] | None = None,
    roots: Roots = (),
) -> TrainResult:
    """Train slices in place, and say how that went. Call it inside `scratch`.

    A step is one batch each of forget facts (unless `objective` is `None`), retain facts and neutral
    text, forward and backward down to the lowest slice; with `relapse`, half the forget facts once more,
    and now and then a full training step on the other half. With a `watch`, the best state that it saw is what
    remains, also of a training that diverges. `stop` is asked after each step, by its number from 1 on. Steps go
    in the coordinates of `whitening`'s `roots`.

    Raises:
        LokaError: the loss is no longer finite, and there is no good state to go back to.
    """
    with checkpointed(model, on=schedule.checkpointing), sliced(model, slices) as trainable, torch.enable_grad():
        resist = schedule.relapse if objective else None
        simulation = Simulation(model, trainable, lessons.forget, resist, seed=seed) if resist else None
        return train_(
            model, trainable, lessons, objective, schedule, seed=seed, progress=progress, simulation=simulation,
            watched=watch and watch.on(trainable), stop=stop,
            change_steps=partial(whiten_, trainable=trainable, roots=roots) if roots else None,
        )  # fmt: skip


def train_(
    model: Model,
    trainable: Trainable | LowRank,
    lessons: Batches,
    objective: Objective | None,
    schedule: Schedule,
    *,
    seed: int,
    progress: Progress | None = None,
    simulation: Simulation | None = None,
    watched: Looking | None = None,
    stop: Callable[[int], bool] | None = None,
    change_steps: Callable[[torch.optim.Optimizer], None] | None = None,
) -> TrainResult:
    """The same for what is made trainable already, slices or changes of low rank; only slices can be watched."""
    optimizer = torch.optim.AdamW(trainable.parameters, lr=schedule.lr, weight_decay=0.0)
    if change_steps:
        change_steps(optimizer)
    done, ended = 0, None
    try:
        while done < schedule.steps and not ended:
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(done)
            with bfloat16_products(model, on=schedule.bfloat16):
                _backward(model, lessons, objective, schedule, done, seed)
                if simulation and objective:
                    _resist(model, simulation, objective, schedule.push, done)
            trainable.step(optimizer)
            done += 1
            if progress:
                progress(done, schedule.steps)
            ended = watched and watched.ends(done)
            if stop and stop(done):
                ended = ended or "stopped"
        if not all(torch.isfinite(p).all() for p in trainable.parameters):
            raise _diverged(schedule, schedule.steps - 1, "weights not finite")
    except Diverged:
        if not (watched and watched.restored()):
            raise
        return watched.course(done, "diverged")
    return watched.course(done, ended or "steps") if watched else TrainResult(done, done, ended or "steps")


def _diverged(schedule: Schedule, step: int, what: str) -> Diverged:
    return Diverged(
        f"training diverged at step {step + 1} of {schedule.steps} ({what}); "
        f"try a learning rate under {schedule.lr:g}. The model is as it was."
    )


def _backward(
    model: Model,
    lessons: Batches,
    objective: Objective | None,
    schedule: Schedule,
    step: int,
    seed: int,
) -> None:
    """Accumulate the step's gradient, a kind at a time, so that memory holds one batch."""
    for kind, weight in (("forget", 1.0), ("retain", schedule.alpha), ("neutral", schedule.beta)):
        memory = lessons.draw(kind, step, seed)
        if memory is None or not weight or (kind == "forget" and objective is None):
            continue
        if kind == "forget" and objective:
            loss = _forget(model, memory, objective, schedule.push)
        else:
            loss = divergence(model, memory)
        if not torch.isfinite(loss):
            raise _diverged(schedule, step, f"{kind} loss {float(loss.detach())}")
        (weight * loss).backward()


def _resist(model: Model, simulation: Simulation, objective: Objective, push: float, step: int) -> None:
    """The forget objective once more, where simulated relearning leads."""
    settings = simulation.settings
    if step < settings.start:
        return
    if (step - settings.start) % settings.every == 0:
        simulation.renew()
    with simulation.in_force():
        _forget(model, simulation.question(), objective, push).backward()


def _forget(model: Model, memory: TeacherOutputs, objective: Objective, push: float) -> Tensor:
    asked = ForgetBatch(model, memory)
    loss = objective(asked)
    return loss + push * excess(asked.scores, memory) if push else loss
