"""Floor 7: erasure requests."""

from .artefacts import Artefact, artefacts
from .exclusion import Exclusion, FilteredFile, exclude
from .exclusion_list import ExclusionEntry, ExclusionList, NameDigests, Screen
from .impact import Count, Excerpt, FileImpact, Impact, assess_data, excerpts
from .matching import Hit, Matcher, find
from .person import Person
from .records import Record, TrainingFiles, read, training_files
from .search.rules import CERTAIN, LIKELY, RULES, Rule

__all__ = [
    "CERTAIN",
    "LIKELY",
    "RULES",
    "Artefact",
    "Count",
    "Excerpt",
    "Exclusion",
    "ExclusionEntry",
    "ExclusionList",
    "FileImpact",
    "FilteredFile",
    "Hit",
    "Impact",
    "Matcher",
    "NameDigests",
    "Person",
    "Record",
    "Rule",
    "Screen",
    "TrainingFiles",
    "artefacts",
    "assess_data",
    "excerpts",
    "exclude",
    "find",
    "read",
    "training_files",
]
