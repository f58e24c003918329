"""Floor 3: edits of exactly the sites you choose. Every method returns an `Edit` and leaves the model as it was."""

from .follow_up import follow_up
from .lora import lora
from .mass_edit import mass_edit
from .mean import mean
from .project_out import project_out
from .rank_one import rank_one
from .recheck import Recheck, recheck
from .replay import METHODS, replay
from .resample import resample
from .reset import reset
from .retrain import Training, retrain, stating
from .rounds import rounds
from .scale import scale
from .sisa import Deletion, Sisa
from .task_vector import task_vector
from .training.recovered_sites import Locator, brought_back
from .tune import tune
from .zero import zero

__all__ = [
    "METHODS",
    "Deletion",
    "Locator",
    "Recheck",
    "Sisa",
    "Training",
    "brought_back",
    "follow_up",
    "lora",
    "mass_edit",
    "mean",
    "project_out",
    "rank_one",
    "recheck",
    "replay",
    "resample",
    "reset",
    "retrain",
    "rounds",
    "scale",
    "stating",
    "task_vector",
    "tune",
    "zero",
]
