"""Floor 3: find the sites that hold a piece of knowledge."""

from .attribution import attribution
from .control import random_sites
from .exact import Agreement, agreement, patching
from .faithfulness import Faithfulness, faithfulness
from .localization import Localization
from .stability import Stability, stability

__all__ = [
    "Agreement",
    "Faithfulness",
    "Localization",
    "Stability",
    "agreement",
    "attribution",
    "faithfulness",
    "patching",
    "random_sites",
    "stability",
]
