"""On models whose truth is known, attribution finds the neurons that hold the facts; its controls do not."""

import importlib.util
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch

from loka import ablate, locate, verify
from loka._util.errors import UserError
from loka.locate.counterfactual import log_odds, pairs
from loka.model import Site
from loka.model.run.hooks import point, record, run

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("truth", ROOT / "bench" / "truth.py")
assert spec
assert spec.loader
truth = importlib.util.module_from_spec(spec)
sys.modules["truth"] = truth
spec.loader.exec_module(truth)


@pytest.mark.parametrize("seed", [0, 1])
def test_facts_written_by_hand_are_found(tmp_path: Path, seed: int) -> None:
    planted = truth.ground_truth(tmp_path, seed)
    assert verify.recall(planted.model, planted.case.on(planted.model)).value == 1
    seen = truth.scores(planted)
    assert seen["contrast: AUROC"] >= 0.95
    assert seen["contrast: recall at 32"] > 0.7
    assert abs(seen["random: AUROC"] - 0.5) < 0.15  # three standard errors of 32 among 1,024
    assert max(seen["random: recall at 32"], seen["facts to retain: recall at 32"]) < 0.2
    found = locate.attribution(planted.model, planted.case)
    assert set(found.top(2, part="head", by="forget")) == planted.heads


def test_facts_learned_through_chosen_neurons_are_found(tmp_path: Path) -> None:
    """Facts share these neurons with opposite signs, so only gradients along the path between prompts find them."""
    routed = truth.ground_truth(tmp_path, 1, "routed")
    assert verify.recall(routed.model, routed.case.on(routed.model)).value == 1
    with ablate.zero(routed.model, routed.case, routed.neurons).applied(routed.model):
        assert verify.recall(routed.model, routed.case).value < 0.2
    found = truth.agreement(locate.integrated_gradients(routed.model, routed.case), routed.neurons)
    assert found["AUROC"] >= 0.95
    assert found["recall at 32"] > 0.8
    others = frozenset(locate.random_sites(routed.model, routed.neurons))
    assert truth.agreement(locate.integrated_gradients(routed.model, routed.case), others)["AUROC"] < 0.7


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory):
    return truth.ground_truth(tmp_path_factory.mktemp("memory"))


def test_a_circuit_of_the_true_neurons_carries_the_behaviour(memory) -> None:
    found = locate.attribution(memory.model, memory.case)
    sizes = (0.01, 0.05, 0.2, 0.5, 1.0)
    seen = locate.faithfulness(memory.model, memory.case, found, sizes=sizes)
    assert seen.values.shape == (5, 16)
    np.testing.assert_allclose(seen.values[-1], 1, atol=1e-5)
    assert seen.curve[2] > 0.8
    assert seen.smallest(0.8) <= 0.2
    frame = found.frame.assign(
        random=np.random.default_rng(0).random(len(found.frame)), worst=-found.frame["forget"].abs()
    )
    ranked = locate.Localization(frame, found.record)
    others = {
        b: locate.faithfulness(memory.model, memory.case, ranked, ranking=locate.Ranking(by=b), sizes=sizes)
        for b in ("random", "worst")
    }
    assert seen.cpr > 1.3 * max(o.cpr for o in others.values())
    assert seen.cmd < 0.7 * min(o.cmd for o in others.values())


def test_a_circuit_without_one_site_falls_by_the_effect_of_patching_it(memory) -> None:
    model, case = memory.model, memory.case.on(memory.model)
    found = locate.attribution(model, case)
    frame = found.frame.assign(backwards=-found.frame["forget"])
    n = model.n_layers * model.n_neurons
    seen = locate.faithfulness(
        model,
        case,
        locate.Localization(frame, found.record),
        ranking=locate.Ranking(by="backwards"),
        sizes=((n - 1) / n, 1.0),
    )
    facts = case.forget.working
    both = pairs(model, case, facts)
    names = [point("neuron", layer) for layer in range(model.n_layers)]
    other = record(model, both.corrupted, names).activations
    swaps = [(n, lambda value, n=n: torch.where(both.clean.mask[..., None].bool(), other[n], value)) for n in names]
    with torch.no_grad():
        whole, none = (log_odds(run(model, both.clean, hooks), both).numpy() for hooks in ([], swaps))
    effect = locate.patching(model, case, found.top(1, by="forget"), facts=facts)[:, 0]
    assert effect.max() > 0.1
    np.testing.assert_allclose((1 - seen.values[0]) * (whole - none), effect, atol=1e-4)


