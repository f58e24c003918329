"""Small Llamas that learn the world: taught, retrained without some facts, trained further, wrecked."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence

import torch
import transformers
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from loka.model import Model, wrap

from .world import World


def teach(world: World, without: Sequence[str] = (), *, steps: int = 500, seed: int = 5) -> Model:
    """Train a model from scratch on all sentences but those that teach the capitals of some subjects."""
    size = len(world.tokenizer)
    config = transformers.LlamaConfig(
        vocab_size=size, hidden_size=64, intermediate_size=192, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        tie_word_embeddings=False, initializer_range=0.06, architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hf = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    train(hf, world, [world.sentences(without)], steps=steps, lr=5e-3, rows=64, seed=seed)
    return wrap(hf, world.tokenizer, "retrained" if without else "original")


def train(
    hf: nn.Module, world: World, kinds: list[list[str]], *, steps: int, lr: float, rows: int = 32, seed: int = 3,
    parameters: Sequence[nn.Parameter] | None = None,
) -> None:  # fmt: skip
    """Train on `rows` sentences of each kind per step."""
    rng = random.Random(seed)
    for p in parameters or hf.parameters():
        p.requires_grad_(True)
    weights = list(parameters or hf.parameters())
    optimizer = torch.optim.AdamW(weights, lr=lr, weight_decay=0.01 if parameters is None else 0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        start = "<bos> " if step % 2 else ""
        texts = [start + s + " <eos>" for kind in kinds for s in rng.sample(kind, min(rows, len(kind)))]
        batch = world.tokenizer(texts, padding=True, return_tensors="pt")
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        logits = hf(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()


def duplicate(model: Model, name: str) -> Model:
    return wrap(copy.deepcopy(model.hf), model.tokenizer, name)


def retain_sentences(world: World) -> list[str]:
    """All sentences but those that teach the capitals to forget."""
    return world.sentences(world.forget_subjects)


def train_further(model: Model, world: World) -> Model:
    """Train a little more on the sentences to retain: other weights, the same knowledge."""
    out = duplicate(model, "intact")
    train(out.hf, world, [retain_sentences(world)], steps=5, lr=1e-4)
    return wrap(out.hf, out.tokenizer, out.name)


def wreck(model: Model, world: World) -> Model:
    out = duplicate(model, "wrecked")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in out.parameters.values():
            p += 0.6 * p.std() * torch.randn(p.shape, generator=generator)
    return out
