"""What training rehearses: batches of forget facts, retain facts and neutral text, with the original's answers."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...knowledge import Case, Fact, neutral_working
from ...model import Batch, chunks, encode, encode_texts, logits, token_logprobs
from ...model.train.distill import TeacherOutputs, record_outputs
from .mixup import mixtures
from .twins import prompts_about_twins

if TYPE_CHECKING:
    from ...model import Model
    from ..objectives import Objective

PASSAGE = 48
DECISIVE = 1.0


@dataclass(frozen=True)
class Batches:
    """Batches to draw from, one of each kind a step: `forget`, `retain`, `neutral`."""

    forget: list[TeacherOutputs]
    retain: list[TeacherOutputs]
    neutral: list[TeacherOutputs]

    def draw(self, kind: str, step: int, seed: int) -> TeacherOutputs | None:
        """The batch of a step: each pass over a kind is in a new seeded order."""
        batches: list[TeacherOutputs] = getattr(self, kind)
        if not batches:
            return None
        turn, i = divmod(step, len(batches))
        order = random.Random(f"{seed}/{kind}/{turn}").sample(range(len(batches)), len(batches))
        return batches[order[i]]


def prepare(
    model: Model,
    case: Case,
    *,
    retain_rows: int,
    neutral_rows: int,
    seed: int,
    states: bool = False,
    between: int = 0,
    instead: Sequence[str] = (),
    goal: Objective | None = None,
) -> Batches:
    """Ask the original once about everything: one forward pass over all batches, each kind kept for its next edits.

    Forget batches hold every forget fact behind one of its working templates in turn and ask for the
    `decisive` tokens of its answer alone; retain batches mix
    working retain facts of all relations with facts of the forgotten relation that the model does not know,
    on which it is to stay as uncertain as it was, and with `states` what the original has in mind there; `between` are
    `mixtures` of these subjects, in batches of their own; neutral batches are passages of `PASSAGE` tokens.
    With `instead`, forget batches come with the same prompts, answered by these texts in turn; a `goal` may furnish
    them with what it needs beside.
    """
    about = model.digest(), case.digest, seed

    def once(kind: str, settings: Hashable, make: Callable[[], list[TeacherOutputs]]) -> list[TeacherOutputs]:
        return model.cache.get(f"{kind} batches", (settings, *about), make)

    return Batches(
        once("forget", (tuple(instead), goal and goal.cache_key()), lambda: _forget(model, case, instead, goal)),
        once("retain", how := (retain_rows, seed, states, between), lambda: _retain(model, case, *how)),
        once("neutral", neutral_rows, lambda: _neutral(model, case, neutral_rows)),
    )


def _forget(model: Model, case: Case, instead: Sequence[str], goal: Objective | None) -> list[TeacherOutputs]:
    forget = list(case.forget.working)
    width = max(len(f.prompts) for f in forget)
    turns = [[f.asked(f.prompts[i % len(f.prompts)]) for f in forget] for i in range(width)]
    memories = [_forgettable(model, case, facts, instead) for facts in turns]
    return goal.prepare_targets(model, case, turns, memories) if goal else memories


def _retain(model: Model, case: Case, rows: int, seed: int, states: bool, between: int) -> list[TeacherOutputs]:
    rng = random.Random(f"{seed}/lessons")
    near = set(case.forgotten_relations)
    retain = [f.asked(p) for f in case.retain.working if f.relation in near for p in f.prompts]
    far = [f for f in case.retain.working if f.relation not in near]
    retain += [f.asked(rng.choice(f.prompts)) for f in [*far, *case.unknown]]
    retain.sort(key=lambda f: len(f.prompt))  # alike in length, so that little of a batch is padding
    known = [record_outputs(model, _encode(model, retain[part])) for part in chunks(len(retain), rows)]
    return known + mixtures(model, case, between, seed=seed)


def _neutral(model: Model, case: Case, rows: int) -> list[TeacherOutputs]:
    texts = neutral_working(model, case)
    return [record_outputs(model, encode_texts(model, texts[part], limit=PASSAGE)) for part in chunks(len(texts), rows)]


def _forgettable(model: Model, case: Case, facts: Sequence[Fact], instead: Sequence[str]) -> TeacherOutputs:
    memory = record_outputs(model, decisive(model, case, facts), without_answer=True)
    if not instead:
        return memory
    answers = [instead[i % len(instead)] for i in range(len(facts))]
    return replace(
        memory, alternative=record_outputs(model, encode(model, [f.prompt for f in facts], answers), width=1)
    )


@torch.no_grad()
def decisive(model: Model, case: Case, facts: Sequence[Fact]) -> Batch:
    """Facts' prompts and answers, labels only where the answer depends on the subject.

    A token that is as likely behind the same prompt about twins, given the answer so far, is spelling
    ("reb" after "Zag"): taking it out would cost the model a word, hide the fact behind it, and leave
    what it knows of the subject as it was. Kept are the tokens that lose at least `DECISIVE` nats there,
    and each answer's most telling token. Without twins of the relation all tokens are kept.
    """
    batch = _encode(model, facts)
    others = prompts_about_twins(case, facts)
    if not others:
        return batch
    own = _logprobs(model, batch)
    behind = [_logprobs(model, encode(model, swapped, [f.answer for f in facts])) for swapped in others]
    fall = own - torch.stack(behind).mean(0)
    fall[batch.labels < 0] = -torch.inf
    telling = fall >= fall.max(-1, keepdim=True).values.clamp(max=DECISIVE)
    return replace(batch, labels=torch.where(telling, batch.labels, -100))


def _logprobs(model: Model, batch: Batch) -> Tensor:
    return token_logprobs(logits(model, batch), batch.labels)


def _encode(model: Model, facts: Sequence[Fact]):
    return encode(model, [f.prompt for f in facts], [f.answer for f in facts])
