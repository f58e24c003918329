"""Floor 5: figures of a whole run, and the report of a run folder."""

from .figures import agreement, before_after, probe, recovery, relearning
from .html import write
from .pictures import pictures
from .tradeoff import tradeoff

__all__ = ["agreement", "before_after", "pictures", "probe", "recovery", "relearning", "tradeoff", "write"]
