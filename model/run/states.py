"""Residual states at chosen positions, and an untrained model of the same shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from ..batch import Batch, chunks, logits, pad
from ..prompt import Prompt
from ..tokens import first_tokens, token_ids
from .block_runner import begin
from .blocks import replace_block_outputs
from .modules import replace_output
from .onednn import onednn_linear
from .subject import subject_ends

if TYPE_CHECKING:
    from ..load import Model


@torch.no_grad()
def residuals(model: Model, prompts: Sequence[Prompt], *, rows: int = 64) -> Tensor:
    """The residual stream after the embedding and after each block, `[prompt, 2, layer + 1, d_model]`.

    The first of the two positions is the last token of the prompt's subject, the second the prompt's last token. As in
    transformers, the last layer's state has gone through the final norm.
    """
    out = []
    for part in chunks(len(prompts), rows):
        ids = token_ids(model, prompts[part])
        batch = pad(model, ids, [1] * len(ids))
        with onednn_linear(model):
            run = model.hf(**batch.inputs(), use_cache=False, output_hidden_states=True, logits_to_keep=1)
        stacked = torch.stack(run.hidden_states, 2)  # [row, position, layer + 1, d_model]
        ends = subject_ends(model, batch, prompts[part])
        out += [row[[end, -1]].cpu() for row, end in zip(stacked, ends.tolist(), strict=True)]
    return torch.stack(out)


@torch.no_grad()
def last_states(model: Model, prompts: Sequence[str], *, rows: int = 64) -> Tensor:
    """The residual stream after each block at each prompt's last token, `[prompt, layer, d_model]`.

    Unlike transformers' hidden states, the last layer's state has not gone through the final norm.
    """
    out = []
    for part in chunks(len(prompts), rows):
        ids = token_ids(model, prompts[part])
        layers: list[Tensor] = []
        with replace_block_outputs(model.hf, lambda _, value, layers=layers: layers.append(value[:, -1])):
            logits(model, pad(model, ids, [1] * len(ids)))
        out.append(torch.stack(layers, 1))
    return torch.cat(out)


@torch.no_grad()
def read_out(model: Model, states: Tensor) -> Tensor:
    """Logits `[..., vocabulary]` of residual states `[..., d_model]`: what the model does after its last block.

    nostalgebraist 2020, "interpreting GPT: the logit lens".
    """
    flat = states.reshape(-1, 1, states.shape[-1])
    runner = begin(model, torch.tensor([model.start_id], device=model.device))
    return runner.logits(flat).reshape(*states.shape[:-1], -1)


def label_states(model: Model, batch: Batch, layer: int) -> Tensor:
    """The residual stream after a block where the batch has labels, `[row, keep, d_model]`, on the graph."""
    found: list[Tensor] = []
    with replace_output(model.hf.get_submodule(model.block(layer)), found.append):
        logits(model, batch)
    return found[0][:, -batch.keep - 1 : -1]


def unembedding(model: Model, answers: Sequence[str]) -> Tensor:
    """The unembedding row of each answer's first token after a space, `[answer, d_model]`."""
    embedding = model.hf.get_output_embeddings()
    assert embedding is not None, "a causal model has an unembedding"
    head = embedding.get_parameter("weight")
    return head[first_tokens(model, answers)].detach().float().cpu()


def untrained(model: Model, *, seed: int = 0) -> Model:
    """A model of the same architecture and tokenizer with random weights."""
    from ..load import wrap

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hf = AutoModelForCausalLM.from_config(model.hf.config, dtype=model.dtype)
    return wrap(hf.to(model.device), model.tokenizer, f"{model.name} (untrained)")
