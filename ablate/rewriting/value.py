"""What a map must write at a subject for the model to give another answer (ROME, section 3.1, step 2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..._util.errors import LokaError
from ...model import Batch, encode, logits, pad, token_logprobs
from ...model.run.modules import replace_output
from ...model.run.prefix_cache import prefill
from ...model.run.subject import subject_end, subject_ends

if TYPE_CHECKING:
    from ...model import Model


@dataclass(frozen=True)
class Rewrite:
    """One fact to write: rows that ask for the new answer, and a row on which the model shall stay as it is.

    `batch`: prompts that end with the new answer, its tokens the labels; `at`: `[row]`, where the subject ends in
    each. `essence`: one row about the subject with nothing of the answer, whose distribution behind the subject, at
    `essence_at` `[1]`, is held; its first label is the token there.
    """

    batch: Batch
    at: Tensor
    essence: Batch
    essence_at: Tensor


@dataclass(frozen=True)
class Value:
    """`initial`, `final`: `[d]`, what the map wrote, and what it must write; `losses`: before each step, in nats."""

    initial: Tensor
    final: Tensor
    losses: tuple[float, ...]


@dataclass(frozen=True)
class Search:
    """How a value is looked for: `steps` of Adam at `lr`, at most.

    The loss is the answer's, in nats a token, and `kl` times the divergence on the essence, and `decay` times the
    change's length over the square of the value's; the change stays within `clamp` of the value's length. A loss
    under `enough` ends it. The defaults are ROME's.
    """

    steps: int = 20
    lr: float = 0.5
    decay: float = 0.5
    clamp: float = 4.0
    kl: float = 0.0625
    enough: float = 0.05


def rewrite(model: Model, prompts: list[str], subject: str, answer: str) -> Rewrite:
    """Ask for an answer behind prompts that all name the subject."""
    batch = encode(model, prompts, [answer] * len(prompts))
    text = f"{subject} is a"
    end = subject_end(model, text, subject)
    essence = pad(model, [model.tokenizer(text)["input_ids"][: end + 2]], [1])
    return Rewrite(
        batch,
        subject_ends(model, batch, prompts, [subject] * len(prompts)),
        essence,
        torch.tensor([end], device=model.device),
    )


def best_value(model: Model, module: nn.Module, question: Rewrite, search: Search = Search()) -> Value:
    """Find what a module must write where the subject ends, by gradient descent on that vector alone.

    `module` is a down-projection (ROME) or a block (MEMIT). Cost: a forward pass over the rewrite's rows, then
    `search.steps` forward passes over their columns from where the first subject ends, and as many backward passes,
    down to the module.

    Raises:
        LokaError: the search diverged.
    """
    batch, at = _together(model, question)
    essence = -1, batch.keep - question.essence.keep
    initial, before = _read(model, module, batch, at, essence)
    rest, past = prefill(model, batch, int(at.min()))
    left = torch.arange(len(at), device=at.device), at - (batch.ids.shape[1] - rest.ids.shape[1])
    shift = torch.zeros_like(initial, requires_grad=True)
    optimizer = torch.optim.Adam([shift], lr=search.lr)
    losses: list[float] = []
    for step in range(search.steps):
        with torch.enable_grad():
            with replace_output(module, _moved(shift, left)):
                scores = logits(model, rest, past)
            nll = -(token_logprobs(scores[:-1], batch.labels[:-1]).sum(-1) / (batch.labels[:-1] >= 0).sum(-1)).mean()
            now = scores[essence].log_softmax(-1)
            divergence = (now.exp() * (now - before)).sum()
            loss = nll + search.kl * divergence + search.decay * shift.norm() / initial.norm() ** 2
        losses.append(float(loss.detach()))
        if not torch.isfinite(loss):
            raise LokaError(f"the search for a value diverged at step {step + 1}; try a rate under {search.lr:g}.")
        if losses[-1] < search.enough or step == search.steps - 1:
            break
        (shift.grad,) = torch.autograd.grad(loss, [shift])
        optimizer.step()
        with torch.no_grad():
            shift *= (search.clamp * initial.norm() / shift.norm()).clamp(max=1.0)
    return Value(initial, initial + shift.detach(), tuple(losses))


def _together(model: Model, question: Rewrite) -> tuple[Batch, Tensor]:
    """The rows of a question in one batch, the essence last, so that a step reads the weights once; and their `at`."""
    parts = question.batch, question.essence
    rows = [ids[mask.bool()].tolist() for part in parts for ids, mask in zip(part.ids, part.mask, strict=True)]
    batch = pad(model, rows, [int(n) for part in parts for n in (part.labels >= 0).sum(-1)])
    width = batch.ids.shape[1]
    at = [at + width - part.ids.shape[1] for part, at in zip(parts, (question.at, question.essence_at), strict=True)]
    return batch, torch.cat(at)


@torch.no_grad()
def _read(model: Model, module: nn.Module, batch: Batch, at: Tensor, essence: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """What the module writes for the first prompt, and the model's distribution on the essence."""
    kept: list[Tensor] = []
    with replace_output(module, lambda out: kept.append(out[0, at[0]])):
        scores = logits(model, batch)
    return kept[0].clone().to(torch.promote_types(model.dtype, torch.float32)), scores[essence].log_softmax(-1)


def _moved(shift: Tensor, at: tuple[Tensor, Tensor]) -> Callable[[Tensor], Tensor]:
    """What adds `shift` to an output at some rows' and columns' places."""
    return lambda out: out.index_put(at, shift.to(out.dtype).expand(len(at[0]), -1), accumulate=True)
