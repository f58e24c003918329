"""Mean and resample ablation against holding the activations by hand; clear words where no bias can hold them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from loka import ablate
from loka._util.errors import UserError
from loka.knowledge import Case, neutral_working
from loka.model import Model, Site, encode, logits
from loka.model.layout import head_output, neuron_output
from loka.model.run.lookup import inputs_of

Make = Callable[[str], Model]
BIASED = ["GPT2LMHeadModel", "GPTNeoXForCausalLM"]
SITES = [Site(0, "neuron", 3), Site(0, "neuron", 40), Site(1, "head", 2), Site(2, "mlp")]


def said(model: Model) -> Tensor:
    with torch.no_grad():
        return logits(
            model, encode(model, ["the capital of a dog is", "a small bird sings"], ["warm bread", "at night"])
        )


def held_by_hand(model: Model, values: dict[nn.Module, Tensor]) -> Tensor:
    """Logits with the sites' activations put in place by hooks."""
    neurons, heads, whole = neuron_output(model, 0), head_output(model, 1), neuron_output(model, 2)
    index = {neurons: [3, 40], heads: list(range(2 * model.d_head, 3 * model.d_head)), whole: list(range(48))}

    def hook(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        x = args[0].clone()
        x[..., index[module]] = values[module][index[module]].to(x)
        return (x,)

    handles = [m.register_forward_pre_hook(hook) for m in index]
    try:
        return said(model)
    finally:
        for handle in handles:
            handle.remove()


def read(model: Model, case: Case) -> dict[nn.Module, Tensor]:
    """What the maps read at every neutral token."""
    modules = [neuron_output(model, 0), head_output(model, 1), neuron_output(model, 2)]
    batches = list(inputs_of(model, modules, neutral_working(model, case)))
    return {m: torch.cat([batch[i] for batch in batches]) for i, m in enumerate(modules)}


@pytest.mark.parametrize("name", BIASED)
def test_mean_is_the_same_as_holding_the_activations(name: str, tiny: Make, planted_case: Case) -> None:
    model = tiny(name)
    before, edit = said(model), ablate.mean(model, planted_case.whole(), SITES)
    wanted = held_by_hand(model, {m: x.mean(0) for m, x in read(model, planted_case.whole()).items()})
    with edit.applied(model):
        assert torch.allclose(said(model), wanted, atol=1e-10)
    assert torch.equal(said(model), before)
    assert not torch.allclose(before, wanted, atol=1e-3)
    assert edit.record.method == "mean"


@pytest.mark.parametrize("name", BIASED)
def test_resample_holds_them_as_they_are_at_one_token(name: str, tiny: Make, planted_case: Case) -> None:
    model = tiny(name)
    inputs = read(model, planted_case.whole())
    tokens = len(next(iter(inputs.values())))
    results = [held_by_hand(model, {m: x[i] for m, x in inputs.items()}) for i in range(tokens)]
    found = set()
    for seed in range(3):
        edit = ablate.resample(model, planted_case.whole(), SITES, seed=seed)
        assert edit.digest() == ablate.resample(model, planted_case.whole(), SITES, seed=seed).digest()
        assert ablate.rerun_on(model, planted_case.whole(), edit, SITES).digest() == edit.digest()
        with edit.applied(model):
            now = said(model)
        found |= {i for i, wanted in enumerate(results) if torch.allclose(now, wanted, atol=1e-10)}
    assert len(found) >= 2, "seeds draw different tokens"


@pytest.mark.parametrize("method", [ablate.mean, ablate.resample])
def test_where_no_bias_can_hold_it_that_is_said(method: Callable, planted: Model, planted_case: Case) -> None:
    with pytest.raises(UserError, match="has no bias, which .* needs to hold a constant; use zero"):
        method(planted, planted_case, [Site(1, "neuron", 3)])
    with pytest.raises(UserError, match="needs sites that write to the residual stream directly"):
        method(planted, planted_case, [Site(1, "kv", 0)])
    with pytest.raises(UserError, match="layers are 0 to 3"):
        method(planted, planted_case, [Site(9, "neuron", 0)])
