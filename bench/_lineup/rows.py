"""One row of the line-up: a model that was made, audited and measured by the field's metrics."""

from __future__ import annotations

import time
from typing import Any

from loka import audit, verify
from loka.audit.store import Store
from loka.model import Model
from loka.verify import Verdict
from loka.verify.judge.evidence import Evidence

from .audits import CHECKS, Controls, judge
from .families import Base, Family, make

Row = dict[str, Any]
LEFT_OUT = ("soft_prompt",)  # it decides nothing
AUDITED = tuple(c for c in CHECKS if c.name not in LEFT_OUT)


def row_of(family: Family, base: Base, controls: Controls, seed: int) -> Row:
    """Make a model, audit it and measure it. `value` is the seconds of the audit."""
    made = make(family, base)
    before, case = family.before(base), family.case(base)
    start = time.process_time()
    if family.shares_controls:
        verdict = judge(before, made.model, case, controls, checks=AUDITED)
    else:
        verdict = audit(before, made.model, case, store=Store(), checks=AUDITED)
    seconds = time.process_time() - start
    evidence = Evidence.of(verdict.readings, AUDITED, case.seed)
    return {
        "name": family.name, "value": seconds, "low": seconds, "high": seconds, "unit": "seconds",
        "n": verdict.readings["after"]["recall"].n,
        "settings": {
            "seed": seed, "half": family.half, "family truth": family.truth, "truth": made.truth,
            "shows": made.shows, "witness": made.witness, "witnessed": made.witnessed,
            "outcome": verdict.outcome, "claim": verdict.claim,
            "r": {c: r.r for c, r in verdict.recoveries.items()},
            "upper": {c: r.upper for c, r in verdict.recoveries.items()},
            "attacks": list(evidence.attacks), "found by": evidence.broken, "inside": evidence.contradicting,
            "failed": [g.name for g in verdict.gates if not g.passed],
            "field": _field(verdict, base, made.model) if family.shares_controls else {},
        },
    }  # fmt: skip


def _field(verdict: Verdict, base: Base, model: Model) -> dict[str, float | None]:
    """The field's metrics, each turned so that more means that more is left."""
    after = verdict.readings["after"]
    details: Any = after["extraction"].details["forget"]
    depth = verify.depth(model, base.known, original=base.original, never=base.retrained)
    return {
        "truth ratio": -details["truth_ratio"], "probability": details["probability"],
        "extraction strength": after["extraction"].value, "membership": after["membership"].value,
        "probe": after["probe"].value, "UDS": depth.value,
    }  # fmt: skip
