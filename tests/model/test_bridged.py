"""A model that is in memory inside a TransformerBridge is the same model over the same weights."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge

import loka
from loka._util.errors import UserError
from loka.model import Model, wrap


@pytest.mark.parametrize("make", ["GPT2LMHeadModel", "LlamaForCausalLM"])
def test_a_bridge_gives_its_model(tiny: Callable[[str], Model], make: str) -> None:
    model = tiny(make)
    ids = torch.tensor([[5, 9, 17, 30]], device=model.device)
    wanted = model.hf(input_ids=ids).logits
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.init_kwargs |= {"name_or_path": "tiny", "add_bos_token": True}  # or booting would fetch it by its name
    bridge = TransformerBridge.boot_transformers(
        "tiny", hf_model=copy.deepcopy(model.hf), tokenizer=tokenizer, device=str(model.device),
        dtype=model.dtype,
    )  # fmt: skip
    inside = wrap(bridge)
    assert inside.digest() == model.digest()
    torch.testing.assert_close(inside.hf(input_ids=ids).logits, wanted, atol=1e-6, rtol=1e-6)
    own = {p.data_ptr() for p in bridge.original_model.parameters()}
    assert all(p.data_ptr() in own for p in inside.hf.parameters())
    pair = loka.Pair("the capital of a dog is", "the capital of a river is", answer="warm", foil="bread")
    case = loka.Case.of([pair])
    np.testing.assert_allclose(
        loka.locate.patching(inside, case, "head"), loka.locate.patching(model, case, "head"), rtol=1e-4, atol=1e-7
    )


def test_a_model_without_its_tokenizer_is_refused(tiny: Callable[[str], Model]) -> None:
    with pytest.raises(UserError, match=r"give it too: loka.wrap\(hf, tokenizer\)"):
        wrap(tiny("GPT2LMHeadModel").hf)
