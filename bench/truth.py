"""How well each way of locating finds neurons that are known to hold the facts.

    python -m bench.truth --json FILE

*Written*: facts are written by hand into a Llama's weights. Each has two neurons, in two layers, that fire at its
subject and write its answer. Two heads carry the answers to the last position. Beside them lie neurons that serve the
template, decoys that fire at a subject and write what nothing reads, the neurons of the facts to retain, and random
weights.

*Routed* (Cloud et al. 2024, arXiv:2410.04332): a small Llama learns the facts to retain while 24 chosen neurons are
silent. It then learns the facts to forget through these neurons alone.

A few minutes in all.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from sklearn.metrics import roc_auc_score
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import loka
from loka._util.files import write_json
from loka.knowledge import Case
from loka.locate import Localization
from loka.model import Batch, Model, Site, encode, logits, slices, token_logprobs, wrap
from loka.model.train.train import sliced

N_FACTS, N_FORGET, N_TWINS = 48, 16, 20
WORKING = ["the capital of {} is", "people who rule {} live in"]
SEALED = ["in {} the town is"]
FACT_LAYERS, MOVERS = (0, 1), ((2, 1), (3, 2))
WIDTH, D_HEAD, N_NEURONS = 224, 56, 256
KS = (8, 32)
TRUTHS = ("written", "routed")
ROUTED_LAYERS, ROUTED, ROUTED_WIDTH = (1, 2), 12, 64
LOCATORS = {"taylor": loka.locate.taylor, "integrated gradients": loka.locate.integrated_gradients}
STEPS, RETAIN_LOSS = 400, 0.1  # training ends at this loss of the facts to retain, in nats per token


@dataclass(frozen=True)
class GroundTruth:
    """A model, its case, the `neurons` that hold the forget facts, and the `heads` that serve all facts."""

    model: Model
    case: Case
    neurons: frozenset[Site]
    heads: frozenset[Site]


def main() -> None:
    """Score every locator and control on models of several seeds, print a table, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        tables = [
            {
                f"{truth}, {name}": value
                for truth in TRUTHS
                for name, value in scores(ground_truth(Path(folder), seed, truth)).items()
            }
            for seed in range(options.seeds)
        ]
    for name in tables[0]:
        values = np.array([t[name] for t in tables])
        rows.append(
            {"name": name, "value": float(np.median(values)), "low": float(values.min()), "high": float(values.max()),
             "unit": "share", "n": options.seeds, "settings": {"facts": N_FACTS, "forget": N_FORGET}}
        )  # fmt: skip
        print(f"{name:45} {rows[-1]['value']:.3f} ({rows[-1]['low']:.3f} to {rows[-1]['high']:.3f})")
    if options.json:
        write_json(options.json, rows)


def scores(truth: GroundTruth) -> dict[str, float]:
    """AUROC, precision and recall at k of each locator and control, by name."""
    found = loka.locate.attribution(truth.model, truth.case)
    rng = np.random.default_rng(truth.case.seed)
    frame = found.frame
    ways = {
        "contrast": frame["score"],
        "forget side alone": frame["forget"],
        "absolute value": frame["raw"].abs(),
        "facts to retain": frame["retain"],
        "random": rng.random(len(frame)),
    }
    out: dict[str, float] = {}
    for way, locator in LOCATORS.items():
        ranking = locator(truth.model, truth.case)
        out |= {f"{way}: {what}": value for what, value in agreement(ranking, truth.neurons).items()}
    for way, values in ways.items():
        ranking = Localization(frame.assign(score=np.asarray(values, float)), found.record)
        out |= {f"{way}: {what}": value for what, value in agreement(ranking, truth.neurons).items()}
    return out


def agreement(found: Localization, truth: frozenset[Site]) -> dict[str, float]:
    """AUROC over all neurons, precision and recall at k of a localization's scores against the true sites."""
    rows = found.frame[found.frame["part"] == "neuron"]
    true = [Site(int(a), "neuron", int(b)) in truth for a, b in zip(rows["layer"], rows["index"], strict=True)]
    out = {"AUROC": float(roc_auc_score(true, rows["score"]))}
    for k in KS:
        hits = len(truth & set(found.top(k)))
        out |= {f"precision at {k}": hits / k, f"recall at {k}": hits / len(truth)}
    return out


