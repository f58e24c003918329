"""A mixture of experts is read, located, edited and exported by the neurons of its experts."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from loka import ablate, locate
from loka._util.errors import UserError
from loka.ablate import TrainingConfig
from loka.knowledge import Case
from loka.locate.attribution import attribution_scores
from loka.locate.counterfactual import Pairs, log_odds, pairs
from loka.model import Model, Site, encode, export, logits, quantized, slices, token_logprobs, wrap
from loka.model.experts import is_open
from loka.model.run.hooks import point, record, run
from loka.model.train.train import sliced

GROUPED = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
}  # fmt: skip
MAKES: dict[str, dict[str, Any]] = {
    "MixtralForCausalLM": GROUPED | {"num_local_experts": 4, "intermediate_size": 24},
    "Qwen3MoeForCausalLM": GROUPED | {"num_experts": 4, "moe_intermediate_size": 24, "head_dim": 12},
    "OlmoeForCausalLM": GROUPED | {"num_experts": 4, "intermediate_size": 24},
}


def build(make: str, tokenizer: PreTrainedTokenizerFast) -> Any:
    of = getattr(transformers, make)
    config = of.config_class(
        vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, pad_token_id=0, architectures=[make], **MAKES[make]
    )
    config._experts_implementation = "eager"
    hf = of._from_config(config, dtype=torch.float64).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in hf.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype) + (p.ndim == 1) * p)
    return hf


@pytest.fixture(params=MAKES)
def model(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerFast) -> Model:
    return wrap(build(request.param, tokenizer), tokenizer, request.param)


@pytest.fixture
def both(model: Model, planted_case: Case) -> Pairs:
    case = planted_case.whole()
    return pairs(model, case, case.forget.working[:2])


def chosen_experts(model: Model, batch: Any) -> Iterator[set[int]]:
    """The experts that a batch uses, by layer."""
    for layer in range(model.n_layers):
        seen: list[torch.Tensor] = []
        experts = model.hf.get_submodule(f"{model.block(layer)}.{model.anatomy.experts}")
        handle = experts.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[1]))
        with torch.no_grad():
            logits(model, batch)
        handle.remove()
        yield set(seen[0].flatten().tolist())


def test_opened_experts_compute_what_transformers_does(model: Model, tokenizer: PreTrainedTokenizerFast) -> None:
    plain = build(model.name, tokenizer)
    assert sum(is_open(m) for m in model.hf.modules()) == 2
    assert not any(is_open(m) for m in plain.modules())
    batch = encode(model, ["a dog likes the", "the old man"], ["garden", "runs to the sea"])
    with torch.no_grad():
        torch.testing.assert_close(
            logits(model, batch), plain(**batch.inputs()).logits[:, -batch.keep - 1 : -1], rtol=1e-9, atol=1e-9
        )
    assert list(model.parameters) == [name for name, _ in plain.named_parameters()]


def test_a_neuron_is_named_by_its_expert(model: Model) -> None:
    sites = model.sites("neuron")
    assert len(sites) == len(set(sites)) == 2 * 4 * 24
    assert str(sites[2 * 24 + 5]) == "L0.expert.2.neuron.5"
    assert Site.parse("L1.expert.3.neuron.7") == model.site(1, "neuron", 3 * 24 + 7)
    assert [model.unit(site) for site in sites[: 4 * 24]] == list(range(4 * 24))
    assert sorted(sites) == sites
    for wrong in ("L0.neuron.5", "L0.expert.4.neuron.5", "L0.expert.1.neuron.24"):
        with pytest.raises(UserError, match="is not in"):
            model.check_site(Site.parse(wrong))
    with pytest.raises(UserError, match="experts have neurons"):
        Site.parse("L0.expert.1.head.2")


def test_recorded_neurons_are_those_of_the_experts(model: Model) -> None:
    """`[row, position, neuron]`: what each adds, by the weights of the file."""
    batch = encode(model, ["a dog likes the", "the old man"], ["garden", "runs to the sea"])
    found = record(model, batch, [point("neuron", 1), point("mlp", 1)]).activations
    down = model.parameters[f"{model.block(1)}.mlp.experts.down_proj"]
    neurons = found[point("neuron", 1)].unflatten(-1, (4, 24))
    torch.testing.assert_close(
        torch.einsum("rpen,edn->rpd", neurons, down), found[point("mlp", 1)], rtol=1e-4, atol=1e-4
    )
    used = (neurons != 0).any(-1).sum(-1)
    assert (used[batch.mask.bool()] == 2).all()


def test_attribution_is_the_slope_of_patching(model: Model, both: Pairs) -> None:
    """Also for neurons of experts that the prompt itself did not choose."""
    scores, _ = attribution_scores(model, both, ("neuron",))
    name = point("neuron", 1)
    clean, other = (record(model, b, [name]).activations[name] for b in (both.clean, both.corrupted))
    valid = (both.clean.mask * both.corrupted.mask)[..., None]
    for unit in np.argsort(-np.abs(scores["neuron"][:, 1]).sum(0))[:6].tolist():
        way = torch.zeros_like(clean)
        way[..., unit] = ((other - clean) * valid)[..., unit]

        def odds(size: float, way: torch.Tensor = way) -> torch.Tensor:
            with torch.no_grad():
                return log_odds(run(model, both.clean, [(name, lambda value: value + size * way)]), both)

        slope = (odds(-1e-4) - odds(1e-4)) / 2e-4
        np.testing.assert_allclose(
            scores["neuron"][:, 1, unit], slope.numpy(), rtol=2e-2, atol=3e-3
        )  # the router is in float32
    assert np.abs(scores["neuron"]).max() > 0.01


def test_exact_patching_is_a_run_with_the_other_activation(model: Model, planted_case: Case) -> None:
    case = planted_case.whole()
    facts = case.forget.working[:2]
    both = pairs(model, case, facts)
    name = point("neuron", 1)
    other = record(model, both.corrupted, [name]).activations[name]
    clean = record(model, both.clean, [name]).activations[name]
    units = torch.argsort(-(other - clean).abs().sum((0, 1)))[:4].tolist()
    found = locate.patching(model, case, [model.site(1, "neuron", u) for u in units], facts=facts)
    for column, unit in enumerate(units):

        def put(value: torch.Tensor, unit: int = unit) -> torch.Tensor:
            value = value.clone()
            value[..., unit] = other[..., unit]
            return value

        with torch.no_grad():
            before, after = (log_odds(run(model, both.clean, hooks), both) for hooks in ([], [(name, put)]))
        np.testing.assert_allclose(found[:, column], (before - after).numpy(), rtol=1e-4, atol=1e-4)
    assert np.abs(found).max() > 1e-3


def test_gradients_of_slices_are_those_of_the_whole_maps(model: Model) -> None:
    batch = encode(model, ["a dog likes the"], ["garden"])
    where = slices(model, [Site(layer, "neuron", 3, e) for e in range(4) for layer in (0, 1)] + [Site(1, "head", 1)])

    def loss() -> torch.Tensor:
        return -token_logprobs(logits(model, batch), batch.labels).sum()

    with sliced(model, where) as trainable:
        loss().backward()
        found = [p.grad for p in trainable.parameters]
    for p in model.parameters.values():
        p.requires_grad_(True)
    loss().backward()
    for part, grad in zip(where, found, strict=True):
        whole = model.parameters[part.name].grad
        assert whole is not None
        assert grad is not None
        torch.testing.assert_close(grad, part.read(whole))
        assert float(grad.abs().max()) > 0
    for p in model.parameters.values():
        p.requires_grad_(False)
        p.grad = None


def test_zeroed_neurons_add_nothing_and_come_back(model: Model, planted_case: Case, tmp_path: Path) -> None:
    batch = encode(model, ["a dog likes the"], ["garden"])
    expert = sorted(next(chosen_experts(model, batch)))[0]
    before, digest = logits(model, batch), model.digest()
    edit = ablate.zero(model, planted_case.whole(), [Site(0, "neuron", i, expert) for i in range(24)])
    edit.save(tmp_path / "edit.safetensors")
    with type(edit).load(tmp_path / "edit.safetensors").applied(model):
        after = logits(model, batch)
        down = model.parameters[f"{model.block(0)}.mlp.experts.down_proj"]
        assert not down[expert].any()
        assert down[[e for e in range(4) if e != expert]].all()
    assert (after - before).abs().max() > 1e-4
    assert model.digest() == digest
    assert torch.equal(logits(model, batch), before)
    folder = export(model, tmp_path / "model", edit=edit)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, experts_implementation="eager")
    with torch.no_grad():
        said = plain(**batch.inputs()).logits[:, -batch.keep - 1 : -1]
    torch.testing.assert_close(said, after, rtol=1e-9, atol=1e-9)


def test_training_changes_the_neurons_alone(model: Model, planted_case: Case) -> None:
    case = planted_case.whole()
    sites = [Site(1, "neuron", i, e) for e in range(4) for i in (1, 7)]
    edit = ablate.tune(model, case, sites, TrainingConfig("ascent", steps=2, lr=1e-2, precondition=0.1))
    before = {name: p.clone() for name, p in model.parameters.items()}
    with edit.applied(model):
        changed = {n for n, p in model.parameters.items() if not torch.equal(p, before[n])}
        down = model.parameters[f"{model.block(1)}.mlp.experts.down_proj"]
        moved = (down != before[f"{model.block(1)}.mlp.experts.down_proj"]).any(1).nonzero().tolist()
    assert changed == {f"{model.block(1)}.mlp.experts.{name}" for name in ("gate_up_proj", "down_proj")}
    assert {i for _, i in moved} == {1, 7}
    assert all(torch.equal(p, before[n]) for n, p in model.parameters.items())


def test_located_neurons_keep_their_names(model: Model, planted_case: Case, tmp_path: Path) -> None:
    found = locate.attribution(model, planted_case.whole(), parts=("neuron",))
    found.save(tmp_path / "found.parquet")
    best = type(found).load(tmp_path / "found.parquet").top(5)
    assert all(site.expert is not None for site in best)
    assert best == found.top(5)
    assert str(best[0]) in str(found)
    assert str(best[0]) in found.html("neuron")
    others = locate.random_sites(model, best, seed=1)
    assert len(others) == 5
    assert not set(others) & set(best)
    for site in others:
        model.check_site(site)


def test_closed_forms_are_refused_by_name(model: Model, planted_case: Case) -> None:
    for method in (ablate.rome, ablate.memit):
        with pytest.raises(UserError, match="mixture of experts"):
            method(model, planted_case.whole())


def test_experts_of_another_make_stay_closed(tokenizer: PreTrainedTokenizerFast) -> None:
    """GPT-OSS has biases and another order; Qwen2-MoE has an expert that all tokens share. Heads work there."""
    more = {
        "GptOssForCausalLM": GROUPED | {"num_local_experts": 4, "intermediate_size": 24, "head_dim": 8},
        "Qwen2MoeForCausalLM": GROUPED
        | {"num_experts": 4, "moe_intermediate_size": 24, "shared_expert_intermediate_size": 16},
    }
    for name, config in more.items():
        of: Any = getattr(transformers, name)
        given = of.config_class(vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, pad_token_id=0, **config)
        given._experts_implementation = "eager"
        model = wrap(of._from_config(given), tokenizer, name)
        assert len(model.sites("head")) == 2 * 4
        with pytest.raises(UserError, match="cannot address"):
            model.sites("neuron")


def test_a_module_that_is_not_experts_is_left_alone(tiny: Callable[[str], Model]) -> None:
    assert not any(is_open(m) for m in tiny("LlamaForCausalLM").hf.modules())
    assert not is_open(nn.Linear(2, 2))


def test_rounding_reaches_the_experts(model: Model) -> None:
    coarse = quantized(model, 4)
    name = f"{model.block(1)}.mlp.experts.down_proj"
    before, after = model.parameters[name], coarse.parameters[name]
    assert is_open(coarse.hf.get_submodule(f"{coarse.block(1)}.mlp.experts"))
    step = before.abs().amax(2, keepdim=True) / 7  # one group of 24 inputs, levels from -7 to 7
    torch.testing.assert_close(after / step, (before / step).round(), rtol=0, atol=1e-9)
    assert not torch.equal(before, after)
