"""Sites as the command line writes them."""

import pytest

from loka._util.errors import UserError
from loka.cli.sites import read_sites
from loka.model import Site


def test_sites_are_named_or_drawn(tiny) -> None:
    llama = tiny("LlamaForCausalLM")
    assert read_sites(llama, "", 0) == []
    assert read_sites(llama, "L1.mlp, L0.neuron.3", 0) == [Site(1, "mlp"), Site(0, "neuron", 3)]
    drawn = read_sites(llama, "neuron:5", 0)
    assert drawn == read_sites(llama, "neuron:5", 0) != read_sites(llama, "neuron:5", 1)
    assert len(set(drawn)) == 5
    assert set(drawn) <= set(llama.sites("neuron"))
    assert read_sites(llama, f"mlp:{llama.n_layers}", 0) == llama.sites("mlp")


@pytest.mark.parametrize(
    "text", ["mlp:", "mlp:-1", "mlp:0", "neuron:1000000", "leg:3", "mlp", "L1.mlp;L2.mlp", "L1.mlp,"]
)
def test_a_wrong_list_is_refused(tiny, text: str) -> None:
    with pytest.raises(UserError, match=r"write sites like|name 1 to|is not a site"):
        read_sites(tiny("LlamaForCausalLM"), text, 0)
