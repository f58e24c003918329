"""Where on the prompt and in depth a fact's answer is decided: the layer by token picture of causal tracing.

Meng et al. 2022, arXiv:2202.05262, section 2; corrupted by another subject instead of noise, as Zhang & Nanda 2024,
arXiv:2309.16042, recommend.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from .._util.errors import UserError
from ..knowledge import Case, Fact
from ..model import Part, Site, logits
from ..model.run.interventions import Intervention
from ..model.run.sweep import sweep as run_sweep
from .counterfactual import log_odds, pairs

if TYPE_CHECKING:
    from ..model import Model

TRACED: tuple[Part, ...] = ("resid", "attn", "mlp")


@dataclass(frozen=True)
class Tracing:
    """How much of the answer comes back when one state of the prompt is put into the run about another subject.

    `values` `[layer, token]`: shares of the way from the `corrupted` log-odds, 0, to the `clean` ones, 1.
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
        names = {"resid": "Residual stream", "attn": "Attention", "mlp": "MLP"}
        return f"{names[self.part]}: {self.subject}, put into the run about {self.other}"

    def plot(self) -> Figure:
        """Layer by token, the tokens written out, white at zero."""
        from .figures.plot import Picture, heat

        width = float(np.clip(0.55 * len(self.tokens) + 2.2, 4, 12))
        figure = Picture(figsize=(width, float(np.clip(0.17 * len(self.values) + 2, 3.4, 8))), layout="constrained")
        ax = figure.subplots()
        heat(ax, self.values, max(1.0, float(np.abs(self.values).max())), "share of the answer restored")
        ax.set_xticks(range(len(self.tokens)), [t.strip() or repr(t) for t in self.tokens], rotation=60, ha="right")
        ax.set(ylabel="layer (0 is next to the input)")
        ax.set_title(self.title, loc="left", size="small")
        return figure

    def html(self) -> str:
        """The same as an SVG fragment, with layer, token and share under the pointer, without scripts."""
        from .figures.interactive import tracing_html

        return tracing_html(self)


@torch.no_grad()
def tracing(
    model: Model,
    case: Case,
    fact: Fact,
    *,
    part: Part = "resid",
    other: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tracing:
    """Restore one layer's state at one token at a time in the run about another subject.

    Args:
        part: `resid`, the state behind a block, or what `attn` or `mlp` adds to it.
        other: the subject to swap in, of as many tokens; by default the first of the relation, by name.

    Raises:
        UserError: a part that is no state, or no subject of as many tokens.

    Cost: a row for each layer and token from the subject on, as `patching`.
    """
    if part not in TRACED:
        raise UserError(f"tracing follows {', '.join(TRACED)}, not {part!r}; patching scores {part} sites.")
    case = case.on(model)
    swapped = other or _alike(model, case, fact)
    both = pairs(model, case, [fact], others=[swapped])
    odds = [float(log_odds(logits(model, b), both)) for b in (both.clean, both.corrupted)]

    def metric(row: int, some: Tensor) -> Tensor:
        return log_odds(some, both.repeated(row, len(some)))

    sites = [Site(layer, part) for layer in range(model.n_layers)]
    found = run_sweep(
        model, both.corrupted, sites, Intervention(other=both.clean), metric=metric, positions="all", progress=progress
    ).values[0]
    ids = both.clean.ids[0][both.clean.mask[0].bool()][: found.shape[1]]
    tokens = tuple(str(model.tokenizer.decode([i])) for i in ids.tolist())
    return Tracing(part, fact.subject, swapped, tokens, (found - odds[1]) / (odds[0] - odds[1]), *odds)


def _alike(model: Model, case: Case, fact: Fact) -> str:
    """Another subject of the relation, of as many tokens behind the same prompt, with another answer."""

    def length(subject: str) -> int:
        return len(model.tokenizer(fact.prompt.replace(fact.subject, subject))["input_ids"])

    facts = case.spec.relations[fact.relation].facts
    fit = [s for s, a in sorted(facts.items()) if s != fact.subject and a[0] not in fact.answers]
    found = next((s for s in fit if length(s) == length(fact.subject)), None)
    if found is None:
        raise UserError(
            f"no other subject of {fact.relation!r} has as many tokens as {fact.subject!r}; trace another fact, or add "
            "subjects to the case."
        )
    return found
