"""Every address that prints can be read again, and no other text can."""

import pytest

from loka._util.errors import UserError
from loka.model import PARTS, Site


@pytest.mark.parametrize("text", ["L17.neuron.301", "L9.head.4", "L9.kv.1", "L0.attn", "L3.mlp", "L12.resid"])
def test_an_address_prints_as_it_is_written(text: str) -> None:
    assert str(Site.parse(text)) == repr(Site.parse(text)) == text


def test_every_part_can_be_addressed() -> None:
    indexed, whole = ("neuron", "head", "kv", "q", "k", "v"), ("attn", "mlp", "resid")
    assert {Site.parse(f"L1.{p}.2").part for p in indexed} | {Site.parse(f"L1.{p}").part for p in whole} == {*PARTS}


def test_equal_sites_are_one_key_and_sort_by_layer() -> None:
    assert len({Site(1, "head", 2), Site.parse("L1.head.2"), Site(1, "head", 3)}) == 2
    assert sorted([Site(10, "head", 0), Site(2, "head", 11), Site(2, "head", 3)]) == [
        Site(2, "head", 3),
        Site(2, "head", 11),
        Site(10, "head", 0),
    ]


@pytest.mark.parametrize("text", ["", "L1", "1.head.2", "L1.head.x", "L1.head.2 ", "L-1.mlp"])
def test_any_other_text_is_refused_by_name(text: str) -> None:
    with pytest.raises(UserError, match=r"write it like L\d") as caught:
        Site.parse(text)
    assert text in str(caught.value)


def test_an_unknown_part_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="'unit' is not a part of a model; choose one of neuron, head"):
        Site(1, "unit", 3)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="needs an index"):
        Site(1, "neuron")
    with pytest.raises(UserError, match="a head site needs an index; write it like L3.head.5"):
        Site.parse("L1.head")
    with pytest.raises(UserError, match="a mlp site takes no index; write it like L3.mlp"):
        Site.parse("L1.mlp.0")
