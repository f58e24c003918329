"""Floor 7: erasure requests: register, deadlines and trail, the search for records, and the exclusion list."""

from typing import TYPE_CHECKING

from .._util.on_demand import on_demand
from .artefacts import Artefact, artefacts
from .deadline import deadline
from .exclusion import Exclusion, FilteredFile, exclude
from .exclusion_list import ExclusionEntry, ExclusionList, NameDigests, Screen
from .impact import Count, Excerpt, FileImpact, Impact, assess_data, excerpts, read_impact
from .keys import Keyring
from .matching import Hit, Matcher, find
from .model_impact import SHOWS_RULES, ModelImpact
from .output_filter import OutputFilter
from .overview import overview
from .page import write_page
from .person import Person
from .record import Request
from .records import Record, TrainingFiles, read, training_files
from .register import Register
from .request import read_request
from .search.rules import CERTAIN, LIKELY, RULES, Rule
from .trail import Entry, Fault

if TYPE_CHECKING:
    from . import asking as asking
    from . import choice as choice
    from . import field_values as field_values
    from . import material as material
    from .case_file import CaseFile
    from .choice import CHOICE_RULES, ERASURE_METHODS, ChoiceRule, ErasureMethod, Situation, choose, rule_for
    from .documents import DOCUMENTS, Document, write_documents
    from .material import Material
else:  # these import torch, which most commands of `loka erase` do without
    __getattr__ = on_demand(
        __name__,
        {
            ".": ("asking", "choice", "field_values", "material"),
            ".case_file": ("CaseFile",),
            ".choice": (
                "CHOICE_RULES", "ERASURE_METHODS", "ChoiceRule", "ErasureMethod", "Situation", "choose", "rule_for",
            ),
            ".documents": ("DOCUMENTS", "Document", "write_documents"),
            ".material": ("Material",),
        },
    )  # fmt: skip

__all__ = [
    "CERTAIN",
    "CHOICE_RULES",
    "DOCUMENTS",
    "ERASURE_METHODS",
    "LIKELY",
    "RULES",
    "SHOWS_RULES",
    "Artefact",
    "CaseFile",
    "ChoiceRule",
    "Count",
    "Document",
    "Entry",
    "ErasureMethod",
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
    "Material",
    "ModelImpact",
    "NameDigests",
    "OutputFilter",
    "Person",
    "Record",
    "Register",
    "Request",
    "Rule",
    "Screen",
    "Situation",
    "TrainingFiles",
    "artefacts",
    "assess_data",
    "choose",
    "deadline",
    "excerpts",
    "exclude",
    "find",
    "overview",
    "read",
    "read_impact",
    "read_request",
    "rule_for",
    "training_files",
    "write_documents",
    "write_page",
]
