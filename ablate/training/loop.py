"""The training loop that all trained edits share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...model import LowRank, Slice, Trainable, checkpointed, sliced
from ...model.run.onednn import bfloat16_products
from ...model.run.single_precision import single_precision
from ...model.train.distill import TeacherOutputs, divergence
from ..common import Progress, Stop
from ..objectives import ForgetBatch, Objective, excess
from .batches import Batches
from .config import TrainingConfig
from .early_stopping import BestState, Diverged, EarlyStopping, TrainResult
from .preconditioner import Roots, precondition_
from .relearning import Simulation

if TYPE_CHECKING:
    from ...model import Model


@dataclass(frozen=True)
class Callbacks:
    """The functions that a training calls after each step.

    `progress(done, total)` is for a progress bar. `stop(done)` may look at the model as it is after the step; if it
    returns true, the training ends.
    """

    progress: Progress | None = None
    stop: Stop | None = None


@dataclass(frozen=True)
class Task:
    """What a training works on; `roots`: the preconditioner's, one per slice."""

    batches: Batches
    objective: Objective | None
    stopping: EarlyStopping | None = None
    roots: Roots = ()


@dataclass(frozen=True)
class Extras:
    """The parts of training that slices support and adapters do not."""

    simulation: Simulation | None = None
    best: BestState | None = None
    precondition: Callable[[torch.optim.Optimizer], None] | None = None


def train_slices(
    model: Model, slices: Sequence[Slice], task: Task, config: TrainingConfig, callbacks: Callbacks = Callbacks()
) -> TrainResult:
    """Train slices in place, and return the outcome. Call it inside `scratch`.

    A step is one batch each of forget facts (unless there is no objective), retain facts and neutral text, forward and
    backward down to the lowest slice. Simulated relearning adds a pass over half of the forget facts and, now and then,
    full training steps on the other half. With early stopping, the best state is restored, even after a training that
    diverges. For simulated relearning, whose steps over all weights are small, weights of half precision are held in
    float32, and rounded at the end.

    Raises:
        LokaError: the loss is no longer finite, and there is no good state to go back to.
    """
    exact = single_precision(model, keep=True) if config.simulated_relearning else nullcontext()
    with exact, checkpointed(model, on=config.checkpointing), sliced(model, slices) as trainable, torch.enable_grad():
        several = len(task.batches.forget[0].batch.ids) > 1  # one item has no half to relearn from
        relearning = config.simulated_relearning if task.objective and several else None
        extras = Extras(
            Simulation(model, trainable, task.batches.forget, relearning, seed=config.seed) if relearning else None,
            task.stopping.on(trainable) if task.stopping else None,
            partial(precondition_, trainable=trainable, roots=task.roots) if task.roots else None,
        )
        return train(model, trainable, task, config, callbacks, extras)


def train(
    model: Model,
    trainable: Trainable | LowRank,
    task: Task,
    config: TrainingConfig,
    callbacks: Callbacks,
    extras: Extras = Extras(),
) -> TrainResult:
    """As `train_slices`, for slices or low-rank adapters that are already trainable."""
    optimizer = torch.optim.AdamW(trainable.parameters, lr=config.lr, weight_decay=0.0)
    if extras.precondition:
        extras.precondition(optimizer)
    best, done, ended = extras.best, 0, None
    try:
        while done < config.steps and not ended:
            for group in optimizer.param_groups:
                group["lr"] = config.rate(done)
            with bfloat16_products(model, on=config.bfloat16):
                _backward(model, task, config, done)
                if extras.simulation and task.objective:
                    _resist(model, extras.simulation, task.objective, config.push_weight, done)
            trainable.step(optimizer)
            done += 1
            if callbacks.progress:
                callbacks.progress(done, config.steps)
            ended = best and best.check(done)
            if callbacks.stop and callbacks.stop(done):
                ended = ended or "stopped"
        if not all(torch.isfinite(p).all() for p in trainable.parameters):
            raise _diverged(config, config.steps - 1, "weights not finite")
    except Diverged:
        if not (best and best.restore()):
            raise
        return best.result(done, "diverged")
    return best.result(done, ended or "steps") if best else TrainResult(done, done, ended or "steps")


def _diverged(config: TrainingConfig, step: int, what: str) -> Diverged:
    return Diverged(
        f"training diverged at step {step + 1} of {config.steps} ({what}); "
        f"try a learning rate under {config.lr:g}. The model is as it was."
    )


def _backward(model: Model, task: Task, config: TrainingConfig, step: int) -> None:
    """Accumulate the step's gradient, one kind of batch at a time, so that memory holds only one."""
    weights = {"forget": 1.0, "retain": config.retain_weight, "neutral": config.neutral_weight}
    for kind, weight in weights.items():
        memory = task.batches.draw(kind, step, config.seed)
        if memory is None or not weight or (kind == "forget" and task.objective is None):
            continue
        if kind == "forget" and task.objective:
            loss = _forget_loss(model, memory, task.objective, config.push_weight)
        else:
            loss = divergence(model, memory)
        if not torch.isfinite(loss):
            raise _diverged(config, step, f"{kind} loss {float(loss.detach())}")
        (weight * loss).backward()


def _resist(model: Model, simulation: Simulation, objective: Objective, push_weight: float, step: int) -> None:
    """Add the gradient of the forget objective at the weights that simulated relearning reaches."""
    settings = simulation.settings
    if step < settings.start:
        return
    if (step - settings.start) % settings.every == 0:
        simulation.renew()
    with simulation.in_force():
        _forget_loss(model, simulation.held_out_batch(), objective, push_weight).backward()


def _forget_loss(model: Model, memory: TeacherOutputs, objective: Objective, push_weight: float) -> Tensor:
    asked = ForgetBatch(model, memory)
    loss = objective(asked)
    return loss + push_weight * excess(asked.scores, memory) if push_weight else loss
