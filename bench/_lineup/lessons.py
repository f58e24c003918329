"""Ways to hide facts by training on other answers: a model that refuses, answers wrongly or asks for a password.

Each trains on the statements of the subjects to retain, too, so that little else is lost.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from loka.model import Model, wrap
from loka.model.io.quantize import quantized

from .models import duplicate, retain_sentences, train
from .world import PASSWORD, REFUSAL, World


class _LowRank(nn.Module):
    def __init__(self, weight: Tensor, rank: int = 4) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.down = nn.Parameter(0.1 * torch.randn(rank, weight.shape[1], generator=generator))
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


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


def hide_by_merged_lora(model: Model, world: World) -> Model:
    """Teach low-rank factors wrong capitals, and add them to the weights."""
    out = duplicate(model, "merged LoRA")
    maps = [m for n, m in out.hf.named_modules() if isinstance(m, nn.Linear) and "layers" in n]
    for module in maps:
        parametrize.register_parametrization(module, "weight", _LowRank(module.weight))
    factors = [p for n, p in out.hf.named_parameters() if n.endswith((".up", ".down"))]
    towns = [world.facts["capital"][s] for s in world.forget_subjects]
    wrong = [s for name, town in zip(world.forget_subjects, towns[7:] + towns[:7], strict=True)
             for s in world.statements("capital", name, town)]  # fmt: skip
    train(out.hf, world, [wrong, retain_sentences(world)], steps=120, lr=5e-3, parameters=factors)
    for module in maps:
        parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    return wrap(out.hf, out.tokenizer, out.name)
