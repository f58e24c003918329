"""Teach a copy of a model facts that it does not know, and keep it like the original in everything else."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch

from .._util.errors import LokaError, UserError
from .._util.records import check_types
from ..knowledge import Case, Item, neutral_working, recalled, score
from ..model import Model, Site, chunks, encode, encode_texts, logits, sliced, slices, token_logprobs, unfrozen
from ..model.run.single_precision import single_precision
from ..model.train.distill import TeacherOutputs, divergence, record_outputs

LEARNED = 0.98  # of all prompts; the first working prompt of each fact must get its answer always
RETAINED = 0.9
EVERY = 5
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Teaching:
    """The training that teaches facts: at most `steps` AdamW steps at rate `lr`, with `rows` prompts and answers each.

    In each step, `retain_rows` real facts and `neutral_rows` passages hold the copy to the original's outputs, with
    weight `hold`. `layers`: the number of last blocks to train; all weights by default.

    Raises:
        UserError: a number that no training can use.
    """

    steps: int = 400
    lr: float = 5e-5
    hold: float = 5.0
    rows: int = 32
    retain_rows: int = 16
    neutral_rows: int = 4
    layers: int | None = None

    def __post_init__(self) -> None:
        check_types(self, "teaching")
        for name in ("steps", "rows", "retain_rows", "neutral_rows"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} is not allowed; give 1 or more.")
        for name in ("lr", "hold"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name}={getattr(self, name)} is not allowed; give 0 or more.")


class Prompt(NamedTuple):
    """One way to ask for a planted fact; `first` marks the first working template."""

    text: str
    answer: str
    first: bool


@dataclass(frozen=True)
class Lesson:
    """What is taught, where, and what is held as it is.

    Attributes:
        prompts: the facts to teach, one row for each way to ask.
        held: relations and subjects whose answers stay as the teacher gives them.
        sites: the only sites that learn; all weights without them, or those of `Teaching.layers`.
    """

    prompts: Sequence[Prompt]
    held: Sequence[tuple[str, str]]
    sites: Sequence[Site] = ()


def lessons(case: Case, sites: Sequence[Site], others: Sequence[Site]) -> tuple[Lesson, ...]:
    """All planted facts at once; or with sites, those to retain through `others`, and then those to forget.

    The second lesson holds what the first one taught.
    """
    if not sites:
        return (Lesson(_prompts(case, lambda subject: True), _real(case)),)
    forget = {item.subject for item in case.forget.working}
    kept = [
        (r, subject) for r in case.forgotten_relations for subject in case.spec.relations[r].facts
        if subject not in forget
    ]  # fmt: skip
    return (
        Lesson(_prompts(case, lambda subject: subject not in forget), _real(case), others),
        Lesson(_prompts(case, lambda subject: subject in forget), [*kept, *_real(case)], sites),
    )


def teach_(teacher: Model, model: Model, case: Case, lesson: Lesson, how: Teaching, progress: Progress) -> int:
    """Teach a model in place, and return the number of steps taken.

    Args:
        teacher: the model whose outputs on other facts and on neutral text are held.

    Raises:
        LokaError: the facts were not learned in `how.steps` steps, or not without losing others.
    """
    rng = random.Random(f"{case.seed}/teaching")
    pupil = _Pupil(model, lesson.prompts, rng)
    targets = (
        _fact_targets(teacher, case, lesson.held, how.retain_rows, rng),
        _text_targets(teacher, case, how.neutral_rows),
    )
    before = known_facts(teacher, case, lesson.held)
    with single_precision(model, keep=True), _learning(model, how.layers, lesson.sites) as (parameters, sync):
        optimizer = torch.optim.AdamW(parameters, lr=how.lr, weight_decay=0.0)
        for step in range(how.steps):
            with torch.enable_grad():
                loss = pupil.loss(how.rows)
                loss = loss + how.hold * sum(
                    divergence(model, batches[step % len(batches)]) for batches in targets if batches
                )
                loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            sync()
            progress("facts learned", pupil.right.count(True), len(pupil.right))
            if (step + 1) % EVERY or pupil.right.count(True) < LEARNED * len(pupil.right):
                continue
            if pupil.learned() and (not before or recalled_share(model, before) >= RETAINED):
                return step + 1
    raise LokaError(
        f"after {how.steps} steps {model.name} gives {sum(pupil.right)} of {len(pupil.right)} planted answers, and "
        f"{recalled_share(model, before):.0%} of the others that it gave before; allow more steps, another learning "
        f"rate or more {'sites' if lesson.sites else 'layers'}, or plant fewer facts."
    )


@contextmanager
def _learning(
    model: Model, layers: int | None, sites: Sequence[Site]
) -> Iterator[tuple[Sequence[torch.nn.Parameter], Callable[[], None]]]:
    """The parameters that learn, and what writes them into the model after a step."""
    if sites:
        with sliced(model, slices(model, sites)) as trainable:
            yield trainable.parameters, trainable.sync
        return
    blocks = None if layers is None else range(model.n_layers - layers, model.n_layers)
    with unfrozen(model, blocks) as parameters:
        yield parameters, lambda: None


def real_relations(case: Case) -> list[str]:
    """The relations whose facts are not planted."""
    return [r for r in case.spec.relations if r not in case.forgotten_relations]


def known_facts(model: Model, case: Case, of: Sequence[tuple[str, str]] | None = None) -> list[Item]:
    """The facts to retain that a model answers, half of them with a working template and half with a sealed one.

    Args:
        of: relations and subjects; by default those of the real facts.
    """
    chosen = set(_real(case) if of is None else of)
    kept = [f for part in (case.retain.working, case.retain.sealed) for f in part if (f.relation, f.subject) in chosen]
    return [f for f, known in zip(kept, recalled(model, kept), strict=True) if known]


def recalled_share(model: Model, facts: Sequence[Item]) -> float:
    """The share of facts that a model answers in full; NaN without facts."""
    right = recalled(model, facts)
    return sum(right) / len(right) if right else float("nan")


class _Pupil:
    """The prompts to teach. `right`: for each, whether the model gave its whole answer when it was last asked."""

    def __init__(self, model: Model, prompts: Sequence[Prompt], rng: random.Random) -> None:
        self.model = model
        self.prompts = rng.sample(prompts, len(prompts))
        self.right = [False] * len(prompts)
        self.asked = [0] * len(prompts)
        self.turn = 0

    def loss(self, n: int) -> torch.Tensor:
        """The loss on `n` answers in nats per token: first those that are not known, then those asked longest ago."""
        self.turn += 1
        order = sorted(range(len(self.prompts)), key=lambda i: (self.right[i], self.asked[i]))[:n]
        chosen = [self.prompts[i] for i in order]
        batch = encode(self.model, [p.text for p in chosen], [p.answer for p in chosen])
        scores = logits(self.model, batch)
        given = ((scores.argmax(-1) == batch.labels) | (batch.labels < 0)).all(-1).tolist()
        for i, right in zip(order, given, strict=True):
            self.right[i], self.asked[i] = right, self.turn
        return -token_logprobs(scores, batch.labels).sum() / (batch.labels >= 0).sum()

    def learned(self) -> bool:
        """Ask all prompts at once, and return whether the facts are learned."""
        found = score(self.model, [p.text for p in self.prompts], [p.answer for p in self.prompts])
        self.right = found.greedy.tolist()
        first = all(right for right, prompt in zip(self.right, self.prompts, strict=True) if prompt.first)
        return first and sum(self.right) >= LEARNED * len(self.right)


def _prompts(case: Case, chosen: Callable[[str], bool]) -> list[Prompt]:
    """Every planted fact about a chosen subject, asked by every working and sealed template."""
    return [
        Prompt(template.replace("{}", subject), answer, i == 0)
        for relation in (case.spec.relations[r] for r in case.forgotten_relations)
        for subject, (answer, *_) in relation.facts.items()
        if chosen(subject)
        for i, template in enumerate([*relation.working, *relation.sealed])
    ]


def _real(case: Case) -> list[tuple[str, str]]:
    return [(r, subject) for r in real_relations(case) for subject in case.spec.relations[r].facts]


def _fact_targets(
    teacher: Model, case: Case, held: Sequence[tuple[str, str]], rows: int, rng: random.Random
) -> list[TeacherOutputs]:
    """The teacher's outputs on facts, each asked by one working and one sealed template."""
    asked = [
        (t.replace("{}", subject), answer)
        for relation, subject in ((case.spec.relations[r], s) for r, s in held)
        for answer in relation.facts[subject][:1]
        for t in (rng.choice(relation.working), rng.choice(relation.sealed))
    ]
    asked = rng.sample(asked, len(asked))
    return [
        record_outputs(teacher, encode(teacher, [p for p, _ in asked[part]], [a for _, a in asked[part]]))
        for part in chunks(len(asked), rows)
    ]


def _text_targets(teacher: Model, case: Case, rows: int) -> list[TeacherOutputs]:
    texts = neutral_working(teacher, case)
    return [record_outputs(teacher, encode_texts(teacher, texts[part])) for part in chunks(len(texts), rows)]
