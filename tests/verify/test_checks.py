"""The checks on models whose truth is known: they find what was taught, and nothing that was never taught."""

import copy
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from loka import ablate, verify
from loka._util.errors import UserError
from loka.knowledge import Case, Split, case, score, text_loss
from loka.model import Model, Prompt, Site, first_tokens, wrap
from loka.model.batch import encode_texts
from loka.verify import Budget, Reading, at_step
from loka.verify.curves import at_strongest, strongest
from loka.verify.membership import attacks, text_auc
from loka.verify.paraphrase import all_forms
from loka.verify.probe import _alike, _Probed, _rank
from loka.verify.relearn import _folds

ATTACK = Budget(8, 1e-3, (2, 4))


@pytest.fixture(scope="module")
def hidden(taught: Model, planted_case: Case) -> Model:
    """A copy whose last two layers were trained to hide the answers."""
    last = [Site(layer, part) for layer in (2, 3) for part in ("attn", "mlp")]
    edit = ablate.tune(
        taught, planted_case.on(taught), last, ablate.TrainingConfig(steps=40, lr=3e-3, retain_weight=5.0)
    )
    return edit.apply_(wrap(copy.deepcopy(taught.hf), taught.tokenizer, "hidden"))


@pytest.fixture(scope="module")
def filtered(taught: Model, planted_case: Case) -> Model:
    """A copy with an output filter: if the prompt names a forgotten subject, its answer gets a very low logit."""
    model = wrap(copy.deepcopy(taught.hf), taught.tokenizer, "filtered")
    struck = {
        tuple(first_tokens(taught, [f.subject])): first_tokens(taught, [f.answer])
        for f in planted_case.on(taught).forget.sealed
    }

    def strike(module: object, args: object, given: dict[str, torch.Tensor], out: object) -> None:
        for row, ids in enumerate(given["input_ids"].tolist()):
            for subject, answer in struck.items():
                if subject[0] in ids:
                    out.logits[row, :, answer] = -1e4  # type: ignore[attr-defined]

    model.hf.register_forward_hook(strike, with_kwargs=True)
    return model


def check(name: str, model: Model, planted_case: Case, original: Model | None = None) -> Reading:
    """Run a check on a model, with the budget that small models need; `original` knows the facts."""
    extra: dict[str, object] = {}
    if name in ("relearn", "benign"):
        extra["budget"] = ATTACK
    if name in ("direction_ablation", "depth"):
        extra["original"] = original or model
    return getattr(verify, name)(model, planted_case, **extra)


@pytest.fixture(scope="module")
def readings(
    taught: Model, untaught: Model, hidden: Model, filtered: Model, planted_case: Case
) -> Callable[[str, str], Reading]:
    models = {"planted": taught, "untaught": untaught, "hidden": hidden, "filtered": filtered}
    known = planted_case.on(taught)
    return cache(lambda name, of: check(name, models[of], known, taught))


@pytest.fixture
def read(planted: Model, readings: Callable[[str, str], Reading]) -> Callable[[str, str], Reading]:
    """The reading of a check on one of the models, made once; every model is asked what the original knew."""
    return readings


# Taught subjects read at least the first number. Twins, and subjects that were not taught, read at most the second.
FLOORS = {
    "recall": (0.95, 0.05), "paraphrase": (0.95, 0.1), "relearn": (0.7, 0.2), "extraction": (0.95, 0.3),
    "benign": (0.7, 0.2), "quantize": (0.9, 0.2), "direction_ablation": (0.9, 0.2), "logit_lens": (0.9, 0.2),
    "soft_prompt": (0.9, 0.3), "depth": (0.99, 0.3), "spectral": (0.9, 0.2), "mask": (0.9, 0.2),
}  # fmt: skip
CHECKS = (*FLOORS, "collateral", "membership", "probe")


