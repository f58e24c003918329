"""What the forget objectives ask for, in closed form."""

import math

import pytest
import torch
from torch import Tensor

from loka.ablate.objectives import ascent, objective, undial
from loka.errors import UserError
from loka.model import Batch
from loka.model.distill import Memory

V = 50


def memory(scores: Tensor, labels: list[int]) -> Memory:
    """What `remember(..., without_answer=True)` would keep of these logits, all of it."""
    label = torch.tensor(labels)[:, None]
    logp = scores.scatter(-1, label, -1e4).log_softmax(-1)
    batch = Batch(label, torch.ones_like(label), torch.zeros_like(label), label)
    tokens = torch.arange(V - 1).repeat(len(labels), 1)
    return Memory(batch, tokens, logp[:, :-1], logp[:, -1])


@pytest.fixture
def scores() -> Tensor:
    return torch.randn(3, V, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


LABELS = [4, 7, 4]


def test_ascent_pushes_an_answer_down_to_chance_and_no_further(scores: Tensor) -> None:
    scores[0, 4], scores[1, 7], scores[2, 4] = 9.0, 5.0, -9.0  # known, known, rarer than chance
    scores.requires_grad_(True)
    value = ascent(scores, memory(scores.detach(), LABELS))
    logp = scores.detach().log_softmax(-1)
    floor = -math.log(V)
    assert float(value.detach()) == pytest.approx((float(logp[0, 4]) + float(logp[1, 7]) + floor) / 3)
    value.backward()
    assert scores.grad is not None
    assert (scores.grad[:2].abs().amax(-1) > 1e-4).all()  # known: pushed
    assert float(scores.grad[0, 4]) > 0  # down, along the negative gradient
    assert scores.grad[2].abs().max() == 0  # at the floor: left alone


def test_ascent_cannot_fall_below_chance(scores: Tensor) -> None:
    held = memory(scores, LABELS)
    for size in (0.0, -10.0, -1e4):
        for row, label in enumerate(LABELS):
            scores[row, label] = size
        assert float(ascent(scores, held)) >= -math.log(V) - 1e-9


def test_undial_is_least_where_the_answer_is_taken_out(scores: Tensor) -> None:
    held = memory(scores, LABELS)
    without = scores.scatter(-1, torch.tensor(LABELS)[:, None], -1e4)
    assert abs(float(undial(without, held))) < 1e-4
    assert float(undial(scores, held)) > 0.001
    known = scores.scatter(-1, torch.tensor(LABELS)[:, None], 9.0)
    assert float(undial(known, held)) > float(undial(scores, held))


def test_undial_takes_the_answer_down_and_leaves_the_rest_in_proportion(scores: Tensor) -> None:
    scores[torch.arange(3), torch.tensor(LABELS)] = 6.0
    held = memory(scores, LABELS)
    scores.requires_grad_(True)
    undial(scores, held).backward()
    assert scores.grad is not None
    p = scores.detach().softmax(-1)
    for row, label in enumerate(LABELS):
        assert float(scores.grad[row, label]) > 0
        others = torch.tensor([i for i in range(V - 1) if i != label])
        ratio = (scores.grad[row] / p[row])[others]
        torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-3, atol=1e-4)


def test_names() -> None:
    assert objective("undial") is undial
    assert objective("ascent") is ascent
    with pytest.raises(UserError, match="choose one of undial, ascent"):
        objective("UNDIAL")
