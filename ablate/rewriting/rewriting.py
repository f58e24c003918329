"""What ROME and MEMIT share: which facts get which answers, after which contexts, in which layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..._util.errors import UserError
from ...knowledge import Case, Item, neutral_working
from ...model import Batch, Prompt, Site, chunks, pad
from ...model.layout import neuron_output
from ...model.run.lookup import inputs_at, second_moments
from ...model.run.subject import subject_ends
from ...model.tokens import token_ids
from .value import Rewrite, rewrite

if TYPE_CHECKING:
    from ...model import Model

WORDS = 6
ROWS = 32


@dataclass(frozen=True)
class Change:
    """One fact and its new answer; `prompts`: the plain prompt, then prompts with contexts before them."""

    fact: Item
    answer: str
    prompts: tuple[Prompt, ...]

    def rewrite(self, model: Model) -> Rewrite:
        """The prompts, with the new answer as their labels."""
        return rewrite(model, self.prompts, self.fact.subject, self.answer)


def changes(model: Model, case: Case, answers: Mapping[str, str] | None, contexts: int) -> list[Change]:
    """The changes to write: `answers`, or else the case's updates, or the first foil of every item to forget.

    `answers` are by unit, which is the subject of a fact, or by `relation/unit` where a unit has several items. The
    contexts are beginnings of the case's neutral text. The working prompts follow them in turn.

    Raises:
        UserError: a subject that is not among the forget facts, or an answer that is already right.
    """
    wanted = _wanted(model, case, answers)
    if not wanted:
        raise UserError("there is no new answer to write; give answers={subject: answer}.")
    if same := [(f, a) for f, a in wanted if a in f.answers]:
        raise UserError(f"{same[0][1]!r} is already the answer about {same[0][0].unit!r}; give another one.")
    texts = neutral_working(model, case) if contexts else []
    if len(texts) < contexts:
        raise UserError(f"there are {len(texts)} neutral passages for {contexts} contexts; ask for fewer contexts.")
    starts = [" ".join(text.split()[:WORDS]).rstrip(".") for text in texts[:contexts]]
    return [Change(f, a, _prompts(f, starts)) for f, a in wanted]


def _wanted(model: Model, case: Case, answers: Mapping[str, str] | None) -> list[tuple[Item, str]]:
    """Each item to change, with its new answer."""
    facts = case.forget.working
    if answers is None and case.updates:
        return [(f, new) for f in facts if (new := case.new_answer(f))]
    if answers is None:
        return [(f, f.foils[0]) for f in facts if f.foils]
    named: dict[str, list[Item]] = {}
    for fact in facts:
        named.setdefault(fact.unit, []).append(fact)
        named.setdefault(f"{fact.relation}/{fact.unit}", []).append(fact)
    for name in answers:
        if name not in named:
            raise UserError(
                f"{name!r} is not among the subjects that {case.name!r} forgets and {model.name} knows; "
                f"give new answers for some of {', '.join(dict.fromkeys(f.unit for f in facts))}."
            )
        if len(found := named[name]) > 1:
            raise UserError(
                f"{len(found)} items to forget are about {name!r} ({', '.join(f.relation for f in found)}), so one "
                "new answer cannot be theirs; name each as relation/subject."
            )
    return [(named[name][0], answer) for name, answer in answers.items()]


def _prompts(fact: Item, starts: Sequence[str]) -> tuple[Prompt, ...]:
    asked = fact.prompts
    return (fact.prompt, *(asked[(i + 1) % len(asked)].after(f"{s}. ") for i, s in enumerate(starts)))


def layers_of(model: Model, sites: Iterable[Site] | None, default: Sequence[int]) -> list[int]:
    """The layers whose MLPs are edited, from `mlp` sites."""
    if sites is None:
        return sorted(set(default))
    ordered = sorted(set(sites))
    for site in ordered:
        model.check_site(site)
    if not ordered or any(s.part != "mlp" for s in ordered):
        raise UserError(f"closed-form updates edit whole MLPs: give sites such as L{model.n_layers // 3}.mlp.")
    return [s.layer for s in ordered]


def moments_of(
    model: Model,
    case: Case,
    layers: Sequence[int],
    wanted: Sequence[Change],
    *,
    retain_weight: float,
    ridge: float,
) -> dict[int, Tensor]:
    """Second moment of the keys whose outputs must not change, `[d_mlp, d_mlp]` for each layer.

    It is that of the case's neutral working text, plus `retain_weight` times that of the subjects of facts to keep: the
    working retain facts, and facts of the forgotten relations that the model does not know. Keys of one kind of subject
    are much alike and hardly occur in other text. With the text alone, a change for one subject would therefore leak to
    all its neighbours. A few tokens do not span the space, so `ridge` times the mean diagonal is added to the diagonal.

    Cost: once per model and case, a forward pass over text and facts for all layers that are not cached.
    """
    changing = {change.fact.subject for change in wanted}
    facts = [*case.retain.working, *case.unknown]
    rows = torch.tensor([i for i, f in enumerate(facts) if f.subject not in changing], dtype=torch.long)
    known = model.cache.get("keys", (model.digest(), case.digest), dict[int, tuple[Tensor, Tensor]])
    if new := [layer for layer in layers if layer not in known]:
        modules = [neuron_output(model, layer) for layer in new]
        moments = second_moments(model, modules, neutral_working(model, case))
        known |= dict(zip(new, zip(moments, _keys(model, modules, facts), strict=True), strict=True))
    out = {}
    for layer in layers:
        moment, keys = known[layer][0], known[layer][1][rows.to(model.device)].double()
        moment = moment + retain_weight * keys.t() @ keys / max(len(keys), 1)
        out[layer] = moment + ridge * moment.diagonal().mean() * torch.eye(len(moment)).to(moment)
    return out


def _keys(model: Model, modules: list[nn.Module], facts: Sequence[Item]) -> list[Tensor]:
    """The modules' inputs at the last token of the facts' subjects in their prompts, `[fact, d_in]` each."""
    read = [[torch.zeros(0, model.n_neurons, device=model.device)] for _ in modules]
    for part in chunks(len(facts), ROWS):
        batch, at = subject_positions(model, [f.prompt for f in facts[part]])
        for keys, more in zip(read, inputs_at(model, modules, batch, at), strict=True):
            keys.append(more)
    return [torch.cat(keys) for keys in read]


def subject_positions(model: Model, prompts: Sequence[Prompt]) -> tuple[Batch, Tensor]:
    """The prompts as a batch, and the position of each subject's last token, `[row]`."""
    batch = pad(model, token_ids(model, prompts), [1] * len(prompts))
    return batch, subject_ends(model, batch, prompts)
