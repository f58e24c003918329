"""A few things on the embedded model itself."""

import dataclasses
from pathlib import Path

import pytest

import loka
from loka.knowledge import Case, Split
from loka.locate.attribution import attribution_scores
from loka.locate.counterfactual import pairs
from loka.model import Model


@pytest.fixture(scope="module")
def smollm2() -> Model:
    return loka.load("smollm2")


@pytest.fixture(scope="module")
def capitals(smollm2: Model) -> Case:
    return loka.case("capitals").on(smollm2)


def test_knows_most_of_what_is_asked(smollm2: Model, capitals: Case) -> None:
    assert (smollm2.n_layers, smollm2.n_heads, smollm2.n_kv_heads, smollm2.n_neurons) == (30, 9, 3, 1536)
    assert capitals.facts_known is not None
    assert capitals.facts_known >= 50
    assert len(capitals.forget.sealed) == 18
    recalled = loka.knowledge.recalled(smollm2, capitals.forget.sealed)
    assert sum(recalled) >= 0.8 * len(recalled)
    assert sum(loka.knowledge.recalled(smollm2, capitals.twins.sealed)) <= 3, "nobody taught it these"


def test_attribution_agrees_with_patching(smollm2: Model, capitals: Case) -> None:
    facts = list(capitals.forget.working)[:4]
    scores, falls = attribution_scores(smollm2, pairs(smollm2, capitals, facts))
    assert scores["neuron"].shape == (4, 30, 1536)
    assert scores["head"].shape == (4, 30, 9)
    assert (falls > 0).all(), "the answers depend on the subject"
    heads = [loka.Site(layer, "head", head) for layer in range(24, 30) for head in range(0, 9, 3)]
    assert loka.locate.agreement(smollm2, capitals, heads, n_facts=2).rank_correlation > 0.7


def test_a_new_answer_in_place_of_the_old_one(smollm2: Model, capitals: Case, tmp_path: Path) -> None:
    """Short: few contexts and steps, and prose for the second moment in place of sampled text."""
    prose = dataclasses.replace(capitals, neutral=Split("prose.txt", "prose.txt"))
    fact, *others = prose.forget.sealed
    new = dataclasses.replace(fact, answer="Rome", aliases=())
    neighbours = [f for f, ok in zip(others, loka.knowledge.recalled(smollm2, others), strict=True) if ok]
    edit = loka.ablate.rome(
        smollm2, prose, config=loka.ablate.configure("rome", contexts=1, steps=10), answers={fact.subject: "Rome"}
    )
    with edit.applied(smollm2):
        assert loka.knowledge.recalled(smollm2, [new, fact]) == [True, False], "behind a template that it never saw"
        kept = loka.knowledge.recalled(smollm2, neighbours)
    assert len(neighbours) >= 10
    assert sum(kept) >= 0.8 * len(neighbours)
    assert edit.save(tmp_path / "edit.safetensors").stat().st_size < 20_000


def test_zeroing_a_neuron_comes_off_clean(smollm2: Model, capitals: Case) -> None:
    before = smollm2.digest()
    edit = loka.ablate.zero(smollm2, capitals, [loka.Site(24, "neuron", 615), loka.Site(29, "head", 0)])
    with edit.applied(smollm2):
        assert smollm2.digest() != before
    assert loka.wrap(smollm2.hf, smollm2.tokenizer).digest() == before
