"""The objectives with a target: twins' states, the outputs about twins, and alternative continuations."""

import dataclasses
import math
from collections.abc import Sequence

import pytest
import torch

from loka import ablate
from loka._util.errors import UserError
from loka.ablate import TrainingConfig
from loka.ablate.objectives import ForgetBatch, alternative, objective, twin_distribution, twin_states, unseen_loss
from loka.ablate.training.batches import prepare
from loka.ablate.training.twins import prompts_about_twins
from loka.knowledge import Case, Item, Split, pool_probability, score
from loka.model import Batch, Model, Site, encode, logits, slices, token_logprobs
from loka.model.train.distill import divergence_of, outputs_from_logits

SITES = [Site(i, "mlp") for i in range(3)]


def test_twin_is_one_at_the_original_and_zero_at_the_twins() -> None:
    own, twins = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0)), torch.ones(2, 3, 5)
    asked = torch.tensor([[False, True, True], [False, False, True]])
    assert float(twin_states(own, asked, own, twins)) == pytest.approx(1)
    assert float(twin_states(twins, asked, own, twins)) == 0
    half = (own + twins) / 2
    assert float(twin_states(half, asked, own, twins)) == pytest.approx(0.25)
    half[0, 0] = 99  # nothing is asked there
    assert float(twin_states(half, asked, own, twins)) == pytest.approx(0.25)


def test_alternative_by_hand() -> None:
    generic, original = torch.tensor([1.0, 2, 3]), torch.tensor([0.0, 4, 1])
    reinforced = torch.tensor([-1.0, 6, 1])
    assert alternative(generic, reinforced, original, alpha=5.0).tolist() == [1, -8, 3]
    assert torch.equal(alternative(generic, original, original), generic)


def test_the_twins_states_are_the_originals_about_twins(planted: Model, planted_case: Case) -> None:
    """Against transformers' own hidden states, a prompt at a time."""
    case = planted_case.on(planted)
    goal = objective("twin_states", {"layer": 1}).on(planted, slices(planted, SITES))
    batches = prepare(planted, case, TrainingConfig(), goal)
    facts = [f.asked(f.prompts[0]) for f in case.forget.working]
    targets = batches.forget[0].states
    assert targets is not None
    for row in (0, 7):
        theirs = []
        for prompts in [[f.prompt for f in facts], *prompts_about_twins(case, facts)]:
            text = f"{prompts[row]} {facts[row].answer}"
            ids = planted.tokenizer(text, return_tensors="pt")["input_ids"]
            hidden = planted.hf(input_ids=ids, output_hidden_states=True).hidden_states[2][0]
            first = len(planted.tokenizer(prompts[row])["input_ids"]) - 1
            theirs.append(hidden[first : first + len(ids[0]) - 1 - first])
        keep = targets.shape[1]
        own, mean = theirs[0], torch.stack(theirs[1:]).mean(0)
        assert torch.allclose(targets[row, keep - len(own) :, 0], own, atol=1e-4)
        assert torch.allclose(targets[row, keep - len(own) :, 1], mean, atol=1e-4)


def test_training_comes_nearer_to_the_twins(planted: Model, planted_case: Case) -> None:
    case, where = planted_case.on(planted), slices(planted, SITES)
    goal = objective("twin_states").on(planted, where)
    batches = prepare(planted, case, TrainingConfig(), goal)
    assert goal(ForgetBatch(planted, batches.forget[0])).item() == pytest.approx(1, rel=1e-4)
    edit = ablate.tune(planted, case, SITES, TrainingConfig(objective="twin_states", steps=40, lr=3e-3))
    with edit.applied(planted):
        assert goal(ForgetBatch(planted, batches.forget[0])).item() < 0.4


def test_the_alternative_is_the_output_about_twins_minus_what_reinforcement_adds(
    planted: Model, planted_case: Case
) -> None:
    case = planted_case.on(planted)
    batches = [prepare(planted, case, TrainingConfig(), objective("alternative", {"alpha": a})) for a in (0.0, 50.0)]
    facts = [f.asked(f.prompts[0]) for f in case.forget.working]
    plain, strong = (x.forget[0].alternative for x in batches)
    assert plain is not None
    assert strong is not None
    with torch.no_grad():
        outputs = []
        for prompts in prompts_about_twins(case, facts):
            outputs.append(logits(planted, encode(planted, prompts, [f.answer for f in facts])))
        asked = plain.batch.labels >= 0
        wanted = outputs_from_logits(plain.batch, torch.stack(outputs).mean(0)[asked])
        assert float(divergence_of(torch.stack(outputs).mean(0)[asked], plain)) == pytest.approx(0, abs=1e-5)
    assert torch.allclose(plain.logprobs, wanted.logprobs, atol=1e-5)
    assert (strong.answers < plain.answers).float().mean() > 0.9  # reinforcement speaks for the right answer
    known = score(planted, [f.prompt for f in facts], [f.answer for f in facts]).logprob.mean()
    assert float(plain.answers.mean()) < float(known) - 2


