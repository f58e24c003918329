"""oneDNN's linear maps agree with torch's own, forward and backward."""

from collections.abc import Callable

import pytest
import torch

from loka.model import Model, encode, logits, token_logprobs, unfrozen
from loka.model.run.onednn import linear, onednn_linear

ROWS = ["the old man likes", "a dog looks for the red house at", "my sister"], ["warm bread", "the sea", "the garden"]


def gradients(model: Model) -> dict[str, torch.Tensor]:
    """The loss on three answers and its gradients, by name."""
    batch = encode(model, *ROWS)
    with unfrozen(model), torch.enable_grad():
        loss = -token_logprobs(logits(model, batch), batch.labels).sum()
        loss.backward()
        found = {n: p.grad.clone() for n, p in model.parameters.items() if p.grad is not None}
    return found | {"loss": loss.detach()}


def test_gradients_are_those_of_torch(
    architecture: str, tiny: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny(architecture)
    model.hf.float()
    found = gradients(model)
    monkeypatch.setattr("loka.model.run.onednn._serves", lambda *_: False)
    wanted = gradients(model)
    assert found.keys() == wanted.keys()
    largest = max(float(value.abs().max()) for value in wanted.values())
    for name, value in wanted.items():  # some are zero but for rounding: softmax does not see a key's bias
        scale = max(float(value.abs().max()), 1e-4 * largest)
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-3 * scale)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
def test_maps_are_replaced_inside_alone_and_keep_another_forward_function(tiny: Callable[[str], Model]) -> None:
    model = tiny("GPT2LMHeadModel")
    model.hf.float().cpu()
    maps = [m for m in model.hf.modules() if type(m).__name__ in ("Linear", "Conv1D")]
    maps[0].forward = own = lambda x: x
    with onednn_linear(model):
        assert maps[0].forward is own
        assert all("forward" in m.__dict__ for m in maps)
        with onednn_linear(model):
            pass
        assert all("forward" in m.__dict__ for m in maps)
    assert ["forward" in m.__dict__ for m in maps] == [True] + [False] * (len(maps) - 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_map_by_itself(dtype: torch.dtype) -> None:
    x, weight, bias = (torch.randn(*shape, dtype=dtype) for shape in ((2, 3, 8), (5, 8), (5,)))
    torch.testing.assert_close(linear(x, weight, bias), x @ weight.t() + bias)
    torch.testing.assert_close(linear(x, weight.t().contiguous().t()), x @ weight.t())
    torch.testing.assert_close(linear(x[0].t(), x[1].t()), x[0].t() @ x[1])
