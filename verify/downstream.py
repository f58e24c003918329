"""Can the model still do what needs the knowledge? Questions that the case gives: two hops, a choice that follows.

One of the tests of Lynch et al. 2024, "Eight Methods to Evaluate Robust Unlearning in LLMs", arXiv:2402.16835.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._util.errors import UserError
from ..knowledge import Case, accepts_spec
from .asking import asked_rows
from .check import Setting
from .reading import Reading, make_reading
from .units import recall_by_unit

if TYPE_CHECKING:
    from ..model import Model


@accepts_spec
def downstream(model: Model, case: Case) -> Reading:
    """What the case's downstream questions are asked by (`verify.asking`), at their sealed prompts, by unit.

    Only questions that the original answers count. `twins` are the same questions about invented names, where a subject
    stands in them.

    Cost: one row for each prompt and alias, or what the kind of a question takes.

    Raises:
        UserError: a case without downstream questions that the original answers.
    """
    if not case.downstream:
        raise UserError(
            f"{case.name!r} has no downstream questions that the model knows; name a set of them under downstream."
        )
    samples = {
        "forget": recall_by_unit(model, list(case.downstream)),
        "twins": recall_by_unit(model, list(case.downstream_twins)),
    }
    mean = np.mean(list(samples["forget"].values()))
    return make_reading(
        "downstream",
        samples,
        f"Of {len(case.downstream)} questions that need what is forgotten, the model still shows {mean:.0%}.",
        seed=case.seed,
        cost=downstream_cost(model, case, Setting()),
    )


def downstream_cost(model: Model, case: Case, setting: Setting) -> float:
    """Every question asked by all of its prompts, and so is every one about an invented name."""
    return asked_rows([*case.downstream, *case.downstream_twins])


def has_downstream(case: Case) -> bool:
    """Whether a case gives questions that need what is forgotten, and the model knows some."""
    return bool(case.downstream)
