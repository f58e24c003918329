"""Floor 3: edits of exactly the sites you choose. Every method returns an `Edit` and leaves the model as it was."""

from .mass_edit import mass_edit
from .rank_one import rank_one
from .replay import METHODS, replay
from .reset import reset
from .tune import tune
from .zero import zero

__all__ = ["METHODS", "mass_edit", "rank_one", "replay", "reset", "tune", "zero"]
