"""A sweep gives the results of single interventions by plain hooks."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from loka._util.errors import UserError
from loka.model import Batch, Intervention, Model, Site, SweepBudget, encode, sweep
from loka.model.layout import Tap, taps
from loka.model.run.interventions import PromptDifferences, prompt
from loka.model.run.trace import trace

PROMPTS = ["the capital of a dog is", "my sister looks for the old man and", "the red house is"]
OTHERS = ["the capital of a river is", "my sister looks for the small bird and", "the sea at night is"]
ANSWERS = ["warm bread", "the garden", "red"]
PARTS = ["resid", "attn", "mlp", "head", "neuron", "kv", "q", "k", "v"]


def single(batch: Batch, row: int) -> tuple[Tensor, Tensor]:
    """A row's tokens without padding `[1, position]` and its labels."""
    labels = batch.labels[row]
    return batch.ids[row][batch.mask[row].bool()][None], labels[labels >= 0]


def logprob(labels: Tensor, scores: Tensor) -> Tensor:
    """The log-probability of the whole answer in each row."""
    logp = scores.log_softmax(-1)
    return logp.gather(-1, labels.expand(len(logp), -1)[..., None])[..., 0].sum(-1)


def plain(
    model: Model, ids: Tensor, labels: Tensor, changes: Sequence[tuple[Tap, Callable[[Tensor], Tensor]]]
) -> float:
    """One forward pass of one prompt, with hooks on the modules of transformers."""
    handles = []
    for tap, change in changes:

        def out(module: nn.Module, given: object, value: object, change=change) -> object:
            return change(value) if isinstance(value, Tensor) else (change(value[0]), *value[1:])

        def into(module: nn.Module, given: tuple[Tensor, ...], change=change) -> object:
            return (change(given[0]), *given[1:])

        handles.append(tap.module.register_forward_hook(out) if tap.out else tap.module.register_forward_pre_hook(into))
    try:
        with torch.no_grad():
            scores = model.hf(input_ids=ids, use_cache=False).logits[:, -len(labels) - 1 : -1]
    finally:
        for handle in handles:
            handle.remove()
    return float(logprob(labels, scores))


def activation(model: Model, ids: Tensor, tap: Tap) -> Tensor:
    seen: list[Tensor] = []
    plain(model, ids, ids[0, -1:], [(tap, lambda value: (seen.append(value.flatten(0, -2).clone()), value)[1])])
    return seen[0]


Source = Callable[[Tap], Tensor]


def one_by_one(model: Model, clean: Batch, site: Site, row: int, source: Source, at: int | None = None) -> float:
    """The answer's log-probability with one site set to what `source` gives, `[1, position, feature]`."""
    ids, labels = single(clean, row)
    changes = []
    for tap in taps(model, site.part, site.layer):
        given, features = source(tap), tap.index[site.index or 0]
        span = range(-min(ids.shape[1], len(given)), 0) if at is None else [at - len(labels)]

        def change(value: Tensor, given=given, span=span, features=features) -> Tensor:
            flat = value.flatten(0, -2).clone()  # OPT's MLP sees positions without rows
            for position in span:
                flat[position, features] = given[position, features]
            return flat.view(value.shape)

        changes.append((tap, change))
    return plain(model, ids, labels, changes)


def patched(model: Model, clean: Batch, other: Batch, site: Site, row: int, at: int | None = None) -> float:
    """`one_by_one` with the site's activation in a row of other prompts."""
    return one_by_one(model, clean, site, row, lambda tap: activation(model, single(other, row)[0], tap), at)


def some_sites(model: Model, parts: Sequence[str] = PARTS) -> list[Site]:
    """A few sites of every part in every layer, unsorted."""
    units = {p: [None] if model.units(p) == 1 else [model.units(p) - 1, 0] for p in parts}
    return [Site(layer, part, unit) for layer in (2, 0, 1) for part in parts for unit in units[part]]  # type: ignore[arg-type]


@pytest.fixture
def llama(tiny: Callable[[str], Model]) -> Model:
    return tiny("LlamaForCausalLM")


