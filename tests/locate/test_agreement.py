"""Each attribution agrees with what it approximates: exact patching, zeroing, or exact queries and keys."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from loka import locate
from loka._util.errors import UserError
from loka.knowledge import Case
from loka.locate.atp_star import atp_star_scores
from loka.locate.attribution import attribution_scores, gradient_products, hook_points
from loka.locate.counterfactual import Pairs, log_odds, pairs
from loka.locate.direct_logit import direct_logit_scores
from loka.locate.integrated_gradients import integrated_gradients_scores
from loka.locate.integration import integration_points
from loka.locate.knowledge_neurons import answer_probability_scores
from loka.model import Model, Site, logits, token_logprobs
from loka.model.layout import neuron_output
from loka.model.run.hooks import Hook, point, record, run


def rank(a: np.ndarray, b: np.ndarray) -> float:
    return float(stats.spearmanr(a.reshape(-1), b.reshape(-1)).statistic)


def level(model: Model, case: Case) -> Pairs:
    short = [f for f in case.forget.working if len(f.answer.split()) == 1 and f.prompt.startswith("the capital")]
    return pairs(model, case, short[:3])


@pytest.mark.parametrize(
    ("part", "floors"),
    # the model saturates: its gradient at the clean prompt says little about heads, and more about neurons
    [
        ("head", {attribution_scores: 0.4, integrated_gradients_scores: 0.8}),
        ("neuron", {attribution_scores: 0.5, atp_star_scores: 0.5, integrated_gradients_scores: 0.6}),
    ],
)
def test_rank_agreement_with_exact_patching(planted: Model, planted_case: Case, part: str, floors: dict) -> None:
    case = planted_case.on(planted)
    facts = case.forget.working[:4]
    sites = [Site(layer, part, i) for layer in range(4) for i in range(planted.units(part))]
    exact = locate.patching(planted, case, sites, facts=facts).mean(0)
    strong = np.argsort(-np.abs(exact))[:100]
    found = {raw: raw(planted, pairs(planted, case, facts), (part,))[0][part].mean(0).reshape(-1) for raw in floors}
    agreement = {raw: rank(scores[strong], exact[strong]) for raw, scores in found.items()}
    for raw, floor in floors.items():
        assert agreement[raw] > floor, raw
    assert agreement[integrated_gradients_scores] >= agreement[attribution_scores]
    in_size = {raw: np.corrcoef(scores, exact)[0, 1] for raw, scores in found.items()}
    assert in_size[integrated_gradients_scores] > in_size[attribution_scores]
    assert abs(rank(np.roll(found[integrated_gradients_scores], 7)[strong], exact[strong])) < 0.5


def test_integrals_add_up_to_zeroing_the_layer(fresh: Model, planted_case: Case) -> None:
    """In float64: completeness, more closely with more steps; and rank agreement with single neurons' exact effects."""
    model = fresh
    model.hf.double()
    case = planted_case.on(model)
    batch = pairs(model, case, case.forget.working[:3]).clean  # answers of one and of two tokens
    both = pairs(model, case, case.forget.working[:3])
    asked = torch.zeros_like(batch.mask, dtype=torch.bool)
    asked[:, -batch.keep - 1 : -1] = batch.labels >= 0

    def fall(layer: int, units: list[int] | slice) -> np.ndarray:
        def silence(_: torch.nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor]:
            x = given[0].clone()
            x[..., units] *= ~asked[..., None]
            return (x,)

        handle = neuron_output(model, layer).register_forward_pre_hook(silence)
        with torch.no_grad():
            after = token_logprobs(logits(model, batch), batch.labels).sum(-1).exp()
        handle.remove()
        return before - after.numpy()

    scores, before = answer_probability_scores(model, both)
    fine, _ = answer_probability_scores(model, both, steps=160)
    wanted = np.stack([fall(layer, slice(None)) for layer in range(4)], 1)
    assert before.min() > 0.5
    assert np.abs(wanted).max() > 0.3
    errors = [np.abs(s["neuron"].sum(-1) - wanted).max() for s in (scores, fine)]
    assert errors[1] < 1e-3
    assert errors[1] < errors[0] < 0.05
    exact = np.stack([fall(layer, [i]) for layer in range(4) for i in range(model.n_neurons)], 1).mean(0)
    assert rank(scores["neuron"].mean(0), exact) > 0.4
    assert np.corrcoef(scores["neuron"].mean(0).reshape(-1), exact)[0, 1] > 0.5


