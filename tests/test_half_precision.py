"""In bfloat16 and float16 every number is close to that of float32, or the call is refused."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch

from loka import ablate, audit, locate, verify
from loka._util.errors import UserError
from loka.knowledge import Case
from loka.model import Edit, Model, Site, encode, logits, low_rank, token_logprobs, unfrozen, wrap

Make = Callable[[torch.dtype], Model]
HALF = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])


@pytest.fixture
def at(taught: Model) -> Make:
    """The small model in another type."""
    return lambda dtype: wrap(copy.deepcopy(taught.hf).to(dtype), taught.tokenizer, "small")


@HALF
@pytest.mark.parametrize("method", ["integrated_gradients", "attribution", "taylor"])
def test_a_locator_scores_as_in_single_precision(
    method: str, dtype: torch.dtype, planted: Model, planted_case: Case, at: Make
) -> None:
    few = planted_case.on(planted)
    wanted, found = (getattr(locate, method)(m, few).frame for m in (planted, at(dtype)))
    assert (found["layer"] == wanted["layer"]).all()
    assert np.corrcoef(found["score"], wanted["score"])[0, 1] > 0.998
    np.testing.assert_allclose(found["score"], wanted["score"], atol=0.05 * wanted["score"].abs().max())


@HALF
def test_a_soft_prompt_finds_what_it_finds_in_single_precision(
    dtype: torch.dtype, planted: Model, planted_case: Case, at: Make
) -> None:
    wanted, found = (verify.soft_prompt(m, planted_case, steps=5) for m in (planted, at(dtype)))
    for group, values in wanted.samples.items():
        np.testing.assert_allclose(list(found.samples[group].values()), list(values.values()), atol=0.05)


@HALF
def test_low_rank_training_takes_the_same_steps(dtype: torch.dtype, planted: Model, at: Make) -> None:
    """AdamW's first step is as large as the learning rate, and zero where there is no gradient: never NaN."""

    def moved(model: Model) -> torch.Tensor:
        batch = encode(model, ["the capital of a dog is"], ["warm bread"])
        with low_rank(model, rank=2) as adapters, torch.enable_grad():
            optimizer = torch.optim.AdamW(adapters.parameters, lr=0.02, weight_decay=0.0)
            for _ in range(3):
                (-token_logprobs(logits(model, batch), batch.labels).sum()).backward()
                adapters.step(optimizer)
            made = adapters.factors()
        edit = Edit((), (), model.digest(), factors=made)
        with edit.applied(model):
            return logits(model, batch).float()

    wanted, found = moved(planted), moved(at(dtype))
    torch.testing.assert_close(found, wanted, atol=0.2, rtol=0.05)


def test_weights_in_float16_are_not_trained(planted_case: Case, at: Make) -> None:
    model = at(torch.float16)
    before = model.digest()
    with pytest.raises(UserError, match="small is in float16, in which training its weights"), unfrozen(model):
        pass
    with pytest.raises(UserError, match="is in float16"):
        audit(model, ablate.zero(model, planted_case, [Site(1, "neuron", 3)]), planted_case)
    assert model.digest() == before
