"""Floor 3: edits of exactly the sites you choose. Every method returns an `Edit` and leaves the model as it was."""

from .follow_up import follow_up
from .interference import Interference, check_interference
from .leace import leace
from .lora import lora
from .mean import mean
from .memit import memit
from .methods import METHODS, Method, configure, perform
from .rerun import check_rerun, rerun_on
from .resample import resample
from .reset import reset
from .retrain import Training, find_statements, retrain
from .rewriting.config import RewriteConfig
from .rome import rome
from .rounds import RoundPlan, rounds
from .selective_dampening import selective_dampening
from .sisa import Deletion, Sisa
from .task_vector import task_vector
from .training.config import TrainingConfig
from .training.recovered_sites import Locator, recovered_sites
from .training.relearning import SimulatedRelearning
from .tune import tune
from .zero import zero

__all__ = [
    "METHODS",
    "Deletion",
    "Interference",
    "Locator",
    "Method",
    "RewriteConfig",
    "RoundPlan",
    "SimulatedRelearning",
    "Sisa",
    "Training",
    "TrainingConfig",
    "check_interference",
    "check_rerun",
    "configure",
    "find_statements",
    "follow_up",
    "leace",
    "lora",
    "mean",
    "memit",
    "perform",
    "recovered_sites",
    "rerun_on",
    "resample",
    "reset",
    "retrain",
    "rome",
    "rounds",
    "selective_dampening",
    "task_vector",
    "tune",
    "zero",
]
