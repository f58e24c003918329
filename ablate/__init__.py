"""Floor 3: edits of exactly the sites you choose. Every method returns an `Edit` and leaves the model as it was."""

from .follow_up import follow_up
from .interference import Interference, check_interference
from .leace import leace
from .lora import lora
from .mean import mean
from .memit import memit
from .methods import METHODS, rerun_on
from .resample import resample
from .reset import reset
from .retrain import Training, retrain, stating
from .rome import rome
from .rounds import rounds
from .selective_dampening import selective_dampening
from .sisa import Deletion, Sisa
from .task_vector import task_vector
from .training.recovered_sites import Locator, recovered_sites
from .tune import tune
from .zero import zero

__all__ = [
    "METHODS",
    "Deletion",
    "Interference",
    "Locator",
    "Sisa",
    "Training",
    "check_interference",
    "follow_up",
    "leace",
    "lora",
    "mean",
    "memit",
    "recovered_sites",
    "rerun_on",
    "resample",
    "reset",
    "retrain",
    "rome",
    "rounds",
    "selective_dampening",
    "stating",
    "task_vector",
    "tune",
    "zero",
]
