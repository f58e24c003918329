"""Causal tracing: the layer and token at which a fact's answer is decided.

Meng et al. 2022, arXiv:2202.05262, section 2. The corruption is another subject rather than noise, as Zhang & Nanda
2024, arXiv:2309.16042, recommend.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure

from .._util.errors import UserError
from ..knowledge import Case, Item, accepts_spec
from ..model import Model, Part, Site, logits, token_ids
from .contrast import Progress
from .counterfactual import log_odds, pairs
from .counterpart import other_subjects
from .exact import sweep_pairs
from .figures.tracing import plot_tracing, tracing_html

TITLES: dict[Part, str] = {"resid": "Residual stream", "attn": "Attention", "mlp": "MLP"}


@dataclass(frozen=True)
class Tracing:
    """How much of the answer returns when one state of the prompt is put into the run about another subject.

    Attributes:
        part: the part whose states were restored.
        subject: the fact's subject.
        other: the other subject.
        tokens: the prompt's tokens.
        values: restored shares `[layer, token]`: 0 at the `corrupted` log-odds, 1 at the `clean` ones.
        clean: the answer's log-odds on the prompt.
        corrupted: its log-odds on the prompt about the other subject.
    """

    part: Part
    subject: str
    other: str
    tokens: tuple[str, ...]
    values: np.ndarray
    clean: float
    corrupted: float

    @property
    def title(self) -> str:
        """A title for the figure."""
        return f"{TITLES[self.part]}: states of {self.subject} in the run about {self.other}"

    def plot(self) -> Figure:
        """Draw layer by token as a heatmap, white at zero."""
        return plot_tracing(self.values, self.tokens, self.title)

    def html(self) -> str:
        """The same heatmap as an SVG fragment without scripts; tooltips give layer, token and share."""
        return tracing_html(self.values, self.tokens, self.title, self.part)


@accepts_spec
@torch.no_grad()
def tracing(
    model: Model,
    case: Case,
    fact: Item,
    *,
    part: Part = "resid",
    other: str | None = None,
    progress: Progress | None = None,
) -> Tracing:
    """Restore one layer's state at one token at a time in the run about another subject.

    Args:
        fact: the fact to trace.
        part: `resid`, the state after a block; or `attn` or `mlp`, what that module adds to it.
        other: the other subject, with as many tokens; by default the first of the relation, by name.
        progress: called with the number of cells done and the number of all cells.

    Raises:
        UserError: another part, or no other subject with as many tokens.

    Cost: that of `patching`, with one row for each layer and token from the subject on.
    """
    if part not in TITLES:
        raise UserError(f"tracing follows {', '.join(TITLES)}, not {part!r}; patching measures {part} sites.")
    other = other or _subject_of_same_length(model, case, fact)
    both = pairs(model, case, [fact], others=[other])
    odds = [float(log_odds(logits(model, b), both)) for b in (both.clean, both.corrupted)]
    sites = [Site(layer, part) for layer in range(model.n_layers)]
    found = sweep_pairs(model, both.reversed(), sites, positions="all", progress=progress).values[0]
    ids = both.clean.ids[0][both.clean.mask[0].bool()][: found.shape[1]]
    tokens = tuple(str(model.tokenizer.decode([i])) for i in ids.tolist())
    return Tracing(part, fact.subject, other, tokens, (found - odds[1]) / (odds[0] - odds[1]), *odds)


def _subject_of_same_length(model: Model, case: Case, fact: Item) -> str:
    """Another subject of the relation with another answer, whose prompt has as many tokens."""

    def length(subject: str) -> int:
        return len(token_ids(model, [fact.prompt.about(subject)])[0])

    candidates = other_subjects(case, fact) if fact.prompt.slots else []
    found = next((s for s in candidates if length(s) == length(fact.subject)), None)
    if found is None:
        raise UserError(
            f"no other subject of {fact.relation!r} has as many tokens as {fact.subject!r}; trace another fact, or add "
            "subjects to the case."
        )
    return found