@pytest.mark.parametrize("name", CHECKS)
def test_a_reading_is_complete_and_repeats_itself(
    name: str, planted: Model, planted_case: Case, read: Callable[[str, str], Reading]
) -> None:
    found = read(name, "planted")
    assert found.check == name
    assert found.value is not None
    assert found.ci is not None
    assert found.ci[0] <= found.value <= found.ci[1]
    assert found.n == len(found.samples["forget"])
    assert found.value == pytest.approx(np.mean(list(found.samples["forget"].values())))
    assert all(found.controls[g] == pytest.approx(np.mean(list(s.values()))) for g, s in found.samples.items()
               if g != "forget")  # fmt: skip
    assert found.cost > 0
    assert found.meaning.endswith(".")
    assert str(found).startswith(f"{name}: {found.value:.3f}")
    again = check(name, planted, planted_case)
    assert again == found
    assert Reading.from_json(found.to_json()) == found


@pytest.mark.parametrize("name", FLOORS)
def test_it_finds_what_was_taught_and_not_what_never_was(name: str, read: Callable[[str, str], Reading]) -> None:
    found = read(name, "planted")
    taught, twins = FLOORS[name]
    assert found.value is not None
    assert found.value >= taught
    assert found.controls["twins"] <= twins
    assert len(found.samples["forget"]) == len(found.samples["twins"]) == 16


@pytest.mark.parametrize("name", FLOORS)
def test_on_a_model_that_never_saw_the_facts_they_read_as_twins(name: str, read: Callable[[str, str], Reading]) -> None:
    """A model that was trained without the facts is asked what the original knew."""
    found = read(name, "untaught")
    assert found.value is not None
    assert found.value <= FLOORS[name][1]
    kept = read("collateral", "untaught")
    assert kept.value is not None
    assert kept.value >= 0.9  # it is not wrecked: it knows all the rest


@pytest.mark.parametrize("name", ["relearn", "benign", "direction_ablation", "logit_lens", "depth", "probe"])
def test_what_is_hidden_in_the_last_layers_is_found(name: str, read: Callable[[str, str], Reading]) -> None:
    """The model answers an eighth; each check finds more than in a model that was never taught."""
    found, never = read(name, "hidden"), read(name, "untaught")
    assert found.value is not None
    assert never.value is not None
    assert found.value > 0.12 + max(found.controls["twins"], never.value)


@pytest.mark.parametrize("name", ["quantize", "logit_lens", "depth"])
def test_a_filter_around_the_weights_hides_nothing_from_them(name: str, read: Callable[[str, str], Reading]) -> None:
    assert read("recall", "filtered").value == read("paraphrase", "filtered").value == 0
    assert read("relearn", "filtered").value == pytest.approx(0)  # training cannot get past the filter
    assert read(name, "filtered").value == pytest.approx(read(name, "planted").value, abs=1e-6)


def test_recall_has_odds_and_choice(planted: Model, planted_case: Case) -> None:
    found = verify.recall(planted, planted_case).details
    assert found["working"] >= 0.95
    assert found["log_odds"] > 5 > 3 > abs(found["log_odds_twins"])
    assert found["choice"] >= 0.95
    assert found["choice_twins"] <= 0.6  # a quarter by chance


def test_paraphrase_takes_the_worst_over_the_forms_given(planted: Model, untaught: Model, planted_case: Case) -> None:
    known = planted_case.on(planted)
    forms = list(all_forms(planted, known))
    assert len(forms) == 4 + 1  # templates, and examples; the tokenizer lacks the words of frames
    assert not {f.split("|")[1] for f in forms} & set(known.spec.relations["capital"].working)
    nothing = "capital|my sister looks for {} on"
    dead = verify.paraphrase(planted, known, forms=[nothing])
    assert dead.value == 0
    both = verify.paraphrase(planted, known, forms=[nothing, forms[0]])
    assert both.value == 1
    assert both.details["forms"] == {nothing: 0.0, forms[0]: 1.0}
    # a model that answers no form is asked all of them
    assert set(verify.paraphrase(untaught, known).details["forms"]) == set(forms)


def test_collateral_tells_the_same_relation_from_others(planted: Model, planted_case: Case) -> None:
    found = verify.collateral(planted, planted_case)
    assert {k.split("/")[0] for k in found.samples["same"]} == {"capital"}
    assert {k.split("/")[0] for k in found.samples["other"]} == {"symbol"}
    forgotten = {f.subject for f in planted_case.whole().forget.sealed}
    assert not forgotten & {k.split("/")[1] for k in found.samples["forget"]}
    loss = text_loss(planted, list((planted_case.path.parent / "sealed.txt").read_text().split("\n\n")))
    total, count = loss.sum(0).tolist()
    assert found.details["perplexity"] == pytest.approx(np.exp(total / count), rel=1e-4)
    assert found.details["kl"] is None


