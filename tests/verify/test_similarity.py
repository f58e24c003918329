"""States of two models compared: in closed form, and on models that differ where it is known."""

import copy
from dataclasses import replace

import pytest
import torch

from loka import verify
from loka.knowledge import Case, Split
from loka.model import Model, wrap
from loka.verify.similarity import linear_cka


def test_cka_is_the_ratio_of_covariances_and_sees_no_rotation() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(7, d, generator=generator, dtype=torch.float64) for d in (4, 6))
    x, y = a - a.mean(0), b - b.mean(0)
    wanted = (y.t() @ x).norm() ** 2 / ((x.t() @ x).norm() * (y.t() @ y).norm())
    assert linear_cka(a, b) == pytest.approx(float(wanted))
    turned = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64)).Q
    assert linear_cka(a, 3 * a @ turned + 5) == pytest.approx(1)
    assert linear_cka(a[:1], b[:1]) is None
    assert linear_cka(torch.ones(3, 2), torch.randn(3, 2)) is None


def test_layers_before_a_change_are_the_same_and_those_after_it_are_not(planted: Model, planted_case: Case) -> None:
    known = planted_case.on(planted)
    changed = wrap(copy.deepcopy(planted.hf), planted.tokenizer, "changed")
    with torch.no_grad():
        changed.parameters["model.layers.2.mlp.down_proj.weight"].neg_()
    found = verify.similarity(changed, known, original=planted)
    for name in ("forget", "retain", "twins"):
        cosine, cka = found.details["cosine"][name], found.details["cka"][name]
        assert [*cosine[:2], *cka[:2]] == pytest.approx([1] * 4)
        assert max(cosine[2:]) < 0.99
        assert max(cka[2:]) < 0.999
    assert found.value == pytest.approx(sum(found.details["cosine"]["forget"]) / 4)
    assert set(found.samples) == {"forget", "retain"}
    same = verify.similarity(planted, known, original=planted)
    assert same.value == pytest.approx(1)
    assert same.controls["retain"] == pytest.approx(1)


def test_a_model_that_never_knew_is_less_similar_where_it_lacks_the_facts(
    planted: Model, untaught: Model, planted_case: Case
) -> None:
    """It never decides: without twins among its samples it has no r."""
    known = planted_case.on(planted)
    found = verify.similarity(untaught, known, original=planted)
    assert found.value is not None
    assert found.value < 0.9
    readings = {"before": {"similarity": verify.similarity(planted, known, original=planted)},
                "after": {"similarity": found}}  # fmt: skip
    assert verify.compare(readings, "similarity") is None
    alone = verify.similarity(untaught, replace(known, retain=Split((), ())), original=planted)
    assert alone.controls == {}
    assert alone.value == found.value
