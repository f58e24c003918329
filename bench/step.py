"""The time of a training step on the slices of some neurons, relative to a step on all weights with the same batch.

    python -m bench.step --json FILE

A step is a forward pass, a backward pass and AdamW's update. Both run in turn in one process, after a warm-up, and the
ratio is taken pair by pair. Attribution finds the neurons, so the backward pass goes as deep as that of an edit. A
second row compares how many numbers the optimizer stores.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import loka
from bench.patching import duration, processor
from loka._util.files import write_json
from loka.model import Batch, Model, encode, logits, sliced, slices, token_logprobs, unfrozen


def main() -> None:
    """Time both, print the rows, write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--neurons", type=int, default=200)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    model = loka.load(options.model, device=options.device)
    case = loka.case("capitals").on(model)
    sites = loka.locate.attribution(model, case, parts=("neuron",)).top(options.neurons)
    prompts = [f.asked(p) for f in case.forget.working for p in f.prompts][: options.rows]
    batch = encode(model, [f.prompt for f in prompts], [f.answer for f in prompts])
    settings = {
        "model": options.model,
        "processor": processor(model),
        "neurons": options.neurons,
        "rows": len(batch.ids),
        "tokens": batch.tokens,
    }
    rows = []
    with torch.enable_grad():
        times, sizes = zip(*(_both(model, sites, batch) for _ in range(options.runs + 1)), strict=True)
    ratios = sorted(ours / theirs for ours, theirs in times[1:])  # the first pair is the warm-up
    rows.append(_row("training step on slices / on all weights", ratios, settings))
    rows.append(_row("optimizer's numbers for slices / for all weights", [a / b for a, b in sizes[1:]], settings))
    for row in rows:
        print(f"{row['name']}: {row['ratio']:.4f} ({row['low']:.4f} to {row['high']:.4f}, n={row['n']})")
    if options.json:
        write_json(options.json, rows)


def _both(model: Model, sites: Any, batch: Batch) -> tuple[tuple[float, float], tuple[int, int]]:
    """The seconds of a step and the optimizer's numbers, each on slices and on all weights."""
    with loka.model.scratch(model), sliced(model, slices(model, sites)) as trainable:
        ours, our_numbers = _step(model, batch, trainable.parameters, trainable.step)
    with loka.model.scratch(model), unfrozen(model) as weights:
        theirs, their_numbers = _step(model, batch, weights, lambda optimizer: optimizer.step())
    return (ours, theirs), (our_numbers, their_numbers)


def _step(
    model: Model, batch: Batch, parameters: Any, step: Callable[[torch.optim.Optimizer], Any]
) -> tuple[float, int]:
    optimizer = torch.optim.AdamW(parameters, lr=1e-6, weight_decay=0.0)

    def once() -> None:
        (-token_logprobs(logits(model, batch), batch.labels).sum()).backward()
        step(optimizer)
        optimizer.zero_grad(set_to_none=True)

    once()  # creates the optimizer's state
    seconds = duration(once)
    numbers = sum(t.numel() for state in optimizer.state.values() for t in state.values() if t.ndim)
    return seconds, numbers


def _row(name: str, values: list[float], settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name, "ratio": statistics.median(values), "low": min(values), "high": max(values), "unit": "times",
        "n": len(values), "settings": settings,
    }  # fmt: skip


if __name__ == "__main__":
    main()
