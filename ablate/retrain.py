"""Exact removal: train again, without the texts to forget."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch

from .._util.errors import LokaError, UserError
from ..knowledge import Case, CaseSpec
from ..model import Edit, EditRecord, Slice, capture, chunks, encode_texts, logits, scratch, unfrozen
from .common import Progress
from .objectives import likelihood

if TYPE_CHECKING:
    from ..model import Model


@dataclass(frozen=True)
class Training:
    """How all weights are trained on texts: AdamW at a constant `lr`, `rows` texts per step, `epochs` passes.

    A text is cut at `limit` tokens. Its place in the order depends only on `seed` and its own number, so the other
    texts keep their order if some are left out.
    """

    epochs: int = 1
    rows: int = 8
    lr: float = 5e-5
    limit: int = 256
    seed: int = 0

    def steps(self, texts: int) -> int:
        """The number of steps for this many texts."""
        return self.epochs * -(-texts // self.rows)


def retrain(
    model: Model,
    texts: Sequence[str],
    *,
    without: Collection[int] = (),
    training: Training | None = None,
    progress: Progress | None = None,
) -> Edit:
    """Retrain a checkpoint on its training data without the texts to forget: the result that unlearning imitates.

    The result is an edit of all weights of `model`, the checkpoint from before the training. It is bit for bit what
    training on the data without those texts gives.

    Args:
        texts: the training data.
        without: the numbers of the texts to leave out, counted from 0; `find_statements` finds those about a case's
            facts.

    Cost: `training.steps` full training steps. Memory: three copies of the weights, and the edit.

    Raises:
        UserError: a number that no text has, or no texts left.
        LokaError: training diverged.
    """
    training, rest = training or Training(), remaining(texts, without)
    where = [Slice(name, 0, torch.arange(len(p))) for name, p in model.parameters.items()]
    record = EditRecord("retrain", model.name, sites=(), arguments=asdict(training), texts=len(rest))
    made_for = model.digest()
    dtype = model.dtype
    with scratch(model):
        train_on_texts_(model, rest, training, stage="retrain", progress=progress)
        return capture(model, where, made_for, record).to(dtype)


def find_statements(texts: Sequence[str], case: Case | CaseSpec) -> list[int]:
    """The numbers of the texts that name a forget fact's subject and its answer, ignoring case."""
    known = case.whole() if isinstance(case, CaseSpec) else case
    facts = [(f.subject.casefold(), [a.casefold() for a in f.answers]) for f in known.forget.working]
    folded = [text.casefold() for text in texts]
    return [i for i, t in enumerate(folded) if any(s in t and any(a in t for a in answers) for s, answers in facts)]


def remaining(texts: Sequence[str], without: Collection[int]) -> dict[int, str]:
    """The texts by number, except those in `without`. Raises `UserError` for an unknown number or if none is left."""
    if unknown := sorted(set(without) - set(range(len(texts)))):
        raise UserError(f"there is no text {unknown[0]}: the {len(texts)} texts are numbered 0 to {len(texts) - 1}.")
    rest = {i: text for i, text in enumerate(texts) if i not in set(without)}
    if not rest:
        raise UserError("without these texts there is nothing left to train on; use the checkpoint itself.")
    return rest


def train_on_texts_(
    model: Model, texts: Mapping[int, str], training: Training, *, stage: str, progress: Progress | None = None
) -> int:
    """Train all weights on texts, in place, and return the number of steps. Call it inside `scratch`."""
    total, done = training.steps(len(texts)), 0
    with unfrozen(model) as parameters, torch.enable_grad():
        optimizer = torch.optim.AdamW(parameters, lr=training.lr, weight_decay=0.0)
        for epoch in range(training.epochs):
            order = sorted(texts, key=_order(training.seed, stage, epoch))
            for part in chunks(len(order), training.rows):
                batch = encode_texts(model, [texts[i] for i in order[part]], limit=training.limit)
                loss = likelihood(logits(model, batch), batch.labels)
                if not torch.isfinite(loss):
                    raise LokaError(
                        f"training diverged at step {done + 1} of {total} (loss {float(loss.detach())}); try a "
                        f"learning rate under {training.lr:g}. The model is as it was."
                    )
                loss.backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                done += 1
                if progress:
                    progress(done, total)
    return done


def _order(seed: int, stage: str, epoch: int) -> Callable[[int], float]:
    """A sort key that makes a text's place in an epoch independent of the other texts."""
    return lambda i: random.Random(f"{seed}/{stage}/{epoch}/{i}").random()