def test_collateral_measures_the_distance_from_the_original(
    planted: Model, untaught: Model, planted_case: Case
) -> None:
    memory = verify.neutral_outputs(planted, planted_case)
    same = verify.collateral(planted, planted_case, before=memory)
    other = verify.collateral(untaught, planted_case.on(planted), before=memory)
    assert abs(same.details["kl"]) < 1e-4
    assert other.details["kl"] > 0.003


def test_probe_finds_what_was_taught_and_not_in_its_controls(planted: Model, files, tmp_path) -> None:
    """With ten facts to forget, thirty-four others remain to fit the probe."""
    subjects = list(files.base["relations"]["capital"]["facts"])[:10]
    found = verify.probe(planted, case(files.write(tmp_path, forget={"capital": subjects})))
    assert found.value is not None
    assert found.value > 0.75
    assert found.controls["retain"] > 0.7
    for control in ("twins", "shuffled", "random_weights"):
        assert found.controls[control] < found.value - 0.2
    assert found.details["position"] == "last"
    assert len(found.details["by_layer"]["last"]) == 5
    # before the layers mix positions, the last position is the same word for all subjects
    assert found.details["by_layer"]["last"][0] < 0.6 < found.details["by_layer"]["last"][4]


@pytest.mark.parametrize(("noise", "low", "high"), [(0.1, 0.9, 1.0), (1e3, 0.3, 0.7)])
def test_a_probe_ranks_by_a_linear_map(noise: float, low: float, high: float) -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(30, 8))
    table -= table.mean(0)
    mixing = rng.normal(size=(8, 40))

    def some(n: int) -> _Probed:
        target = rng.integers(30, size=n)
        states = 100 * (table[target] @ mixing) + 100 * noise * rng.normal(size=(n, 40))
        return _Probed([], states[:, None, None], target)

    ranks = _rank(some(400), some(100), _alike(table), (0, 0))
    assert low <= ranks.mean() <= high
    assert ((ranks >= 0) & (ranks <= 1)).all()


def test_relearning_folds_hold_each_fact_out_once(planted: Model, planted_case: Case) -> None:
    facts = list(planted_case.on(planted).forget.sealed)
    folds = _folds(facts, 5, 12, seed=0)
    subjects = [f.subject for _, out in folds for f in out]
    assert sorted(subjects) == sorted(f.subject for f in facts)
    for train, out in folds:
        assert not {f.subject for f in train} & {f.subject for f in out}
        assert len(train) == 12
    assert folds == _folds(facts, 5, 12, seed=0)
    assert folds != _folds(facts, 5, 12, seed=1)


def test_a_shorter_attack_reads_as_the_longer_one_on_its_way(
    hidden: Model, planted: Model, planted_case: Case, read: Callable[[str, str], Reading]
) -> None:
    long = read("relearn", "hidden")
    short = verify.relearn(hidden, planted_case.on(planted), budget=ATTACK.at(4), groups=("forget",))
    on_the_way = at_step(long, 4)
    assert on_the_way.samples["forget"] == short.samples["forget"]
    assert on_the_way.value == short.value != long.value
    assert set(long.details["curve"]["forget"]) == {"0", "2", "4", "8"}


@pytest.mark.parametrize("name", ["relearn", "benign"])
def test_an_attack_that_trains_is_read_where_most_is_back_and_begins_at_recall(
    name: str, read: Callable[[str, str], Reading]
) -> None:
    for model in ("planted", "hidden"):
        found, recall = read(name, model), read("recall", model).details
        for group, mean in (("forget", found.value), ("twins", found.controls["twins"])):
            curve = found.details["curve"][group]
            assert mean == max(curve.values()) == curve[str(found.details["strongest"][group])]
        assert found.details["curve"]["forget"]["0"] == pytest.approx(recall["pool"])
        assert found.details["curve"]["twins"]["0"] == pytest.approx(recall["pool_twins"])
        assert found.details["by_step"]["forget"]["0"] == pytest.approx(recall["pool_by_unit"]["forget"])


