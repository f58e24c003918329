"""Attribution is the first-order effect of patching for every site, and ranks sites as the exact effect does."""

import numpy as np
import pytest
import torch
from torch import Tensor

from loka import ablate, locate
from loka._util.errors import UserError
from loka.knowledge import Case, Item, case
from loka.locate.attribution import attribution_scores
from loka.locate.counterfactual import Pairs, log_odds, pairs
from loka.model import Model, Site, encode, logits, token_logprobs
from loka.model.run.hooks import point, record, run

SMALL = 3e-3


@pytest.fixture
def both(planted: Model, planted_case: Case) -> Pairs:
    known = planted_case.on(planted)
    return pairs(planted, known, known.forget.working[:6])


def nudged(model: Model, both: Pairs, sites: list[Site], size: float) -> np.ndarray:
    """Log-odds with the sites moved by `size` of the difference to the counterfactual run, at all positions."""
    names = sorted({point(s.part, s.layer) for s in sites})
    clean = record(model, both.clean, names).activations
    other = record(model, both.corrupted, names).activations
    seen = (both.clean.mask * both.corrupted.mask).bool()
    hooks = []
    for name in names:
        units = [s.index for s in sites if point(s.part, s.layer) == name]
        units = slice(None) if None in units else units
        way = torch.zeros_like(clean[name])
        way[:, :, units] = (other[name] - clean[name])[:, :, units]
        way[~seen] = 0
        hooks.append((name, lambda value, way=way: value + size * way))
    with torch.no_grad():
        return log_odds(run(model, both.clean, hooks), both).double().cpu().numpy()


def slope(model: Model, both: Pairs, sites: list[Site]) -> np.ndarray:
    """How fast the log-odds fall, by central differences, `[row]`."""
    return (nudged(model, both, sites, -SMALL) - nudged(model, both, sites, SMALL)) / (2 * SMALL)


def test_a_score_is_the_slope_of_patching(planted: Model, both: Pairs) -> None:
    scores, _ = attribution_scores(planted, both)
    best = [np.unravel_index(np.argsort(-np.abs(scores[p]).mean(0), axis=None)[:4], scores[p][0].shape) for p in scores]
    for part, (layers, units) in zip(scores, best, strict=True):
        for layer, unit in zip(layers, units, strict=True):
            wanted = slope(planted, both, [Site(int(layer), part, int(unit))])
            assert np.abs(wanted).max() > 0.01
            np.testing.assert_allclose(scores[part][:, layer, unit], wanted, rtol=0.03, atol=5e-3)


def test_the_scores_of_all_sites_sum_to_the_slope_of_all_together(planted: Model, both: Pairs) -> None:
    scores, _ = attribution_scores(planted, both)
    for part in scores:
        everything = [Site(layer, part, i) for layer in range(4) for i in range(planted.units(part))]
        total = scores[part].sum((1, 2))
        assert np.abs(total).max() > 0.5
        np.testing.assert_allclose(total, slope(planted, both, everything), rtol=0.03, atol=0.05)


def test_a_whole_module_has_one_score_a_layer(planted: Model, both: Pairs) -> None:
    """The score of attention or an MLP is the slope of moving its whole output."""
    scores, _ = attribution_scores(planted, both, ("attn", "mlp"))
    for part in ("attn", "mlp"):
        assert scores[part].shape == (6, 4, 1)
        for layer in range(4):
            wanted = slope(planted, both, [Site(layer, part)])
            np.testing.assert_allclose(scores[part][:, layer, 0], wanted, rtol=0.03, atol=0.02)
        assert np.abs(scores[part]).max() > 0.1


def test_the_fall_runs_from_the_clean_to_the_counterfactual_prompt(planted: Model, both: Pairs) -> None:
    _, fall = attribution_scores(planted, both)
    with torch.no_grad():
        odds = [log_odds(logits(planted, batch), both).cpu().numpy() for batch in (both.clean, both.corrupted)]
    np.testing.assert_allclose(fall, odds[0] - odds[1], atol=1e-3)
    assert fall.min() > 3  # the model knows the facts, and they depend on their subjects


def test_attributed_and_exact_effects_agree_in_rank(planted: Model, planted_case: Case) -> None:
    found = locate.attribution(planted, planted_case)
    best = found.top(40)
    sites = [*best, *locate.random_sites(planted, best)]
    seen = locate.agreement(planted, planted_case, sites, n_facts=4)
    assert seen.n_facts == 4
    assert seen.rank_correlation > 0.6
    assert len(seen.to_json()["points"]) == len(sites)
    # the attribution of other sites does not agree
    assert abs(np.corrcoef(np.roll(seen.attributed, 7), seen.exact)[0, 1]) < 0.5
    other = locate.agreement(planted, planted_case, sites, method="integrated_gradients", n_facts=4)
    assert other.rank_correlation > 0.6
    assert not np.allclose(other.attributed, seen.attributed, atol=1e-3)
    assert np.array_equal(other.exact, seen.exact)


def test_taylor_agrees_with_exact_zeroing(planted: Model, planted_case: Case) -> None:
    best = locate.taylor(planted, planted_case, spare=0).top(40)
    sites = [*best, *locate.random_sites(planted, best)]
    seen = locate.agreement(planted, planted_case, sites, method="taylor", n_facts=4)
    few = planted_case.on(planted).forget.working[:4]
    zeroed = locate.patching(planted, planted_case.on(planted), sites, facts=few, kind="zero").mean(0)
    assert np.array_equal(seen.exact, zeroed)
    assert seen.to_json()["kind"] == "zero"
    assert seen.rank_correlation > 0.6