def ground_truth(folder: Path, seed: int = 0, truth: str = "written") -> GroundTruth:
    """A small Llama whose facts were put where `truth` says, and its case."""
    rng = random.Random(seed)
    subjects = [f"S{i}" for i in range(N_FACTS)]
    answers = [f"A{i}" for i in rng.sample(range(N_FACTS), N_FACTS)]
    twins = [f"T{i}" for i in range(N_TWINS)]
    forget = rng.sample(range(N_FACTS), N_FORGET)
    tokenizer = _tokenizer([*subjects, *answers, *twins])
    case = {
        "name": "memory", "purpose": "safety",
        "relations": {
            "capital": {"working": WORKING, "sealed": SEALED, "facts": dict(zip(subjects, answers, strict=True))}
        },
        "forget": {"capital": [subjects[i] for i in forget]},
        "retain": {"capital": {"working": 0.6, "sealed": 0.4}},
        "twins": {"capital": twins},
        "neutral": {"working": "plain.txt", "sealed": "plain2.txt"}, "seed": seed,
    }  # fmt: skip
    (folder / "plain.txt").write_text("people who live in the town\n")
    (folder / "plain2.txt").write_text("the town is the capital\n")
    path = folder / f"memory{seed}.yaml"
    path.write_text(yaml.safe_dump(case))
    if truth == "routed":
        model, neurons = _routed(tokenizer, subjects, answers, forget, seed)
        return GroundTruth(model, loka.case(str(path)), neurons, frozenset())
    hf, owners = _written(tokenizer, subjects, answers, seed)
    return GroundTruth(
        wrap(hf, tokenizer, f"memory {seed}"),
        loka.case(str(path)),
        frozenset(site for i in forget for site in owners[i]),
        frozenset(Site(layer, "head", head) for layer, head in MOVERS),
    )


def _tokenizer(names: Sequence[str]) -> PreTrainedTokenizerFast:
    words = sorted({w for t in [*WORKING, *SEALED] for w in t.replace("{}", "").split()})
    vocabulary = {w: i for i, w in enumerate(["<pad>", "<bos>", "<eos>", "<unk>", *words, *names])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )


def _routed(
    tokenizer: PreTrainedTokenizerFast,
    subjects: Sequence[str],
    answers: Sequence[str],
    forget: Sequence[int],
    seed: int,
) -> tuple[Model, frozenset[Site]]:
    """A model that learned the forget facts through chosen neurons alone, and those neurons."""
    torch.manual_seed(seed)
    model = wrap(LlamaForCausalLM(_config(tokenizer, ROUTED_WIDTH, 0.06)), tokenizer, f"routed {seed}")
    rng = np.random.default_rng(seed)
    neurons = frozenset(
        Site(layer, "neuron", int(i)) for layer in ROUTED_LAYERS for i in rng.choice(N_NEURONS, ROUTED, replace=False)
    )
    forget_batch, retain_batch = (
        encode(
            model,
            [t.format(subjects[i]) for i in side for t in [*WORKING, *SEALED]],
            [answers[i] for i in side for _ in range(3)],
        )
        for side in (forget, sorted({*range(N_FACTS)} - {*forget}))
    )
    columns = {layer: [s.index for s in neurons if s.layer == layer] for layer in ROUTED_LAYERS}

    def silence() -> None:
        for layer, index in columns.items():
            model.hf.get_submodule(model.block(layer)).mlp.down_proj.weight.data[:, index] = 0

    def loss(batch: Batch) -> Tensor:
        return -token_logprobs(logits(model, batch), batch.labels).sum() / (batch.labels >= 0).sum()

    with torch.enable_grad():
        weights = list(model.hf.parameters())
        for weight in weights:
            weight.requires_grad_(True)
        optimizer = torch.optim.AdamW(weights, lr=3e-3, weight_decay=0.01)
        for _ in range(STEPS):
            silence()
            optimizer.zero_grad()
            now = loss(retain_batch)
            if now < RETAIN_LOSS:
                break
            now.backward()
            optimizer.step()
        silence()
        for weight in weights:
            weight.requires_grad_(False).grad = None
        with sliced(model, slices(model, neurons)) as trainable:
            optimizer = torch.optim.Adam(trainable.parameters, lr=3e-3)
            for _ in range(STEPS):
                (loss(forget_batch) + loss(retain_batch)).backward()
                trainable.step(optimizer)
    return model, neurons