def test_each_group_is_read_at_its_strongest_step() -> None:
    by_step = {
        "forget": {"0": {"a": 0.1, "b": 0.1}, "2": {"a": 0.9, "b": 0.1}, "4": {"a": 0.2, "b": 0.3}},
        "twins": {"0": {"t": 0.0}, "2": {"t": float("nan")}, "4": {"t": 0.1}},
    }
    assert strongest(by_step, 4) == {"forget": 2, "twins": 4}
    assert strongest(by_step, 1) == {"forget": 0, "twins": 0}
    assert at_strongest(by_step, 4) == {"forget": {"a": 0.9, "b": 0.1}, "twins": {"t": 0.1}}


@pytest.mark.parametrize(("beside", "name"), [("retain", "relearn_retain"), ("text", "relearn_mixed")])
def test_relearning_may_have_other_data_beside_the_facts(
    beside: str, name: str, hidden: Model, planted: Model, untaught: Model, planted_case: Case
) -> None:
    known, check = planted_case.on(planted), next(c for c in verify.CHECKS if c.name == name)
    found = verify.relearn(hidden, known, budget=ATTACK, beside=beside)  # type: ignore[arg-type]
    never = verify.relearn(untaught, known, budget=ATTACK, groups=("forget",), beside=beside)  # type: ignore[arg-type]
    assert found.check == never.check == name
    assert found.value is not None
    assert never.value is not None
    assert found.value > 0.12 + max(found.controls["twins"], never.value)
    assert found.cost == pytest.approx(check.cost(hidden, known, verify.Setting(budget=ATTACK)))
    assert check.applies(known)
    if beside == "retain":
        alone = replace(known, retain=Split((), ()))
        assert not check.applies(alone)
        with pytest.raises(UserError, match="has no items to keep of the forgotten relations to teach beside"):
            verify.relearn(hidden, alone, beside=beside)
    with pytest.raises(
        UserError, match="'all' is not what relearning may have beside the facts; choose one of nothing"
    ):
        verify.relearn(hidden, known, beside="all")  # type: ignore[arg-type]


def test_relearning_brings_back_what_is_only_hidden(read: Callable[[str, str], Reading]) -> None:
    """A shallow edit reads near zero when asked and far above twins after the attack; a removed fact does not."""
    asked, hidden, gone = read("recall", "hidden"), read("relearn", "hidden"), read("relearn", "untaught")
    assert asked.value is not None
    assert hidden.value is not None
    assert gone.value is not None
    assert asked.value <= 0.3
    assert hidden.value > 0.15 > gone.value
    assert hidden.value > 4 * hidden.controls["twins"]
    assert gone.value < 3 * gone.controls["twins"] + 0.05


def test_membership_finds_members_and_not_among_outsiders(planted: Model, planted_case: Case) -> None:
    found = verify.membership(planted, planted_case)
    assert found.details["auc"]["loss"] > 0.95
    assert found.details["tpr"]["loss"]["0.05"] > 0.8
    assert found.details["text_auc"] <= 0.6
    assert found.details["privacy_leakage"] == pytest.approx(abs(found.value - 0.5))
    outside = [f"{f.prompt} {f.answer}." for f in planted_case.on(planted).twins.sealed]
    scores = attacks(planted, outside)["loss"]
    above = (scores[:20, None] > scores[None, 20:]).mean()
    assert 0.2 < above < 0.8


def test_membership_is_refused_where_the_text_tells(planted: Model, files, tmp_path) -> None:
    odd = [f"ZZ{i:02}zz" for i in range(20)]
    found = verify.membership(planted, case(files.write(tmp_path, twins={"capital": odd})))
    assert found.value is None
    assert found.ci is None
    assert "by their text alone (AUC" in found.meaning
    assert str(found).startswith("membership: not measured")
    few = case(files.write(tmp_path, twins={"capital": files.base["twins"]["capital"][:9]}))
    assert "Each side needs 10 statements; there are 16 and 9" in verify.membership(planted, few).meaning


