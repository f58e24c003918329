"""The choice of a method: rules in one table, the first that applies wins, and the officer may overrule it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Literal, get_args

from pydantic import JsonValue

from .._util.errors import UserError
from ..ablate import TrainingConfig
from ..pipeline.recipe import Recipe
from .free_text import check_text
from .impact import Impact, read_impact
from .model_impact import Shows
from .record import ChosenMethod, Request
from .register import Register

MANY = 1000  # records above which the model is rather trained again
LARGE_SHARE = 0.1  # share of all tokens above which it is, too

Stakes = Literal["normal", "high"]
ShownBy = Literal["asking", "the officer", "nobody"]


@dataclass(frozen=True)
class Situation:
    """What the choice depends on. It holds no personal data.

    Attributes:
        records: the person's records in the training data.
        tokens: the tokens of these records.
        share: their share in all tokens, 0 to 1.
        shows: what the model reproduces beyond what it says of people that it was never taught.
        shown_by: who says so: `asking` the model (`loka erase assess --model`), or the officer.
        training_data: whether the training data is at hand, so that the model can be trained again.
        shards: whether the model was trained in shards (SISA) whose checkpoints are at hand.
        stakes: `high` for special categories of data (Art. 9), children, or a serious risk for the person.

    Raises:
        UserError: a value that is not allowed.
    """

    records: int
    tokens: int = 0
    share: float = 0.0
    shows: Shows = "unknown"
    training_data: bool = False
    shards: bool = False
    stakes: Stakes = "normal"
    shown_by: ShownBy = "nobody"

    def __post_init__(self) -> None:
        if self.records < 0 or self.tokens < 0:
            raise UserError(f"{min(self.records, self.tokens)} records or tokens are not possible; give 0 or more.")
        if not 0 <= self.share <= 1:
            raise UserError(f"the share {self.share} is not between 0 and 1; give the person's part of all tokens.")
        for name, kind in (("shows", Shows), ("stakes", Stakes)):
            if getattr(self, name) not in get_args(kind):
                allowed = ", ".join(get_args(kind))
                raise UserError(f"--{name} {getattr(self, name)!r} is unknown; choose from {allowed}.")

    @property
    def many(self) -> bool:
        """Whether the records are too many for an edit."""
        return self.records > MANY or self.share > LARGE_SHARE


@dataclass(frozen=True)
class ErasureMethod:
    """A way to erase: its name, what is done, and the recipe of the edit; `None` where nothing is edited."""

    name: str
    does: str
    recipe: Recipe | None = None


@dataclass(frozen=True)
class ChoiceRule:
    """A row of the table of rules: when it applies, in words and as a predicate, the method, and why.

    `applies` gets a `Situation`.
    """

    name: str
    when: str
    applies: Callable[[Situation], bool]
    method: str
    reason: str


# Ascent that ends at the loss of never-taught records, as SCRUB's rewinding does (Kurmanji et al. 2023).
ASCENT = Recipe("ascent", sites=0, config=TrainingConfig("unseen_loss", steps=10, lr=5e-5, warm_up=2, bfloat16=True))

ERASURE_METHODS = {
    method.name: method
    for method in (
        ErasureMethod(
            "exclude",
            "The model stays as it is. The records are kept out of the next training, and a filter holds back what the "
            "model says of the person until then.",
        ),
        ErasureMethod(
            "located",
            "The parts of the model that hold the records are located, and these parts alone are changed.",
            Recipe.load("quick"),
        ),
        ErasureMethod(
            "ascent",
            "The whole model is trained to unlearn the records, by gradient ascent that ends where they are as "
            "surprising as records that it never saw, while a retain term holds the rest in place.",
            ASCENT,
        ),
        ErasureMethod("retrain", "The model is trained again from its base, without the records."),
        ErasureMethod("sisa", "The shards that hold the records are trained again without them (SISA)."),
    )
}

CHOICE_RULES = (
    ChoiceRule(
        "nothing known",
        "the model shows nothing of the person beyond what it says of people that it was never taught, or nothing is "
        "known of it and no record was found",
        lambda s: s.shows == "nothing" or (s.shows == "unknown" and s.records == 0),
        "exclude",
        "There is nothing to remove that could be measured, and an edit would harm the rest of the model without need.",
    ),
    ChoiceRule(
        "high stakes",
        "the stakes are high: special categories of data, a child, or a serious risk for the person",
        lambda s: s.stakes == "high",
        "retrain",
        "Only a model that never saw the records is sure to hold nothing of them. If the training data is not at hand, "
        "it must be found first.",
    ),
    ChoiceRule(
        "many, in shards",
        f"more than {MANY:,} records or {LARGE_SHARE:.0%} of all tokens; training data and shards are at hand",
        lambda s: s.many and s.training_data and s.shards,
        "sisa",
        "An edit of so many records would harm the rest of the model, and the shards make exact removal cheap.",
    ),
    ChoiceRule(
        "many",
        f"more than {MANY:,} records or {LARGE_SHARE:.0%} of all tokens; the training data is at hand",
        lambda s: s.many and s.training_data,
        "retrain",
        "An edit of so many records would harm the rest of the model; training without them removes them exactly.",
    ),
    ChoiceRule(
        "all else",
        "in all other cases",
        lambda s: True,
        "ascent",
        "It takes out what can be measured of the records and leaves the rest. A located edit changes less, but was "
        "not seen to take records out; training again is not possible or not proportionate.",
    ),
)


def read_situation(
    impact: Path | Impact | None = None,
    *,
    records: int | None = None,
    shows: str = "",
    training_data: bool | None = None,
    shards: bool = False,
    stakes: str = "normal",
) -> Situation:
    """The situation from an impact or its JSON file, or from the number of records, and from what else is known.

    Args:
        shows: what the model shows, in place of what it showed when it was asked.

    Raises:
        UserError: neither impact nor number, or both; a file that is not an impact; a value that is not allowed.
    """
    if (impact is None) == (records is None):
        given = "neither --impact nor --records is" if impact is None else "both --impact and --records are"
        raise UserError(
            f"{given} given; give --impact FILE as `loka erase assess` wrote it, or --records NUMBER, and not both."
        )
    read = read_impact(impact) if isinstance(impact, Path) else impact
    at_hand = read is not None if training_data is None else training_data
    known = {"training_data": at_hand, "shards": shards, "stakes": stakes, **_shown(read, shows)}
    if read is None:
        return Situation(records or 0, **known)  # type: ignore[arg-type]
    found = read.found()
    return Situation(found.records, found.tokens, read.share(), **known)  # type: ignore[arg-type]


def rule_for(situation: Situation) -> ChoiceRule:
    """The first row of `CHOICE_RULES` that applies."""
    return next(rule for rule in CHOICE_RULES if rule.applies(situation))


def choose(
    register: Register,
    id: str,
    situation: Situation,
    *,
    method: str = "",
    reason: str = "",
    today: date | None = None,
) -> Request:
    """Choose a request's method by the rules, and freeze it with its recipe in the request and in the trail.

    Args:
        method: overrule the rules with this row of `ERASURE_METHODS`, for a reason that does not name the person.

    Raises:
        UserError: the request was executed or has ended, or has a method already that is not overruled; an unknown
            method, or one without a reason; a reason that names the person.
    """
    if method and method not in ERASURE_METHODS:
        raise UserError(f"the method {method!r} is unknown; choose from {', '.join(ERASURE_METHODS)}.")
    if bool(method) != bool(reason.strip()):
        given, lacks = ("--method", "--reason") if method else ("--reason", "--method")
        raise UserError(f"{given} without {lacks} overrules nothing; give both, or neither to follow the rules.")
    with register.change() as change:
        request = register.request(id)
        if not request.needs_person:
            raise UserError(f"{id} is {request.status}, so no method can be chosen any more; nothing was changed.")
        if request.chosen and not method:
            raise UserError(
                f"{id} has the method {request.method!r} since {request.chosen.on}, and it is frozen; overrule it with "
                "--method and --reason."
            )
        why = check_text(reason, register.held_person(id), "--reason") if method else ""
        chosen = _chosen(situation, method, why, today or date.today())
        later = replace(request, status="chosen", method=chosen.method, chosen=chosen)
        return change.save(later, "chosen", {**_plain(chosen), "overruled": chosen.overruled})


def frozen_recipe(request: Request) -> Recipe | None:
    """The recipe that was frozen with the request; `None` where the method edits nothing.

    Raises:
        UserError: no method is chosen, or the recipe does not have the digest that was frozen with it.
    """
    chosen = request.chosen
    if chosen is None:
        raise UserError(f"{request.id} has no method yet; run `loka erase choose {request.id}` first.")
    if chosen.recipe is None:
        return None
    if recipe_digest(chosen.recipe) != chosen.digest:
        raise UserError(f"the recipe of {request.id} is not the one that was frozen; run `loka erase audit`.")
    return Recipe.from_json(chosen.recipe)


def recipe_digest(recipe: object) -> str:
    """SHA-256 of a recipe's JSON with sorted keys."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def _chosen(situation: Situation, method: str, why: str, on: date) -> ChosenMethod:
    rule = rule_for(situation)
    name = method or rule.method
    made = ERASURE_METHODS[name].recipe
    recipe = json.loads(json.dumps(made.to_json())) if made else None
    return ChosenMethod(
        method=name,
        rule=rule.name,
        recommended=rule.method,
        reason=why or rule.reason,
        on=on,
        overruled=bool(method),
        situation=asdict(situation),
        recipe=recipe,
        digest=recipe_digest(recipe) if recipe else "",
    )


def _shown(impact: Impact | None, shows: str) -> dict[str, str]:
    """What the model shows, and who says so: the officer before the model."""
    if shows:
        return {"shows": shows, "shown_by": "the officer"}
    model = impact.model if impact else None
    return {"shows": model.shows, "shown_by": "asking"} if model else {}


def _plain(chosen: ChosenMethod) -> dict[str, JsonValue]:
    return json.loads(json.dumps(asdict(chosen), default=date.isoformat))
