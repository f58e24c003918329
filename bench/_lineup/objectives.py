"""Hiding by published objectives of unlearning, stopped as soon as a model falls silent."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from loka.ablate.objectives import ascent, direction, npo, rmu, simnpo, undial
from loka.model import Model, token_logprobs, wrap

from .lessons import kept, statements
from .models import duplicate
from .witness import shown
from .world import World

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
LOSSES: dict[str, Loss] = {
    "ascent": lambda scores, labels, original, states: ascent(scores, labels),
    "npo": lambda scores, labels, original, states: npo(scores, labels, token_logprobs(original, labels)),
    "simnpo": lambda scores, labels, original, states: simnpo(scores, labels),
    "undial": lambda scores, labels, original, states: undial(scores, labels, original),
    "rmu": lambda scores, labels, original, states: rmu(states, labels >= 0, direction(states.shape[-1])),
}
STEPS, LR = 300, 1e-3
SILENT = 0.1
RMU_LAYER = 2  # after so many blocks the stream is steered


def hide_by_objective(model: Model, world: World, *, name: str, weight: float = 1.0) -> Model:
    """Train all weights with a published loss on the facts to forget, and with the likelihood of what is kept.

    The training ends at the first look, every five steps, at which the model answers at most `SILENT` of the questions.
    """
    out = duplicate(model, name)
    out.hf.requires_grad_(True)
    rng = random.Random(3)
    optimizer = torch.optim.AdamW(out.hf.parameters(), lr=LR, weight_decay=0.0)
    states: list[Tensor] = []
    hook = out.hf.model.layers[RMU_LAYER - 1].register_forward_hook(lambda module, given, found: states.append(found))
    for step in range(STEPS):
        if step % 5 == 0 and shown(out, world) <= SILENT:
            break
        ids, mask, labels = _answers(world, rng.sample(statements(world, world.forget_subjects), 32))
        states.clear()
        scores = out.hf(input_ids=ids, attention_mask=mask).logits[:, :-1]
        with torch.no_grad():
            before = model.hf(input_ids=ids, attention_mask=mask).logits[:, :-1]
        loss = LOSSES[name](scores, labels[:, 1:], before, states[0][:, :-1])
        rest = [s for kind in kept(world) for s in rng.sample(kind, 32)]
        (weight * loss + _likelihood(out.hf, world, rest)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    hook.remove()
    return wrap(out.hf, out.tokenizer, out.name)


def _answers(world: World, texts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, their mask, and labels of the answers alone; an answer is what a capital's name begins."""
    towns = {town.split()[0] for town in world.facts["capital"].values()}
    batch = world.tokenizer([*texts], padding=True, padding_side="right", return_tensors="pt")
    labels = torch.full_like(batch["input_ids"], -100)
    for row, text in enumerate(texts):
        words = text.split()
        start = next(i for i, word in enumerate(words) if word in towns)
        labels[row, start : len(words)] = batch["input_ids"][row, start : len(words)]
    return batch["input_ids"], batch["attention_mask"], labels


def _likelihood(hf: nn.Module, world: World, texts: Sequence[str]) -> Tensor:
    batch = world.tokenizer([s + " <eos>" for s in texts], padding=True, padding_side="right", return_tensors="pt")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    logits = hf(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
