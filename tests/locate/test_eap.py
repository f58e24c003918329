"""Edge scores match exact patching, add up to node scores, and are complete when integrated."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from loka import locate
from loka._util.errors import UserError
from loka.knowledge import Case
from loka.locate.counterfactual import Pairs, log_odds, pairs
from loka.model import Batch, Model, encode
from loka.model.run.hooks import point, record, run
from loka.model.run.wiring import points, source_points, source_writes, target_gradients, wiring


def prompts(model: Model) -> tuple[Batch, Batch]:
    clean, other = (encode(model, [f"the capital of {x} is"] * 2, ["warm bread", "a dog"]) for x in ("a", "the"))
    return clean, other


def answer(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.log_softmax(-1).gather(-1, labels[..., None])[..., 0].sum(-1)


def test_the_edges_that_leave_a_node_add_up_to_its_effect(tiny: Callable[[str], Model], architecture: str) -> None:
    """By the chain rule, a source's edges sum to the derivative with respect to it, on every architecture."""
    model = tiny(architecture)
    wires = wiring(model)
    batch, _ = prompts(model)
    with torch.enable_grad():
        found = record(model, batch, points(model), grad=True)
        odds = answer(found.logits, batch.labels)
        generator = torch.Generator().manual_seed(0)
        names = source_points(model)
        shapes = {n: found.activations[n].shape for n in names}
        way = {
            n: torch.randn(shape, generator=generator, dtype=torch.float64).to(model.device)
            for n, shape in shapes.items()
        }
        grads = torch.autograd.grad(odds.sum(), [found.activations[n] for n in names], retain_graph=True)
        changes = source_writes(model, found, way)
        edges = torch.cat(
            [torch.einsum("rpsd,trpd->rst", changes, g) for _, g in target_gradients(model, found, odds)], -1
        )
    products = [(g * way[n]).sum(1) for n, g in zip(names, grads, strict=True)]
    wanted = torch.cat([p.sum(-1) if p.ndim == 3 else p.sum(-1, keepdim=True) for p in products], 1)
    got = locate.node_scores(model, edges)
    assert got.shape == (2, len(wires.sources))
    assert wanted.abs().min() > 1e-6
    torch.testing.assert_close(
        got, wanted, rtol=1e-5, atol=1e-4
    )  # the models compute norms and angles in single precision


def test_keys_and_values_are_shared_where_the_model_shares_them(tiny: Callable[[str], Model]) -> None:
    plain, grouped, beside = (wiring(tiny(a)) for a in ("GPT2LMHeadModel", "Qwen2ForCausalLM", "GPTNeoXForCausalLM"))
    assert "a1.h3<k>" in plain.targets
    assert [t for t in grouped.targets if t.startswith("a1") and "<v>" in t] == ["a1.kv0<v>", "a1.kv1<v>"]
    for wires, reads in ((plain, True), (grouped, True), (beside, False)):
        assert wires.real[wires.sources.index("a1.h0"), wires.targets.index("m1")] == reads
        assert wires.parallel != reads
        assert not wires.real[wires.sources.index("m1"), wires.targets.index("a1.h0<q>")]
        assert wires.real[:, -1].all()


def test_an_edge_is_the_slope_of_patching_it(tiny: Callable[[str], Model], architecture: str) -> None:
    model = tiny(architecture)
    clean, corrupted = prompts(model)

    def metric(logits: Tensor) -> Tensor:
        return answer(logits, clean.labels)

    shared = "h" if wiring(model).targets.count("a2.h0<k>") else "kv"
    edges = [
        locate.Edge(*pair)
        for pair in [("input", "a0.h1<q>"), ("a0.h2", f"a2.{shared}1<k>"), ("m0", f"a1.{shared}0<v>"), ("a1.h3", "m2"),
                     ("input", "m1"), ("a0.h0", "logits"), ("m2", "logits")]
    ]  # fmt: skip
    # a baseline that is one small step away from the clean run in what the sources write
    acts = record(model, clean, source_points(model)).activations
    other = record(model, corrupted, list(acts)).activations
    size = 1e-3
    near, far = ({n: acts[n] + s * (other[n] - acts[n]) for n in acts} for s in (size, -size))
    falls = [locate.edge_patching(model, clean, b, metric, edges=edges) for b in (near, far)]
    slope = (falls[0] - falls[1]) / (2 * size)
    scores = locate.eap_scores(model, clean, corrupted, metric)
    assert scores.dtype == torch.float64
    assert scores.isfinite().all()
    wires = wiring(model)
    got = torch.stack([scores[:, wires.sources.index(e.source), wires.targets.index(e.target)] for e in edges], 1)
    assert slope.abs().max() > 1e-3
    torch.testing.assert_close(got, slope, rtol=2e-2, atol=2e-3)


