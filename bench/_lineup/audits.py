"""Audits of small models. What does not depend on the audited model is measured once per original."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from loka import audit
from loka.audit.controls import shallow_sibling
from loka.audit.edited import edited_matrices
from loka.audit.store import Store
from loka.knowledge import Case
from loka.model import Edit, Model
from loka.verify import Budget, Check, Reading, Verdict, capped
from loka.verify.check import Profile

ATTACK = Budget(8, 1e-3)
CHECKS = capped({"relearn": ATTACK, "benign": ATTACK})


@dataclass
class Controls:
    """The sibling of one original, and the readings of both. The sibling hides as well as a model that knows nothing.

    Checks that look at the edited matrices read otherwise on the original if these are others, so their readings are
    kept by the names of the matrices.
    """

    sibling: Edit | None = None
    readings: dict[tuple[str, str, tuple[str, ...]], Reading] = field(default_factory=dict)

    def store(self, edited: tuple[str, ...]) -> Store:
        """A store with all that an audit of a model with these edited matrices can use."""
        store = Store()
        for (model, check, matrices), reading in self.readings.items():
            if matrices == _matters(check, edited):
                store.readings.setdefault(model, {})[check] = reading
        assert self.sibling is not None
        store.edits["shallow"] = self.sibling
        return store

    def learn(self, store: Store, edited: tuple[str, ...]) -> None:
        """Keep an audit's readings of the original and of the sibling."""
        for model in ("before", "shallow"):
            for check, reading in store.readings.get(model, {}).items():
                self.readings[model, check, _matters(check, edited)] = reading


def judge(
    original: Model, model: Model, known: Case, controls: Controls, *, profile: Profile = "standard",
    checks: Sequence[Check] = CHECKS,
) -> Verdict:  # fmt: skip
    """The audit, with the attack budgets of small models. Readings of the original and the sibling are made once."""
    controls.sibling = controls.sibling or shallow_sibling(original, known, recall=0.0)
    edited = edited_matrices(original, model)
    store = controls.store(edited)
    verdict = audit(original, model, known, profile=profile, store=store, checks=checks)
    controls.learn(store, edited)
    return verdict


def _matters(check: str, edited: tuple[str, ...]) -> tuple[str, ...]:
    looks = any(c.name == check and "edited" in c.needs for c in CHECKS)
    return edited if looks else ()
