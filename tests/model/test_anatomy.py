"""Blocks of any make are read right or refused: by what their parts do, not by their names."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from loka import locate
from loka._util.errors import UserError
from loka.knowledge import Case
from loka.model import Model, Site, encode, logits, wrap
from loka.model.layout import slices, taps
from loka.model.run.hooks import point, record
from loka.model.run.modules import replace_input, replace_output

WIDE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
GROUPED = WIDE | {"num_key_value_heads": 2}
OLD = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48, "n_positions": 64}
FALCON = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
EXPERTS = GROUPED | {"num_experts_per_tok": 2}
LATENT = {
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "n_group": 2, "topk_group": 1,
    "kv_lora_rank": 8, "q_lora_rank": 12, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 6,
    "first_k_dense_replace": 1, "num_key_value_heads": 4,
}  # fmt: skip
# Beside the architectures of every other test: class, configuration, key/value groups, order of the fused map.
READ: dict[str, tuple[str, dict[str, Any], int, str]] = {
    "CodeGen": ("CodeGenForCausalLM", OLD | {"rotary_dim": 4}, 4, "quarters"),
    "BigCode, shared keys": ("GPTBigCodeForCausalLM", OLD, 1, "blocked"),
    "BigCode, own keys": ("GPTBigCodeForCausalLM", OLD | {"multi_query": False}, 4, "grouped"),
    "GPT-Neo": (
        "GPTNeoForCausalLM",
        {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "intermediate_size": 48, "max_position_embeddings": 64,
         "attention_types": [[["global", "local"], 1]]},
        4, "",
    ),
    "XGLM": ("XGLMForCausalLM", {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48}, 4, ""),
    "Falcon, shared keys": ("FalconForCausalLM", FALCON, 1, "blocked"),
    "Falcon, groups": (
        "FalconForCausalLM", FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2}, 2, "grouped",
    ),
    "Falcon, slopes": (
        "FalconForCausalLM", FALCON | {"multi_query": False, "alibi": True, "parallel_attn": False}, 4, "grouped",
    ),
    "Persimmon": ("PersimmonForCausalLM", WIDE, 4, "grouped"),
    "Helium": ("HeliumForCausalLM", GROUPED | {"head_dim": 8}, 2, ""),
    "Ministral": ("MinistralForCausalLM", GROUPED | {"head_dim": 8}, 2, ""),
    "Nemotron": ("NemotronForCausalLM", GROUPED | {"head_dim": 8}, 2, ""),
    "Mixtral": ("MixtralForCausalLM", EXPERTS | {"num_local_experts": 4}, 2, ""),
    "Qwen3-MoE": (
        "Qwen3MoeForCausalLM", EXPERTS | {"num_experts": 4, "moe_intermediate_size": 24, "head_dim": 12}, 2, "",
    ),
    "OLMoE": ("OlmoeForCausalLM", EXPERTS | {"num_experts": 4}, 2, ""),
}  # fmt: skip
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "BERT": ("BertLMHeadModel", WIDE, "encoder"),
    "BERT as a decoder": ("BertLMHeadModel", WIDE | {"is_decoder": True}, "has none of"),
    "DeepSeek-V3": ("DeepseekV3ForCausalLM", WIDE | LATENT, "has none of q_proj"),
    "Mamba": ("MambaForCausalLM", {"hidden_size": 32, "num_hidden_layers": 2}, "no num_attention_heads"),
    "LFM2": ("Lfm2ForCausalLM", GROUPED | {"layer_types": ["conv", "full_attention"]}, "has none of"),
    "OPT with norms on the stream": (
        "OPTForCausalLM",
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48, "word_embed_proj_dim": 32,
         "do_layer_norm_before": False},
        "a norm follows the sum",
    ),
}  # fmt: skip


def build(name: str, config: dict[str, Any], tokenizer: PreTrainedTokenizerFast) -> Model:
    of = getattr(transformers, name)
    given = of.config_class(vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, pad_token_id=0, **config)
    given._experts_implementation = "eager"
    dtype = torch.float32 if name == "XGLMForCausalLM" else torch.float64  # its mask has no double precision
    hf = of._from_config(given, dtype=dtype)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in hf.parameters():
            p.copy_(0.2 * torch.randn(p.shape, generator=generator, dtype=p.dtype) + (p.ndim == 1) * p)
    return wrap(hf, tokenizer, name)


@pytest.mark.parametrize("make", READ)
def test_the_parts_of_other_makes(make: str, tokenizer: PreTrainedTokenizerFast) -> None:
    """Sizes and order are those of the architecture, and a head's rows move that head alone."""
    name, config, groups, order = READ[make]
    model = build(name, config, tokenizer)
    assert (model.n_kv_heads, model.anatomy.order) == (groups, order)
    assert model.d_head == config.get("head_dim", 8)
    batch = encode(model, ["a dog likes the"], ["garden"])
    size = model.n_heads // groups
    for site, heads in (
        (Site(1, "q", 1), [1]),
        (Site(1, "k", groups - 1), range(4 - size, 4)),
        (Site(1, "v", 0), range(size)),
    ):
        before, after = heads_of(model, batch), moved(model, site, batch, heads_of)
        changed = ((after - before).abs().amax((0, 1, 3)) > 1e-6).nonzero().flatten().tolist()
        assert changed == list(heads), site
    if not model.n_neurons:
        return
    before, after = neurons_of(model, batch), moved(model, model.site(1, "neuron", 5), batch, neurons_of)
    assert set(((after - before).abs().flatten(0, -2).amax(0) > 1e-9).nonzero().flatten().tolist()) <= {5}


