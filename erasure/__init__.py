"""Floor 7: erasure requests: register, deadlines and trail, the search for records, and the exclusion list."""

from .artefacts import Artefact, artefacts
from .deadline import deadline
from .exclusion import Exclusion, FilteredFile, exclude
from .exclusion_list import ExclusionEntry, ExclusionList, NameDigests, Screen
from .impact import Count, Excerpt, FileImpact, Impact, assess_data, excerpts
from .keys import Keyring
from .matching import Hit, Matcher, find
from .overview import overview
from .page import write_page
from .person import Person
from .record import Request
from .records import Record, TrainingFiles, read, training_files
from .register import Register
from .request import read_request
from .search.rules import CERTAIN, LIKELY, RULES, Rule
from .trail import Entry, Fault

__all__ = [
    "CERTAIN",
    "LIKELY",
    "RULES",
    "Artefact",
    "Count",
    "Entry",
    "Excerpt",
    "Exclusion",
    "ExclusionEntry",
    "ExclusionList",
    "Fault",
    "FileImpact",
    "FilteredFile",
    "Hit",
    "Impact",
    "Keyring",
    "Matcher",
    "NameDigests",
    "Person",
    "Record",
    "Register",
    "Request",
    "Rule",
    "Screen",
    "TrainingFiles",
    "artefacts",
    "assess_data",
    "deadline",
    "excerpts",
    "exclude",
    "find",
    "overview",
    "read",
    "read_request",
    "training_files",
    "write_page",
]
