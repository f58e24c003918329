"""Everything that touches lm-evaluation-harness (Gao et al., EleutherAI), which is imported on first use."""

from .quiet import SEED, library, quiet, reason
from .reader import reader
from .scores import Scores, TaskComparison, TaskScores, task_scores
from .task_file import TaskFile, task_files
from .tasks import HarnessTask, load_tasks

__all__ = [
    "SEED",
    "HarnessTask",
    "Scores",
    "TaskComparison",
    "TaskFile",
    "TaskScores",
    "library",
    "load_tasks",
    "quiet",
    "reader",
    "reason",
    "task_files",
    "task_scores",
]