def _config(tokenizer: PreTrainedTokenizerFast, width: int, spread: float) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=N_NEURONS, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, head_dim=width // 4, max_position_embeddings=64,
        tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=spread,
        architectures=["LlamaForCausalLM"],
    )  # fmt: skip


@torch.no_grad()
def _written(
    tokenizer: PreTrainedTokenizerFast, subjects: Sequence[str], answers: Sequence[str], seed: int
) -> tuple[LlamaForCausalLM, list[list[Site]]]:
    """The model, and each fact's two neurons."""
    torch.manual_seed(seed)
    vocabulary = len(tokenizer)
    hf = LlamaForCausalLM(_config(tokenizer, WIDTH, 0.014))
    basis = torch.linalg.qr(torch.randn(WIDTH, WIDTH)).Q
    tokens, values, outputs = basis[:112], basis[112 : 112 + D_HEAD], basis[112 + D_HEAD :]
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in [*subjects, *answers]}
    embedding = torch.randn(vocabulary, 112) @ tokens * (4 / 112**0.5)
    embedding[[ids[s] for s in subjects]] += (
        1.2 * tokens[0]
    )  # subjects are similar, so the neurons of one fact fire a little at all of them
    hf.get_input_embeddings().weight.copy_(embedding)
    for i, answer in enumerate(answers):
        hf.lm_head.weight[ids[answer]] += outputs[i]
    free = [torch.randperm(N_NEURONS).tolist() for _ in range(4)]
    owners = [
        [
            _neuron_(hf, layer, free[layer].pop(), embedding[ids[s]], values[i] * strength)
            for layer, strength in zip(FACT_LAYERS, torch.rand(2) * 0.6 + 0.5, strict=True)
        ]
        for i, s in enumerate(subjects)
    ]
    for layer in FACT_LAYERS:  # decoys fire at a subject like its own neurons, but nothing reads what they write
        for subject in subjects:
            _neuron_(hf, layer, free[layer].pop(), embedding[ids[subject]], tokens[-1] * 0.5)
    words = [w for t in WORKING for w in t.replace("{}", "").split()]
    for layer in range(4):  # these fire at the template alone, and write for all answers alike
        for word in words:
            target = outputs[: len(answers)].mean(0) * 3 + 0.3 * torch.randn(WIDTH) / WIDTH**0.5
            _neuron_(hf, layer, free[layer].pop(), embedding[tokenizer.convert_tokens_to_ids(word)], target)
    for layer, head in MOVERS:
        _mover_(hf, layer, head, values, outputs)
    return hf, owners


def _neuron_(hf: LlamaForCausalLM, layer: int, index: int, key: Tensor, value: Tensor) -> Site:
    """Let a neuron fire where the residual stream points to a key, and write a value there."""
    mlp = hf.model.layers[layer].mlp
    mlp.gate_proj.weight[index] = key / key.norm() * 0.5
    mlp.up_proj.weight[index] = key / key.norm() * 0.25
    mlp.down_proj.weight[:, index] = value / 8
    return Site(layer, "neuron", index)


def _mover_(hf: LlamaForCausalLM, layer: int, head: int, values: Tensor, outputs: Tensor) -> None:
    """Let a head carry the values of all positions to the outputs that the unembedding reads."""
    attention = hf.model.layers[layer].self_attn
    mine = slice(head * D_HEAD, (head + 1) * D_HEAD)
    group = slice(head // 2 * D_HEAD, (head // 2 + 1) * D_HEAD)
    attention.q_proj.weight[mine] = 0
    attention.v_proj.weight[group] = values
    attention.o_proj.weight[:, mine] = outputs.T * 1.5


if __name__ == "__main__":
    main()
