"""Loaders: each reads the rows of one benchmark's files, or of the user's own, as records.

`knowledge.read_records` reads the file, filters its rows, and calls the loader.
"""

from .columns import columns
from .common import Table
from .counterfact import counterfact
from .fact_completion import fact_completion
from .known_facts import known_facts
from .knowundo import knowundo
from .lre import lre
from .mmlu import mmlu
from .muse import muse
from .popqa import popqa
from .rwku import rwku
from .tofu import tofu
from .wmdp import wmdp

__all__ = [
    "Table",
    "columns",
    "counterfact",
    "fact_completion",
    "known_facts",
    "knowundo",
    "lre",
    "mmlu",
    "muse",
    "popqa",
    "rwku",
    "tofu",
    "wmdp",
]
