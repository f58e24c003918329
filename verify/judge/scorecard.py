"""The scorecard: forget accuracy, retain accuracy and membership AUC, the numbers that people quote."""

from __future__ import annotations

from dataclasses import dataclass

MISSING = "not measured"


@dataclass(frozen=True)
class Scorecard:
    """Shares of the facts that the original knew, the AUC of membership inference, and their labels.

    `None` stands for what was not measured, and for its label.

    >>> scorecard(0.05, 0.97, None)
    forget accuracy 5% (excellent), retain accuracy 97%, membership AUC not measured
    """

    forget_accuracy: float | None
    retain_accuracy: float | None
    membership_auc: float | None
    forget_quality: str | None
    privacy_leakage: str | None

    def __str__(self) -> str:
        forget = MISSING if self.forget_accuracy is None else f"{self.forget_accuracy:.0%}"
        retain = MISSING if self.retain_accuracy is None else f"{self.retain_accuracy:.0%}"
        auc = MISSING if self.membership_auc is None else f"{self.membership_auc:.2f}"
        quality, leakage = (f" ({label})" if label else "" for label in (self.forget_quality, self.privacy_leakage))
        return f"forget accuracy {forget}{quality}, retain accuracy {retain}, membership AUC {auc}{leakage}"

    __repr__ = __str__


def scorecard(forget: float | None, retain: float | None, auc: float | None) -> Scorecard:
    """The three numbers with their labels; `None` stands for what was not measured."""
    return Scorecard(forget, retain, auc, forget_quality(forget, retain), None if auc is None else leakage(auc))


def forget_quality(forget: float | None, retain: float | None) -> str | None:
    """`excellent` below 0.1 with retain above 0.9, `good` below 0.3 with retain above 0.8, else `insufficient`.

    `None` if either was not measured.
    """
    if forget is None or retain is None:
        return None
    if forget < 0.1 and retain > 0.9:
        return "excellent"
    return "good" if forget < 0.3 and retain > 0.8 else "insufficient"


def leakage(auc: float) -> str:
    """By the distance of the AUC from 0.5: `minimal` below 0.05, `moderate` below 0.15, else `significant`."""
    away = abs(auc - 0.5)
    return "minimal" if away < 0.05 else "moderate" if away < 0.15 else "significant"
