"""Facts, choices and passages from the files of the field's benchmarks.

Every loader takes a local file or a hub id (`knowledge.rows`) and returns the rows in order. A fact's answer follows
its prompt after a space, so questions get a `template` around them.
"""

from .counterfact import counterfact, known_facts
from .muse import muse
from .questions import questions
from .rwku import rwku
from .tofu import tofu
from .wmdp import wmdp

__all__ = ["counterfact", "known_facts", "muse", "questions", "rwku", "tofu", "wmdp"]
