"""How a run edits: what is done to how many sites, quickly or thoroughly."""

from __future__ import annotations

import dataclasses
from typing import Any

from .. import ablate
from .._util.errors import UserError
from ..knowledge import Case
from ..model import Part

SITES, MANY = 600, 2000  # of the best neurons, by a quick recipe and by a thorough one
TUNE: dict[str, Any] = {
    "objective": "twin_distribution", "lr": 1e-3, "alpha": 30.0, "beta": 6.0, "retain_rows": 32, "neutral_rows": 3,
    "bfloat16": True,
}  # fmt: skip
QUICK: dict[str, dict[str, Any]] = {
    "tune": {
        **TUNE, "steps": 50, "relapse": {"start": 10, "every": 4, "steps": 4, "radius": 0.1}, "between": 256,
        "whiten": 0.1,
    },
    "rounds": {"counts": [300, 150], "steps": 40, "every": 20, "neutral_rows": 4},
}  # fmt: skip
THOROUGH: dict[str, dict[str, Any]] = {
    "tune": {
        **TUNE, "alpha": 60.0, "steps": 150, "relapse": {"start": 10, "every": 2, "steps": 6, "radius": 0.1},
        "between": 512, "warm_up": 40,
    },
    "rounds": {"counts": [400, 300, 300], "steps": 600, "every": 50, "retain_rows": 32, "neutral_rows": 8},
}  # fmt: skip
ALONE = {"objective": "undial", "push": 0.25}
WRITING = ("rome", "memit")  # whole MLPs, which they choose by their depth


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a run edits: `method` of `loka.ablate` on the `sites` best of `part`, with `arguments`.

    With 0 sites the method chooses by itself.
    """

    method: str = "tune"
    part: Part = "neuron"
    sites: int = SITES
    arguments: dict[str, Any] = dataclasses.field(default_factory=lambda: dict(QUICK["tune"]))

    @classmethod
    def of(cls, method: str = "", sites: int = 0, *, thorough: bool = False) -> Recipe:
        """The usual recipe of a method; of `tune` and `rounds` there is a thorough one beside. 0 sites: as usual.

        Raises:
            UserError: an unknown method, `thorough` for one that has no such recipe, or a number of sites for one that
                chooses by itself.
        """
        method = method or cls().method
        if method not in ablate.METHODS:
            raise UserError(f"{method!r} is no method; choose one of {', '.join(ablate.METHODS)}.")
        if thorough and method not in THOROUGH:
            raise UserError(f"{method!r} has no thorough recipe; {' and '.join(THOROUGH)} have.")
        arguments = dict((THOROUGH if thorough else QUICK).get(method, {}))
        if method in WRITING:
            if sites:
                raise UserError(f"{method!r} chooses the MLPs that it writes to; leave the number of sites out.")
            return cls(method, "mlp", 0, arguments)
        if method == "rounds":
            first, *later = arguments["counts"]
            arguments["counts"] = [sites or first, *later]
            return cls(method, sites=sites or first, arguments=arguments)
        return cls(method, sites=sites or (MANY if thorough else SITES), arguments=arguments)

    def on(self, case: Case) -> Recipe:
        """This recipe for a case: the usual ones, where twins are lacking, with an objective that needs none."""
        twin_prompts = {t.relation for t in case.twins.working} >= set(case.forgotten_relations)
        if twin_prompts or self.arguments not in (QUICK["tune"], THOROUGH["tune"]):
            return self
        return dataclasses.replace(self, arguments=self.arguments | ALONE)
