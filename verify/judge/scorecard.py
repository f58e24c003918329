"""The scorecard: forget accuracy, retain accuracy and membership AUC, the numbers that people quote."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scorecard:
    """Shares of the facts that the original knew, the AUC of membership inference, and their labels.

    >>> scorecard(0.05, 0.97, None)
    forget accuracy 5% (excellent), retain accuracy 97%, membership AUC not measured
    """

    forget_accuracy: float
    retain_accuracy: float
    membership_auc: float | None
    forget_quality: str
    privacy_leakage: str | None

    def __str__(self) -> str:
        auc = "not measured" if self.membership_auc is None else f"{self.membership_auc:.2f} ({self.privacy_leakage})"
        return (
            f"forget accuracy {self.forget_accuracy:.0%} ({self.forget_quality}), "
            f"retain accuracy {self.retain_accuracy:.0%}, membership AUC {auc}"
        )

    __repr__ = __str__


def scorecard(forget: float, retain: float, auc: float | None) -> Scorecard:
    """The three numbers with their labels."""
    return Scorecard(forget, retain, auc, forget_quality(forget, retain), None if auc is None else leakage(auc))


def forget_quality(forget: float, retain: float) -> str:
    """`excellent` below 0.1 with retain above 0.9, `good` below 0.3 with retain above 0.8, else `insufficient`."""
    if forget < 0.1 and retain > 0.9:
        return "excellent"
    return "good" if forget < 0.3 and retain > 0.8 else "insufficient"


def leakage(auc: float) -> str:
    """By the distance of the AUC from 0.5: `minimal` below 0.05, `moderate` below 0.15, else `significant`."""
    away = abs(auc - 0.5)
    return "minimal" if away < 0.05 else "moderate" if away < 0.15 else "significant"
