"""Exact sweeps by LOKA against TransformerLens' activation patching and a bare forward and backward pass.

    python -m bench.patching --json FILE [--models smollm2 gpt2] [--prompts short chat long] [--growth]

All run in turn in one process, after a warm-up. Ratios are taken round by round. TransformerLens would take minutes for
all cells of a sweep, so only a sample of cells is timed, spread evenly over the layers, and scaled to all. LOKA runs
all heads on short prompts and on a GPU. Elsewhere it runs a sample of the same layers, scaled as well. `settings` says
which.

`gpt2` is a model of GPT-2 small's shape with random weights and SmolLM2's tokenizer. A chat prompt is the tokenizer's
chat template around a question, with the beginning of the answer. A long prompt (one pair) has 512 tokens, with the
subject at its start. On CPUs, LOKA runs linear maps by oneDNN and TransformerLens by torch's default. Memory is the
largest growth of a forked process, or on a GPU the largest allocation, beyond the weights.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import torch
import transformers
from transformer_lens import patching as peer

import loka
from loka._util.files import write_json
from loka._util.malloc import release
from loka.knowledge import Case, Item
from loka.locate.counterfactual import Pairs, log_odds, pairs
from loka.locate.exact import sweep_pairs
from loka.model import Batch, Model, Site, logits, token_logprobs, unfrozen

PAIRS = 4
LONG = 512
NAMES = {"head": "z", "neuron": "post"}
Rows = list[dict[str, Any]]


def main() -> None:
    """Time everything, print a table, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--models", nargs="+", default=["smollm2", "gpt2"])
    parser.add_argument("--prompts", nargs="+", default=["short", "chat", "long"], choices=["short", "chat", "long"])
    parser.add_argument("--parts", nargs="+", default=["head", "neuron"], choices=["head", "neuron"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--growth", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    smollm2 = loka.load("smollm2", device=options.device)
    case = loka.case("capitals").on(smollm2)
    rows: Rows = []
    for name in options.models:
        model = smollm2 if name == "smollm2" else gpt2(smollm2)
        for prompt in options.prompts:
            both = equal_pairs(model, case, prompt, 1 if prompt == "long" else PAIRS)
            for part in options.parts:
                rows += compare(model, name, both, prompt, part, options.rounds)
                if options.json:
                    write_json(options.json, rows)
        if options.growth:
            rows += growth(model, name, case)
            if options.json:
                write_json(options.json, rows)
    for row in rows:
        value = row.get("ratio", row.get("value"))
        print(
            f"{row['settings']['model']:8} {row['settings']['prompt']:6} {row['name']:62} {value:10.4g} {row['unit']}"
        )


def gpt2(smollm2: Model) -> Model:
    """Random weights in GPT-2 small's shape, with the other model's tokenizer."""
    config = transformers.GPT2Config(vocab_size=len(smollm2.tokenizer), bos_token_id=1, eos_token_id=2)
    config.architectures = ["GPT2LMHeadModel"]
    torch.manual_seed(0)
    hf = transformers.AutoModelForCausalLM.from_config(config).to(smollm2.device)
    return loka.model.wrap(hf, smollm2.tokenizer, "gpt2")


def equal_pairs(model: Model, case: Case, prompt: str, n: int = PAIRS) -> Pairs:
    """Pairs of equal length, as TransformerLens needs them, whose answers have the fewest tokens."""
    facts = [f for f in [*case.forget.working, *case.retain.working] if f.relation == "capital"]
    single = [pairs(model, case, [f]) for f in [replace(f, prompt=prompt_text(model, case, f, prompt)) for f in facts]]
    groups: dict[tuple[int, int], list[Item]] = {}
    for one in single:
        if bool((one.clean.mask & one.corrupted.mask).all()):
            groups.setdefault((one.clean.keep, one.clean.ids.shape[1]), []).append(one.facts[0])
    keep, length = min(key for key, facts in groups.items() if len(facts) >= n)
    return pairs(model, case, groups[keep, length][:n])


def prompt_text(model: Model, case: Case, fact: Item, prompt: str) -> str:
    """The fact's prompt, alone, in the chat template, or after a long text."""
    if prompt == "short":
        return fact.prompt
    if prompt == "chat":
        messages = [{"role": "user", "content": f"What is the capital city of {fact.subject}?"}]
        return model.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) + fact.prompt
    head = f"{fact.subject} is a country."
    size = LONG - sum(len(model.tokenizer(text)["input_ids"]) for text in (head, f" {fact.prompt} {fact.answer}"))
    filler = model.tokenizer(" It rained in the valley, and the old mill by the river stood still." * 60)["input_ids"]
    return f"{head}{model.tokenizer.decode(filler[:size])} {fact.prompt}"


def compare(model: Model, name: str, both: Pairs, prompt: str, part: Any, rounds: int) -> Rows:
    """The ratios to TransformerLens and to a bare pass, the time, the largest difference and the peak memory."""
    tokens, layers = int(both.clean.mask[0].sum()), model.n_layers
    depth = [int((i + 0.5) * layers / 4) for i in range(4)] if prompt != "long" else [layers // 2]
    units = model.units(part)
    cells = [Site(layer, part, (31 * layer) % units) for layer in depth]
    gpu = model.device.type != "cpu"  # takes as long for few rows as for many, so few cannot be scaled up
    if part == "head" and (prompt == "short" or gpu):
        ours = model.sites(part)
    else:
        few = min(units, (3 if prompt == "long" else 48) * (16 if gpu else 1))
        ours = sorted({*cells, *(Site(layer, part, i) for layer in depth for i in range(few))})
    batch = both.clean

    def bare() -> None:
        with unfrozen(model):
            token_logprobs(logits(model, batch), batch.labels).sum().backward()

    jobs = {
        "loka": lambda: sweep_pairs(model, both, ours),
        "peer": lambda: patch_with_peer(model, both, cells),
        "bare": bare,
    }
    model.bridge.eval()  # builds the bridge, which is not part of the peer's cost
    peaks = {what: peak(model, job) for what, job in jobs.items()}
    results = {what: job() for what, job in jobs.items()}
    seconds: dict[str, list[float]] = {what: [] for what in jobs}
    for _ in range(rounds):
        for what, job in jobs.items():
            seconds[what].append(duration(job))
    total = layers * units
    scale = {"loka": total / len(ours), "peer": total / len(cells), "bare": 1.0}
    settings = {
        "model": name, "prompt": prompt, "part": part, "pairs": len(both.facts), "tokens": tokens,
        "answer_tokens": batch.keep,
        "layers": layers, "sites": total, "threads": torch.get_num_threads(), "loka_sites_timed": len(ours),
        "peer_cells_timed": len(cells), "layers_sampled": depth, "scaled_to": total,
        "processor": processor(model),
    }  # fmt: skip
    column = {site: i for i, site in enumerate(ours)}
    loka_values = results["loka"].values[:, [column[cell] for cell in cells]]
    difference = float(np.abs(loka_values - results["peer"]).max())

    def ratio(title: str, over: str, under: str) -> dict[str, Any]:
        each = sorted(a * scale[over] / (b * scale[under]) for a, b in zip(seconds[over], seconds[under], strict=True))
        return {
            "name": title, "ratio": statistics.median(each), "low": each[0], "high": each[-1], "unit": "times",
            "n": rounds, "settings": settings,
        }  # fmt: skip

    def value(title: str, x: float, unit: str) -> dict[str, Any]:
        return {"name": title, "value": x, "low": None, "high": None, "unit": unit, "n": rounds, "settings": settings}

    return [
        ratio(f"all {part}s exactly: TransformerLens / LOKA", "peer", "loka"),
        ratio(f"all {part}s exactly: LOKA / bare forward and backward", "loka", "bare"),
        value(f"all {part}s exactly: LOKA", statistics.median(seconds["loka"]) * scale["loka"], "seconds"),
        value(f"{part}s: largest difference of log-odds", difference, "log-odds"),
        *(value(f"{part}s: memory beyond the weights, {what}", peaks[what], "GiB") for what in jobs),
    ]


@torch.no_grad()
def patch_with_peer(model: Model, both: Pairs, cells: Sequence[Site]) -> np.ndarray:
    """TransformerLens' `generic_activation_patch` on cells of one part: log-odds `[pair, cell]`."""
    bridge, clean, name = model.bridge, both.clean, NAMES[cells[0].part]
    _, cache = bridge.run_with_cache(both.corrupted.ids, names_filter=lambda n: n.endswith(f"hook_{name}"))
    index = pd.DataFrame({"layer": [c.layer for c in cells], "unit": [c.index for c in cells]})
    out: list[torch.Tensor] = []

    def metric(scores: torch.Tensor) -> torch.Tensor:
        out.append(log_odds(scores[:, -clean.keep - 1 : -1], both))
        return out[-1].mean()

    with open(os.devnull, "w") as quiet, redirect_stderr(quiet):  # its progress bar
        peer.generic_activation_patch(
            bridge, clean.ids, cache, metric, peer.layer_head_vector_patch_setter, name, index_df=index
        )
    return torch.stack(out, 1).double().cpu().numpy()


def growth(model: Model, name: str, case: Case) -> Rows:
    """How LOKA's time grows with facts, tokens, layers and sites, as multiples of the smallest of each."""
    both, chat = equal_pairs(model, case, "short"), equal_pairs(model, case, "chat")
    heads, half = model.sites("head"), model.n_layers // 2
    third = [s for s in heads if not s.index]

    def first(n: int) -> Pairs:
        clean, corrupted = (
            Batch(*(t[:n] for t in (b.ids, b.mask, b.positions, b.labels))) for b in (both.clean, both.corrupted)
        )
        return Pairs(both.facts[:n], clean, corrupted, both.foils[:n])

    axes: dict[str, list[tuple[Any, Callable[[], object]]]] = {
        "facts": [(n, lambda n=n: sweep_pairs(model, first(n), third)) for n in (1, 2, 4)],
        "tokens": [(int(b.clean.mask[0].sum()), lambda b=b: sweep_pairs(model, b, third)) for b in (both, chat)],
        "layers (heads of the last)": [
            (n, lambda n=n: sweep_pairs(model, first(1), [s for s in heads if s.layer >= model.n_layers - n]))
            for n in (half // 2, half, model.n_layers)
        ],
        "sites (heads of each layer)": [
            (n, lambda n=n: sweep_pairs(model, first(1), [s for s in heads if (s.index or 0) < n])) for n in (1, 3, 9)
        ],
    }
    rows: Rows = []
    for axis, jobs in axes.items():
        times = []
        for _, job in jobs:
            job()
            times.append(statistics.median(duration(job) for _ in range(3)))
        for (at, _), seconds in zip(jobs, times, strict=True):
            rows.append(
                {"name": f"growth with {axis}: {at}", "ratio": seconds / times[0], "low": None, "high": None,
                 "unit": "times", "n": 3, "settings": {"model": name, "prompt": "short", "seconds": seconds}}
            )  # fmt: skip
    return rows


def duration(job: Callable[[], object]) -> float:
    """The seconds that a job takes."""
    start = time.perf_counter()
    job()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def processor(model: Model) -> str:
    """The GPU's name, or the CPU's instruction set."""
    if model.device.type == "cuda":
        return torch.cuda.get_device_name(model.device)
    return torch.backends.cpu.get_cpu_capability()


def peak(model: Model, job: Callable[[], object]) -> float:
    """By how many GiB a job lets the device's memory grow at most. On a CPU, it runs in a fork of this process."""
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(model.device)
        before = torch.cuda.memory_allocated(model.device)
        job()
        return (torch.cuda.max_memory_allocated(model.device) - before) / 2**30
    release()  # or the job would reuse memory that the process already has
    out, into = os.pipe()
    child = os.fork()
    if not child:
        torch.set_num_threads(1)  # a fork has only one thread
        before = psutil.Process().memory_info().rss
        job()
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10 - before
        os.write(into, str(grown / 2**30).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(into)
    with os.fdopen(out) as pipe:
        return float(pipe.read())


if __name__ == "__main__":
    main()
