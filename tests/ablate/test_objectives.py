"""What the forget objectives ask for, in closed form."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from loka._util.errors import UserError
from loka.ablate import objectives
from loka.ablate.objectives import OBJECTIVES, ascent, objective
from loka.model import Batch, token_logprobs
from loka.model.train.distill import TeacherOutputs

V = 50


def memory(scores: Tensor, labels: list[int]) -> TeacherOutputs:
    """What `record_outputs(..., without_answer=True)` would keep of these logits, all of it."""
    label = torch.tensor(labels)[:, None]
    logp = scores.scatter(-1, label, -1e4).log_softmax(-1)
    batch = Batch(label, torch.ones_like(label), torch.zeros_like(label), label)
    tokens = torch.arange(V - 1).repeat(len(labels), 1)
    return TeacherOutputs(batch, tokens, logp[:, :-1], logp[:, -1], scores.log_softmax(-1).gather(-1, label)[:, 0])


def undial(scores: Tensor, targets: TeacherOutputs) -> Tensor:
    """The objective of that name."""
    return objective("undial")(SimpleNamespace(scores=scores, memory=targets))  # type: ignore[arg-type]


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
    targets = memory(scores, LABELS)
    without = scores.scatter(-1, torch.tensor(LABELS)[:, None], -1e4)
    assert abs(float(undial(without, targets))) < 1e-4
    assert float(undial(scores, targets)) > 0.001
    known = scores.scatter(-1, torch.tensor(LABELS)[:, None], 9.0)
    assert float(undial(known, targets)) > float(undial(scores, targets))


def test_undial_takes_the_answer_down_and_leaves_the_rest_in_proportion(scores: Tensor) -> None:
    scores[torch.arange(3), torch.tensor(LABELS)] = 6.0
    targets = memory(scores, LABELS)
    scores.requires_grad_(True)
    undial(scores, targets).backward()
    assert scores.grad is not None
    p = scores.detach().softmax(-1)
    for row, label in enumerate(LABELS):
        assert float(scores.grad[row, label]) > 0
        others = torch.tensor([i for i in range(V - 1) if i != label])
        ratio = (scores.grad[row] / p[row])[others]
        torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-3, atol=1e-4)


@pytest.fixture
def rows() -> tuple[Tensor, Tensor]:
    """Logits `[3, 4, V]` and labels `[3, 4]` of answers of four, two and one tokens."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.tensor([[3, 9, 9, 40], [-100, -100, 7, 8], [-100, 11, -100, -100]])
    return torch.randn(3, 4, V, generator=generator, dtype=torch.float64).requires_grad_(True), labels


def gradient(loss: Tensor, scores: Tensor) -> Tensor:
    return torch.autograd.grad(loss, scores)[0]


def test_npo_starts_as_ascent_on_whole_answers_and_fades(rows: tuple[Tensor, Tensor]) -> None:
    scores, labels = rows
    own = token_logprobs(scores, labels)
    loss = objectives.npo(scores, labels, own.detach(), beta=0.4)
    assert float(loss.detach()) == pytest.approx(2 / 0.4 * math.log(2))
    climb = gradient(own.sum(-1).mean(), scores)
    torch.testing.assert_close(gradient(loss, scores), climb)
    later = objectives.npo(scores, labels, token_logprobs(scores, labels).detach() + 30 * (labels >= 0), beta=0.4)
    assert gradient(later, scores).abs().max() < 1e-4 * climb.abs().max()


def test_simnpo_looks_at_the_loss_a_token(rows: tuple[Tensor, Tensor]) -> None:
    scores, labels = rows
    same = torch.where((labels >= 0)[..., None], scores[:, 1:2].detach()[1:2], scores)
    alike = labels.clone()
    alike[labels >= 0] = 7
    one = objectives.simnpo(same[2:], alike[2:], beta=2.0, delta=0.5)
    torch.testing.assert_close(objectives.simnpo(same, alike, beta=2.0, delta=0.5), one)
    assert objectives.simnpo(same, alike, delta=3.0) > objectives.simnpo(same, alike)


def test_a_preference_is_for_the_answer_that_gained(rows: tuple[Tensor, Tensor]) -> None:
    scores, labels = rows
    own = token_logprobs(scores, labels).detach()
    gained = objectives.log_ratio(scores, labels, own - 0.5 * (labels >= 0))
    torch.testing.assert_close(gained.detach(), torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64))
    assert objectives.dpo(gained, -gained) < objectives.dpo(gained, gained) < objectives.dpo(-gained, gained)
    assert float(objectives.dpo(gained, gained).detach()) == pytest.approx(2 / 0.1 * math.log(2))


