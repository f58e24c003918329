"""What ROME and MEMIT share: which facts get which answers, behind which contexts, in which layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import UserError
from ..knowledge import Case, Fact, neutral_working
from ..model import Site
from ..model.layout import neuron_output
from ..model.lookup import second_moments
from .value import Rewrite, rewrite

if TYPE_CHECKING:
    from ..model import Model

WORDS = 6


@dataclass(frozen=True)
class Change:
    """One fact and the answer that takes its answer's place; `prompts`: the plain prompt, then contexts."""

    fact: Fact
    answer: str
    prompts: tuple[str, ...]

    def question(self, model: Model) -> Rewrite:
        """The prompts, asked for the new answer."""
        return rewrite(model, list(self.prompts), self.fact.subject, self.answer)


def changes(model: Model, case: Case, answers: Mapping[str, str] | None, contexts: int) -> list[Change]:
    """What is to be written: `answers` by subject, or for every forget fact its first foil.

    The contexts are beginnings of the case's neutral text before the working prompts, each in turn.

    Raises:
        UserError: a subject that is not among the forget facts, or an answer that is right already.
    """
    facts = {f.subject: f for f in case.forget.working}
    wanted = {s: f.foils[0] for s, f in facts.items() if f.foils} if answers is None else dict(answers)
    if strange := [s for s in wanted if s not in facts]:
        raise UserError(
            f"{strange[0]!r} is not among the subjects that {case.name!r} forgets and {model.name} knows; "
            f"give new answers for some of {', '.join(facts)}."
        )
    if not wanted:
        raise UserError("there is no new answer to write; give answers={subject: answer}.")
    if same := [s for s, a in wanted.items() if a in facts[s].answers]:
        raise UserError(f"{wanted[same[0]]!r} is the answer about {same[0]!r} already; give another one.")
    texts = neutral_working(model, case) if contexts else []
    if len(texts) < contexts:
        raise UserError(f"there are {len(texts)} neutral passages for {contexts} contexts; ask for fewer contexts.")
    starts = [" ".join(text.split()[:WORDS]).rstrip(".") for text in texts[:contexts]]
    return [Change(facts[s], a, _prompts(facts[s], starts)) for s, a in wanted.items()]


def _prompts(fact: Fact, starts: Sequence[str]) -> tuple[str, ...]:
    asked = fact.prompts
    return (fact.prompt, *(f"{s}. {asked[(i + 1) % len(asked)]}" for i, s in enumerate(starts)))


def layers_of(model: Model, sites: Iterable[Site] | None, default: Sequence[int]) -> list[int]:
    """The layers whose MLPs are written, from `mlp` sites."""
    if sites is None:
        return sorted(set(default))
    chosen = sorted(set(sites))
    for site in chosen:
        model.check_site(site)
    if not chosen or any(s.part != "mlp" for s in chosen):
        raise UserError(f"closed-form updates write whole MLPs: give sites such as L{model.n_layers // 3}.mlp.")
    return [s.layer for s in chosen]


def moments_of(model: Model, case: Case, layers: Sequence[int], *, ridge: float) -> dict[int, Tensor]:
    """Second moment of the keys of each layer on the case's neutral working text, `[d_mlp, d_mlp]`.

    `ridge` times its mean diagonal is added to the diagonal, since a sample of few tokens does not fill the space.
    Worked out once for a model and a case: one forward pass over the text for all layers that are new.
    """
    about = "second moments", model.digest(), case.digest, case.seed
    known: dict[int, Tensor] = model.memo.setdefault(about, {})
    if new := [layer for layer in layers if layer not in known]:
        modules = [neuron_output(model, layer) for layer in new]
        known |= dict(zip(new, second_moments(model, modules, neutral_working(model, case)), strict=True))
    return {layer: _ridged(known[layer], ridge) for layer in layers}


def _ridged(moment: Tensor, ridge: float) -> Tensor:
    return moment + ridge * moment.diagonal().mean() * torch.eye(len(moment), dtype=moment.dtype, device=moment.device)
