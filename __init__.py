"""LOKA: locate, ablate and verify knowledge in language models.

Example:
    model = loka.load("smollm2")
    case = loka.case("capitals")
    found = loka.locate.attribution(model, case)
    edit = loka.ablate.reset(model, case, found.top(400, part="neuron"))
    verdict = loka.audit(model, edit, case)
"""

from . import ablate, errors, knowledge, locate, model, report, verify
from .audit import audit
from .errors import LokaError, UserError
from .knowledge import Case, Fact, case, cases
from .model import Edit, Model, Site, export, export_adapter, export_gguf, load, merge
from .plant import plant
from .run import run
from .search import search
from .silenced import silenced

__version__ = "0.1.0"

__all__ = [
    "Case",
    "Edit",
    "Fact",
    "LokaError",
    "Model",
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
    "knowledge",
    "load",
    "locate",
    "merge",
    "model",
    "plant",
    "report",
    "run",
    "search",
    "silenced",
    "verify",
]