def test_twin_distribution_by_hand() -> None:
    """Two words; about twins the answer, word 1, has a quarter. Too rare is as bad as too likely."""
    batch = Batch(*(torch.zeros(1, 2, dtype=torch.long) for _ in range(3)), torch.tensor([[-100, 1]]))
    said = outputs_from_logits(batch, torch.tensor([[0.75, 0.25]]).log())
    assert float(twin_distribution(torch.tensor([[0.75, 0.25]]).log(), said)) == pytest.approx(0, abs=1e-6)
    for p in (0.9, 0.01):
        divergence = 0.25 * math.log(0.25 / p) + 0.75 * math.log(0.75 / (1 - p))
        loss = float(twin_distribution(torch.tensor([[1 - p, p]]).log(), said, weight=0.4))
        assert loss == pytest.approx(divergence + 0.2 * math.log(p / 0.25) ** 2, rel=1e-4)


def test_answers_become_as_likely_as_those_about_twins_and_no_rarer(planted: Model, planted_case: Case) -> None:
    """Among the pool of answers, in sealed prompts, on which the edit was not trained."""
    case = planted_case.on(planted)
    facts, among = [f.asked(f.prompt) for f in case.forget.sealed], case.pool("capital")
    twins = pool_probability(planted, [f.asked(f.prompt) for f in case.twins.sealed], among).mean()
    assert pool_probability(planted, facts, among).mean() > 0.9
    edit = ablate.tune(planted, case, SITES, TrainingConfig(objective="twin_distribution", steps=40, lr=3e-3))
    with edit.applied(planted):
        assert float(pool_probability(planted, facts, among).mean()) == pytest.approx(float(twins), abs=0.1)


def test_unseen_loss_by_hand() -> None:
    """Two words. A row at its level costs nothing; too surprising is as bad as too familiar; padding does not count."""
    rows = torch.tensor([[[0.5, 0.5], [0.75, 0.25]], [[0.5, 0.5], [0.1, 0.9]]]).log()
    labels = torch.tensor([[0, 1], [-100, 1]])
    means = [(math.log(0.5) + math.log(0.25)) / 2, math.log(0.9)]
    assert float(unseen_loss(rows, labels, torch.tensor(means))) == pytest.approx(0, abs=1e-9)
    for shift in (1.0, -1.0):
        level = torch.tensor([means[0], means[1] + shift])
        assert float(unseen_loss(rows, labels, level)) == pytest.approx(0.25)


def test_the_loss_of_answers_becomes_that_of_unseen_items(planted: Model, planted_case: Case) -> None:
    case = planted_case.on(planted)

    def level(items: Sequence[Item]) -> float:
        batch = encode(planted, [i.prompt for i in items], [i.answer for i in items])
        found = token_logprobs(logits(planted, batch), batch.labels)
        return float((found.sum(-1) / (batch.labels >= 0).sum(-1)).mean())

    unseen, before = level(case.twins.working), level(case.forget.working)
    edit = ablate.tune(planted, case, SITES, TrainingConfig(objective="unseen_loss", steps=40, lr=3e-3))
    plain = ablate.tune(planted, case, SITES, TrainingConfig(objective="ascent", steps=40, lr=3e-3))
    with edit.applied(planted):
        after = level(case.forget.working)
    with plain.applied(planted):
        ascended = level(case.forget.working)
    assert before > unseen + 2
    assert after == pytest.approx(unseen, abs=0.1 * (before - unseen))
    assert ascended < unseen - 0.25 * (before - unseen)  # ascent goes past it, down to chance


@pytest.mark.parametrize("name", ["twin_states", "twin_distribution", "alternative"])
def test_without_twins_they_say_so(name: str, planted: Model, planted_case: Case) -> None:
    lonely = dataclasses.replace(planted_case.on(planted), twins=Split((), ()))
    with pytest.raises(UserError, match=f"the objective '{name}' needs twins of every relation that 'planted' forgets"):
        ablate.tune(planted, lonely, SITES, TrainingConfig(objective=name, steps=1))
    with pytest.raises(UserError, match="'unseen_loss' needs twins of every kind that 'planted' forgets"):
        ablate.tune(planted, lonely, SITES, TrainingConfig(objective="unseen_loss", steps=1))
