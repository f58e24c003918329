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

import sys
from types import ModuleType
from typing import TYPE_CHECKING

from ._util import errors
from ._util.errors import LokaError, UserError
from ._util.on_demand import on_demand

if TYPE_CHECKING:
    from . import ablate, knowledge, locate, model, report, verify
    from .audit.auditor import audit
    from .knowledge import Case, CaseSpec, Choice, Fact, Item, Pair, Passage, Question, case, cases
    from .model import Edit, Model, Site, export, export_adapter, export_gguf, load, merge, wrap
    from .pipeline.knockout import knockout
    from .pipeline.plant import plant
    from .pipeline.run import run
    from .pipeline.search import search
else:
    __getattr__ = on_demand(
        __name__,
        {
            ".": ("ablate", "knowledge", "locate", "model", "report", "verify"),
            ".audit.auditor": ("audit",),
            ".knowledge": (
                "Case", "CaseSpec", "Choice", "Fact", "Item", "Pair", "Passage", "Question", "case", "cases",
            ),
            ".model": ("Edit", "Model", "Site", "export", "export_adapter", "export_gguf", "load", "merge", "wrap"),
            ".pipeline.knockout": ("knockout",),
            ".pipeline.plant": ("plant",),
            ".pipeline.run": ("run",),
            ".pipeline.search": ("search",),
        },
    )  # fmt: skip

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


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Face(ModuleType):
    """`loka.audit` is the function also after the folder `audit/`, whose name Python would put there, is imported."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name == "audit" and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face
