"""The training batches: forget facts, retain facts and neutral text, each with the original's outputs."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...knowledge import Case, Item, neutral_working
from ...model import Batch, chunks, encode, encode_texts, logits, token_logprobs
from ...model.train.distill import TeacherOutputs, record_outputs
from .config import TrainingConfig
from .mixup import mixups
from .twins import prompts_about_twins
from .whole import encode_whole

if TYPE_CHECKING:
    from ...model import Model
    from ..objectives import Objective

PASSAGE = 48
DECISIVE = 1.0


@dataclass(frozen=True)
class Batches:
    """Batches to draw from, one of each kind per step: `forget`, `retain`, `neutral`."""

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


def prepare(model: Model, case: Case, config: TrainingConfig, objective: Objective | None = None) -> Batches:
    """Run the original once over all batches; each kind is stored on the model for later edits.

    Forget batches hold every forget fact, in one of its working templates in turn, with the `decisive` tokens of its
    answer as labels, or all of them if the objective is about the `whole` answer. The objective may add alternative
    answers and targets to them. Retain batches mix the working retain facts of all relations with facts of the
    forgotten relations that the model does not know, on which it must stay as uncertain as it is. Mixups of such
    subjects follow in batches of their own. Neutral batches are passages of `PASSAGE` tokens.

    Cost: one forward pass over all batches.
    """
    about = model.digest(), case.digest, config.seed
    alternatives = objective.alternatives() if objective else ()
    retain = config.retain_rows, config.seed, config.mixup_rows

    def once(kind: str, settings: Hashable, make: Callable[[], list[TeacherOutputs]]) -> list[TeacherOutputs]:
        return model.cache.get(f"{kind} batches", (settings, *about), make)

    return Batches(
        once("forget", (alternatives, objective and objective.cache_key()), lambda: _forget(model, case, objective)),
        once("retain", retain, lambda: _retain(model, case, *retain)),
        once("neutral", config.neutral_rows, lambda: _neutral(model, case, config.neutral_rows)),
    )


def _forget(model: Model, case: Case, objective: Objective | None) -> list[TeacherOutputs]:
    facts = list(case.forget.working)
    width = max(len(f.prompts) for f in facts)
    turns = [[f.asked(f.prompts[i % len(f.prompts)]) for f in facts] for i in range(width)]
    alternatives = objective.alternatives() if objective else ()
    whole = bool(objective and objective.whole)
    memories = [_forget_batch(model, case, turn, alternatives, whole) for turn in turns]
    return objective.prepare_targets(model, case, turns, memories) if objective else memories


def _retain(model: Model, case: Case, rows: int, seed: int, mixup_rows: int) -> list[TeacherOutputs]:
    rng = random.Random(f"{seed}/lessons")
    retain = [f.asked(p) for f in case.same_relation(case.retain.working) for p in f.prompts]
    far = case.other_relation(case.retain.working)
    retain += [f.asked(rng.choice(f.prompts)) for f in [*far, *case.unknown]]
    retain.sort(key=lambda f: len(f.prompt))  # rows of one batch have similar lengths, which saves padding
    batches = [record_outputs(model, _encode(model, retain[part])) for part in chunks(len(retain), rows)]
    return batches + mixups(model, case, mixup_rows, seed=seed)


def _neutral(model: Model, case: Case, rows: int) -> list[TeacherOutputs]:
    texts = neutral_working(model, case)
    return [record_outputs(model, encode_texts(model, texts[part], limit=PASSAGE)) for part in chunks(len(texts), rows)]


def _forget_batch(
    model: Model, case: Case, facts: Sequence[Item], alternatives: Sequence[str], whole: bool
) -> TeacherOutputs:
    batch = encode_whole(model, facts) if whole else decisive(model, case, facts)
    memory = record_outputs(model, batch, without_answer=True)
    if not alternatives:
        return memory
    answers = [alternatives[i % len(alternatives)] for i in range(len(facts))]
    batch = encode(model, [f.prompt for f in facts], answers)
    return replace(memory, alternative=record_outputs(model, batch, width=1))


@torch.no_grad()
def decisive(model: Model, case: Case, facts: Sequence[Item]) -> Batch:
    """The facts' prompts and answers, with labels only where the answer depends on the subject.

    A token that is as likely in the same prompt about twins, given the answer so far, is spelling ("reb" after "Zag").
    Unlearning it would cost the model a word and hide the fact, but leave what the model knows about the subject.
    Labels are the tokens that lose at least `DECISIVE` nats there, and each answer's most distinctive token. Without
    twins of the relation, all tokens are labels.
    """
    batch = _encode(model, facts)
    others = prompts_about_twins(case, facts)
    if not others:
        return batch
    logprobs = _logprobs(model, batch)
    twins = [_logprobs(model, encode(model, swapped, [f.answer for f in facts])) for swapped in others]
    fall = logprobs - torch.stack(twins).mean(0)
    fall[batch.labels < 0] = -torch.inf
    telling = fall >= fall.max(-1, keepdim=True).values.clamp(max=DECISIVE)
    return replace(batch, labels=torch.where(telling, batch.labels, -100))


def _logprobs(model: Model, batch: Batch) -> Tensor:
    return token_logprobs(logits(model, batch), batch.labels)


def _encode(model: Model, facts: Sequence[Item]) -> Batch:
    return encode(model, [f.prompt for f in facts], [f.answer for f in facts])
