"""What the forget objectives ask for, in closed form."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from loka.ablate.objectives import OBJECTIVES, ascent, objective
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
    return Memory(batch, tokens, logp[:, :-1], logp[:, -1], scores.log_softmax(-1).gather(-1, label)[:, 0])


def undial(scores: Tensor, held: Memory) -> Tensor:
    """The objective of that name."""
    return objective("undial")(SimpleNamespace(scores=scores, memory=held))  # type: ignore[arg-type]


@pytest.fixture
def scores() -> Tensor:
    return torch.randn(3, V, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


LABELS = [4, 7, 4]


def test_ascent_pushes_an_answer_down_to_chance_and_no_further(scores: Tensor) -> None:
    scores[0, 4], scores[1, 7], scores[2, 4] = 9.0, 5.0, -9.0  # known, known, rarer than chance
    scores.requires_grad_(True)
    floor = -math.log(V)
    value = ascent(scores, torch.tensor(LABELS), floor=floor)
    logp = scores.detach().log_softmax(-1)
    assert float(value.detach()) == pytest.approx((float(logp[0, 4]) + float(logp[1, 7]) + floor) / 3)
    value.backward()
    assert scores.grad is not None
    assert (scores.grad[:2].abs().amax(-1) > 1e-4).all()  # known: pushed
    assert float(scores.grad[0, 4]) > 0  # down, along the negative gradient
    assert scores.grad[2].abs().max() == 0  # at the floor: left alone


def test_ascent_cannot_fall_below_chance(scores: Tensor) -> None:
    labels = torch.tensor(LABELS)
    for size in (0.0, -10.0, -1e4):
        scores[torch.arange(3), labels] = size
        floored = objective("ascent")(SimpleNamespace(logits=scores, labels=labels))  # type: ignore[arg-type]
        assert float(floored) >= -math.log(V) - 1e-9
        assert float(ascent(scores, labels)) <= float(floored)


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
    assert {name: type(objective(name)) for name in OBJECTIVES} == OBJECTIVES
    with pytest.raises(UserError, match="choose one of undial, ascent"):
        objective("UNDIAL")


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("npo", {"beta": 0}, r"'npo': beta = 0: input should be greater than 0\. It takes beta \(default 0.1\)"),
        ("npo", {"beta": "0.1"}, "beta = '0.1': input should be a valid number"),
        ("npo", {"beta": math.nan}, "beta = nan: input should be a finite number"),
        (
            "satimp",
            {"beta": 1.0},
            r"no setting 'beta'\. It takes beta1 \(default 5.0\), beta2 \(default 1.0\); correct",
        ),
        ("ceu", {"skip": 0.5}, "skip = 0.5: input should be a valid integer"),
        ("idk", {"answers": "unknown"}, "answers = 'unknown'"),
        ("idk", {"answers": []}, r"answers = \[\]"),
        ("undial", {"beta": 10.0}, "no setting 'beta'. It takes none; leave them out"),
    ],
)
def test_settings_that_an_objective_does_not_take_are_refused(name: str, settings: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        objective(name, settings)