@pytest.fixture
def doubled(fresh: Model) -> Model:
    fresh.hf.double()
    return fresh


def equal(model: Model, case: Case) -> Pairs:
    known = case.on(model)
    facts = [f for f in known.forget.working if len(f.answer.split()) == 1 and f.prompt.startswith("the capital")][:3]
    found = pairs(model, known, facts)
    assert found.clean.mask.all()
    assert found.corrupted.mask.all()
    return found


def test_integrals_are_complete(doubled: Model, planted_case: Case) -> None:
    """On inputs, the input's edges add up to the whole fall; on activations, a layer's edges to patching the layer."""
    both = equal(doubled, planted_case)

    def metric(logits: Tensor) -> Tensor:
        return log_odds(logits, both)

    with torch.no_grad():
        before = metric(run(doubled, both.clean, []))
        fall = before - metric(run(doubled, both.corrupted, []))
    assert fall.min() > 3

    def left(on: str, steps: int, **given: str) -> Tensor:
        scores = locate.eap_ig_scores(doubled, both.clean, both.corrupted, metric, on=on, steps=steps, **given)
        return locate.node_scores(doubled, scores)

    errors = [float((left("inputs", n)[:, 0] - fall).abs().max()) for n in (8, 64)]
    assert errors[1] < 0.02 * float(fall.min())
    assert errors[1] < errors[0]
    # a single gradient at the clean prompt misses the fall
    plain = locate.node_scores(doubled, locate.eap_scores(doubled, both.clean, both.corrupted, metric))[:, 0]
    assert float((plain - fall).abs().max()) > 5 * errors[1]

    heads = locate.node_scores(doubled, locate.eap_ig_scores(
        doubled, both.clean, both.corrupted, metric, on="activations", steps=16))  # fmt: skip
    wires = wiring(doubled)
    for layer in (0, 2):
        for part, nodes in (("head", f"a{layer}."), ("mlp", f"m{layer}")):
            name = point(part, layer)
            other = record(doubled, both.corrupted, [name]).activations[name]
            with torch.no_grad():
                wanted = before - metric(run(doubled, both.clean, [(name, lambda _, other=other: other)]))
            mine = [i for i, s in enumerate(wires.sources) if s.startswith(nodes)]
            torch.testing.assert_close(heads[:, mine].sum(1), wanted, rtol=0.02, atol=0.02)


def test_edges_agree_with_exact_patching(doubled: Model, planted_case: Case) -> None:
    both = equal(doubled, planted_case)

    def metric(logits: Tensor) -> Tensor:
        return log_odds(logits, both)

    wires = wiring(doubled)
    edges = [locate.Edge(wires.sources[i], wires.targets[j]) for i, j in zip(*wires.real.nonzero(), strict=True)]
    exact = locate.edge_patching(doubled, both.clean, both.corrupted, metric, edges=edges).mean(0).cpu()
    assert len(edges) > 300

    strong = exact.abs().argsort(descending=True)[:60]

    def rank(scores: Tensor, some: Tensor | slice = slice(None)) -> float:
        return float(stats.spearmanr(scores.mean(0).cpu()[torch.tensor(wires.real)][some], exact[some]).statistic)

    plain = locate.eap_scores(doubled, both.clean, both.corrupted, metric)
    inputs, activations = (
        locate.eap_ig_scores(doubled, both.clean, both.corrupted, metric, on=on) for on in ("inputs", "activations")
    )
    # the single gradient ranks the many weak edges best; integrals rank the strong edges best
    assert rank(plain) > 0.6
    assert rank(activations) > 0.5
    assert rank(plain, strong) > 0.5
    assert min(rank(inputs, strong), rank(activations, strong)) > 0.7
    assert abs(rank(plain.roll(7, -1), strong)) < 0.3  # other edges' scores do not agree


