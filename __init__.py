"""LOKA: locate, ablate and verify knowledge in language models.

Example:
    model = loka.load("smollm2")
    case = loka.case("capitals")
    found = loka.locate.attribution(model, case)
    edit = loka.ablate.tune(model, case, found.top(200, part="neuron"))
    with edit.applied(model):
        print(loka.verify.recall(model, case))
    print(loka.audit(model, edit, case, profile="quick"))
"""

from . import ablate, knowledge, locate, model, report, verify
from ._util import errors
from ._util.errors import LokaError, UserError
from .audit.auditor import audit
from .knowledge import Case, CaseSpec, Choice, Fact, Item, Pair, Passage, Question, case, cases
from .model import Edit, Model, Site, export, export_adapter, export_gguf, load, merge, wrap
from .pipeline.knockout import knockout
from .pipeline.plant import plant
from .pipeline.run import run
from .pipeline.search import search

__version__ = "0.1.0"

__all__ = [
    "Case",
    "CaseSpec",
    "Choice",
    "Edit",
    "Fact",
    "Item",
    "LokaError",
    "Model",
    "Pair",
    "Passage",
    "Question",
    "Site",
    "UserError",
    "ablate",
    "audit",
    "case",
    "cases",
    "errors",
    "export",
    "export_adapter",
    "export_gguf",
    "knockout",
    "knowledge",
    "load",
    "locate",
    "merge",
    "model",
    "plant",
    "report",
    "run",
    "search",
    "verify",
    "wrap",
]