def test_located_sites_matter_more_than_random_ones(planted: Model, planted_case: Case) -> None:
    found = locate.attribution(planted, planted_case)
    best = found.top(20, by="forget")
    located = locate.patching(planted, planted_case, best)
    random = locate.patching(planted, planted_case, locate.random_sites(planted, best))
    assert located.shape == (16, 20)
    assert located.mean() > 3 * max(random.mean(), 1e-3)


def test_patching_a_site_is_exact(planted: Model, planted_case: Case) -> None:
    """Patching one site equals a hook written by hand, row by row and all rows at once."""
    known = planted_case.on(planted)
    facts = list(known.forget.working[:3])
    sites = [Site(0, "neuron", 5), Site(3, "head", 2)]
    effects = locate.patching(planted, planted_case, sites, facts=facts)
    one_by_one = locate.patching(planted, planted_case, sites, facts=facts, budget=locate.SweepBudget(rows=1))
    np.testing.assert_allclose(effects, one_by_one, atol=1e-4)
    both = pairs(planted, known, facts)
    for column, site in enumerate(sites):
        name = point(site.part, site.layer)
        other = record(planted, both.corrupted, [name]).activations[name]
        seen = (both.clean.mask * both.corrupted.mask).bool()

        def swap(value: Tensor, other: Tensor = other, seen: Tensor = seen, unit: int = site.index or 0) -> Tensor:
            value = value.clone()
            value[:, :, unit][seen] = other[:, :, unit][seen]
            return value

        with torch.no_grad():
            base = log_odds(run(planted, both.clean, []), both)
            wanted = base - log_odds(run(planted, both.clean, [(name, swap)]), both)
        np.testing.assert_allclose(effects[:, column], wanted.cpu().numpy(), atol=1e-4)
        assert np.abs(effects[:, column]).max() > 1e-4


def test_scores_do_not_depend_on_the_batch(planted: Model, planted_case: Case) -> None:
    large = locate.attribution(planted, planted_case, rows=64).frame
    seen: list[tuple[int, int]] = []
    small = locate.attribution(planted, planted_case, rows=3, progress=lambda *step: seen.append(step)).frame
    assert np.allclose(large["score"], small["score"], atol=1e-5)
    assert large["score"].abs().max() > 1e-3
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_attribution_leaves_the_model_as_it_was(planted: Model, planted_case: Case) -> None:
    known = planted_case.on(planted)
    with torch.no_grad():
        batch = encode(planted, [known.forget.working[0].prompt], [known.forget.working[0].answer])
        before = logits(planted, batch)
        first = locate.attribution(planted, planted_case).frame
        assert torch.equal(logits(planted, batch), before)
    assert first.equals(locate.attribution(planted, planted_case).frame)


def test_attribution_reads_edited_weights(planted: Model, planted_case: Case) -> None:
    """The bridge shares the weights, so a zeroed site has no effect."""
    known = planted_case.on(planted)
    site = locate.attribution(planted, known).top(1, by="forget")[0]
    assert np.abs(locate.patching(planted, known, [site])).max() > 1e-3
    with ablate.zero(planted, known, [site]).applied(planted):
        assert np.abs(locate.patching(planted, known, [site])).max() < 1e-5


def brute(model: Model, fact: Item) -> float:
    """Log-odds written out: each foil has its own row, up to the token at which it departs from the answer."""

    def steps(answer: str) -> tuple[list[int], list[float]]:
        batch = encode(model, [fact.prompt], [answer])
        with torch.no_grad():
            return batch.labels[0].tolist(), token_logprobs(logits(model, batch), batch.labels)[0].tolist()

    right, logp = steps(fact.answer)
    foils = []
    for foil in fact.foils:
        tokens, own = steps(foil)
        away = next((i for i, (a, b) in enumerate(zip(right, tokens, strict=False)) if a != b), None)
        if away is not None:
            foils.append(sum(own[: away + 1]))
    return sum(logp) - sum(foils) / len(foils)


def test_log_odds_are_those_of_whole_answers_and_foils(fresh: Model, planted_case: Case) -> None:
    model = fresh
    model.hf.double()
    known = planted_case.on(model)
    some = list(known.forget.working[:4])
    one, two = (next(f for f in some if len(f.answer.split()) == n) for n in (1, 2))
    assert len(one.foils) == 9
    # answers of one, two and three tokens; a foil that begins like the answer; a foil within it; few foils
    odd = Item(two.subject, "capital", two.prompt, "the red house", (), ("the garden", "the red", "bread", "a dog"))
    few = Item(one.subject, "capital", one.prompt, one.answer, (), (two.answer,))
    facts = [one, two, odd, few]
    with pytest.warns(UserWarning, match="1 foils are left out.* 'the red' of 'the red house'"):
        both = pairs(model, known, facts)
    with torch.no_grad():
        found = log_odds(logits(model, both.clean), both)
    np.testing.assert_allclose(found.cpu().numpy(), [brute(model, f) for f in facts], atol=1e-6)
    assert found[0] > 3 > 0 > found[2]


def test_counterfactual_prompts_ask_about_another_subject(planted: Model, both: Pairs) -> None:
    for row, fact in enumerate(both.facts):
        clean, other = (
            planted.tokenizer.decode(b.ids[row][b.mask[row].bool()].tolist()) for b in (both.clean, both.corrupted)
        )
        assert clean == f"{fact.prompt} {fact.answer}"
        assert other != clean
        assert other.endswith(f" {fact.answer}")
        assert fact.subject not in other


def test_a_model_that_knows_nothing_is_refused(tiny, planted_case: Case) -> None:
    with pytest.raises(UserError, match="knows none of the 16 capital facts"):
        locate.attribution(tiny("LlamaForCausalLM"), case(planted_case.path))
