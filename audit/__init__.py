"""Floor 4: an audit: which checks, with which controls, at which budget."""

from .auditor import audit
from .controls import CONTROLS, Audited, Control, shallow_sibling
from .cost import Estimate, estimate, seconds_a_row
from .lm_eval import compare_lm_eval, evaluate
from .outlook import outlook
from .plan import Plan
from .profiles import PROFILES, Profile
from .resolve import resolve
from .store import FolderStore, Store
from .summary import Column, column, columns, grades, summarise

__all__ = [
    "CONTROLS",
    "PROFILES",
    "Audited",
    "Column",
    "Control",
    "Estimate",
    "FolderStore",
    "Plan",
    "Profile",
    "Store",
    "audit",
    "column",
    "columns",
    "compare_lm_eval",
    "estimate",
    "evaluate",
    "grades",
    "outlook",
    "resolve",
    "seconds_a_row",
    "shallow_sibling",
    "summarise",
]
