"""Floor 3: is it removed, or only silent? Checks see a model, never an edit."""

from .collateral import collateral, neutral_memory
from .membership import membership
from .paraphrase import paraphrase
from .probe import probe
from .reading import Reading, refused
from .recall import by_subject, recall
from .relearn import Budget, at_step, relearn
from .scorecard import Scorecard, scorecard
from .verdict import Gate, Verdict, compare, judge

__all__ = [
    "Budget",
    "Gate",
    "Reading",
    "Scorecard",
    "Verdict",
    "at_step",
    "by_subject",
    "collateral",
    "compare",
    "judge",
    "membership",
    "neutral_memory",
    "paraphrase",
    "probe",
    "recall",
    "refused",
    "relearn",
    "scorecard",
]