def patched(model: Model, both: Pairs, parts: str) -> np.ndarray:
    """How far log-odds fall with one unit's queries, keys or values from the other prompt, `[row, layer, unit]`."""
    other = record(model, both.corrupted, hook_points(model, parts)).activations
    seen = (both.clean.mask * both.corrupted.mask).bool()

    def put(name: str, unit: int) -> Hook:
        def hook(value: Tensor) -> Tensor:
            value = value.clone()
            value[:, :, unit][seen] = other[name][:, :, unit][seen]
            return value

        return hook

    with torch.no_grad():
        before = log_odds(run(model, both.clean, []), both)

        def fall(layer: int, unit: int) -> np.ndarray:
            hooks = [(point(part, layer), put(point(part, layer), unit)) for part in parts]
            return (before - log_odds(run(model, both.clean, hooks), both)).numpy()

        units = range(next(iter(other.values())).shape[2])
        falls = [[fall(layer, unit) for unit in units] for layer in range(model.n_layers)]
    return np.array(falls).transpose(2, 0, 1)


def test_queries_and_keys_of_saturated_attention(tiny: Callable[[str], Model], planted_case: Case) -> None:
    """Where attention is so sharp that its softmax hardly moves, the plain gradient misses other queries' effect."""
    model = tiny("LlamaForCausalLM")
    with torch.no_grad():
        for layer in range(3):
            block = model.hf.get_submodule(model.block(layer))
            block.self_attn.q_proj.weight.mul_(8)
            block.self_attn.o_proj.weight.mul_(0.05)  # so the rest of the model is nearly linear
            block.mlp.down_proj.weight.mul_(0.05)
    both = level(model, planted_case.whole())
    corrected = locate.query_key_scores(model, both)
    names = hook_points(model, "qk")
    base = record(model, both.clean, names, grad=True)
    other = record(model, both.corrupted, names).activations
    with torch.enable_grad():
        odds = log_odds(base.logits, both)
        grads = torch.autograd.grad(odds.sum(), [base.activations[n] for n in names])
    way = {n: base.activations[n].detach() - other[n] for n in names}
    plain = gradient_products(model, "qk", way, dict(zip(names, grads, strict=True)), both)
    for part in "qk":
        exact = patched(model, both, part)
        assert np.abs(exact).max() > 0.1
        errors = [np.abs(scores[part] - exact).mean() / np.abs(exact).mean() for scores in (corrected, plain)]
        assert errors[0] < 0.5 < errors[1]
        assert rank(corrected[part], exact) > 0.8 > rank(plain[part], exact)
    groups, exact = atp_star_scores(model, both, ("kv",))[0]["kv"], patched(model, both, "kv")
    assert rank(groups, exact) > 0.8


def test_other_queries_and_keys_change_attention_exactly(
    tiny: Callable[[str], Model], planted_case: Case, architecture: str
) -> None:
    """A score is the slope of moving a head's attention to the attention with that head's other query, or key."""
    model = tiny(architecture)
    both = level(model, planted_case.whole())
    scores = locate.query_key_scores(model, both)
    layer, group = 1, model.n_heads // model.n_kv_heads
    where, output, values = (point(part, layer) for part in ("pattern", "head", "v"))
    before = record(model, both.clean, [where, values]).activations
    clean, value_of = before[where], before[values].repeat_interleave(group, 2)
    for part in "qk":
        name = point(part, layer)
        other = record(model, both.corrupted, [name]).activations[name]
        for unit in range(model.units("head" if part == "q" else "kv")):
            units = slice(None) if architecture == "Olmo2ForCausalLM" else unit  # its norm spans the heads

            def put(value: Tensor, units: slice | int = units, other: Tensor = other) -> Tensor:
                value = value.clone()
                value[:, :, units] = other[:, :, units]
                return value

            moved = record(model, both.clean, [where], hooks=[(name, put)]).activations[where]
            heads = [unit] if part == "q" else list(range(unit * group, (unit + 1) * group))
            way = torch.zeros_like(clean)
            way[:, heads] = (moved - clean)[:, heads]

            step = torch.einsum("rhqk,rkhd->rqhd", way, value_of)  # some bridges only show the pattern

            def odds(size: float, step: Tensor = step) -> Tensor:
                with torch.no_grad():
                    return log_odds(run(model, both.clean, [(output, lambda value: value + size * step)]), both)

            slope = (odds(-1e-3) - odds(1e-3)) / 2e-3
            np.testing.assert_allclose(scores[part][:, layer, unit], slope.numpy(), rtol=2e-2, atol=3e-3)
    assert np.abs(scores["q"][:, layer]).max() > 0.01


