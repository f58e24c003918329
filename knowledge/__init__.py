"""Floor 2: facts, cases and how well a model recalls them."""

from . import sources
from .build import Split
from .case import Case, CaseSpec, accepts_spec, case, cases, check_case, resolved
from .fact import Fact, readable
from .fictitious import fictitious
from .formats import FORMATS, Format, Item, read_items
from .heldout import Bounds, HeldOut, Metrics, hold_out
from .item import Choice, Passage
from .neutral import neutral_sealed, neutral_working
from .schema import CaseFile
from .scoring import Scores, pool_logprobs, pool_probability, recalled, score, text_loss

__all__ = [
    "FORMATS",
    "Bounds",
    "Case",
    "CaseFile",
    "CaseSpec",
    "Choice",
    "Fact",
    "Format",
    "HeldOut",
    "Item",
    "Metrics",
    "Passage",
    "Scores",
    "Split",
    "accepts_spec",
    "case",
    "cases",
    "check_case",
    "fictitious",
    "hold_out",
    "neutral_sealed",
    "neutral_working",
    "pool_logprobs",
    "pool_probability",
    "read_items",
    "readable",
    "recalled",
    "resolved",
    "score",
    "sources",
    "text_loss",
]
