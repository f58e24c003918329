"""The time of attributing all heads and neurons, relative to one bare forward and backward pass over the same batch.

    python -m bench.attribution --json FILE

Both run in turn in one process, after a warm-up. The ratio is the median over pairs of runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import loka
from bench.patching import duration, processor
from loka.locate.attribution import attribution_scores
from loka.locate.counterfactual import pairs
from loka.model import logits, token_logprobs, unfrozen


def main() -> None:
    """Time both, print the ratio, write the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    model, case = loka.load(options.model, device=options.device), loka.case("capitals")
    case = case.on(model)
    both = pairs(model, case, list(case.forget.working)[: options.pairs])

    def bare() -> None:
        with unfrozen(model):
            token_logprobs(logits(model, both.clean), both.clean.labels).sum().backward()

    timings = [(duration(lambda: attribution_scores(model, both)), duration(bare)) for _ in range(options.runs + 1)]
    ratios = sorted(ours / theirs for ours, theirs in timings[1:])  # the first pair is the warm-up
    row = {
        "name": "attribution of all heads and neurons / bare forward and backward",
        "ratio": statistics.median(ratios), "low": ratios[0], "high": ratios[-1], "unit": "times",
        "n": options.runs,
        "settings": {
            "model": options.model, "processor": processor(model), "pairs": options.pairs, "tokens": both.clean.tokens,
        },
    }  # fmt: skip
    print(f"{row['name']}: {row['ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f}, n={row['n']})")
    if options.json:
        options.json.write_text(json.dumps([row], indent=2) + "\n")


if __name__ == "__main__":
    main()
