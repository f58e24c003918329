"""Control sites: as many as were located, chosen without looking for the knowledge."""

import dataclasses

import pandas as pd
import pytest

from loka import ablate, locate
from loka._util.errors import UserError
from loka.knowledge import Case, score
from loka.locate import Localization
from loka.model import Model, Site


@pytest.fixture(scope="module")
def found(taught: Model, planted_case: Case) -> Localization:
    return locate.attribution(taught, planted_case)


def test_random_sites_are_others_in_the_same_layers(found: Localization, taught: Model) -> None:
    best = [*found.top(60), Site(0, "head", 1), Site(2, "head", 0), Site(2, "head", 3)]
    drawn = locate.random_sites(taught, best)
    count = pd.Series([(s.layer, s.part) for s in best]).value_counts()
    assert count.sort_index().equals(pd.Series([(s.layer, s.part) for s in drawn]).value_counts().sort_index())
    assert not set(best) & set(drawn)
    assert len(set(drawn)) == len(drawn)
    assert drawn == locate.random_sites(taught, reversed(best))
    assert drawn != locate.random_sites(taught, best, seed=1)
    for site in drawn:
        taught.check_site(site)


def test_too_few_other_sites_are_all_taken(taught: Model) -> None:
    three = [Site(0, "head", i) for i in range(3)]
    assert locate.random_sites(taught, three) == [Site(0, "head", 3)]
    assert locate.random_sites(taught, []) == []
    assert locate.random_sites(taught, [Site(0, "attn"), Site(1, "mlp")]) == []


def test_all_layer_sites_come_from_every_layer(found: Localization, taught: Model) -> None:
    best = [Site(0, "neuron", i) for i in range(120)] + [Site(3, "head", 1)]
    drawn = locate.all_layer_sites(taught, best)
    parts = pd.Series([s.part for s in drawn]).value_counts()
    assert (parts["neuron"], parts["head"], len(set(drawn))) == (120, 1, 121)
    assert not set(best) & set(drawn)
    layers = pd.Series([s.layer for s in drawn if s.part == "neuron"]).value_counts()
    assert set(layers.index) == {0, 1, 2, 3}
    assert layers.max() < 60
    assert drawn == locate.all_layer_sites(taught, reversed(best))
    assert drawn != locate.all_layer_sites(taught, best, seed=1)


def test_a_case_targeting_another_relation(planted: Model, planted_case: Case) -> None:
    case = planted_case.on(planted)
    assert case.other_relations == ("symbol",)
    turned = case.targeting("symbol")
    assert turned.forgotten_relations == ("symbol",)
    assert turned.digest != case.digest
    kept = [f for f in case.retain.working if f.relation == "symbol"]
    assert sorted(map(str, [*turned.forget.working, *turned.retain.working])) == sorted(map(str, kept))
    assert abs(len(turned.forget.working) - len(turned.retain.working)) <= 1
    assert turned == case.targeting("symbol")
    with pytest.raises(UserError, match="'capital' is not another relation of 'planted' .* there are: symbol"):
        case.targeting("capital")


def test_a_subset_of_a_case(planted: Model, planted_case: Case) -> None:
    case = planted_case.on(planted)
    few = case.subset(3)
    assert few.forget.working == case.forget.working[:3]
    assert [f.relation for f in few.retain.working] == ["capital"] * 3 + ["symbol"] * 3
    assert set(few.retain.working) <= set(case.retain.working)
    assert few.forget.sealed == case.forget.sealed
    assert few.digest != case.digest
    with pytest.raises(UserError, match=r"subset\(0\) is not a number of facts"):
        case.subset(0)


def test_other_relations_sites_serve_the_other_relation(planted: Model, planted_case: Case) -> None:
    """Zeroing them costs the other relation's facts more than zeroing the located sites, and vice versa.

    The small model saturates: a single gradient ranks its sites badly, integrated gradients rank them well.
    """
    case = planted_case.on(planted)
    locator = locate.integrated_gradients
    located = locator(planted, case).top(40)
    other = locate.other_relation_sites(planted, case, located, locator=locator)
    assert len(set(other)) == 40
    facts = {"located": case.forget.working, "other": case.targeting("symbol").forget.working}

    def surprise() -> dict[str, float]:
        """The mean negative log-probability of the answers, by group of facts."""
        asked = {name: ([f.prompt for f in some], [f.answer for f in some]) for name, some in facts.items()}
        return {name: -float(score(planted, *rows).logprob.mean()) for name, rows in asked.items()}

    before, costs = surprise(), {}
    for name, chosen in {"located": located, "other": other}.items():
        with ablate.zero(planted, case, chosen).applied(planted):
            costs[name] = {group: value - before[group] for group, value in surprise().items()}
    assert costs["located"]["located"] > 1.3 * costs["other"]["located"] > 0
    assert costs["other"]["other"] > 3 * costs["located"]["other"]


def test_all_controls_by_name(found: Localization, planted: Model, planted_case: Case) -> None:
    sites = [*found.top(30), *found.top(2, part="head")]
    drawn = locate.control_sites(planted, planted_case, sites)
    assert list(drawn) == ["random", "all_layers", "other_relation"]
    for chosen in drawn.values():
        parts = pd.Series([s.part for s in chosen]).value_counts()
        assert (parts["neuron"], parts["head"]) == (30, 2)
    assert drawn["random"] == locate.random_sites(planted, sites)
    by_forget = locate.control_sites(planted, planted_case, sites, by="forget")
    assert by_forget["random"] == drawn["random"]
    turned = locate.attribution(planted, planted_case.on(planted).targeting("symbol"))
    wanted = [*turned.top(2, part="head", by="forget"), *turned.top(30, by="forget")]
    assert by_forget["other_relation"] == wanted != drawn["other_relation"]
    case = planted_case.on(planted)
    alone = dataclasses.replace(
        case,
        retain=dataclasses.replace(
            case.retain, working=tuple(f for f in case.retain.working if f.relation == "capital")
        ),
    )
    assert list(locate.control_sites(planted, alone, sites)) == ["random", "all_layers"]
    with pytest.raises(UserError, match="has no other relation .* keep at least four facts of one"):
        locate.other_relation_sites(planted, alone, sites)
    with pytest.raises(UserError, match="no other relation 'language' to locate; choose one of symbol"):
        locate.other_relation_sites(planted, case, sites, relation="language")
    with pytest.raises(UserError, match="give at least one site"):
        locate.control_sites(planted, case, [])
