"""The membership attacks in closed form, and against gradients that autograd computes."""

import math
import zlib
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from loka import verify
from loka._util.errors import UserError
from loka.model import Model

PEERS = ("open-unlearning", "muse", "mimir")
LOGP = torch.tensor([-1.0, -5.0, -2.0, -3.0, -4.0])


@pytest.mark.parametrize(("convention", "sign"), [("stated", 1), *((peer, -1) for peer in PEERS)])
def test_a_familiar_text_scores_higher_and_peers_have_the_other_sign(convention: str, sign: int) -> None:
    text = "abc" * 9
    assert verify.loss_score(LOGP, convention=convention) == pytest.approx(sign * -3)
    assert verify.zlib_score(LOGP, text, convention=convention) == pytest.approx(
        sign * -3 / len(zlib.compress(text.encode()))
    )
    assert verify.reference_score(LOGP, LOGP - 2, convention=convention) == pytest.approx(sign * 2)
    assert verify.lowercase_score(LOGP, 2 * LOGP, convention=convention) == pytest.approx(sign * -0.5)


def test_min_k_takes_the_lowest_and_at_least_one() -> None:
    assert verify.min_k_score(LOGP, share=0.4) == pytest.approx(-4.5)
    assert verify.min_k_score(LOGP, share=0.01) == pytest.approx(-5)
    assert verify.min_k_score(LOGP, share=1) == pytest.approx(-3)
    windows = [-3.0, -2.5]  # tokens 0 and 1, 2 and 3
    assert verify.min_k_score(LOGP, share=1, window=2, stride=2) == pytest.approx(sum(windows) / 2)
    assert math.isnan(verify.min_k_score(LOGP, window=6))


def test_the_peers_edge_cases() -> None:
    assert verify.min_k_score(LOGP, share=0.25, convention="open-unlearning") == pytest.approx(5)
    assert verify.min_k_score(LOGP[:1], convention="open-unlearning") == 0
    for peer in ("muse", "mimir"):
        assert math.isnan(verify.min_k_score(LOGP[:4], share=0.2, convention=peer))
        assert verify.min_k_score(LOGP, share=0.2, convention=peer) == pytest.approx(5)


def test_min_k_plus_plus_standardises_by_the_models_own_distribution() -> None:
    p = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    every = p.log().expand(2, -1)
    mean, square = float((p * p.log()).sum()), float((p * p.log() ** 2).sum())
    wanted = (math.log(0.25) - mean) / math.sqrt(square - mean**2)
    assert verify.min_k_plus_plus_score(every[:, 1], every) == pytest.approx(wanted)


def test_a_certain_model_has_a_score_too() -> None:
    every = torch.tensor([[0.0, -1000.0]])
    assert verify.min_k_plus_plus_score(every[:, 0], every) == 0


def test_auc_counts_pairs() -> None:
    assert verify.attack_auc([3, 2], [1, 2]) == pytest.approx(3.5 / 4)
    assert verify.attack_auc([-3, -2], [-1, -2], convention="open-unlearning") == pytest.approx(3.5 / 4)
    assert verify.attack_auc([-3, -2], [-1, -2], convention="muse") == pytest.approx(0.5 / 4)
    assert verify.attack_auc([-3, -2, math.nan], [-1, math.nan, -2], convention="mimir") == pytest.approx(3.5 / 4)


@pytest.mark.parametrize(
    ("members", "others", "convention"),
    [([], [1.0], "stated"), ([1.0], [math.nan], "stated"), ([math.nan], [1.0], "mimir")],
)
def test_auc_needs_scores(members: list[float], others: list[float], convention: str) -> None:
    with pytest.raises(UserError, match="An AUC needs scores on both sides"):
        verify.attack_auc(members, others, convention=convention)


@pytest.mark.parametrize("wrong", [{"share": 0.0}, {"share": 1.5}, {"window": 0}, {"stride": 0}])
def test_shares_and_windows_are_checked(wrong: dict) -> None:
    with pytest.raises(UserError, match="share must be in"):
        verify.min_k_score(LOGP, **wrong)


def gradient(hf: torch.nn.Module, ids: Tensor, tokens: slice) -> list[Tensor]:
    hf.requires_grad_(True)
    out = hf(input_ids=ids[None]).logits[0, :-1].log_softmax(-1).gather(-1, ids[1:, None])[tokens, 0]
    (-out.mean()).backward()
    found = [p.grad.clone() for p in hf.parameters()]
    hf.zero_grad(set_to_none=True)
    hf.requires_grad_(False)
    return found


def test_gradient_norms_are_those_of_backward_and_leave_nothing_behind(tiny: Callable[[str], Model]) -> None:
    model = tiny("LlamaForCausalLM")
    hf, ids = model.hf, torch.tensor([1, 9, 4, 12, 7], device=model.device)
    for p in (1.0, 2.0, math.inf):
        norms = [float(torch.linalg.vector_norm(g, ord=p)) for g in gradient(hf, ids, slice(None))]
        assert verify.grad_norm_score(hf, ids, ids, p=p) == pytest.approx(-sum(norms) / len(norms))
    norms = [float(g.norm()) for g in gradient(hf, ids, slice(0, -1))]
    theirs = verify.grad_norm_score(hf, ids, ids, convention="open-unlearning")
    assert theirs == pytest.approx(sum(norms) / len(norms))
    assert not any(p.requires_grad or p.grad is not None for p in hf.parameters())
    with pytest.raises(UserError, match="No label of this text counts"):
        verify.grad_norm_score(hf, ids, torch.full_like(ids, -100))


@torch.no_grad()
def test_windows_score_each_token_once_with_as_much_before_it_as_fits(tiny: Callable[[str], Model]) -> None:
    model = tiny("LlamaForCausalLM")
    hf = model.hf
    ids = torch.randint(4, 40, (11,), generator=torch.Generator().manual_seed(0)).to(model.device)
    whole = hf(input_ids=ids[None]).logits[0, :-1].log_softmax(-1)
    torch.testing.assert_close(verify.window_logprobs(hf, ids), whole)
    torch.testing.assert_close(verify.window_logprobs(hf, ids, context=20), whole)
    found = verify.window_logprobs(hf, ids, context=4, stride=3)
    ends = {t: min(11, 3 * (t // 3) + 3) for t in range(1, 11)}  # windows end at 3, 6, 9 and 11
    for t in range(1, 11):
        start = max(0, 3 * (t // 3) + 3 - 4)
        alone = hf(input_ids=ids[None, start : ends[t]]).logits[0].log_softmax(-1)
        torch.testing.assert_close(found[t - 1], alone[t - 1 - start])
    for wrong in (0, 4):
        with pytest.raises(UserError, match=f"windows of 4 and stride {wrong}"):
            verify.window_logprobs(hf, ids, context=4, stride=wrong)
