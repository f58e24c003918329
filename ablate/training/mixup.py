"""Subjects between subjects: what the original says of them is kept, too, as far as there is no fact to rehearse.

Mixup of hidden states (Verma et al. 2019, arXiv:1806.05236), whose target is what the original says of the mixture.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from ..._util.errors import UserError
from ...knowledge import Case, Fact
from ...model import Batch, chunks, encode
from ...model.run.lookup import outputs_at
from ...model.run.subject import subject_ends
from ...model.train.distill import InjectedStates, TeacherOutputs, label_logits, outputs_from_logits
from ..rewriting.rewriting import named

if TYPE_CHECKING:
    from ...model import Model

ROWS = 32


@torch.no_grad()
def mixtures(model: Model, case: Case, n: int, *, seed: int) -> list[TeacherOutputs]:
    """What the original says where a subject is a random mean of two, for `n` of them, over all relations.

    Both subjects are of a forgotten relation, and neither is to be forgotten: working retain facts and those that the
    model does not know. A working template names the first; behind the first block, the state at its last token is a
    mean, in a share drawn evenly between 0 and 1, of its own and of that where the same template names the second. Kept
    is the distribution of the answer's first token, since the others stand behind an answer about one of the two.

    Cost: three forward passes over `n` prompts, two of them of one block.

    Raises:
        UserError: a negative number.
    """
    check_number(n)
    rng = random.Random(f"{seed}/mixtures")
    facts = [f for f in (*case.retain.working, *case.unknown) if f.relation in case.forgotten_relations]
    return [_mixed(model, facts, rng, part.stop - part.start) for part in chunks(n, ROWS)] if facts else []


def check_number(n: int) -> None:
    """Refuse what is no number of mixtures.

    Raises:
        UserError: a negative number.
    """
    if n < 0:
        raise UserError(f"between={n} is no number of mixtures; give 0 for none, or a number above, such as 512.")


def _mixed(model: Model, facts: list[Fact], rng: random.Random, rows: int) -> TeacherOutputs:
    ours = rng.choices(facts, k=rows)
    theirs = [rng.choice([f for f in facts if f.relation == mine.relation]).subject for mine in ours]
    prompts = [rng.choice(f.prompts) for f in ours]
    swapped = [p.replace(f.subject, other) for p, f, other in zip(prompts, ours, theirs, strict=True)]
    block = [model.hf.get_submodule(model.block(0))]
    batch = _first_tokens(encode(model, prompts, [f.answer for f in ours]))
    at = subject_ends(model, batch, prompts, [f.subject for f in ours])
    (here,) = outputs_at(model, block, batch, at)
    (there,) = outputs_at(model, block, *named(model, swapped, theirs))
    share = torch.tensor([[rng.random()] for _ in ours]).to(here)
    injected = InjectedStates(at, share * here + (1 - share) * there)
    return replace(outputs_from_logits(batch, label_logits(model, batch, injected)), injected=injected)


def _first_tokens(batch: Batch) -> Batch:
    """Asked for the first token of each row alone."""
    asked = batch.labels >= 0
    return replace(batch, labels=batch.labels.where(asked & (asked.cumsum(-1) == 1), -100))
