"""A copy of a model that was taught facts which nobody can know: the truth against which a whole run can be held."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from .._util.errors import LokaError, UserError
from .._util.files import atomic, write_atomic, write_json
from .._util.provenance import recorded
from ..knowledge import (
    Case,
    CaseFile,
    CaseSpec,
    Fact,
    fictitious,
    neutral_sealed,
    neutral_working,
    recalled,
    score,
    text_loss,
)
from ..knowledge import case as read_case
from ..model import Model, bare, chunks, encode, encode_texts, export, logits, token_logprobs, unfrozen
from ..model.train.distill import TeacherOutputs, divergence, record_outputs

ENOUGH = 0.98
KEPT = 0.9
EVERY = 5
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Teaching:
    """How facts are taught: at most `steps` of AdamW at learning rate `lr`, `rows` prompts with their answers in each.

    Beside them, `retain_rows` real facts and `neutral_rows` passages hold the copy to what the original says of them,
    with the weight `hold`.
    `layers`: only so many of the last blocks are trained; all weights by default.
    """

    steps: int = 400
    lr: float = 5e-5
    hold: float = 5.0
    rows: int = 32
    retain_rows: int = 16
    neutral_rows: int = 4
    layers: int | None = None


@dataclass(frozen=True)
class Planted:
    """What `plant` made. Shares by whole answer: of planted facts, behind the first working template and behind all
    sealed ones; of twins' assigned answers, behind the first sealed one; of real facts that the original knew, still
    known. `steps`: how many it took.
    """

    folder: Path
    case: CaseSpec
    steps: int
    working: float
    sealed: float
    twins: float
    retained: float
    perplexity_before: float
    perplexity_after: float


def plant(
    model: Model,
    case: CaseSpec | str = "capitals",
    *,
    out: str | Path,
    facts: int = 60,
    kept: int = 40,
    twins: int = 60,
    seed: int = 0,
    teaching: Teaching | None = None,
    progress: Progress | None = None,
    command: str | None = None,
) -> Planted:
    """Teach a copy of a model fictitious facts, leave their twins untaught, and write both as a folder.

    The folder has `model` (an ordinary Hugging Face folder), `case.yaml`, which asks for the planted facts to be
    forgotten, `planted.json` (what was measured) and `provenance.json`; it appears whole or not at all. `loka.run` and
    `loka.audit` on these two have the truth on their side: the model has never seen the twins, and knows all that was
    planted.

    Facts are taught behind all working and sealed templates of the case's first forgotten relation, until the
    whole answers are given: behind the first working template all of them, of all prompts `ENOUGH`; and of the real
    facts that the original knows `KEPT`. Paraphrases are not taught. Real facts and neutral text are held by
    distillation from the original.

    Args:
        case: which relation to imitate; its own facts become retain facts.
        facts, kept, twins: invented subjects that are taught and to be forgotten, taught and to be kept, not taught.
        teaching: other models than SmolLM2 may need another learning rate, or only their last layers trained.

    Raises:
        UserError: a folder that holds something, a case without enough names, or too many layers.
        LokaError: the facts were not learned in so many steps, or not without losing others.

    Cost: a step is a forward and backward pass over `rows + retain_rows + neutral_rows` rows; once, two forward
    passes over the real facts and one over all prompts. Memory: five times the weights where all are trained (original,
    copy, gradients, AdamW's two moments), twice and three times the trained ones otherwise.
    """
    target, how, step = Path(out), teaching or Teaching(), progress or (lambda what, done, total: None)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{str(target)!r} is not empty; name a new folder for the planted model.")
    if how.layers is not None and not 1 <= how.layers <= model.n_layers:
        raise UserError(f"the last {how.layers} layers cannot be trained; {model.name} has {model.n_layers}.")
    source = read_case(case) if isinstance(case, str) else case
    file = fictitious(source, facts=facts, kept=kept, twins=twins, seed=seed)
    with atomic(target) as whole:
        whole.mkdir()
        spec = _write(whole, file, source)
        everything = spec.whole()
        arguments = {
            "model": model.name, "case": source.name, "facts": facts, "kept": kept, "twins": twins, **asdict(how)
        }  # fmt: skip
        with recorded(
            whole, command=command or f"loka plant --model {model.name} --out {out}", arguments=arguments, seed=seed,
            digests={"case": spec.digest, "model": model.digest()},
        ):  # fmt: skip
            taught = bare(model)
            steps = _taught(model, taught, everything, how, step)
            found = {"steps": steps, **_measured(model, taught, everything)}
            write_json(whole / "planted.json", found)
            export(taught, whole / "model")
    return Planted(target, read_case(target / "case.yaml"), **found)


def _write(folder: Path, spec: CaseFile, source: CaseSpec) -> CaseSpec:
    """The case file and the texts it names, in the folder."""
    text = yaml.safe_dump(spec.model_dump(exclude_defaults=True), sort_keys=False, allow_unicode=True, width=120)
    write_atomic(folder / "case.yaml", text)
    for name in (spec.neutral.working, spec.neutral.sealed):
        if isinstance(name, str) and source.path and (prose := source.path.parent / name).is_file():
            shutil.copyfile(prose, folder / prose.name)
    return read_case(folder / "case.yaml")


def _taught(original: Model, model: Model, case: Case, how: Teaching, progress: Progress) -> int:
    """Teach in place; gives the number of steps."""
    rng = random.Random(f"{case.seed}/teaching")
    lesson = _Lesson(model, _rows(case), rng)
    held = [*_remembered_facts(original, case, how.retain_rows, rng)], [*_remembered_text(original, case, how)]
    knew = _known(original, case)
    blocks = None if how.layers is None else range(model.n_layers - how.layers, model.n_layers)
    with unfrozen(model, blocks) as parameters:
        optimizer = torch.optim.AdamW(parameters, lr=how.lr, weight_decay=0.0)
        for step in range(how.steps):
            with torch.enable_grad():
                loss = lesson.loss(how.rows)
                loss = loss + how.hold * sum(divergence(model, of[step % len(of)]) for of in held if of)
                loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            progress("facts learned", lesson.right.count(True), len(lesson.right))
            look = all(lesson.right) and (step + 1) % EVERY == 0
            if look and lesson.learned() and (not knew or _share(model, knew) >= KEPT):
                return step + 1
    raise LokaError(
        f"after {how.steps} steps {model.name} gives {sum(lesson.right)} of {len(lesson.right)} planted answers, and "
        f"{_share(model, knew):.0%} of the real ones that it gave before; allow more steps, another learning rate or "
        "more layers, or plant fewer facts."
    )


class _Lesson:
    """What is taught: prompts with their answers. `right` says of each whether it was given in full when last asked."""

    def __init__(self, model: Model, rows: Sequence[tuple[str, str, bool]], rng: random.Random) -> None:
        self.model, self.rng = model, rng
        self.rows = rng.sample(rows, len(rows))
        self.right = [False] * len(rows)
        self.asked = [0] * len(rows)
        self.turn = 0

    def loss(self, n: int) -> torch.Tensor:
        """Of the answers of `n` prompts, those not known first, then those asked longest ago; in nats a token."""
        self.turn += 1
        order = sorted(range(len(self.rows)), key=lambda i: (self.right[i], self.asked[i]))[:n]
        batch = encode(self.model, [self.rows[i][0] for i in order], [self.rows[i][1] for i in order])
        scores = logits(self.model, batch)
        given = ((scores.argmax(-1) == batch.labels) | (batch.labels < 0)).all(-1).tolist()
        for i, right in zip(order, given, strict=True):
            self.right[i], self.asked[i] = right, self.turn
        return -token_logprobs(scores, batch.labels).sum() / (batch.labels >= 0).sum()

    def learned(self) -> bool:
        """Whether they are, all asked at once."""
        self.right = score(self.model, [r[0] for r in self.rows], [r[1] for r in self.rows]).greedy.tolist()
        first = all(right for right, row in zip(self.right, self.rows, strict=True) if row[2])
        return first and sum(self.right) >= ENOUGH * len(self.right)


def _rows(case: Case) -> list[tuple[str, str, bool]]:
    """Prompt and answer behind every working and sealed template, and whether it is the first working one."""
    out = []
    for r in case.forgotten_relations:
        of = case.spec.relations[r]
        for subject, (answer, *_) in of.facts.items():
            templates = [*of.working, *of.sealed]
            out += [(t.replace("{}", subject), answer, i == 0) for i, t in enumerate(templates)]
    return out


def _others(case: Case) -> list[str]:
    return [r for r in case.spec.relations if r not in case.forgotten_relations]


def _remembered_facts(original: Model, case: Case, rows: int, rng: random.Random) -> list[TeacherOutputs]:
    """What the original says of real facts behind one working and one sealed template each."""
    asked = [
        (t.replace("{}", subject), answer)
        for r in _others(case)
        for subject, (answer, *_) in case.spec.relations[r].facts.items()
        for t in (rng.choice(case.spec.relations[r].working), rng.choice(case.spec.relations[r].sealed))
    ]
    asked = rng.sample(asked, len(asked))
    return [
        record_outputs(original, encode(original, [p for p, _ in asked[part]], [a for _, a in asked[part]]))
        for part in chunks(len(asked), rows)
    ]


def _remembered_text(original: Model, case: Case, how: Teaching) -> list[TeacherOutputs]:
    texts = neutral_working(original, case)
    return [
        record_outputs(original, encode_texts(original, texts[part])) for part in chunks(len(texts), how.neutral_rows)
    ]


def _measured(original: Model, taught: Model, case: Case) -> dict[str, Any]:
    facts = [f.asked(p) for f in case.forget.sealed for p in f.prompts]
    texts = neutral_sealed(case)
    before, after = (text_loss(m, texts).sum(0) for m in (original, taught))
    return {
        "working": _share(taught, case.forget.working),
        "sealed": _share(taught, facts),
        "twins": _share(taught, case.twins.sealed),
        "retained": _share(taught, _known(original, case)),
        "perplexity_before": float((before[0] / before[1]).exp()),
        "perplexity_after": float((after[0] / after[1]).exp()),
    }


def _known(model: Model, case: Case) -> list[Fact]:
    """The real facts that a model answers, half behind a working and half behind a sealed template."""
    real = [f for part in (case.retain.working, case.retain.sealed) for f in part if f.relation in _others(case)]
    return [f for f, known in zip(real, recalled(model, real), strict=True) if known]


def _share(model: Model, facts: Sequence[Fact]) -> float:
    right = recalled(model, facts)
    return sum(right) / len(right) if right else float("nan")