def both(model: Model, prompts: Sequence[str] = PROMPTS, others: Sequence[str] = OTHERS) -> tuple[Batch, Batch]:
    clean, other = (encode(model, some, ANSWERS[: len(some)]) for some in (prompts, others))
    return clean, other


def answers(clean: Batch) -> Callable[[int, Tensor], Tensor]:
    return lambda row, logits: logprob(single(clean, row)[1], logits)


def check_against_plain_hooks(model: Model) -> None:
    """Check every part, with prompts and answers of unequal length and a pair that differs in length."""
    clean, other = both(model)
    sites = some_sites(model)
    found = sweep(model, clean, sites, Intervention(other=other), metric=answers(clean))
    base = np.array([plain(model, *single(clean, row), []) for row in range(3)])
    wanted = np.array([[patched(model, clean, other, site, row) for site in sites] for row in range(3)])
    assert np.abs(found.base - base).max() < 1e-9
    assert np.abs(found.values - wanted).max() < 1e-9
    assert np.abs(found.falls - (base[:, None] - wanted)).max() < 1e-9
    effect = np.abs(wanted - base[:, None]).max(0) > 1e-4
    silent = [s.part for s, there in zip(sites, effect, strict=True) if not there]
    relu = model.anatomy.mlp == "fc2"  # OPT's neurons may be silent
    assert set(silent) <= ({"neuron"} if relu else set()), "a site without effect tests nothing"
    assert len(silent) < len(sites) / 8


def test_patching_agrees_with_plain_hooks(tiny: Callable[[str], Model], architecture: str) -> None:
    check_against_plain_hooks(tiny(architecture))


@pytest.mark.parametrize("name", ["MistralForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM", "Phi3ForCausalLM"])
def test_patching_works_in_sliding_windows(tiny: Callable[[str], Model], name: str) -> None:
    model = tiny(name)
    clean, _ = both(model)
    wide = plain(model, *single(clean, 1), [])
    model.hf.config.sliding_window = 3
    assert abs(plain(model, *single(clean, 1), []) - wide) > 1e-3
    check_against_plain_hooks(model)


@pytest.mark.parametrize("name", ["LlamaForCausalLM", "Gemma2ForCausalLM"])
def test_patching_works_with_eager_attention(tiny: Callable[[str], Model], name: str) -> None:
    model = tiny(name)
    model.hf.config._attn_implementation = "eager"
    check_against_plain_hooks(model)


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "GPTNeoXForCausalLM", "Gemma2ForCausalLM"])
def test_one_position_at_a_time(tiny: Callable[[str], Model], name: str) -> None:
    model = tiny(name)
    clean, other = both(model, PROMPTS[:2], OTHERS[:2])
    sites = some_sites(model, ["resid", "head", "mlp", "kv"])
    found = sweep(model, clean, sites, Intervention(other=other), metric=answers(clean), positions="all")
    assert found.positions == tuple(range(-8, 0))
    wanted = np.full(found.values.shape, np.nan)
    for row, length in enumerate((6, 8)):
        for i, site in enumerate(sites):
            wanted[row, i, -length:] = [patched(model, clean, other, site, row, at) for at in range(-length, 0)]
    assert np.array_equal(np.isnan(found.values), np.isnan(wanted))
    assert np.nanmax(np.abs(found.values - wanted)) < 1e-9
    some = sweep(model, clean, sites, Intervention(other=other), metric=answers(clean), positions=[-1, -3])
    assert np.array_equal(some.values, found.values[:, :, [-1, -3]])


