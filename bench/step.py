"""A training step on the slices of some neurons against one on all weights, over the same batch.

    python -m bench.step --json FILE

Forward, backward and AdamW's step, in one process, in turn, after a warm-up; the ratio is taken pair by pair. The
neurons are those that attribution finds, so that the backward pass goes as deep as an edit's. Beside it, how many
numbers the optimizer keeps.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import loka
from bench.patching import processor, timed
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
    asked = [f.asked(p) for f in case.forget.working for p in f.prompts][: options.rows]
    batch = encode(model, [f.prompt for f in asked], [f.answer for f in asked])
    settings = {
        "model": options.model,
        "processor": processor(model),
        "neurons": options.neurons,
        "rows": len(batch.ids),
        "tokens": batch.tokens,
    }
    rows = []
    with torch.enable_grad():
        times, kept = zip(*(_both(model, sites, batch) for _ in range(options.runs + 1)), strict=True)
    ratios = sorted(ours / theirs for ours, theirs in times[1:])  # the first pair is the warm-up
    rows.append(_row("training step on slices / on all weights", ratios, settings))
    rows.append(_row("optimizer's numbers for slices / for all weights", [a / b for a, b in kept[1:]], settings))
    for row in rows:
        print(f"{row['name']}: {row['ratio']:.4f} ({row['low']:.4f} to {row['high']:.4f}, n={row['n']})")
    if options.json:
        write_json(options.json, rows)


def _both(model: Model, sites: Any, batch: Batch) -> tuple[tuple[float, float], tuple[int, int]]:
    """Seconds of a step, and numbers that the optimizer keeps, on slices and on all weights."""
    with loka.model.scratch(model), sliced(model, slices(model, sites)) as trainable:
        ours, mine = _step(model, batch, trainable.parameters, trainable.step)
    with loka.model.scratch(model), unfrozen(model) as weights:
        theirs, all_of_them = _step(model, batch, weights, lambda optimizer: optimizer.step())
    return (ours, theirs), (mine, all_of_them)


def _step(
    model: Model, batch: Batch, parameters: Any, step: Callable[[torch.optim.Optimizer], Any]
) -> tuple[float, int]:
    optimizer = torch.optim.AdamW(parameters, lr=1e-6, weight_decay=0.0)

    def once() -> None:
        (-token_logprobs(logits(model, batch), batch.labels).sum()).backward()
        step(optimizer)
        optimizer.zero_grad(set_to_none=True)

    once()  # makes the optimizer's state
    spent = timed(once)
    kept = sum(t.numel() for state in optimizer.state.values() for t in state.values() if t.ndim)
    return spent, kept


def _row(name: str, values: list[float], settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name, "ratio": statistics.median(values), "low": min(values), "high": max(values), "unit": "times",
        "n": len(values), "settings": settings,
    }  # fmt: skip


if __name__ == "__main__":
    main()
