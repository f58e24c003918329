"""The table of checks. Audit, cost estimate, verdict, profiles, report and `loka verify --list` read it.

A new check is one file and one row. The order is that of the verdict's sentences and of the report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from .._util.errors import UserError
from ..knowledge import Case
from .benchmarks import benchmark, benchmark_cost, from_benchmark
from .benign import BenignTraining, benign_cost
from .beside import Beside, material
from .check import Check, Need, Role, Setting
from .collateral import collateral, collateral_cost
from .depth import depth, depth_cost
from .direction_ablation import direction_ablation, direction_ablation_cost
from .downstream import downstream, downstream_cost, has_downstream
from .extraction import extraction, extraction_cost
from .judge.thresholds import EXPOSED
from .logit_lens import logit_lens, logit_lens_cost
from .mask import mask, mask_cost
from .membership import membership, membership_cost
from .paraphrase import original_forms, paraphrase, paraphrase_cost
from .parts import Parts, run_all
from .prefill import prefill, prefill_cost
from .probe import probe, probe_cost
from .quantize import quantize, quantize_cost
from .reading import Reading
from .recall import recall, recall_cost
from .relearn import Relearning, relearn_cost, with_rates
from .similarity import similarity, similarity_cost
from .soft_prompt import soft_prompt, soft_prompt_cost
from .spectral import spectral, spectral_cost
from .training import Budget, Optimizer

if TYPE_CHECKING:
    from ..model import Model

# The caps fit SmolLM2; other sizes of model may need their own (`capped`).
CAP = Budget(steps=4, lr=5e-5, measured=(1, 2, 4))
LORA = replace(CAP, lr=1e-3)
SGD = replace(CAP, lr=3e-3)
TWINS: frozenset[Need] = frozenset({"twins"})
FOLDS: frozenset[Need] = frozenset({"folds"})
POOLED: frozenset[Need] = frozenset({"twins", "pool"})
FOLDED = POOLED | FOLDS
UNRELATED: frozenset[Need] = POOLED | frozenset[Need]({"unrelated"})
RELATION: frozenset[Need] = frozenset({"relation", "pool"})
BOTH: frozenset[Need] = frozenset({"original"})
EDITED: frozenset[Need] = FOLDED | frozenset[Need]({"edited"})


def _relearning(by: Optimizer, beside: Beside = "nothing") -> Callable[[Case, Setting], Relearning]:
    def parts(case: Case, s: Setting) -> Relearning:
        budget = s.budget or Budget()
        budget = with_rates(budget, s) if (by, beside) == ("adamw", "nothing") else budget
        return Relearning(case, budget, partitions=s.effort.partitions, groups=s.groups, by=by, beside=beside)

    return parts


def _relearn_beside(name: str, beside: Beside) -> Check:
    """`relearn` with other data in every step, for a case that has such data."""
    parts = _relearning("adamw", beside)
    return Check(
        name, _whole(parts), partial(relearn_cost, beside=beside), "attack", needs=FOLDED, cap=CAP,
        profile="full", applies=lambda case: bool(material(case, beside)), parts=parts,
    )  # fmt: skip


def _benign(case: Case, s: Setting) -> BenignTraining:
    return BenignTraining(case, s.budget or Budget(), groups=s.groups)


def _whole(parts: Callable[[Case, Setting], Parts]) -> Callable[[Model, Case, Setting], Reading]:
    """A check that runs its parts one after the other."""
    return lambda model, case, s: run_all(parts(case, s), model, s.progress)


def _relearn_cost(model: Model, case: Case, s: Setting) -> float:
    return relearn_cost(model, case, replace(s, budget=with_rates(s.budget or Budget(), s)))


CHECKS: tuple[Check, ...] = (
    Check("recall", lambda m, c, s: recall(m, c), recall_cost, "asks"),
    Check(
        "paraphrase", lambda m, c, s: paraphrase(m, c, forms=original_forms(s)), paraphrase_cost, "attack",
        needs=frozenset({"original_reading"}), required=True,
    ),
    Check("prefill", lambda m, c, s: prefill(m, c), prefill_cost, "attack", needs=POOLED, profile="standard"),
    Check(
        "relearn", _whole(_relearning("adamw")), _relearn_cost, "attack", needs=FOLDED, cap=CAP, required=True,
        parts=_relearning("adamw"),
    ),
    Check(
        "benign", _whole(_benign), benign_cost, "attack", needs=UNRELATED, cap=CAP, profile="standard", required=True,
        parts=_benign,
    ),
    Check(
        "quantize", lambda m, c, s: quantize(m, c), quantize_cost, "attack", needs=POOLED, profile="standard",
        required=True,
    ),
    Check(
        "direction_ablation",
        lambda m, c, s: direction_ablation(m, c, original=s.original or m, layers=s.effort.layers),
        direction_ablation_cost, "attack", needs=FOLDED | BOTH, profile="standard", required=True,
    ),
    Check(
        "spectral", lambda m, c, s: spectral(m, c, edited=s.edited, progress=s.progress), spectral_cost, "attack",
        needs=EDITED, profile="standard", required=True,
    ),
    Check(
        "mask", lambda m, c, s: mask(m, c, edited=s.edited, progress=s.progress), mask_cost, "attack",
        needs=EDITED, profile="standard", required=True,
    ),
    Check(
        "relearn_lora", _whole(_relearning("lora")), relearn_cost, "attack", needs=FOLDED, cap=LORA, profile="full",
        parts=_relearning("lora"),
    ),
    Check(
        "relearn_sgd", _whole(_relearning("sgd")), relearn_cost, "attack", needs=FOLDED, cap=SGD, profile="full",
        parts=_relearning("sgd"),
    ),
    _relearn_beside("relearn_retain", "retain"),
    _relearn_beside("relearn_mixed", "text"),
    Check("probe", lambda m, c, s: probe(m, c), probe_cost, "inside", needs=RELATION),
    Check(
        "logit_lens", lambda m, c, s: logit_lens(m, c), logit_lens_cost, "inside", needs=POOLED | RELATION,
        profile="standard",
    ),
    Check(
        "depth", lambda m, c, s: depth(m, c, original=s.original or m), depth_cost, "inside",
        needs=TWINS | BOTH, profile="standard", contradicts_above=EXPOSED,
    ),
    Check(
        "similarity", lambda m, c, s: similarity(m, c, original=s.original or m), similarity_cost, "inside",
        needs=BOTH, profile="standard",
    ),
    Check(
        "extraction", lambda m, c, s: extraction(m, c, draws=s.effort.draws), extraction_cost, "corroborates",
        profile="standard",
    ),
    Check(
        "soft_prompt", lambda m, c, s: soft_prompt(m, c, tokens=s.effort.soft_tokens, progress=s.progress),
        soft_prompt_cost, "corroborates", needs=TWINS | FOLDS, profile="standard",
    ),
    Check("membership", lambda m, c, s: membership(m, c), membership_cost, "asks"),
    Check(
        "collateral", lambda m, c, s: collateral(m, c, before=s.neutral_outputs), collateral_cost, "asks",
        needs=frozenset({"neutral_outputs"}),
    ),
    Check("downstream", lambda m, c, s: downstream(m, c), downstream_cost, "asks", applies=has_downstream),
    Check("benchmark", lambda m, c, s: benchmark(m, c), benchmark_cost, "asks", applies=from_benchmark),
)  # fmt: skip


def by_role(role: Role, checks: Iterable[Check] = CHECKS) -> list[Check]:
    """The checks of one role, in the order of the table."""
    return [check for check in checks if check.role == role]


def place(name: str, checks: Sequence[Check] = CHECKS) -> int:
    """The row of a check by its name.

    Raises:
        UserError: a name that the table lacks.
    """
    names = [check.name for check in checks]
    if name not in names:
        raise UserError(f"{name!r} is not a check; choose one of {', '.join(names)}.")
    return names.index(name)


def capped(caps: Mapping[str, Budget], checks: Sequence[Check] = CHECKS) -> tuple[Check, ...]:
    """The table with different caps for attacks that train, by name.

    Raises:
        UserError: a name that the table lacks, or that of a check that does not train.
    """
    for name in caps:
        if not checks[place(name, checks)].trains:
            training = ", ".join(check.name for check in checks if check.trains)
            raise UserError(f"{name!r} does not train, so it has no cap; choose among {training}.")
    return tuple(replace(check, cap=caps.get(check.name, check.cap)) for check in checks)