def test_gradient_drop(tiny: Callable[[str], Model], planted_case: Case, architecture: str) -> None:
    """The scores equal those of models in which a detached layer lets no gradient through, one layer at a time."""
    model = tiny(architecture)
    both = level(model, planted_case.whole())
    parts = ["neuron", "head", "v", "pattern"]
    names = hook_points(model, parts)
    other = record(model, both.corrupted, hook_points(model, [*parts, "k"])).activations
    runs = []
    for layer in range(3):
        cut = [(point(part, layer), lambda value: value.detach()) for part in ("attn", "mlp")]
        with torch.enable_grad():
            base = record(model, both.clean, names, grad=True, hooks=cut)
            acts = [base.activations[n] for n in names]
            grads = torch.autograd.grad(log_odds(base.logits, both).sum(), acts, allow_unused=True)
        filled = {n: torch.zeros_like(a) if g is None else g for n, a, g in zip(names, acts, grads, strict=True)}
        way = {n: a.detach() - other[n] for n, a in zip(names, acts, strict=True)}
        found = gradient_products(model, ["neuron", "head", "v"], way, filled, both)
        keys = []
        for at in range(3):
            where, key = point("pattern", at), other[point("k", at)]
            moved = record(model, both.clean, [where], hooks=[(point("k", at), lambda _, key=key: key)])
            fall = (base.activations[where].detach() - moved.activations[where]) * filled[where]
            keys.append(fall.sum((-1, -2)).reshape(3, model.n_kv_heads, -1).sum(-1).numpy())
        runs.append(found | {"kv": found["v"] + np.stack(keys, 1)})
    scores, _ = atp_star_scores(model, both)
    for part in ("neuron", "head", "kv"):
        each = np.stack([r[part] for r in runs])
        np.testing.assert_allclose(np.abs(scores[part]), np.abs(each).sum(0) / 2, rtol=1e-5, atol=1e-6)
        clear = np.abs(each.sum(0)) > 1e-5
        assert (np.sign(scores[part]) == np.sign(each.sum(0)))[clear].all()


