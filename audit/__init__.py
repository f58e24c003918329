"""Floor 4: an audit: which checks, with which controls, at which budget."""

from .auditor import audit, controls, resolve
from .controls import shallow_sibling
from .cost import Estimate, estimate, seconds_a_row
from .profiles import CAPS, PLANS, Profile
from .store import FolderStore, Store
from .summary import summarise

__all__ = [
    "CAPS",
    "PLANS",
    "Estimate",
    "FolderStore",
    "Profile",
    "Store",
    "audit",
    "controls",
    "estimate",
    "resolve",
    "seconds_a_row",
    "shallow_sibling",
    "summarise",
]
