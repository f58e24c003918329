"""What may still be left after an erasure, and what was not tried: one table each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..verify.checks import CHECKS
from .case_file import CaseFile, DataImpact
from .plain_words import PLAIN_FLAGS, PLAIN_LEAKAGE, plain_check

EXACT = ("retrain", "sisa")  # methods after which the model never saw the records


@dataclass(frozen=True)
class Remark:
    """A sentence about a case, and when it is said."""

    applies: Callable[[CaseFile], bool]
    text: Callable[[CaseFile], str]


def _always(case: CaseFile) -> bool:
    return True


def _of_data(applies: Callable[[DataImpact], bool], text: Callable[[DataImpact], str]) -> Remark:
    """A remark about the impact, for cases that have one."""
    return Remark(
        lambda c: c.impact is not None and applies(c.impact), lambda c: text(c.impact) if c.impact is not None else ""
    )


RISKS = (
    Remark(_always, lambda c: c.outcome.risk),
    Remark(
        lambda c: _method(c) == "exclude",
        lambda c: (
            "The model itself was not changed. Until the next training, only the output filter holds back what it "
            "may say of the person, and a filter can be got round."
        ),
    ),
    Remark(
        lambda c: c.finding is not None and c.finding.outcome != "intact" and _method(c) not in EXACT,
        lambda c: (
            "Tests can show that something is left. They cannot show that nothing is: only a training without the "
            "records can."
        ),
    ),
    Remark(
        lambda c: _leakage(c) in PLAIN_LEAKAGE,
        lambda c: f"{PLAIN_LEAKAGE[_leakage(c)]} (Membership AUC {_auc(c)}; 0.5 is a guess.)",
    ),
    *(Remark(lambda c, flag=flag: _flagged(c, flag), lambda c, text=text: text) for flag, text in PLAIN_FLAGS.items()),
    _of_data(
        lambda d: bool(d.artefacts),
        lambda d: (
            f"{_count(len(d.artefacts), 'file')} in the folders that were searched may have been made from the "
            "data. Each stays as it was, unless you changed or deleted it; the notice to recipients lists them."
        ),
    ),
    _of_data(
        lambda d: d.unconfirmed > 0,
        lambda d: (
            f"Of the {_count(d.records, 'record')} that count as the person's, {d.unconfirmed} were matched by the "
            "search alone, and nobody has confirmed them."
        ),
    ),
    _of_data(
        lambda d: bool(d.unread or d.broken),
        lambda d: (
            f"{_count(len(d.unread), 'file').capitalize()} could not be searched at all, and "
            f"{_count(d.broken, 'row')} could be searched as plain text only."
        ),
    ),
    Remark(_always, lambda c: "Copies in other places (backups, cloud storage, at recipients) were not looked for."),
)

NOT_TRIED = (
    _of_data(
        lambda d: d.model is None,
        lambda d: "The model was not asked before the erasure what it shows of the records.",
    ),
    Remark(
        lambda c: c.impact is None,
        lambda c: "No impact was given when this document was written, so it does not say where the records were.",
    ),
    Remark(
        lambda c: _method(c) not in EXACT,
        lambda c: "The model was not trained again without the records, which would be the exact comparison.",
    ),
    Remark(_always, lambda c: "Records that describe the person without a name or number were not searched for."),
    Remark(_always, lambda c: "Pictures, archives, and texts in other encodings were not searched."),
    Remark(_always, lambda c: "Attacks that became known after the day of this document were not tried."),
)


def residual_risk(case: CaseFile) -> list[str]:
    """What may still be left, in plain sentences."""
    return [remark.text(case) for remark in RISKS if remark.applies(case)]


def not_tried(case: CaseFile) -> list[str]:
    """What was not tried: tests that were not made or measured nothing, then what lies outside of any test."""
    measured = case.finding.measured if case.finding else ()
    benchmark = {"benchmark"}  # only for cases that are made from one
    missing = [check.name for check in CHECKS if check.name not in {*measured, *benchmark}]
    tests = [f"Test not made, or without a result: {plain_check(name)}." for name in missing]
    return [*tests, *(remark.text(case) for remark in NOT_TRIED if remark.applies(case))]


def _method(case: CaseFile) -> str:
    return case.chosen.method if case.chosen else ""


def _leakage(case: CaseFile) -> str:
    return (case.finding and case.finding.scorecard.privacy_leakage) or ""


def _auc(case: CaseFile) -> str:
    auc = case.finding and case.finding.scorecard.membership_auc
    return f"{auc or 0:.2f}"


def _flagged(case: CaseFile, flag: str) -> bool:
    return case.finding is not None and any(each.startswith(flag) for each in case.finding.flags)


def _count(number: int, thing: str) -> str:
    return f"{f'{number:,}' if number else 'no'} {thing}{'' if number == 1 else 's'}"
