"""Floor 2: facts, cases and how well a model recalls them."""

from . import sources
from .case import Case, Split, case, cases
from .fact import Fact, readable
from .fictitious import fictitious
from .item import Choice, Passage
from .neutral import neutral_sealed, neutral_working
from .schema import CaseFile
from .scoring import Scores, pool_logprobs, pool_probability, recalled, score, text_loss

__all__ = [
    "Case",
    "CaseFile",
    "Choice",
    "Fact",
    "Passage",
    "Scores",
    "Split",
    "case",
    "cases",
    "fictitious",
    "neutral_sealed",
    "neutral_working",
    "pool_logprobs",
    "pool_probability",
    "readable",
    "recalled",
    "score",
    "sources",
    "text_loss",
]
