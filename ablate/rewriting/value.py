"""What a map must write at a subject for the model to give another answer (ROME, section 3.1, step 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..._util.errors import LokaError
from ...model import Batch, Prompt, encode, logits, pad, token_logprobs
from ...model.run.modules import replace_output
from ...model.run.prefix_cache import prefill
from ...model.run.subject import subject_end, subject_ends
from ...model.tokens import token_ids

if TYPE_CHECKING:
    from ...model import Model


@dataclass(frozen=True)
class Rewrite:
    """One fact to write: rows that ask for the new answer, and one row on which the model must not change.

    `batch`: prompts that end with the new answer, whose tokens are the labels. `at`: `[row]`, where the subject ends in
    each. `essence`: one row about the subject without the answer. The distribution after the subject, at `essence_at`
    `[1]`, must not change; the row's first label is the token there.
    """

    batch: Batch
    at: Tensor
    essence: Batch
    essence_at: Tensor


@dataclass(frozen=True)
class Value:
    """`initial`, `final`: `[d]`, what the map wrote and must write. `losses`: the loss before each step, in nats."""

    initial: Tensor
    final: Tensor
    losses: tuple[float, ...]


@dataclass(frozen=True)
class ValueSearch:
    """The search for a value: at most `steps` of Adam at `lr`.

    The loss is the answer's, in nats per token, plus `kl_weight` times the divergence on the essence, plus
    `weight_decay` times the length of the change over the squared length of the value. The change stays within `clamp`
    times the value's length. A loss below `target_loss` ends the search. The defaults are ROME's.
    """

    steps: int = 20
    lr: float = 0.5
    weight_decay: float = 0.5
    clamp: float = 4.0
    kl_weight: float = 0.0625
    target_loss: float = 0.05


def rewrite(model: Model, prompts: Sequence[Prompt], subject: str, answer: str) -> Rewrite:
    """A rewrite that asks for an answer to prompts that all name the subject."""
    batch = encode(model, prompts, [answer] * len(prompts))
    text = Prompt.fill("{} is a", subject)
    end = subject_end(model, text)
    essence = pad(model, [token_ids(model, [text])[0][: end + 2]], [1])
    return Rewrite(
        batch,
        subject_ends(model, batch, prompts),
        essence,
        torch.tensor([end], device=model.device),
    )


def best_value(model: Model, module: nn.Module, wanted: Rewrite, search: ValueSearch = ValueSearch()) -> Value:
    """Find what a module must write at the subject's last token, by gradient descent on that vector alone.

    `module` is a down-projection (ROME) or a block (MEMIT). Cost: a forward pass over the rewrite's rows, then at most
    `search.steps` forward passes over their columns from where the first subject ends, and as many backward passes
    down to the module.

    Raises:
        LokaError: the search diverged.
    """
    batch, at = _join(model, wanted)
    essence = -1, batch.keep - wanted.essence.keep
    initial, before = _read(model, module, batch, at, essence)
    rest, past = prefill(model, batch, int(at.min()))
    columns = torch.arange(len(at), device=at.device), at - (batch.ids.shape[1] - rest.ids.shape[1])
    shift = torch.zeros_like(initial, requires_grad=True)
    optimizer = torch.optim.Adam([shift], lr=search.lr)
    losses: list[float] = []
    for step in range(search.steps):
        with torch.enable_grad():
            with replace_output(module, _add_at(shift, columns, rest.ids.shape)):
                scores = logits(model, rest, past)
            nll = -(token_logprobs(scores[:-1], batch.labels[:-1]).sum(-1) / (batch.labels[:-1] >= 0).sum(-1)).mean()
            now = scores[essence].log_softmax(-1)
            divergence = (now.exp() * (now - before)).sum()
            decay = search.weight_decay * shift.norm() / initial.norm() ** 2
            loss = nll + search.kl_weight * divergence + decay
        losses.append(float(loss.detach()))
        if not torch.isfinite(loss):
            raise LokaError(f"the search for a value diverged at step {step + 1}; try a rate under {search.lr:g}.")
        if losses[-1] < search.target_loss or step == search.steps - 1:
            break
        (shift.grad,) = torch.autograd.grad(loss, [shift])
        optimizer.step()
        with torch.no_grad():
            shift *= (search.clamp * initial.norm() / shift.norm()).clamp(max=1.0)
    return Value(initial, initial + shift.detach(), tuple(losses))


def _join(model: Model, wanted: Rewrite) -> tuple[Batch, Tensor]:
    """All rows in one batch, the essence last, so that a step reads the weights once; and where their subjects end."""
    parts = wanted.batch, wanted.essence
    rows = [ids[mask.bool()].tolist() for part in parts for ids, mask in zip(part.ids, part.mask, strict=True)]
    batch = pad(model, rows, [int(n) for part in parts for n in (part.labels >= 0).sum(-1)])
    width = batch.ids.shape[1]
    at = [at + width - part.ids.shape[1] for part, at in zip(parts, (wanted.at, wanted.essence_at), strict=True)]
    return batch, torch.cat(at)


@torch.no_grad()
def _read(model: Model, module: nn.Module, batch: Batch, at: Tensor, essence: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """What the module writes for the first prompt, and the model's distribution on the essence."""
    outputs: list[Tensor] = []
    with replace_output(module, lambda out: outputs.append(out.view(*batch.ids.shape, -1)[0, at[0]])):
        scores = logits(model, batch)
    return outputs[0].clone().to(torch.promote_types(model.dtype, torch.float32)), scores[essence].log_softmax(-1)


def _add_at(shift: Tensor, at: tuple[Tensor, Tensor], shape: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """Adds `shift` to an output at some rows and columns of a batch of this shape."""

    def add(out: Tensor) -> Tensor:  # OPT's MLP sees positions without rows
        by_row = out.view(*shape, -1)
        return by_row.index_put(at, shift.to(out.dtype).expand(len(at[0]), -1), accumulate=True).view(out.shape)

    return add