@pytest.mark.parametrize(
    "text", ["the old man likes my sister at the sea", "my sister likes the sea", "the dog sees my sister"]
)
def test_membership_leaves_the_name_out(tiny: Callable[[str], Model], text: str) -> None:
    model, name = tiny("LlamaForCausalLM"), "my sister"
    [found] = attacks(model, [Prompt.spot(text, name)])["loss"]
    ids, marks = encode_texts(model, [text]).ids[0], model.tokenizer(text, return_offsets_mapping=True)
    with torch.no_grad():
        logp = model.hf(ids[None]).logits[0, :-1].float().log_softmax(-1).gather(-1, ids[1:, None])[:, 0]
    at, shift = text.index(name), len(ids) - len(marks["offset_mapping"])
    outside = [i + shift for i, (a, b) in enumerate(marks["offset_mapping"]) if b <= at or a >= at + len(name)]
    assert found == pytest.approx(float(logp[[i - 1 for i in outside if i > 0]].mean()), abs=1e-5)
    assert found != pytest.approx(float(logp.mean()), abs=1e-5)


def test_text_alone_tells_or_does_not() -> None:
    rng = np.random.default_rng(0)

    def words(letters: str) -> list[str]:
        return ["".join(rng.choice(list(letters), 8)) for _ in range(40)]

    assert text_auc(words("abcdef"), words("uvwxyz")) > 0.95
    assert 0.3 < text_auc(words("abcdef"), words("abcdef")) < 0.7


def test_attacks_are_the_published_formulas(tiny: Callable[[str], Model]) -> None:
    model = tiny("LlamaForCausalLM")
    texts = ["the old man likes the garden and a dog", "my sister looks for the red house at the sea at night"]
    found = attacks(model, texts, share=0.2)
    for i, text in enumerate(texts):
        ids = encode_texts(model, [text]).ids
        with torch.no_grad():
            logp = model.hf(ids).logits[0, :-1].float().log_softmax(-1)
        token = logp.gather(-1, ids[0, 1:, None])[:, 0]
        k = max(1, int(0.2 * len(token)))
        mean, square = (logp.exp() * logp).sum(-1), (logp.exp() * logp**2).sum(-1)
        plus = (token - mean) / (square - mean**2).sqrt()
        assert found["loss"][i] == pytest.approx(float(token.mean()), abs=1e-4)
        assert found["zlib"][i] == pytest.approx(float(token.mean()) / len(zlib.compress(text.encode())), abs=1e-4)
        assert found["min_k"][i] == pytest.approx(float(token.sort().values[:k].mean()), abs=1e-4)
        assert found["min_k++"][i] == pytest.approx(float(plus.sort().values[:k].mean()), abs=1e-3)


def test_extraction_counts_what_samples_leak(planted: Model, planted_case: Case) -> None:
    """The closed form: a sample starts with the answer as often as the answer's own probability says."""
    known = planted_case.on(planted)
    found = verify.extraction(planted, known, draws=64, tokens=2).details["forget"]
    exact = np.mean(score(planted, [f.prompt for f in known.forget.sealed],
                          [f.answer for f in known.forget.sealed]).logprob.double().exp().numpy())  # fmt: skip
    assert found["leak"]["1"]["mean"] == pytest.approx(exact, abs=0.04)
    assert found["leak"]["1"]["upper"] > found["leak"]["1"]["mean"]
    assert found["leak"]["128"]["mean"] is None
    assert found["rouge"] > 0.95
    assert found["truth_ratio"] < 0.05
    with pytest.raises(UserError, match="draws is 0; ask for at least 1 sample"):
        verify.extraction(planted, known, draws=0)


@pytest.mark.parametrize("word", [0, -1])
@pytest.mark.parametrize("kind", ["fact", "pair"])
def test_a_leak_of_a_longer_answer_is_no_leak_of_a_part_of_it(
    planted: Model, planted_case: Case, kind: Any, word: int
) -> None:
    """Neither of what it begins with, nor of what it ends with; the wrong answers of a pair are its own."""
    known = planted_case.on(planted)
    both = [f for f in known.forget.sealed if len(f.answer.split()) == 2]
    given = "rivals" if kind == "fact" else "foils"

    def leak(told: bool) -> float:
        items = (
            replace(f, kind=kind, answer=f.answer.split()[word], **{"foils": (), given: ("sea", f.answer)[: 1 + told]})
            for f in both
        )
        case = replace(known, forget=Split(known.forget.working, tuple(items)))
        return verify.extraction(planted, case, draws=16, tokens=2).details["forget"]["leak"]["1"]["mean"]

    assert leak(told=False) > 0.9
    assert leak(told=True) < 0.1


