"""Hidden-state mixups of two retained subjects, on which the edit also distils the original.

They fill the space between the retain facts, of which there are few. Mixup of hidden states: Verma et al. 2019,
arXiv:1806.05236. The target here is the original's output on the mixup.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from ...knowledge import Case, Item
from ...model import Batch, chunks, encode
from ...model.run.lookup import outputs_at
from ...model.run.subject import subject_ends
from ...model.train.distill import InjectedStates, TeacherOutputs, label_logits, outputs_from_logits
from ..rewriting.rewriting import subject_positions

if TYPE_CHECKING:
    from ...model import Model

ROWS = 32


@torch.no_grad()
def mixups(model: Model, case: Case, n: int, *, seed: int) -> list[TeacherOutputs]:
    """The original's outputs for `n` mixups of two subjects of one relation, drawn over all forgotten relations.

    Both subjects are to be kept: working retain facts, and facts that the model does not know. A working template
    names the first subject. At its last token, after the first block, the state becomes a mean of two states: its own,
    and the one where the same template names the second subject. The share is drawn uniformly between 0 and 1. Only the
    answer's first token is scored, since all later ones follow an answer about one of the two subjects.

    Cost: three forward passes over `n` prompts, two of them through one block.
    """
    rng = random.Random(f"{seed}/mixtures")
    facts = [f for f in case.same_relation([*case.retain.working, *case.unknown]) if all(p.slots for p in f.prompts)]
    return [_mixup(model, facts, rng, part.stop - part.start) for part in chunks(n, ROWS)] if facts else []


def _mixup(model: Model, facts: list[Item], rng: random.Random, rows: int) -> TeacherOutputs:
    first = rng.choices(facts, k=rows)
    second = [rng.choice([f for f in facts if f.relation == fact.relation]).subject for fact in first]
    prompts = [rng.choice(f.prompts) for f in first]
    swapped = [p.about(other) for p, other in zip(prompts, second, strict=True)]
    block = [model.hf.get_submodule(model.block(0))]
    batch = _first_tokens(encode(model, prompts, [f.answer for f in first]))
    at = subject_ends(model, batch, prompts)
    (states,) = outputs_at(model, block, batch, at)
    (others,) = outputs_at(model, block, *subject_positions(model, swapped))
    share = torch.tensor([[rng.random()] for _ in first]).to(states)
    injected = InjectedStates(at, share * states + (1 - share) * others)
    return replace(outputs_from_logits(batch, label_logits(model, batch, injected)), injected=injected)


def _first_tokens(batch: Batch) -> Batch:
    """The batch with each row's first label alone."""
    asked = batch.labels >= 0
    return replace(batch, labels=batch.labels.where(asked & (asked.cumsum(-1) == 1), -100))
