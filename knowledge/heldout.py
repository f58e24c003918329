"""Working retain facts and text held out of training, to tune an edit by. The sealed part stays sealed."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .._util.errors import UserError
from .._util.records import check_types
from .build import Split
from .case import Case
from .item import Item
from .neutral import neutral_working
from .resolve import accepts_spec
from .scoring import known, text_loss

if TYPE_CHECKING:
    from ..model import Model


FAR = 1.0


@dataclass(frozen=True)
class Metrics:
    """`forget` and `retain`: shares of prompts that a model answers in full; `perplexity` of plain text."""

    forget: float
    retain: float
    perplexity: float


@dataclass(frozen=True)
class Bounds:
    """The largest damage that an edit may do, compared with the original.

    `forget`: the share of the forget facts' prompts still answered; `retain_drop`: the fall in the share of retain
    prompts answered; `perplexity_rise`: the relative rise in perplexity.

    Raises:
        UserError: NaN, which no model is outside of.
    """

    forget: float = 0.05
    retain_drop: float = 0.02
    perplexity_rise: float = 0.01

    def __post_init__(self) -> None:
        check_types(self, "bounds")
        if any(map(math.isnan, (self.forget, self.retain_drop, self.perplexity_rise))):
            raise UserError(f"{self} holds NaN; give numbers, such as 0.05.")

    def met(self, now: Metrics, before: Metrics) -> bool:
        return not self.distance(now, before)

    def distance(self, now: Metrics, before: Metrics) -> float:
        """How far a model is outside the bounds, in shares: prompts it still answers, plus the `collateral`."""
        return _outside(now.forget - self.forget) + self.collateral(now, before)

    def collateral(self, now: Metrics, before: Metrics) -> float:
        """How far the retain drop and the rise in perplexity are outside the bounds, in shares."""
        drop, rise = before.retain - now.retain, now.perplexity / before.perplexity - 1
        return _outside(drop - self.retain_drop) + _outside(rise - self.perplexity_rise)

    def far(self, now: Metrics, before: Metrics) -> bool:
        """Whether the collateral is so large that the model is wrecked, such as twice the perplexity."""
        return not self.collateral(now, before) <= FAR


@dataclass(frozen=True)
class HeldOut:
    """A `case` to edit with, and the `facts` and `texts` taken out of it, to measure the edit on."""

    case: Case
    facts: tuple[Item, ...]
    texts: tuple[str, ...]

    def measure(self, model: Model) -> Metrics:
        """Ask the forget facts and the held-out facts by all their working prompts, and read the held-out text.

        Cost: one row for each prompt, alias and passage.
        """
        loss, tokens = text_loss(model, self.texts).sum(0).tolist()
        return Metrics(
            _share(model, self.case.forget.working), _share(model, self.facts), math.exp(min(loss / tokens, 700.0))
        )


@accepts_spec
def hold_out(model: Model, case: Case, *, share: float = 0.25) -> HeldOut:
    """Take a share of each relation's working retain facts and of the neutral working text out of a case, by its seed.

    Raises:
        UserError: there is too little to hold anything out.
    """
    rng = random.Random(f"{case.seed}/held out")
    facts: list[Item] = []
    for relation in dict.fromkeys(f.relation for f in case.retain.working):
        own = [f for f in case.retain.working if f.relation == relation]
        facts += rng.sample(own, round(share * len(own)))
    passages = neutral_working(model, case)
    texts = rng.sample(passages, round(share * len(passages)))
    rest = tuple(f for f in case.retain.working if f not in facts)
    if not (facts and texts and rest and len(texts) < len(passages)):
        raise UserError(
            f"{len(case.retain.working)} working retain facts and {len(passages)} neutral passages of {case.name!r} "
            f"are too few to hold {share:.0%} of them out; add some to the case."
        )
    kept = tuple(t for t in passages if t not in texts)
    smaller = replace(case, retain=Split(rest, case.retain.sealed), passages=kept)
    return HeldOut(smaller, tuple(facts), tuple(texts))


def _outside(over: float) -> float:
    """How far a number exceeds its bound; NaN stays NaN."""
    return 0.0 if over <= 1e-9 else over


def _share(model: Model, facts: Sequence[Item]) -> float:
    """The share of the working prompts after which the model knows the answer."""
    right = known(model, [one for f in facts for one in f.each()])
    return sum(right) / len(right)
