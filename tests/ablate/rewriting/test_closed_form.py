"""The closed forms against brute force, in double precision."""

import pytest
import torch
from torch import Tensor

from loka._util.errors import UserError
from loka.ablate.rewriting import closed_form

D_IN, D_OUT = 7, 5


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def moment() -> Tensor:
    keys = draw(40, D_IN, seed=1) * torch.linspace(0.3, 2, D_IN)
    return keys.t() @ keys / 40


def test_rome_writes_the_value_and_moves_other_keys_least(moment: Tensor) -> None:
    """Against the constrained least squares, solved whole as one system with multipliers."""
    weight, key, value = draw(D_IN, D_OUT, seed=2), draw(D_IN, seed=3), draw(D_OUT, seed=4)
    update = closed_form.rome_update(key, value, output=key @ weight, moment=moment)
    assert torch.allclose(key @ (weight + update.change), value, atol=1e-12)
    system = torch.zeros(D_IN + 1, D_IN + 1, dtype=torch.float64)
    system[:D_IN, :D_IN], system[:D_IN, D_IN], system[D_IN, :D_IN] = 2 * moment, key, key
    right = torch.cat([torch.zeros(D_IN, D_OUT, dtype=torch.float64), (value - key @ weight)[None]])
    assert torch.allclose(update.change, torch.linalg.solve(system, right)[:D_IN], atol=1e-10)


def test_rome_with_a_mean_key_still_writes_the_value_for_the_prompt(moment: Tensor) -> None:
    key, mean, value, output = draw(D_IN, seed=3), draw(D_IN, seed=6), draw(D_OUT, seed=4), draw(D_OUT, seed=5)
    update = closed_form.rome_update(key, value, output=output, key_mean=mean, moment=moment)
    assert torch.allclose(output + key @ update.change, value, atol=1e-12)
    assert torch.linalg.matrix_rank(update.change) == 1
    plain = closed_form.rome_update(key, value, output=output)
    assert torch.allclose(plain.left[:, 0], key / key.norm())


def test_memit_update_is_the_least_squares_over_new_and_old_keys(moment: Tensor) -> None:
    """Against ordinary least squares, with the old keys and outputs of zero as further rows."""
    n, weight = 4, 30.0
    keys, residuals = draw(n, D_IN, seed=2), draw(n, D_OUT, seed=3)
    old = torch.linalg.cholesky(moment).t() * weight**0.5  # as many rows as it takes to have that moment
    rows = torch.cat([keys, old])
    wanted = torch.cat([residuals, torch.zeros(D_IN, D_OUT, dtype=torch.float64)])
    update = closed_form.memit_update(keys, residuals, moment, weight=weight)
    assert torch.allclose(update.change, torch.linalg.lstsq(rows, wanted).solution, atol=1e-10)
    third = closed_form.memit_update(keys, residuals, moment, weight=weight, layers=3)
    assert torch.allclose(3 * third.change, update.change)


def test_memit_update_of_one_fact_is_rome_weighed_against_the_text(moment: Tensor) -> None:
    """It goes ROME's way, as far as the key counts beside the text: all the way as the weight goes to 0."""
    key, value, output = draw(D_IN, seed=3), draw(D_OUT, seed=4), draw(D_OUT, seed=5)
    rome = closed_form.rome_update(key, value, output=output, moment=moment).change
    overlap = key @ torch.linalg.solve(moment, key)
    for weight in (1e-3, 1.0, 1e4):
        memit = closed_form.memit_update(key[None], (value - output)[None], moment, weight=weight).change
        assert torch.allclose(memit, rome * overlap / (weight + overlap), atol=1e-9)


def test_several_keys_stand_for_one_residual(moment: Tensor) -> None:
    keys, residuals = draw(6, D_IN, seed=2), draw(2, D_OUT, seed=3)
    update = closed_form.memit_update(keys, residuals, moment, weight=2.0)
    each = closed_form.memit_update(keys, residuals[[0, 0, 0, 1, 1, 1]], moment, weight=2.0)
    assert torch.equal(update.change, each.change)
    with pytest.raises(UserError, match="6 keys cannot be shared by 4 residuals"):
        closed_form.memit_update(keys, draw(4, D_OUT), moment, weight=2.0)


def test_erasure_takes_out_what_a_linear_probe_reads_and_moves_states_least(moment: Tensor) -> None:
    """Least over all maps that take it out: against the minimum found row by row with multipliers."""
    labels = draw(200, 2, seed=7)
    states = draw(200, D_IN, seed=8) + labels @ draw(2, D_IN, seed=9)
    centred = states - states.mean(0)
    cross, covariance = centred.t() @ (labels - labels.mean(0)), centred.t() @ centred / 200
    erased = states + states @ closed_form.erasure(cross, covariance).change
    probe = torch.linalg.lstsq(centred, labels - labels.mean(0)).solution
    after = torch.linalg.lstsq(erased - erased.mean(0), labels - labels.mean(0)).solution
    left = (erased - erased.mean(0)) @ after
    assert (centred @ probe).norm() > 0.5 * (labels - labels.mean(0)).norm(), "there was something to erase"
    assert left.norm() < 1e-8
    change = closed_form.erasure(cross, covariance).change
    zeros = torch.zeros(2, 2, dtype=torch.float64)
    system = torch.cat([torch.cat([2 * covariance, cross], 1), torch.cat([cross.t(), zeros], 1)])
    right = torch.cat([torch.zeros(D_IN, D_IN, dtype=torch.float64), -cross.t()])
    assert torch.allclose(change, torch.linalg.solve(system, right)[:D_IN], atol=1e-8)


def test_erasure_of_some_directions_only(moment: Tensor) -> None:
    concept, identity = draw(D_IN, 3, seed=2), torch.eye(D_IN, dtype=torch.float64)
    strongest = torch.linalg.svd(concept).U[:, :1]
    some = identity + closed_form.erasure(concept, moment, rank=1).change
    whole = identity + closed_form.erasure(concept, moment).change
    assert torch.linalg.matrix_rank(some - identity) == 1
    assert (strongest.t() @ some).norm() < 1e-10
    assert (concept.t() @ some).norm() > 0.1
    assert (concept.t() @ whole).norm() < 1e-10


def test_what_cannot_be_solved_is_said(moment: Tensor) -> None:
    key, value = draw(D_IN, seed=3), draw(D_OUT, seed=4)
    flat = torch.zeros(D_IN, D_IN, dtype=torch.float64)
    with pytest.raises(UserError, match=r"second moment of shape \(7, 7\) cannot be inverted; .* a ridge above 0"):
        closed_form.rome_update(key, value, output=value, moment=flat)
    with pytest.raises(UserError, match="the key is zero or orthogonal"):
        closed_form.rome_update(torch.eye(D_IN)[0], torch.ones(D_OUT), output=torch.zeros(D_OUT),
                                    key_mean=torch.eye(D_IN)[1])  # fmt: skip
    with pytest.raises(UserError, match="no direction to remove"):
        closed_form.erasure(torch.zeros(D_IN, 2, dtype=torch.float64), moment)
