"""Floor 2: items, cases and how well a model recalls them."""

from . import sources
from .build import Split
from .case import Case, CaseSpec
from .fictitious import fictitious
from .formats import FORMATS, Format, read_records
from .heldout import Bounds, HeldOut, Metrics, hold_out
from .item import Item, Kind
from .kinds import KINDS, Choice, Fact, Pair, Passage, Question, Record, kind_of, readable
from .neutral import neutral_sealed, neutral_working
from .redaction import Redactor, redaction_key, redactor_of, word_overlap
from .resolve import accepts_spec, case, cases, check_case, resolved
from .schema import CaseFile
from .scoring import (
    Scores,
    known,
    own_pool_probability,
    pool_logprobs,
    pool_probability,
    recalled,
    score,
    shown,
    text_loss,
)

__all__ = [
    "FORMATS",
    "KINDS",
    "Bounds",
    "Case",
    "CaseFile",
    "CaseSpec",
    "Choice",
    "Fact",
    "Format",
    "HeldOut",
    "Item",
    "Kind",
    "Metrics",
    "Pair",
    "Passage",
    "Question",
    "Record",
    "Redactor",
    "Scores",
    "Split",
    "accepts_spec",
    "case",
    "cases",
    "check_case",
    "fictitious",
    "hold_out",
    "kind_of",
    "known",
    "neutral_sealed",
    "neutral_working",
    "own_pool_probability",
    "pool_logprobs",
    "pool_probability",
    "read_records",
    "readable",
    "recalled",
    "redaction_key",
    "redactor_of",
    "resolved",
    "score",
    "shown",
    "sources",
    "text_loss",
    "word_overlap",
]
