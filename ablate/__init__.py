"""Floor 3: edits of exactly the sites you choose. Every method returns an `Edit` and leaves the model as it was."""

from .mass_edit import mass_edit
from .mean import mean
from .project_out import project_out
from .rank_one import rank_one
from .replay import METHODS, replay
from .resample import resample
from .reset import reset
from .scale import scale
from .task_vector import task_vector
from .tune import tune
from .zero import zero

__all__ = [
    "METHODS",
    "mass_edit",
    "mean",
    "project_out",
    "rank_one",
    "replay",
    "resample",
    "reset",
    "scale",
    "task_vector",
    "tune",
    "zero",
]