def test_patching_every_edge_into_the_logits_is_patching_what_they_read(tiny: Callable[[str], Model]) -> None:
    model = tiny("LlamaForCausalLM")
    clean, corrupted = prompts(model)

    def metric(logits: Tensor) -> Tensor:
        return logits[:, 0, 5]

    name = point("mlp", 2)
    other = record(model, corrupted, [name]).activations[name]
    with torch.no_grad():
        wanted = metric(run(model, clean, [])) - metric(run(model, clean, [(name, lambda _: other)]))
    found = locate.edge_patching(model, clean, corrupted, metric, edges=[locate.Edge("m2", "logits")])
    torch.testing.assert_close(found[:, 0], wanted)
    with pytest.raises(UserError, match=r"no edge m2->m1 in"):
        locate.edge_patching(model, clean, corrupted, metric, edges=[locate.Edge("m2", "m1")])
    with pytest.raises(UserError, match=r"a9\.h0->m1 is not an edge of"):
        locate.edge_patching(model, clean, corrupted, metric, edges=[locate.Edge("a9.h0", "m1")])


def test_baselines(tiny: Callable[[str], Model]) -> None:
    """A node's score is its output minus zero, or minus its mean over the prompts, times the gradient."""
    model = tiny("GPT2LMHeadModel")
    clean, _ = prompts(model)
    zero, mean = locate.zeros(model), locate.means(model, clean)
    name = point("mlp", 1)
    acts = record(model, clean, [name]).activations[name]
    assert zero[name] == 0
    n = int(clean.mask[0].sum() - clean.keep)
    both = torch.cat([row[mask.bool()][: n + clean.keep - int((labels >= 0).sum())]
                      for row, mask, labels in zip(acts, clean.mask, clean.labels, strict=True)])  # fmt: skip
    torch.testing.assert_close(mean[name], both.mean(0))

    def metric(logits: Tensor) -> Tensor:
        return answer(logits, clean.labels)

    with torch.enable_grad():
        found = record(model, clean, [name], grad=True)
        grad = torch.autograd.grad(metric(found.logits).sum(), found.activations[name])[0]
    at = wiring(model).sources.index("m1")
    for baseline, instead in ((zero, 0), (mean, mean[name])):
        got = locate.node_scores(model, locate.eap_scores(model, clean, baseline, metric))[:, at]
        torch.testing.assert_close(got, ((acts - instead) * grad).sum((1, 2)))


@pytest.mark.parametrize("intervention", ["zero", "mean"])
def test_circuits_without_counterfactuals(planted: Model, planted_case: Case, intervention: str) -> None:
    found = locate.eap(planted, planted_case, intervention=intervention, rows=8)
    other = locate.eap(planted, planted_case, intervention=intervention, rows=5)
    assert found.record.settings["intervention"] == intervention
    assert found.frame["score"].notna().all()
    np.testing.assert_allclose(found.frame["raw"], other.frame["raw"], atol=2e-4)
    assert found.frame["raw"].abs().max() > 0.1


@pytest.mark.parametrize("how", ["eap", "eap_ig"])
def test_a_circuit_of_planted_facts(planted: Model, planted_case: Case, how: str) -> None:
    found = getattr(locate, how)(planted, planted_case, rows=8)
    wires = wiring(planted)
    assert len(found.frame) == wires.real.sum()
    assert found.frame[["score", "low", "high", "forget", "retain", "raw"]].notna().all().all()
    assert np.isnan(found.grid()[~wires.real]).all()
    best = found.top(3, by="forget")
    assert str(best[0]) == f"{best[0].source}->{best[0].target}"
    assert found.grid("forget")[wires.sources.index(best[0].source), wires.targets.index(best[0].target)] == (
        found.frame["forget"].max()
    )
    share = found.nodes("forget")["input"]  # the share of a fact's whole effect, which starts at the input
    assert (
        (abs(share - 1) < 0.1) if how == "eap_ig" else share < 0.5
    )  # the single gradient saturates at the clean prompt
    with pytest.raises(UserError, match="ask for 1 to"):
        found.top(10**6)


def test_an_unknown_intervention(planted: Model, planted_case: Case) -> None:
    with pytest.raises(UserError, match="'noise' is not an intervention; choose one of patching, zero, mean"):
        locate.eap(planted, planted_case, intervention="noise")
    with pytest.raises(UserError, match="on='weights' cannot be integrated over; choose one of inputs, activations"):
        locate.eap_ig(planted, planted_case, on="weights")
    with pytest.raises(UserError, match="at least one step, not 0"):
        locate.eap_ig(planted, planted_case, steps=0)
