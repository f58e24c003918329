"""Floor 2: facts, cases and how well a model recalls them."""

from .case import Case, Split, case, cases
from .fact import Fact, readable
from .neutral import neutral_sealed, neutral_working
from .scoring import Scores, pool_logprobs, pool_probability, recalled, score, text_loss

__all__ = [
    "Case",
    "Fact",
    "Scores",
    "Split",
    "case",
    "cases",
    "neutral_sealed",
    "neutral_working",
    "pool_logprobs",
    "pool_probability",
    "readable",
    "recalled",
    "score",
    "text_loss",
]