@pytest.mark.parametrize("name", ["Qwen3ForCausalLM", "Olmo2ForCausalLM"])
def test_ablations(tiny: Callable[[str], Model], name: str) -> None:
    model = tiny(name)
    clean, other = both(model)
    sites = some_sites(model, ["attn", "head", "neuron", "v"])

    def mean(tap: Tap) -> Tensor:
        """The mean over all tokens that run: all but the last of each row."""
        seen = torch.cat([activation(model, single(other, row)[0], tap)[:-1] for row in range(3)])
        return seen.mean(0).expand(20, -1)

    def zero(tap: Tap) -> Tensor:
        return torch.zeros_like(mean(tap))

    for kind, source in (("zero", zero), ("mean", mean)):
        put = Intervention(kind, other)  # type: ignore[arg-type]
        found = sweep(model, clean, sites, put, metric=answers(clean))
        wanted = [[one_by_one(model, clean, site, row, source) for site in sites] for row in range(3)]
        assert np.abs(found.values - np.array(wanted)).max() < 1e-9
    found = sweep(model, clean, sites, Intervention("resample", other), metric=answers(clean))
    for row in range(3):
        one = Batch(*(t[[row]] for t in (clean.ids, clean.mask, clean.positions, clean.labels)))
        drawn = []
        for at in {0, 1, 2} - {row}:
            ids = single(other, at)[0]
            drawn.append(
                [one_by_one(model, one, s, 0, lambda tap, ids=ids: activation(model, ids, tap)) for s in sites]
            )
        assert min(np.abs(found.values[row] - wanted).max() for wanted in drawn) < 1e-9


def test_noise_has_its_scale(llama: Model) -> None:
    clean, _ = both(llama)
    put = PromptDifferences(llama, clean, Intervention("noise", seed=1, scale=2.0))
    place: tuple[Any, int] = ("mlp", 1)
    runs = [trace(llama, prompt(clean, row), [place]) for row in range(3)]
    std = torch.cat([run.activations[place][0] for run in runs]).std(0, correction=0)
    drawn = torch.cat([put.compute(row, run)[place][0] for row, run in enumerate(runs)]) / std
    assert drawn.std().item() == pytest.approx(2.0, rel=0.1)
    assert abs(drawn.mean().item()) < 0.3
    sites = some_sites(llama, ["mlp", "head"])

    def noisy(seed: int) -> np.ndarray:
        return sweep(llama, clean, sites, Intervention("noise", seed=seed), metric=answers(clean)).falls

    assert np.array_equal(noisy(1), noisy(1))
    assert np.abs(noisy(1) - noisy(2)).min() > 1e-6


def test_the_batch_size_makes_no_difference(llama: Model) -> None:
    clean, other = both(llama)
    sites = some_sites(llama)
    seen: list[tuple[int, int]] = []
    whole = sweep(llama, clean, sites, Intervention(other=other), metric=answers(clean))
    single = sweep(
        llama, clean, sites, Intervention(other=other), metric=answers(clean), budget=SweepBudget(rows=1),
        progress=lambda *step: seen.append(step),
    )  # fmt: skip
    assert np.abs(whole.values - single.values).max() < 1e-12
    assert seen == [(i + 1, 3 * len(sites)) for i in range(3 * len(sites))]
    put, budget = Intervention(other=other), SweepBudget(memory=2e5)
    small = sweep(llama, clean, sites, put, metric=answers(clean), budget=budget)
    assert np.abs(whole.values - small.values).max() < 1e-12


@pytest.mark.parametrize("name", ["LlamaForCausalLM", "GPT2LMHeadModel"])
def test_single_precision_differs_by_rounding_alone(tiny: Callable[[str], Model], name: str) -> None:
    model = tiny(name)
    clean, other = both(model)
    sites = some_sites(model)
    exact = sweep(model, clean, sites, Intervention(other=other), metric=answers(clean)).values
    model.hf.float()
    rounded = sweep(model, clean, sites, Intervention(other=other), metric=answers(clean)).values
    assert 0 < np.abs(rounded - exact).max() < 1e-4


