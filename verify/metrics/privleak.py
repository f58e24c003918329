"""Membership inference on an edited model, against a model that never saw the data.

Shi et al. 2024, MUSE, arXiv:2407.06460, section 3 (PrivLeak). An AUC here is the share of pairs in which the member
looks more familiar than the non-member (`attack_auc`): 0.5 is chance; above it, something is left.
"""

from __future__ import annotations

from .conventions import MUSE, OPEN_UNLEARNING, STATED, check_convention

EPSILON = 1e-10
CHANCE = 0.5


def privleak(auc: float, reference: float | None = None, *, convention: str = STATED) -> float:
    """How much better an attack does than on the reference model, in percent of the reference's AUC.

    Positive: more is left than other data teach (under-forgotten). Negative: the data look less familiar than unseen
    data (over-forgotten). Zero is best.

    Args:
        auc: the attack's AUC on the edited model.
        reference: the same attack's AUC on a model retrained without the data; `None` stands for 0.5.
        convention: `muse` first replaces both AUCs by `1 - auc`, so its sign and scale differ; `open-unlearning` does
            the same and adds 1e-10 to the denominator.

    Raises:
        UserError: a convention that is none of these.
    """
    check_convention(convention, MUSE, OPEN_UNLEARNING)
    base = CHANCE if reference is None else reference
    if convention == STATED:
        return relative_difference(auc, base)
    return relative_difference(1 - auc, 1 - base, convention=OPEN_UNLEARNING if convention != MUSE else STATED)


def relative_difference(value: float, reference: float | None = None, *, convention: str = STATED) -> float:
    """`(value - reference) / reference` in percent; without a reference, that of chance, 0.5.

    With a reference of zero the result is infinite, or zero if both are equal. `convention="open-unlearning"`
    adds 1e-10 to the denominator instead.

    Raises:
        UserError: a convention that is neither `stated` nor `open-unlearning`.
    """
    check_convention(convention, OPEN_UNLEARNING)
    base = CHANCE if reference is None else reference
    difference = value - base
    if convention == OPEN_UNLEARNING:
        return 100 * difference / (base + EPSILON)
    if base == 0:
        return float("inf") * difference if difference else 0.0
    return 100 * difference / base
