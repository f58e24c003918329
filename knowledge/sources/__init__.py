"""Facts, choices and passages from the files that the field's benchmarks come in.

Every loader takes a local file or a hub id (`knowledge.rows`) and gives each row in its order. A space and the answer
continue a fact's prompt, so questions get a `template` around them.
"""

from .counterfact import counterfact, known_facts
from .muse import muse
from .questions import questions
from .rwku import rwku
from .tofu import tofu
from .wmdp import wmdp

__all__ = ["counterfact", "known_facts", "muse", "questions", "rwku", "tofu", "wmdp"]
