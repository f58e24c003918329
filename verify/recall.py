"""Does the model still answer? What each kind is asked by, log-odds against foils, choice among four."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..knowledge import Case, Item, Kind, accepts_spec, score
from ..knowledge.kinds import kind_of
from ..knowledge.scoring import shown, shown_rows
from ..model import split
from .asking import ASKING, asked_rows, generations
from .check import Setting
from .reading import Reading, make_reading
from .units import by_unit, recall_by_unit

if TYPE_CHECKING:
    from ..model import Model

CHOICES = 4
EXAMPLES = 8


@accepts_spec
def recall(model: Model, case: Case) -> Reading:
    """What the items to forget are asked by (`verify.asking`), at their sealed prompts, by unit.

    For a fact that is whether greedy decoding gives its whole answer; for a question, ROUGE-L recall of a free answer;
    for a passage, extraction strength; for a choice, whether the right option is the likeliest, in every rotation; for
    a pair, whether the answer is likelier than its foil.

    `details` has the same on working prompts (`working`); the log-odds of the answer against its foils (`log_odds`, in
    nats); how often the answer is the likeliest of itself and three foils (`choice`; chance is 0.25); for kinds with a
    pool of their own, the probability of the right answer there (`pool`); for an update, how often the new answer is
    given (`updated`); and `examples`: prompts, right answers and what the model says. The choice is made by likelihood,
    so the order of the options does not matter.

    Cost: one row for each prompt and alias, and one for each answer and foil; as many twins as items to forget.
    """
    forget = list(case.forget.sealed)
    twins = list(case.twins.sealed)[: len(forget)]
    samples = {"forget": recall_by_unit(model, forget), "twins": recall_by_unit(model, twins)}
    odds, choice = _against_foils(model, forget)
    twin_odds, twin_choice = _against_foils(model, twins)
    working = recall_by_unit(model, list(case.forget.working))
    mean = float(np.mean(list(samples["forget"].values())))
    more = {**_own_pools(model, forget, twins), **_updated(model, case)}
    return make_reading(
        "recall",
        samples,
        f"With sealed prompts, the model {_meaning(forget).format(f'{mean:.0%}')}{_new(more)}.",
        seed=case.seed,
        details={
            "working": float(np.mean(list(working.values()))) if working else None,
            "log_odds": odds, "log_odds_twins": twin_odds, "choice": choice, "choice_twins": twin_choice,
            **more, "examples": _examples(model, forget),
        },
        cost=recall_cost(model, case, Setting()),
    )  # fmt: skip


def recall_cost(model: Model, case: Case, setting: Setting) -> float:
    """One row for each prompt and alias, one for each answer and foil of an item, and one for each example."""
    items = [*case.forget.sealed, *case.twins.sealed[: len(case.forget.sealed)]]
    new = len(case.updates) and sum(len(i.prompts) for i in case.forget.sealed)
    pools = shown_rows([i for i in items if not kind_of(i).shared])
    asked = asked_rows([*items, *case.forget.working])
    return asked + sum(map(len, (i.pool for i in items))) + pools + new + min(EXAMPLES, len(case.forget.sealed))


def _meaning(items: Sequence[Item]) -> str:
    kinds: set[Kind] = {i.kind for i in items}
    return ASKING[kinds.pop()].meaning if len(kinds) == 1 else "shows {} of what it is asked for"


def _new(details: Mapping[str, float]) -> str:
    return f", and gives {details['updated']:.0%} of the new answers" if "updated" in details else ""


def _own_pools(model: Model, forget: Sequence[Item], twins: Sequence[Item]) -> dict[str, float]:
    """The probability of the right answer in pools of the items' own, by group; nothing for others."""
    out = {}
    for name, items in (("pool", forget), ("pool_twins", twins)):
        own = [i.asked(i.prompt) for i in items if not kind_of(i).shared]
        if own:
            out[name] = float(np.mean(list(by_unit(own, shown(model, own)).values())))
    return out


def _updated(model: Model, case: Case) -> dict[str, float]:
    """The share of sealed prompts that get the new answer of an update in full."""
    new = case.updates
    asked = [(p, new[i.subject]) for i in case.forget.sealed if i.subject in new for p in i.prompts]
    if not asked:
        return {}
    return {"updated": float(score(model, [p for p, _ in asked], [a for _, a in asked]).greedy.double().mean())}


def _examples(model: Model, items: Sequence[Item]) -> list[dict[str, str]]:
    """The first items as a person would read them: the prompt, the right answer, what the model says."""
    few = [i.asked(i.prompt) for i in items[:EXAMPLES]]
    said = generations(model, few)
    return [{"prompt": str(i.prompt), "answer": i.answer, "said": text} for i, text in zip(few, said, strict=True)]


def _tails(model: Model, facts: Sequence[Item]) -> list[tuple[Item, list[int]]]:
    """Each item with the tokens of its answer and of each foil in turn."""
    owners = [f for f in facts for _ in f.pool]
    tails = split(model, [f.prompt for f in owners], [a for f in facts for a in f.pool])
    return [(owner, tail) for owner, (_, tail) in zip(owners, tails, strict=True)]


def _against_foils(model: Model, facts: Sequence[Item]) -> tuple[float | None, float | None]:
    """Mean log-odds of the answer against its foils in nats, and the share of items whose answer beats three.

    Long answers count per token. `None` without items that have foils.
    """
    facts = [f for f in facts if f.foils]
    if not facts:
        return None, None
    rows = [(f.prompt, a) for f in facts for a in (f.answer, *f.foils)]
    logp = iter(score(model, [p for p, _ in rows], [a for _, a in rows]).logprob.double().numpy())
    odds, choice = [], []
    lengths = iter([len(tail) if kind_of(f).long else 1 for f, tail in _tails(model, facts)])
    for fact in facts:
        right, *foils = (next(logp) / next(lengths) for _ in range(1 + len(fact.foils)))
        with np.errstate(invalid="ignore"):
            odds.append(float(right - np.logaddexp.reduce(foils) + np.log(len(foils))))
        choice.append(right > max(foils[: CHOICES - 1]))
    return float(np.mean(odds)), float(np.mean(choice))