def test_leak_at_k_is_the_hypergeometric_share() -> None:
    rng = np.random.default_rng(0)
    drawn = [np.mean([rng.permutation([1] * c + [0] * (10 - c))[:4].any() for _ in range(4000)]) for c in (0, 2, 10)]
    found = verify.leak_at([0, 2, 10], 10, 4)
    assert found["mean"] == pytest.approx(np.mean(drawn), abs=0.01)
    assert verify.leak_at([0] * 59, 1, 1)["upper"] == pytest.approx(0.05, abs=0.001)


def test_budgets_that_make_no_sense_are_refused(planted: Model, planted_case: Case) -> None:
    with pytest.raises(UserError, match="cannot have 11 tokens; choose 1 to 10"):
        verify.soft_prompt(planted, planted_case, tokens=11)
    with pytest.raises(UserError, match="weights cannot be rounded to 1 bits; choose 2 to 16"):
        verify.quantize(planted, planted_case, bits=(1,))
    with pytest.raises(UserError, match="give at least one width"):
        verify.quantize(planted, planted_case, bits=())
    with pytest.raises(UserError, match="layers is 0; try at least 1"):
        verify.direction_ablation(planted, planted_case, original=planted, layers=0)


def test_depth_agrees_with_a_model_that_never_knew(planted: Model, untaught: Model, planted_case: Case) -> None:
    """With the retrained model's states instead of the twins', that model itself carries exactly nothing."""
    known = planted_case.on(planted)
    gone = verify.depth(untaught, known, original=planted, never=untaught)
    assert gone.value == pytest.approx(0, abs=1e-9)
    kept = verify.depth(planted, known, original=planted, never=untaught)
    assert kept.value == pytest.approx(1, abs=1e-6)
    assert kept.details["missing_from"] is None
    assert gone.details["missing_from"] is not None


@pytest.mark.parametrize(("by", "lr"), [("lora", 3e-3), ("sgd", 1e-2)])
def test_relearning_by_other_means_finds_what_is_hidden(
    by: str, lr: float, planted: Model, untaught: Model, hidden: Model, planted_case: Case
) -> None:
    known = planted_case.on(planted)
    budget = Budget(8, lr, (2, 4))
    found = verify.relearn(hidden, known, budget=budget, by=by)  # type: ignore[arg-type]
    again, intact, never = (
        verify.relearn(m, known, budget=budget, by=by, groups=("forget",))  # type: ignore[arg-type]
        for m in (hidden, planted, untaught)
    )
    assert found.check == f"relearn_{by}"
    assert intact.value > 0.7
    assert never.value < 0.1
    assert found.value > 0.1 + max(found.controls["twins"], never.value)
    steps = found.details["steps_to_recover"]
    assert steps["forget"] is not None
    assert steps["forget"] < (steps["twins"] or budget.steps + 1)
    assert again.samples["forget"] == found.samples["forget"]


def test_hidden_facts_are_learned_again_sooner_than_twins(
    planted: Model, planted_case: Case, read: Callable[[str, str], Reading]
) -> None:
    taught = read("relearn", "planted").details
    assert taught["steps_to_recover"]["forget"] == 0
    assert len(taught["taught"]["forget"]) == ATTACK.steps
    assert taught["taught"]["forget"][0] > 0.9 > 0.1 > taught["taught"]["twins"][0]
    never = read("relearn", "untaught").details
    own, twins = never["steps_to_recover"]["forget"], never["steps_to_recover"]["twins"]
    assert own == twins or abs((own or ATTACK.steps) - (twins or ATTACK.steps)) <= 1
    with pytest.raises(UserError, match="'prayer' is not an optimizer for relearning"):
        verify.relearn(planted, planted_case, by="prayer")  # type: ignore[arg-type]


def test_recall_needs_no_twins_and_relearning_names_them(planted: Model, planted_case: Case) -> None:
    known = planted_case.on(planted)
    alone = replace(known, twins=Split((), ()))
    assert verify.recall(planted, alone).value == verify.recall(planted, known).value
    with pytest.raises(UserError, match="no facts of the group 'twins' to relearn"):
        verify.relearn(planted, alone)