def test_direct_effects_add_up_to_the_log_odds(
    tiny: Callable[[str], Model], planted_case: Case, architecture: str
) -> None:
    """With the final norm and the unembedding written out, attention, MLPs and the embedding sum to the log-odds."""
    model = tiny(architecture)
    model.hf.config.final_logit_softcapping = None  # Gemma2's capped logits are not a sum
    both = level(model, planted_case.whole())
    scores, odds = direct_logit_scores(model, both, ("head", "neuron", "attn", "mlp"))
    hf, n = model.hf, len(both.clean.ids)
    norm = hf.get_submodule(model.block(0).rsplit(".", 2)[0])
    norm = [m for name, m in norm.named_children() if "norm" in name or name == "ln_f"][-1]
    output = hf.get_output_embeddings()
    scale = getattr(hf.config, "logit_scale", 1.0) / getattr(hf.config, "logits_scaling", 1.0)
    head, shift = scale * output.weight, getattr(output, "bias", None)
    foils = both.foils[:, :, 1]
    assert (foils >= 0).all()
    toward = head[both.clean.labels[:, -1]] - head[foils].mean(1)
    with torch.no_grad():
        states = hf(**both.clean.inputs(), output_hidden_states=True).hidden_states
        final = record(model, both.clean, ["ln_final.hook_in"]).activations["ln_final.hook_in"][:, -2]
        first = states[0][:, -2]

    def normed(x: Tensor) -> Tensor:
        """With the scale of the final state."""
        centred = "LayerNorm" in type(norm).__name__
        eps = getattr(norm, "eps", None) or norm.variance_epsilon
        weight = norm.weight + ("Gemma" in architecture)
        y, z = ((t - t.mean(-1, keepdim=True) if centred else t) for t in (x, final))
        return weight * y / (z.pow(2).mean(-1, keepdim=True) + eps).sqrt()

    given = (normed(first) * toward).sum(-1)
    if getattr(norm, "bias", None) is not None:
        given = given + toward @ norm.bias
    if shift is not None:
        given = given + shift[both.clean.labels[:, -1]] - shift[foils].mean(1)
    total = scores["attn"].sum((1, 2)) + scores["mlp"].sum((1, 2)) + given.detach().numpy()
    assert total.shape == (n,)
    np.testing.assert_allclose(total, odds, rtol=1e-5, atol=1e-5)
    assert np.abs(odds).max() > 0.1
    if not any(n.endswith(".bias") and "norm" not in n and "ln" not in n for n in model.parameters):
        # without biases, a module is the sum of its units
        np.testing.assert_allclose(scores["head"].sum(-1), scores["attn"][..., 0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(scores["neuron"].sum(-1), scores["mlp"][..., 0], rtol=1e-5, atol=1e-5)


def test_knowledge_neurons(fresh: Model, planted_case: Case) -> None:
    """Prompts about one fact share neurons, and suppressing these costs more than suppressing random ones."""
    model = fresh
    case = planted_case.on(model)
    fact = case.forget.working[0]
    maps = [neuron_output(model, layer) for layer in range(4)]
    prompts = [fact.prompt, *(p for p in fact.paraphrases)][:3]
    assert len(prompts) > 1
    ids = [torch.tensor(model.tokenizer(p)["input_ids"]) for p in prompts]
    target = model.tokenizer(fact.answer)["input_ids"]
    scores = [locate.knowledge_neuron_scores(model.hf, maps, row, target) for row in ids]
    coarse = [locate.coarse_neurons(s, percentile=97) for s in scores]
    refined = locate.refined_neurons(coarse, share=0.7)
    assert refined
    assert set(refined) <= set(coarse[0])
    assert locate.refined_neurons(coarse, negative=[refined]) == []

    def probability() -> float:
        full = torch.cat([ids[0], torch.tensor(target[:-1], dtype=torch.long)])
        with torch.no_grad():
            p = model.hf(full[None]).logits[0, len(ids[0]) - 1 :].softmax(-1)
        return float(p[range(len(target)), target].prod())

    before = probability()
    with locate.scaled_neurons(maps, refined, factor=0):
        silent = probability()
    rest = locate.random_sites(model, refined)
    with locate.scaled_neurons(maps, rest, factor=0):
        random = probability()
    assert probability() == before
    assert silent < 0.8 * before
    assert before - silent > 20 * abs(before - random)


def test_rules_of_integration() -> None:
    assert integration_points(2) == [0.25, 0.75]
    assert integration_points(2, "left") == [0, 0.5]
    assert integration_points(2, "right") == [0.5, 1]
    assert integration_points(3, "ends") == [0, 0.5, 1]
    with pytest.raises(UserError, match="at least one step, not 0"):
        integration_points(0)
    with pytest.raises(UserError, match="'simpson' is not a rule"):
        integration_points(2, "simpson")
    with pytest.raises(UserError, match="takes one limit"):
        locate.coarse_neurons(np.zeros((2, 2)))
    with pytest.raises(UserError, match="cannot be exceeded"):
        locate.refined_neurons([], share=1.0)
    with pytest.raises(UserError, match="one token for a mask"):
        locate.knowledge_neuron_scores(torch.nn.Identity(), [], torch.tensor([1]), [1, 2], position=0)