def test_an_interrupted_sweep_resumes(llama: Model, tmp_path: Path) -> None:
    clean, other = both(llama)
    sites = some_sites(llama)
    put, budget = Intervention(other=other), SweepBudget(rows=10, checkpoint=tmp_path / "sweep.safetensors")
    whole = sweep(llama, clean, sites, put, metric=answers(clean), budget=SweepBudget(rows=10))

    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(llama, clean, sites, put, metric=answers(clean), progress=stop, budget=budget)
    assert not any("forward" in module.__dict__ for module in llama.hf.modules())
    run: list[int] = []

    def counted(row: int, logits: Tensor) -> Tensor:
        run.append(len(logits))
        return answers(clean)(row, logits)

    again = sweep(llama, clean, sites, put, metric=counted, budget=budget)
    assert np.array_equal(again.values, whole.values)
    assert 3 < sum(run) < 3 * len(sites) / 2 + 3
    run.clear()
    assert np.array_equal(sweep(llama, clean, sites, put, metric=counted, budget=budget).values, whole.values)
    assert run == [1, 1, 1], "only each prompt's own metric should run"
    with pytest.raises(UserError, match="is the checkpoint of another sweep; name another file"):
        sweep(llama, clean, sites[1:], put, metric=answers(clean), budget=budget)
    with pytest.raises(UserError, match="is the checkpoint of a sweep with another metric"):
        sweep(llama, clean, sites, put, metric=lambda row, logits: logits[:, 0, 0], budget=budget)
    (tmp_path / "sweep.safetensors").write_bytes(b"junk")
    with pytest.raises(UserError, match="cannot be read as a sweep's checkpoint"):
        sweep(llama, clean, sites, put, metric=answers(clean), budget=budget)


def test_the_model_is_restored_after_an_error(llama: Model) -> None:
    clean, other = both(llama)
    before, attention = llama.digest(), llama.hf.config._attn_implementation
    base = plain(llama, *single(clean, 0), [])

    def broken(row: int, logits: Tensor) -> Tensor:
        if len(logits) > 1:
            raise RuntimeError
        return logits[:, 0, 0]

    with pytest.raises(RuntimeError):
        sweep(llama, clean, some_sites(llama), Intervention(other=other), metric=broken)
    assert plain(llama, *single(clean, 0), []) == base
    assert (llama.digest(), llama.hf.config._attn_implementation) == (before, attention)
    assert not any("forward" in m.__dict__ or m._forward_hooks or m._forward_pre_hooks for m in llama.hf.modules())


def test_invalid_arguments_are_refused(llama: Model) -> None:
    clean, other = both(llama)
    sites = [Site(1, "head", 0)]
    cases: list[tuple[str, dict[str, Any]]] = [
        (r"L1.head.9 is not in LlamaForCausalLM: a layer's heads are 0 to 3", {"sites": [Site(1, "head", 9)]}),
        ("at least one site", {"sites": []}),
        ("rows=0 is not a batch size", {"budget": SweepBudget(rows=0)}),
        ("'wish' is not an intervention; choose one of patch, zero", {"intervention": Intervention("wish", other)}),
        ("patching needs a counterfactual prompt for each prompt", {"intervention": Intervention()}),
        (
            "'the sea at night is red' has 6 tokens and its counterfactual 'the red house is red' 5",
            {"clean": other, "intervention": Intervention(other=clean), "positions": [-1]},
        ),
        (
            "position -9 is not in any prompt: positions count from the end, -8 to -1 here",
            {"positions": [-9], "intervention": Intervention("zero")},
        ),
        (
            r"a row of this sweep takes about 0\.\d+ MiB, and the memory given or free is 9\.54e-05 MiB",
            {"budget": SweepBudget(memory=100)},
        ),
    ]
    for message, given in cases:
        put = Intervention(other=other)
        options = {"clean": clean, "sites": sites, "intervention": put, "metric": answers(clean)} | given
        with pytest.raises(UserError, match=message):
            sweep(llama, **options)


def test_half_precision_is_swept_in_single_precision(llama: Model) -> None:
    clean, other = both(llama)
    found = []
    for dtype in (torch.float16, torch.float32):  # the second has the rounded weights of the first
        llama.hf.to(dtype)
        found.append(sweep(llama, clean, llama.sites("head"), Intervention(other=other), metric=answers(clean)))
        assert llama.dtype == dtype
    np.testing.assert_array_equal(found[0].values, found[1].values)
    assert np.abs(found[0].falls).max() > 0
