"""The steps of an audit, in order: the checks of a profile, on the original, the edited model and the controls."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from .._util.errors import UserError
from ..knowledge import Case
from ..verify.check import Check, Effort, Profile, Setting
from ..verify.checks import CHECKS, place
from ..verify.training import Budget
from .controls import CONTROLS, Control
from .profiles import checks_of, effort

MODELS = ("before", "after")


@dataclass(frozen=True)
class Step:
    """One check on one model: `before`, `after` or a control."""

    model: str
    check: Check

    @property
    def groups(self) -> tuple[str, ...]:
        """The facts that an attack that trains is run on; it is run on the twins with the edited model alone."""
        return ("forget", "twins") if self.model == "after" else ("forget",)


@dataclass(frozen=True)
class Plan:
    """The checks, controls and effort of an audit; `table` has the checks of every profile, for the verdict."""

    table: tuple[Check, ...]
    checks: tuple[Check, ...]
    controls: tuple[Control, ...]
    effort: Effort

    @classmethod
    def of(
        cls,
        profile: Profile,
        *,
        checks: Sequence[Check] | None = None,
        controls: Sequence[Control] | None = None,
    ) -> Plan:
        """The plan of a profile.

        Args:
            checks, controls: tables that take the place of `CHECKS` and `CONTROLS`.

        Raises:
            UserError: an unknown profile, check or control, a name that stands twice, or not exactly one control that
                finds budgets.
        """
        found = effort(profile)
        table = tuple(CHECKS if checks is None else checks)
        chosen = tuple(CONTROLS if controls is None else controls)
        _rows("check", Check, table)
        _rows("control", Control, chosen)
        _unique("check", [c.name for c in table])
        _unique("control", [*MODELS, *(c.name for c in chosen)])
        for control in chosen:
            for name in control.checks:
                if name not in {c.name for c in table}:
                    place(name, CHECKS)
        if (n := sum(c.finds_budgets for c in chosen)) != 1:
            raise UserError(f"{n} controls find the budgets of attacks; exactly one must set finds_budgets.")
        return cls(table, checks_of(profile, table), chosen, found)

    def on(self, case: Case) -> Plan:
        """The plan without the checks that do not apply to a case."""
        table, checks = (tuple(c for c in rows if c.applies(case)) for rows in (self.table, self.checks))
        return replace(self, table=table, checks=checks)

    @property
    def sibling(self) -> Control:
        """The control on which budgets are found."""
        return next(c for c in self.controls if c.finds_budgets)

    def steps(self, made: Collection[str]) -> Iterator[Step]:
        """Every check on every model. Attacks that train come last, each on the sibling first.

        Args:
            made: the names of the controls that could be made.
        """
        present = [c for c in self.controls if c.name in made]
        asking = [c for c in self.checks if not c.trains]
        yield from (Step(model, check) for model in MODELS for check in asking)
        yield from (Step(c.name, check) for c in present for check in asking if c.meets(check))
        for check in self.checks:
            if check.trains:
                others = [c.name for c in present if c.meets(check) and not c.finds_budgets]
                yield from (Step(model, check) for model in (self.sibling.name, *MODELS, *others))

    def setting(self, step: Step, budget: Budget | None) -> Setting:
        """The setting of a check, before an audit adds what the check needs from the original."""
        return Setting(effort=self.effort, budget=budget, groups=step.groups)


def check_names(
    readings: Mapping[str, Collection[str]], checks: Sequence[Check], controls: Sequence[Control], where: str
) -> None:
    """Refuse stored readings of checks and controls that neither the given tables nor LOKA's own hold.

    Args:
        readings: the names of the checks, by model.
        where: how an error names the place of the readings.

    Raises:
        UserError: a reading whose check or control no table holds.
    """
    models = list(dict.fromkeys([*MODELS, *(c.name for c in (*controls, *CONTROLS))]))
    known = tuple({check.name: check for check in (*checks, *CHECKS)}.values())
    for model, found in readings.items():
        if model not in models:
            raise UserError(
                f"{where} has readings of {model!r}, which is none of {', '.join(models)}; give the table of its "
                "controls, or verify into a new folder."
            )
        for name in found:
            place(name, known)


def check_own(plan: Plan) -> None:
    """Refuse rows that other processes do not have: they look up LOKA's own tables by name. Caps may differ.

    Raises:
        UserError: a check or a control of the caller's.
    """
    own: dict[str, object] = {**{c.name: c.run for c in CHECKS}, **{c.name: c.make for c in CONTROLS}}
    rows: dict[str, object] = {**{c.name: c.run for c in plan.checks}, **{c.name: c.make for c in plan.controls}}
    if other := [name for name, does in rows.items() if own.get(name) is not does]:
        raise UserError(
            f"other processes know only LOKA's own checks and controls, and {other[0]!r} is not one; leave out workers."
        )


def _rows(what: str, kind: type, rows: Sequence[object]) -> None:
    if strange := [row for row in rows if not isinstance(row, kind)]:
        raise UserError(f"{strange[0]!r} is not a row of the table of {what}s; give records of `{kind.__name__}`.")


def _unique(what: str, names: Sequence[str]) -> None:
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"two rows of the table of {what}s are named {twice[0]!r}; rename one of them.")
