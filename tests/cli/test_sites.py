"""Sites as the command line writes them."""

import pytest

from loka._util.errors import UserError
from loka.cli.sites import SiteChoice
from loka.model import Site

WRONG = ("mlp:", "mlp:-1", "mlp:0", "leg:3", "mlp", "L1.mlp;L2.mlp", "L1.mlp,")


def test_sites_are_named_or_drawn(tiny) -> None:
    llama = tiny("LlamaForCausalLM")
    named = [Site(1, "mlp"), Site(0, "neuron", 3)]
    assert SiteChoice.parse("").on(llama, 0) == []
    assert SiteChoice.parse("L1.mlp, L0.neuron.3").on(llama, 0) == named
    five = SiteChoice.parse("neuron:5")
    drawn = five.on(llama, 0)
    assert drawn == five.on(llama, 0) != five.on(llama, 1)
    assert len(set(drawn)) == 5
    assert set(drawn) <= set(llama.sites("neuron"))
    assert SiteChoice.parse(f"mlp:{llama.n_layers}").on(llama, 0) == llama.sites("mlp")


@pytest.mark.parametrize("text", WRONG)
def test_another_form_is_refused_before_a_model_is_loaded(text: str) -> None:
    with pytest.raises(UserError, match=r"write sites like|is not a site"):
        SiteChoice.parse(text)


def test_more_sites_than_a_model_has_are_refused(tiny) -> None:
    with pytest.raises(UserError, match=r"has \d+ neuron sites, not 1000000; name 1 to \d+"):
        SiteChoice.parse("neuron:1000000").on(tiny("LlamaForCausalLM"), 0)