def heads_of(model: Model, batch: Any) -> Tensor:
    """What the output map of layer 1 reads, `[row, position, head, d_head]`."""
    return seen(model, batch, taps(model, "head", 1)[0].module).unflatten(-1, (model.n_heads, model.d_head))


def neurons_of(model: Model, batch: Any) -> Tensor:
    return seen(model, batch, taps(model, "neuron", 1)[0].module)


def seen(model: Model, batch: Any, module: nn.Module) -> Tensor:
    found: list[Tensor] = []
    with replace_input(module, found.append), torch.no_grad():
        logits(model, batch)
    return found[0].clone()


def moved(model: Model, site: Site, batch: Any, look: Callable[[Model, Any], Tensor]) -> Tensor:
    """What `look` sees when the rows that a site owns change their sign, which leaves norms over all heads alone."""
    where = slices(model, [site], writes=False)
    old = [part.read(model.parameters[part.name]) for part in where]
    for part, value in zip(where, old, strict=True):
        part.write_(model.parameters[part.name], -value)
    try:
        return look(model, batch)
    finally:
        for part, value in zip(where, old, strict=True):
            part.write_(model.parameters[part.name], value)


@pytest.mark.parametrize("make", REFUSED)
def test_what_cannot_be_addressed_is_refused_when_it_is_loaded(make: str, tokenizer: PreTrainedTokenizerFast) -> None:
    name, config, said = REFUSED[make]
    with pytest.raises(UserError, match=said):
        build(name, config, tokenizer)


def test_a_block_that_adds_something_else_is_refused(tiny: Callable[[str], Model]) -> None:
    """The check needs no names: a familiar architecture with one more term is refused."""
    model = tiny("LlamaForCausalLM")
    block = model.hf.get_submodule(model.block(0))
    handle = block.register_forward_hook(lambda _module, given, out: out + 0.01 * given[0])
    with pytest.raises(UserError, match="are not all that its blocks add"):
        wrap(model.hf, model.tokenizer)
    handle.remove()
    wrap(model.hf, model.tokenizer)


def test_heads_in_another_order_are_refused(tiny: Callable[[str], Model]) -> None:
    """Here each head gets half of its queries from the head before it, after their map."""
    model = tiny("Qwen3ForCausalLM")
    norm = model.hf.get_submodule(f"{model.block(0)}.self_attn.q_norm")

    def shift(value: Tensor) -> Tensor:
        return value.flatten(-2).roll(6, -1).view(value.shape)

    with replace_output(norm, shift), pytest.raises(UserError, match="not its own"):
        wrap(model.hf, model.tokenizer)


def test_neurons_that_see_each_other_are_refused(tiny: Callable[[str], Model]) -> None:
    model = tiny("LlamaForCausalLM")
    down = taps(model, "neuron", 0)[0].module
    with replace_input(down, lambda value: value.roll(1, -1)), pytest.raises(UserError, match="a neuron of mlp"):
        wrap(model.hf, model.tokenizer)


@pytest.mark.parametrize("make", ["Falcon, groups", "Falcon, slopes", "Helium"])
def test_a_bridge_that_differs_is_refused_and_exact_patching_still_works(
    make: str, tokenizer: PreTrainedTokenizerFast, planted_case: Case
) -> None:
    name, config, *_ = READ[make]
    model = build(name, config, tokenizer)
    batch = encode(model, ["a dog likes the"], ["garden"])
    with pytest.raises(UserError, match=r"TransformerLens (cannot wrap|computes) .*loka\.locate\.patching"):
        record(model, batch, [point("head", 1)])
    case = planted_case.whole()
    exact = locate.patching(model, case, [Site(1, "head", 2), Site(0, "neuron", 3)], facts=case.forget.working[:2])
    assert exact.shape == (2, 2)
    assert abs(exact).max() > 1e-6
