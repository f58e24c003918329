"""What each check costs, in forward-pass equivalents and in seconds, and how that grows with facts and model size.

    python -m bench.verify --json FILE

The models are random Llamas of several sizes on invented facts, because the cost does not depend on what a model knows.
With `--model`, it is a real one on the first `--facts` forget facts of a built-in case. Each check runs once, after a
warm-up.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

import loka
from loka import verify
from loka.knowledge import Case, Split, score
from loka.model import Model, wrap
from loka.verify import Budget, Reading

SIZES = {"0.3M": (64, 4), "3M": (192, 8)}  # width, layers
FACTS = (16, 64)
TEMPLATE = "the capital of {} is"
SEALED = "in {} the capital is called"


def main() -> None:
    """Time every check on every model and number of facts, print a table, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", help="a real model instead of the random ones, such as smollm2")
    parser.add_argument("--case", default="capitals")
    parser.add_argument("--facts", type=int, nargs="*", default=FACTS)
    parser.add_argument("--checks", nargs="*", help="all by default")
    parser.add_argument("--steps", type=int, default=2, help="steps of relearning and of benign fine-tuning")
    options = parser.parse_args()
    rows = list(measure(options))
    table = Table(title="cost of the checks")
    for column in ("check", "model", "facts", "forward passes", "seconds", "passes in the same time"):
        table.add_column(column, justify="left" if column in ("check", "model") else "right")
    for row in rows:
        s = row["settings"]
        numbers = f"{s['cost']:,.0f}", f"{row['value']:.2f}", f"{s['equivalents']:,.0f}"
        table.add_row(s["check"], s["model"], str(row["n"]), *numbers)
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row per check, model and number of facts. `value` is in seconds."""
    for name, model, case in subjects(options):
        prompts, answers = zip(*((f.prompt, f.answer) for f in case.forget.sealed), strict=True)
        score(model, prompts, answers)
        one = seconds(lambda: score(model, prompts, answers)) / len(prompts)  # noqa: B023
        for check, run in checks(model, case, Budget(options.steps, 1e-5)).items():
            if options.checks and check not in options.checks:
                continue
            found: list[Reading] = []
            elapsed = seconds(lambda: found.append(run()))  # noqa: B023
            yield {
                "name": f"{check}, {name}, {len(prompts)} facts", "value": elapsed, "low": elapsed, "high": elapsed,
                "unit": "seconds", "n": len(prompts),
                "settings": {
                    "check": check, "model": name, "parameters": model.n_parameters, "cost": found[0].cost,
                    "row_seconds": one, "equivalents": elapsed / one, "threads": torch.get_num_threads(),
                },
            }  # fmt: skip


def checks(model: Model, case: Case, budget: Budget) -> dict[str, Callable[[], Reading]]:
    """The checks of the profile `standard` with its budgets, but few training steps."""
    names = (
        "recall", "paraphrase", "prefill", "extraction", "logit_lens", "quantize", "spectral", "mask", "soft_prompt",
        "probe", "membership", "collateral",
    )  # fmt: skip
    return {
        **{name: partial(getattr(verify, name), model, case) for name in names},
        "similarity": lambda: verify.similarity(model, case, original=model),
        "depth": lambda: verify.depth(model, case, original=model),
        "direction_ablation": lambda: verify.direction_ablation(model, case, original=model),
        "relearn": lambda: verify.relearn(model, case, budget=budget),
        "benign": lambda: verify.benign(model, case, budget=budget),
    }


def subjects(options: argparse.Namespace) -> Iterator[tuple[str, Model, Case]]:
    """The models and cases to measure."""
    if options.model:
        model = loka.load(options.model)
        whole = loka.case(options.case).on(model)
        for n in options.facts:
            if n <= len(whole.forget.sealed):
                yield options.model, model, first(whole, n)
        return
    with tempfile.TemporaryDirectory() as folder:
        whole = invented_case(Path(folder), max(options.facts))
        for name, (width, layers) in SIZES.items():
            model = random_llama(whole, width, layers)
            for n in options.facts:
                yield name, model, first(whole, n)


def first(case: Case, n: int) -> Case:
    """The case with its first forget facts only."""
    return dataclasses.replace(case, forget=Split(case.forget.working[:n], case.forget.sealed[:n]))


def invented_case(folder: Path, n: int) -> Case:
    """A case about `n` invented capitals to forget and as many to retain, all treated as known."""
    rng = random.Random(0)
    names = ["".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(4)).capitalize()
             for _ in range(8 * n)]  # fmt: skip
    names = list(dict.fromkeys(names))[: 5 * n]
    facts = dict(zip(names[: 2 * n], names[2 * n : 4 * n], strict=True))
    (folder / "text.txt").write_text("\n\n".join(f"the old man of {name} likes the sea" for name in names[:16]))
    path = folder / "case.yaml"
    path.write_text(json.dumps({
        "name": "invented", "purpose": "safety",
        "relations": {"capital": {"working": [TEMPLATE], "sealed": [SEALED], "facts": facts}},
        "forget": {"capital": names[:n]}, "retain": {"capital": {"working": "0.5", "sealed": "0.5"}},
        "twins": {"capital": names[4 * n :]}, "neutral": {"working": "text.txt", "sealed": "text.txt"},
    }))  # fmt: skip
    return dataclasses.replace(loka.case(path), facts_known=2 * n, facts_total=2 * n)


def random_llama(case: Case, width: int, layers: int) -> Model:
    """A Llama with random weights whose vocabulary is the case's words."""
    twins = [f.subject for f in case.twins.sealed]
    facts = case.spec.relations["capital"].facts
    text = [TEMPLATE, SEALED, "the old man of likes sea . a", *facts, *(a[0] for a in facts.values()), *twins]
    words = sorted({word for line in text for word in line.split()})
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["<eos>", "<unk>", *words])}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", pad_token="<eos>", unk_token="<unk>")
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, eos_token_id=0, bos_token_id=0,
        pad_token_id=0, architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    torch.manual_seed(0)
    return wrap(AutoModelForCausalLM.from_config(config, dtype=torch.float32), tokenizer, f"llama-{width}")


def seconds(job: Callable[[], object]) -> float:
    """The seconds that a job takes."""
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