def test_true_neurons_are_needed_and_others_are_not(memory) -> None:
    """A circuit of the facts' neurons is minimal; a circuit with as many idle neurons is half needed."""
    found = locate.attribution(memory.model, memory.case)
    neurons = found.frame["part"] == "neuron"
    true = [
        Site(a, p, b) in memory.neurons for a, p, b in found.frame[["layer", "part", "index"]].itertuples(index=False)
    ]
    idle = np.random.default_rng(0).permutation(np.flatnonzero(neurons & (found.frame["forget"].abs() < 1e-3)))[:32]
    order = np.zeros(len(found.frame))
    order[true] = 2.0
    alone = locate.Localization(found.frame.assign(order=order), found.record)
    order = order.copy()
    order[idle] = 1.0
    padded = locate.Localization(found.frame.assign(order=order), found.record)
    n = int(neurons.sum())
    seen = locate.minimality(memory.model, memory.case, alone, share=32 / n, ranking=locate.Ranking(by="order"))
    assert set(seen.sites) == set(memory.neurons)
    assert seen.n_sites == 32
    assert seen.share_needed > 0.9
    loose = locate.minimality(
        memory.model, memory.case, padded, share=64 / n, ranking=locate.Ranking(by="order"), trials=64
    )
    needed = {s for s, loss in zip(loose.sites, loose.losses, strict=True) if loss > loose.threshold}
    assert len(needed & memory.neurons) > 25
    assert len(needed - memory.neurons) < 6
    assert "64 sites, faithfulness" in str(loose)
    with pytest.raises(UserError, match="share=0.0001 of 1024 neuron sites is 0"):
        locate.minimality(memory.model, memory.case, alone, share=1e-4)


def test_paraphrases_find_the_same_neurons_and_other_facts_do_not(memory) -> None:
    seen = locate.stability(memory.model, memory.case, k=2)
    assert seen.same.mean() > 0.7
    assert seen.others.mean() < 0.1
    assert seen.ratio > 4
    assert seen.interval()[0] <= seen.ratio <= seen.interval()[1]
    assert seen.chance == 2 / 1024
    assert "times" in str(seen)


def test_impossible_comparisons_are_refused(memory) -> None:
    found = locate.attribution(memory.model, memory.case)
    with pytest.raises(UserError, match="sizes must rise"):
        locate.faithfulness(memory.model, memory.case, found, sizes=(0.5, 0.1))
    with pytest.raises(UserError, match="ask for 1 to 1023"):
        locate.stability(memory.model, memory.case, k=1024)


def test_tracing_follows_the_answer_from_the_subject_to_the_last_token(memory) -> None:
    """The value stands at the subject before the first mover head, and at the last token after the last mover head."""
    case = memory.case.on(memory.model)
    fact = case.forget.working[0]
    seen = locate.tracing(memory.model, case, fact)
    assert seen.tokens == tuple(fact.prompt.split())
    at, last = seen.tokens.index(fact.subject), len(seen.tokens) - 1
    assert seen.clean > seen.corrupted
    assert seen.values.shape == (4, len(seen.tokens))
    np.testing.assert_allclose(seen.values[0, at] + seen.values[0, last], 1, atol=0.2)
    assert seen.values[1, at] > 0.8
    assert abs(seen.values[1, last]) < 0.2
    np.testing.assert_allclose(seen.values[3, last], 1, atol=1e-3)  # the last state alone gives the logits
    np.testing.assert_allclose(seen.values[:, :at], 0, atol=1e-6)  # before the subject, the runs are equal
    axes = seen.plot().axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == list(seen.tokens)
    tips = [e.text or "" for e in ET.fromstring(seen.html()).iter("{http://www.w3.org/2000/svg}title")]
    assert len(tips) == seen.values.size
    assert f"L1.resid, {fact.subject!r}\nrestores {seen.values[1, at]:+.1%} of the answer" in tips
    mlp = locate.tracing(memory.model, case, fact, part="mlp")
    assert mlp.values[:2, at].sum() > 0.5 > np.abs(mlp.values[2:]).max()
    with pytest.raises(UserError, match="tracing follows resid, attn, mlp, not 'head'"):
        locate.tracing(memory.model, case, fact, part="head")


def test_fact_neurons_look_up_and_movers_read_out(memory) -> None:
    found = locate.label_roles(memory.model, memory.case, locate.attribution(memory.model, memory.case))
    of = {(p, a, i): r for p, a, i, r in found.frame[["part", "layer", "index", "role"]].itertuples(index=False)}
    assert {of["neuron", s.layer, s.index] for s in memory.neurons} == {"lookup"}
    assert {of["head", s.layer, s.index] for s in memory.heads} == {"readout"}
