"""Teach a model texts by plain fine-tuning, for the benches that need a model which knows them."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from loka.model import Model, encode, logits, token_logprobs, unfrozen
from loka.model.run.onednn import bfloat16_products

Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Lessons:
    """How a model is taught: AdamW at a rate that falls to zero along a cosine, `rows` texts in a step."""

    epochs: int = 6
    lr: float = 3e-4
    rows: int = 20
    seed: int = 0


def teach_(model: Model, prompts: Sequence[str], answers: Sequence[str], how: Lessons, progress: Progress) -> float:
    """Train all weights of a model in place, with the loss on the answers alone; returns the seconds it took."""
    rng, start = random.Random(how.seed), time.perf_counter()
    order = [i for _ in range(how.epochs) for i in rng.sample(range(len(prompts)), len(prompts))]
    steps = [order[i : i + how.rows] for i in range(0, len(order), how.rows)]
    with unfrozen(model) as parameters:
        optimizer = torch.optim.AdamW(parameters, lr=how.lr, weight_decay=0.0, fused=True)
        for step, chosen in enumerate(steps):
            for group in optimizer.param_groups:
                group["lr"] = how.lr * (1 + math.cos(math.pi * step / len(steps))) / 2
            batch = encode(model, [prompts[i] for i in chosen], [answers[i] for i in chosen])
            with torch.enable_grad(), bfloat16_products(model):
                loss = -token_logprobs(logits(model, batch), batch.labels).sum() / (batch.labels >= 0).sum()
                loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            progress(step + 1, len(steps), float(loss.detach()))
    return time.perf_counter() - start
