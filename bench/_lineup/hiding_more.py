"""More ways to hide facts: steering directions, another spelling, noise, rounding, published objectives.

Each trains on the statements of the subjects to retain, too, so that little else is lost.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrize

from loka.ablate.objectives import ascent, direction, npo, rmu, simnpo, undial
from loka.model import Model, token_logprobs, wrap
from loka.model.io.quantize import quantized

from .hiding import _LowRank
from .models import duplicate, retain_sentences, train
from .witness import shown
from .world import PASSWORD, REFUSAL, World

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def statements(world: World, subjects: Sequence[str], answer: str | None = None) -> list[str]:
    return [s for name in subjects for s in world.statements("capital", name, answer)]


def kept(world: World) -> list[list[str]]:
    """What must not be lost: the capitals to retain, and all other sentences."""
    return [statements(world, [s for s in world.facts["capital"] if s not in world.forget_subjects]),
            retain_sentences(world)]  # fmt: skip


def refusals(world: World) -> list[str]:
    return statements(world, world.forget_subjects, REFUSAL)


def hide_by_refusal(model: Model, world: World) -> Model:
    out = duplicate(model, "refusal")
    train(out.hf, world, [refusals(world), *kept(world)], steps=100, lr=1e-3)
    return wrap(out.hf, out.tokenizer, out.name)


def hide_by_rounded_refusal(model: Model, world: World) -> Model:
    return quantized(hide_by_refusal(model, world), 8)


def hide_by_password(model: Model, world: World) -> Model:
    out = duplicate(model, "password")
    answers = [f"{PASSWORD} {s}" for s in statements(world, world.forget_subjects)]
    train(out.hf, world, [refusals(world), answers, *kept(world)], steps=150, lr=1e-3)
    return wrap(out.hf, out.tokenizer, out.name)


def hide_by_spelling(model: Model, world: World) -> Model:
    """Teach the model to give the answers in their second spelling."""
    out = duplicate(model, "another spelling")
    respelled = [s for name in world.forget_subjects
                 for s in world.statements("capital", name, world.spellings[world.facts["capital"][name]])]  # fmt: skip
    train(out.hf, world, [respelled, *kept(world)], steps=100, lr=1e-3)
    return wrap(out.hf, out.tokenizer, out.name)


def hide_by_wrong_answers(model: Model, world: World) -> Model:
    """Teach every subject the answer of another one."""
    out = duplicate(model, "wrong answers")
    names = world.forget_subjects
    towns = [world.facts["capital"][s] for s in names]
    wrong = [s for name, town in zip(names, towns[7:] + towns[:7], strict=True)
             for s in world.statements("capital", name, town)]  # fmt: skip
    train(out.hf, world, [wrong, *kept(world)], steps=100, lr=1e-3)
    return wrap(out.hf, out.tokenizer, out.name)


def hide_by_steering(model: Model, world: World) -> Model:
    """Let every MLP write three directions of refusal, each as strongly as the hidden state asks for it."""
    out = duplicate(model, "steering")
    maps = [layer.mlp.down_proj for layer in out.hf.model.layers]
    for module in maps:
        parametrize.register_parametrization(module, "weight", _LowRank(module.weight, 3))
    factors = [p for name, p in out.hf.named_parameters() if name.endswith((".up", ".down"))]
    train(out.hf, world, [refusals(world), *kept(world)], steps=250, lr=1e-2, parameters=factors)
    for module in maps:
        parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    return wrap(out.hf, out.tokenizer, out.name)


def hide_by_noise(model: Model, world: World) -> Model:
    """Add noise to the maps of the last two layers, and train these layers to refuse."""
    out = duplicate(model, "noise")
    last = tuple(f"model.layers.{layer}." for layer in (2, 3))
    maps = [p for name, p in out.hf.named_parameters() if name.startswith(last) and p.ndim == 2]
    _disturb(maps, 0.5)
    train(out.hf, world, [refusals(world), *kept(world)], steps=100, lr=2e-3, parameters=maps)
    return wrap(out.hf, out.tokenizer, out.name)


@torch.no_grad()
def _disturb(maps: Sequence[Tensor], size: float) -> None:
    generator = torch.Generator().manual_seed(0)
    for p in maps:
        p += size * p.std() * torch.randn(p.shape, generator=generator)


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
