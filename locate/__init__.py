"""Floor 3: find the sites that hold a piece of knowledge."""

from .attribution import attribution
from .control import random_sites
from .exact import Agreement, agreement, patching, sweep
from .localization import Localization

__all__ = ["Agreement", "Localization", "agreement", "attribution", "patching", "random_sites", "sweep"]
