"""What an audit will cost, before it starts."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ..ablate.training.batches import PASSAGE
from ..ablate.training.relearning import SimulatedRelearning
from ..knowledge import Case, neutral_sealed, score
from ..locate import random_sites
from ..model import Edit, Model, Site
from ..verify.benign import ROWS
from ..verify.depth import depth_cost
from ..verify.paraphrase import all_forms
from ..verify.pools import attack_groups, pool_cost, pools
from ..verify.relearn import FOLDS
from ..verify.soft_prompt import STEPS as SOFT_STEPS
from .controls import HALVINGS, TRIES
from .controls import ROWS as SIBLING
from .profiles import CAPS, PLANS, Plan, Profile

TRAINING = 3  # a row forward and backward, in forward passes


@dataclasses.dataclass(frozen=True)
class Estimate:
    """One step of an audit: `cost` in forward-pass equivalents of one row, an upper bound where steps may be saved."""

    model: str
    check: str
    cost: float


def estimate(before: Model, after: Edit | Model, case: Case, *, profile: Profile = "quick") -> list[Estimate]:
    """Every step of `loka.audit` in its order, and its cost.

    Paraphrases are counted as if the original answered to every form, relearning as if the whole cap were needed, and
    the shallow sibling as if its first training hid enough.
    """
    return list(_steps(before, after, case.on(before), PLANS[profile]))


def seconds_a_row(model: Model, case: Case) -> float:
    """How long one row takes on this machine: the forget facts' sealed prompts, scored after a warm-up."""
    facts = case.on(model).forget.sealed
    prompts, answers = [f.prompt for f in facts], [f.answer for f in facts]
    score(model, prompts, answers)
    start = time.perf_counter()
    score(model, prompts, answers)
    return (time.perf_counter() - start) / len(prompts)


def _steps(before: Model, after: Edit | Model, case: Case, plan: Plan) -> Iterator[Estimate]:
    asking = {check: _asking(check, before, case, plan) for check in plan.asking}
    random = _has_random_sites(before, after)
    for name in ("before", "after"):
        for check, cost in asking.items():
            if check == "direction_ablation" and name == "before":  # against itself, there is none to try
                cost = 2 * len(case.forget.sealed) + sum(_held(before, case).values())
            yield Estimate(name, check, cost)
    asked = (1 + HALVINGS) * sum(len(f.prompts) * len(f.answers) for f in case.forget.sealed)
    yield Estimate("shallow", "the sibling's training", TRIES[0]["steps"] * _step(before, case, SIBLING) + asked)
    yield Estimate("shallow", "recall", asking["recall"])
    if random:
        assert isinstance(after, Edit)
        how = after.record.config
        counts = after.record.arguments.get("plan", {}).get("counts")
        steps = how.get("steps", 0) * len(counts or [1])  # of each round, where there are rounds
        yield Estimate("random", "the control's training", steps * _step(before, case, how))
        yield Estimate("random", "recall", asking["recall"])
        yield Estimate("random", "collateral", asking["collateral"])
    for attack in plan.attacks:
        cost = _benign(before, case) if attack == "benign" else _relearning(before, case, plan, attack)
        for name in ("shallow", "before", "after", *(["random"] if random and attack == "relearn" else [])):
            yield Estimate(name, attack, cost["forget"] + (cost["twins"] if name == "after" else 0))


def _step(model: Model, case: Case, arguments: Mapping[str, Any]) -> float:
    """A step of `tune`: three batches, passages being longer than prompts.

    With simulated relearning, half the facts once more, and now and then full steps on the other half.
    """
    texts = [f"{f.prompt} {f.answer}" for f in case.forget.working]
    passage = PASSAGE * len(texts) / sum(len(ids) for ids in model.tokenizer(texts)["input_ids"])
    rows = len(texts) + arguments.get("retain_rows", 12) + arguments.get("neutral_rows", 4) * passage
    if arguments.get("simulated_relearning"):
        relapse = SimulatedRelearning(**arguments["simulated_relearning"])
        rows += len(texts) / 2 * (1 + relapse.steps / relapse.every)
    return TRAINING * rows


def _has_random_sites(before: Model, after: Edit | Model) -> bool:
    if not isinstance(after, Edit) or not after.record.sites:
        return False
    return bool(random_sites(before, [Site.parse(s) for s in after.record.sites]))


def _asking(check: str, model: Model, case: Case, plan: Plan) -> float:
    forget, twins = list(case.forget.sealed), list(case.twins.sealed)
    some = twins[: len(forget)]
    n, m, retain = len(forget), len(some), case.retain
    first = case.forgotten_relations[0]
    tried = min(plan.layers, model.n_layers)
    return {
        "recall": sum(len(f.prompts) * len(f.answers) for f in [*forget, *some, *case.forget.working])
        + sum(1 + len(f.foils) for f in [*forget, *some]),
        "paraphrase": len(all_forms(model, case)) * (sum(len(f.answers) for f in forget) + m),
        "probe": 2 * sum(f.relation == first for f in [*retain.working, *retain.sealed, *forget])
        + sum(f.relation == first for f in twins),
        "collateral": sum(len(f.prompts) * len(f.answers) for f in retain.sealed) + len(neutral_sealed(case)),
        "membership": n + len(twins),
        "extraction": sum(len(f.foils) + 2 + plan.draws for facts in attack_groups(case).values() for f in facts),
        "logit_lens": n + m,
        "depth": depth_cost(model, attack_groups(case)["forget"]),
        "quantize": 2 * sum(_held(model, case).values()),
        "direction_ablation": 2 * n + tried * _held(model, case)["forget"] + sum(_held(model, case).values()),
        "soft_prompt": sum(
            TRAINING * SOFT_STEPS * len(of) + sum(1 + len(f.foils) for f in of) for of in attack_groups(case).values()
        ),
    }[check]


def _held(model: Model, case: Case) -> dict[str, float]:
    """What it costs to ask a group once for the probability among its pool."""
    return {group: pool_cost(model, facts, pools(case)) for group, facts in attack_groups(case).items()}


def _relearning(model: Model, case: Case, plan: Plan, attack: str) -> dict[str, float]:
    """Of each group that is relearned."""
    n, cap = len(case.forget.sealed), CAPS[attack]
    size = n - -(-n // FOLDS)
    times = plan.partitions * len({1.0, *(plan.rates if attack == "relearn" else ())})
    training = TRAINING * size * cap.steps * min(FOLDS, n)
    return {group: times * (training + len(cap.asked) * cost) for group, cost in _held(model, case).items()}


def _benign(model: Model, case: Case) -> dict[str, float]:
    """What training costs is with the facts to forget."""
    retain = min(ROWS, len(case.retain.working) + len(case.retain.sealed))
    texts, cap = min(ROWS, len(neutral_sealed(case))), CAPS["benign"]
    asked = {group: 2 * len(cap.asked) * cost for group, cost in _held(model, case).items()}
    return asked | {"forget": TRAINING * cap.steps * (retain + texts) + asked["forget"]}
