"""Floor 3: edits of exactly the sites you choose. Every method returns an `Edit` and leaves the model as it was."""

from .replay import METHODS, replay
from .reset import reset
from .tune import tune
from .zero import zero

__all__ = ["METHODS", "replay", "reset", "tune", "zero"]
