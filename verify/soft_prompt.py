"""Can a few trained vectors in front of the question call it up?

Schwinn et al. 2024, "Soft Prompt Threats", arXiv:2402.09063. Long soft prompts can make a model say anything, so they
are short here, trained on some facts and tested on others and on twins; and they convict nobody by themselves.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError
from ..knowledge import Case, Fact
from ..model import Batch, chunks, encode, token_logprobs
from ..model.dense import dense
from .pools import against
from .reading import Reading, reading
from .recall import key

if TYPE_CHECKING:
    from ..model import Model

FOLDS = 2
MOST = 10
STEPS = 20
ROWS = 64


def soft_prompt(
    model: Model,
    case: Case,
    *,
    tokens: int = 4,
    steps: int = STEPS,
    lr: float = 0.01,
    progress: Callable[[int, int], None] | None = None,
) -> Reading:
    """Probability of held-out answers among themselves and their nine foils, behind a trained soft prompt.

    The soft prompt is trained on half of the facts to forget, with the loss on the answers, and the other half is
    asked; then the roles change. The same is done with twins.

    Args:
        tokens: length of the soft prompt, 1 to 10.
        steps, lr: of Adam over the soft prompt alone. It starts from the mean embedding and a little noise.

    Cost: for each group, `steps` forward and backward passes over all facts, and ten rows a fact.

    Raises:
        UserError: fewer than 1 or more than 10 tokens.
    """
    if not 1 <= tokens <= MOST:
        raise UserError(f"a soft prompt of {tokens} tokens is not allowed; choose 1 to {MOST}.")
    case = case.on(model)
    facts = against(case)
    samples: dict[str, dict[str, float]] = {}
    done = 0
    for group, some in facts.items():
        samples[group] = {}
        order = random.Random(f"{case.seed}/soft").sample(range(len(some)), len(some))
        for fold in range(FOLDS):
            asked = sorted(order[fold::FOLDS])
            soft = _trained(model, [f for i, f in enumerate(some) if i not in asked], tokens, steps, lr, case.seed)
            samples[group] |= _asked(model, soft, [some[i] for i in asked])
            done += 1
            if progress:
                progress(done, FOLDS * len(facts))
    mean = np.mean(list(samples["forget"].values()))
    return reading(
        "soft_prompt",
        samples,
        f"Behind {tokens} trained vectors, held-out answers get a probability of {mean:.2f} among ten.",
        seed=case.seed,
        details={"tokens": tokens, "steps": steps, "lr": lr},
        cost=sum(3 * steps * len(some) + sum(1 + len(f.foils) for f in some) for some in facts.values()),
    )


def _trained(model: Model, facts: Sequence[Fact], tokens: int, steps: int, lr: float, seed: int) -> Tensor:
    table = _table(model)
    generator = torch.Generator().manual_seed(seed)
    mean, spread = table.mean(0), table.std()
    noise = torch.randn(tokens, table.shape[1], generator=generator).to(table)
    soft = nn.Parameter(mean + 0.1 * spread * noise)
    batch = encode(model, [f.prompt for f in facts], [f.answer for f in facts])
    optimizer = torch.optim.Adam([soft], lr=lr)
    for _ in range(steps):
        with torch.enable_grad():
            loss = -token_logprobs(_logits(model, soft, batch), batch.labels).sum() / (batch.labels >= 0).sum()
            (soft.grad,) = torch.autograd.grad(loss, [soft])
        optimizer.step()
    return soft.detach()


@torch.no_grad()
def _asked(model: Model, soft: Tensor, facts: Sequence[Fact]) -> dict[str, float]:
    rows = [(f.prompt, a) for f in facts for a in (f.answer, *f.foils)]
    logp: list[float] = []
    for part in chunks(len(rows), ROWS):
        batch = encode(model, [p for p, _ in rows[part]], [a for _, a in rows[part]])
        logp += token_logprobs(_logits(model, soft, batch), batch.labels).sum(-1).double().tolist()
    each = iter(logp)
    out = {}
    for fact in facts:
        own, *others = (next(each) for _ in (fact.answer, *fact.foils))
        out[key(fact)] = float(np.exp(own - np.logaddexp.reduce([own, *others])))
    return out


def _logits(model: Model, soft: Tensor, batch: Batch) -> Tensor:
    """As `loka.model.logits`, with the soft prompt in front of every row (and of its padding, which is masked)."""
    rows, k = len(batch.ids), len(soft)
    embed = model.hf.get_input_embeddings()
    inputs = torch.cat([soft.expand(rows, -1, -1).to(model.dtype), embed(batch.ids)], 1)
    front = torch.arange(k, device=batch.ids.device).expand(rows, -1)
    with dense(model):
        out = model.hf(
            inputs_embeds=inputs,
            attention_mask=torch.cat([torch.ones_like(front), batch.mask], 1),
            position_ids=torch.cat([front, (batch.positions + k) * batch.mask], 1),
            use_cache=False,
            logits_to_keep=batch.keep + 1,
        )
    return out.logits[:, :-1]


def _table(model: Model) -> Tensor:
    embedding = model.hf.get_input_embeddings()
    assert embedding is not None, "a causal model has an embedding"
    return embedding.get_parameter("weight").detach()
