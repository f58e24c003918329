"""Does the model still answer? What each kind is asked by, log-odds against foils, choice among four."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..knowledge import Case, Item, Kind, accepts_spec
from ..knowledge.rivals import Spellings, with_answer
from ..knowledge.scoring import answered, comparable, own_pool_rows
from .asking import ASKING, asked_rows, generations
from .check import Setting
from .pools import attack_groups, pool_costs, pool_probability_by_unit, pools
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
    nats); how often the answer is the likeliest of itself and three foils (`choice`; chance is 0.25); the probability
    of the right answer among its pool (`pool`, and `pool_by_unit`), the scale of the attacks before any attack; for an
    update, how often the new answer is given (`updated`); log-odds and mean log-probability of an answer's token by
    unit (`likelihood`); and `examples`: prompts, right answers and what the model says. The choice is made by
    likelihood, so the order of the options does not matter.

    Cost: one row for each prompt, alias and rival, and one for each answer and foil; as many twins as items to forget;
    every pool once.
    """
    forget = list(case.forget.sealed)
    twins = list(case.twins.sealed)[: len(forget)]
    samples = {"forget": recall_by_unit(model, forget), "twins": recall_by_unit(model, twins)}
    own, never = (_likelihood(model, items) for items in (forget, twins))
    working = recall_by_unit(model, list(case.forget.working))
    mean = float(np.mean(list(samples["forget"].values())))
    pool, updated = _pools(model, case), _updated(model, case)
    return make_reading(
        "recall",
        samples,
        f"With sealed prompts, the model {_meaning(forget).format(f'{mean:.0%}')}{_new(updated)}.",
        seed=case.seed,
        details={
            "working": float(np.mean(list(working.values()))) if working else None,
            "log_odds": _mean(own.odds), "log_odds_twins": _mean(never.odds),
            "choice": _mean(own.choice), "choice_twins": _mean(never.choice),
            "likelihood": {"forget": own.by_unit(), "twins": never.by_unit()},
            **pool, **updated, "examples": _examples(model, forget),
        },
        cost=recall_cost(model, case, Setting()),
    )  # fmt: skip


def recall_cost(model: Model, case: Case, setting: Setting) -> float:
    """One row for each prompt, alias and rival, for each answer and foil and for each example; every pool once."""
    items = [*case.forget.sealed, *case.twins.sealed[: len(case.forget.sealed)]]
    new = sum(1 + len(i.longer) for i in _renewed(case))
    pool = sum(pool_costs(model, case).values()) if _compared(case) else 0
    asked = asked_rows([*items, *case.forget.working])
    return asked + sum(map(len, (i.pool for i in items))) + pool + new + min(EXAMPLES, len(case.forget.sealed))


def _meaning(items: Sequence[Item]) -> str:
    kinds: set[Kind] = {i.kind for i in items}
    return ASKING[kinds.pop()].meaning if len(kinds) == 1 else "shows {} of what it is asked for"


def _new(details: Mapping[str, float]) -> str:
    return f", and gives {details['updated']:.0%} of the new answers" if "updated" in details else ""


def _compared(case: Case) -> bool:
    """Whether every pool has a wrong answer, so that the right one is not certain."""
    return all(len(pool) > 1 for pool in pools(case).values())


def _pools(model: Model, case: Case) -> dict[str, object]:
    """The probability of the right answer in its pool, by group and unit; nothing where a pool has one answer."""
    if not _compared(case):
        return {}
    found = {g: pool_probability_by_unit(model, items, pools(case)) for g, items in attack_groups(case).items()}
    mean = {g: float(np.mean(list(of.values()))) if of else None for g, of in found.items()}
    return {"pool": mean["forget"], "pool_twins": mean["twins"], "pool_by_unit": found}


def _updated(model: Model, case: Case) -> dict[str, float]:
    """The share of sealed prompts that get the new answer of an update in full."""
    items = _renewed(case)
    return {"updated": float(np.mean(answered(model, items)))} if items else {}


def _renewed(case: Case) -> list[Item]:
    """The sealed items that an update gives a new answer, with this one, once for each prompt."""
    new = [(i, answer) for i in case.forget.sealed if (answer := case.new_answer(i))]
    pools = {relation: Spellings(others=case.pool(relation)) for relation in {i.relation for i, _ in new}}
    return [one for i, answer in new for one in with_answer(i, answer, pools[i.relation]).each()]


def _examples(model: Model, items: Sequence[Item]) -> list[dict[str, str]]:
    """The first items as a person would read them: the prompt, the right answer, what the model says."""
    few = [i.asked(i.prompt) for i in items[:EXAMPLES]]
    said = generations(model, few)
    return [{"prompt": str(i.prompt), "answer": i.answer, "said": text} for i, text in zip(few, said, strict=True)]


@dataclass(frozen=True)
class _Likelihood:
    """How likely right answers are, by item.

    `odds`: log-odds against the foils in nats, of the items that have foils; long answers count per token. `choice`:
    whether the answer beats three of these. `loss`: minus the mean log-probability of a token, in nats, of all items.
    """

    odds: dict[Item, float]
    choice: dict[Item, bool]
    loss: dict[Item, float]

    def by_unit(self) -> dict[str, list[float]]:
        """The log-odds and minus the loss, by unit in the order of the units' names: higher means that more is left."""
        values = {"log_odds": self.odds, "log_probability": {i: -loss for i, loss in self.loss.items()}}
        found = {name: by_unit(of, of.values()) for name, of in values.items()}
        return {name: [of[unit] for unit in sorted(of)] for name, of in found.items()}


def _likelihood(model: Model, items: Sequence[Item]) -> _Likelihood:
    """The likelihood of each item's answer at its main prompt."""
    found = _Likelihood({}, {}, {})
    for group in ([i for i in items if i.foils], [i for i in items if not i.foils]):
        for item, (tokens, logp) in zip(group, own_pool_rows(model, group), strict=True):
            found.loss[item] = -float(logp[0]) / len(tokens[0][1])
            right, *foils = comparable(item, tokens, logp).tolist()
            if foils:
                with np.errstate(invalid="ignore"):
                    found.odds[item] = float(right - np.logaddexp.reduce(foils) + np.log(len(foils)))
                found.choice[item] = bool(right > max(foils[: CHOICES - 1]))
    return found


def _mean(values: Mapping[Item, float]) -> float | None:
    return float(np.mean(list(values.values()))) if values else None