def test_without_weights_weighted_ascent_is_ascent(rows: tuple[Tensor, Tensor]) -> None:
    scores, labels = rows
    plain = ascent(scores, labels)
    torch.testing.assert_close(objectives.wga(scores, labels, beta=0.0), plain)
    torch.testing.assert_close(objectives.satimp(scores, labels, beta1=0.0, beta2=0.0), plain)
    torch.testing.assert_close(plain, -objectives.likelihood(scores, labels))
    p = token_logprobs(scores, labels).exp().detach()[labels >= 0]
    weighted = gradient(objectives.satimp(scores, labels, beta1=2.0, beta2=1.0), scores)[labels >= 0]
    torch.testing.assert_close(weighted, (p**2 * (1 - p))[:, None] * gradient(plain, scores)[labels >= 0])


def test_ceu_takes_the_answer_down_and_leaves_the_rest_in_proportion(rows: tuple[Tensor, Tensor]) -> None:
    scores, labels = rows
    at = gradient(objectives.ceu(scores, labels), scores)[labels >= 0]
    p = scores.detach()[labels >= 0].softmax(-1)
    label = labels[labels >= 0][:, None]
    torch.testing.assert_close(at.gather(-1, label), p.gather(-1, label) / 7)
    ratio = (at / p).scatter(-1, label, torch.nan)
    assert (ratio.nan_to_num(-1) < 0).all()
    torch.testing.assert_close(ratio.nan_to_num(-9).amax(-1), ratio.nan_to_num(9).amin(-1))
    only = gradient(objectives.ceu(scores, labels, skip=1), scores)
    assert (only.abs().amax(-1) > 0).tolist() == [[False, True, True, True], [False, False, False, True], [False] * 4]
    with pytest.raises(UserError, match="skip = 4 leaves no token"):
        objectives.ceu(scores, labels, skip=4)


def test_pdu_is_least_where_the_logits_are_flat(rows: tuple[Tensor, Tensor]) -> None:
    scores, labels = rows
    assert objectives.pdu(torch.full_like(scores, 3.0), labels) == 0
    assert not gradient(objectives.pdu(scores, labels), scores)[labels < 0].any()
    one = torch.zeros(1, 1, V).index_fill(-1, torch.tensor([5]), float(V))
    assert float(objectives.pdu(one, torch.tensor([[7]]))) == pytest.approx((V - 1) ** 2)


def test_rmu_is_the_distance_from_a_target_a_row_at_a_time(rows: tuple[Tensor, Tensor]) -> None:
    states, asked = rows[0], rows[1] >= 0
    target = objectives.direction(V, coefficient=6.5, seed=3)
    assert float(target.norm()) == pytest.approx(6.5)
    assert (target >= 0).all()
    each = [((states[i][asked[i]] - target) ** 2).mean() for i in range(3)]
    torch.testing.assert_close(objectives.rmu(states, asked, target), torch.stack(each).mean())
    assert objectives.rmu(states, asked, states) == 0
    even = torch.ones_like(asked)
    peer = objectives.rmu(states, even, target, convention="open-unlearning")
    torch.testing.assert_close(peer, objectives.rmu(states, even, target))


def test_undial_as_published_goes_where_the_objective_goes(rows: tuple[Tensor, Tensor]) -> None:
    scores, labels = rows
    original = scores.detach().flip(-1)
    flat, asked = labels[labels >= 0], labels >= 0
    targets = memory(original[asked], flat.tolist())
    published = gradient(objectives.undial(scores, labels, original, beta=1e4), scores)[asked]
    torch.testing.assert_close(published, gradient(undial(scores[asked], targets), scores)[asked], rtol=1e-3, atol=1e-6)
    assert objectives.retain_divergence(scores, labels, scores.detach()).abs() < 1e-12


def test_an_unknown_convention_is_refused(rows: tuple[Tensor, Tensor]) -> None:
    scores, labels = rows
    for loss, other in ((objectives.undial, scores), (objectives.retain_divergence, scores)):
        with pytest.raises(UserError, match="'tofu' is not a convention; choose 'stated'"):
            loss(scores, labels, other, convention="tofu")
    with pytest.raises(UserError, match="or 'open-unlearning'"):
        objectives.rmu(scores, labels >= 0, scores, convention="")


def test_names() -> None:
    assert {name: type(objective(name)) for name in OBJECTIVES} == OBJECTIVES
    with pytest.raises(UserError, match="choose from undial, ascent"):
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
        ("ascent", {"beta": 10.0}, "no setting 'beta'. It takes none; leave them out"),
        ("undial", {"teacher": "me"}, "teacher = 'me': input should be 'original' or 'edited'"),
    ],
)
def test_settings_that_an_objective_does_not_take_are_refused(name: str, settings: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        objective(name, settings)
