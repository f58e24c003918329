"""What leace, selective_dampening and task_vector do, against brute force and planted facts."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from loka import ablate
from loka._util.errors import UserError
from loka.ablate import TrainingConfig
from loka.ablate.selective_dampening import dampened, importance
from loka.knowledge import Case, Item, recalled, score
from loka.model import Model, Site, encode, logits, pad, scratch, slices, token_logprobs
from loka.model.layout import head_output, neuron_output
from loka.model.run.lookup import outputs_at

Make = Callable[[str], Model]
NEURONS = [Site(layer, "neuron", i) for layer in (1, 2) for i in range(0, 192, 2)]


def known(model: Model, case: Case) -> tuple[float, float]:
    """Share of forget facts and of sealed retain facts that are recalled."""
    shares = [recalled(model, facts) for facts in (case.forget.sealed, case.retain.sealed)]
    return sum(shares[0]) / len(shares[0]), sum(shares[1]) / len(shares[1])


def logprob(model: Model, facts: Sequence[Item]) -> float:
    return float(score(model, [f.prompt for f in facts], [f.answer for f in facts]).logprob.mean())


def apart(model: Model, case: Case) -> list[Tensor]:
    """How far the outputs of an attention and an MLP differ between answers, at the end of the working prompts."""
    prompts = [p for f in case.forget.working for p in f.prompts]
    answers = [f.answer for f in case.forget.working for _ in f.prompts]
    out = []
    for module in (head_output(model, 1), neuron_output(model, 2)):
        states = []
        for prompt in prompts:  # one at a time, without padding
            batch = pad(model, [model.tokenizer(prompt)["input_ids"]], [1])
            states.append(outputs_at(model, [module], batch, torch.tensor([-1]))[0][0])
        by_answer = [[s for s, a in zip(states, answers, strict=True) if a == one] for one in set(answers)]
        out.append(torch.stack([torch.stack(group).mean(0) for group in by_answer]).var(0).sum())
    return out


def test_leace_leaves_nothing_of_the_answer_in_what_the_sites_write(fresh: Model, planted_case: Case) -> None:
    case = planted_case.on(fresh)
    fresh.hf.double()
    before = apart(fresh, case)
    for site, i in ((Site(1, "attn"), 0), (Site(2, "mlp"), 1)):
        with ablate.leace(fresh, case, [site]).applied(fresh):
            assert apart(fresh, case)[i] < 1e-12 * before[i]
        with ablate.leace(fresh, case, [site], rank=2).applied(fresh):
            assert 1e-3 * before[i] < apart(fresh, case)[i] < before[i]


def test_leace_of_some_heads_leaves_the_others_weights(fresh: Model, planted_case: Case) -> None:
    edit = ablate.leace(fresh, planted_case, [Site(1, "head", 0), Site(1, "head", 2)])
    (where,) = edit.slices
    assert where.index.tolist() == [*range(16), *range(32, 48)]
    with pytest.raises(UserError, match="needs sites that write to the residual stream directly"):
        ablate.leace(fresh, planted_case, [Site(1, "resid")])


def test_dampened_weights() -> None:
    weights = torch.ones(5)
    forget, retain = torch.tensor([0.0, 1.0, 9.9, 20.0, 40.0]), torch.ones(5)
    got = dampened(weights, forget, retain, alpha=10.0, strength=1.0)
    assert torch.allclose(got, torch.tensor([1, 1, 1, 1 / 20, 1 / 40]))
    assert torch.allclose(
        dampened(weights, forget, retain, alpha=10.0, strength=30.0), torch.tensor([1, 1, 1, 1, 0.75])
    )
    none = dampened(weights, forget, torch.zeros(5), alpha=1.0, strength=1.0)
    assert torch.equal(none, torch.tensor([1.0, 0, 0, 0, 0]))


def test_importance_is_the_mean_square_of_the_gradient(tiny: Make) -> None:
    """Against gradients of the whole matrices."""
    model = tiny("GPT2LMHeadModel")
    where = slices(model, [Site(1, "neuron", 3), Site(2, "head", 1)])
    batches = [encode(model, ["the capital of a dog is"], [a]) for a in ("warm bread", "the garden")]
    got = importance(model, where, batches)
    wanted = [torch.zeros_like(g) for g in got]
    for batch in batches:
        for p in model.parameters.values():
            p.requires_grad_(True)
        loss = -token_logprobs(logits(model, batch), batch.labels).sum() / (batch.labels >= 0).sum()
        loss.backward()
        for i, part in enumerate(where):
            grad = model.parameters[part.name].grad
            assert grad is not None
            wanted[i] += part.read(grad) ** 2 / 2
        for p in model.parameters.values():
            p.requires_grad_(False)
            p.grad = None
    for a, b in zip(got, wanted, strict=True):
        assert torch.allclose(a, b, rtol=1e-9)


def test_the_negated_task_vector_forgets_the_facts_and_not_their_neighbours(planted: Model, planted_case: Case) -> None:
    case = planted_case.on(planted)
    assert known(planted, case) == (1.0, 1.0)
    with ablate.task_vector(planted, case, None, TrainingConfig(steps=20, lr=3e-3)).applied(planted):
        forget, retain = known(planted, case)
    assert forget <= 0.6
    assert retain >= 0.95


def test_dampening_hurts_the_facts_more_than_their_neighbours(planted: Model, planted_case: Case) -> None:
    """By log-probability: the planted model holds too little in few weights for answers to turn."""
    case = planted_case.on(planted)
    before = [logprob(planted, facts) for facts in (case.forget.sealed, case.retain.sealed)]
    with ablate.selective_dampening(planted, case, None, alpha=5.0, strength=0.01).applied(planted):
        after = [logprob(planted, facts) for facts in (case.forget.sealed, case.retain.sealed)]
    forget, retain = (b - a for b, a in zip(before, after, strict=True))
    assert forget > 2 * abs(retain)


def test_a_task_vector_is_linear_in_its_scale(planted: Model, planted_case: Case) -> None:
    edits = [
        ablate.task_vector(planted, planted_case, NEURONS[:4], TrainingConfig(steps=3), scale=s)
        for s in (0.0, 1.0, 3.0)
    ]
    none, one, three = (e.values for e in edits)
    for where, a, b, c in zip(edits[0].slices, none, one, three, strict=True):
        assert torch.equal(a, where.read(planted.parameters[where.name]))
        assert torch.allclose(c - a, 3 * (b - a), atol=1e-6)
    with scratch(planted, list(edits[0].slices)):
        for where, a, b in zip(edits[0].slices, none, one, strict=True):  # what was learned: the other way
            where.write_(planted.parameters[where.name], 2 * a - b)
        batch = encode(planted, [f.prompt for f in planted_case.on(planted).forget.working],
                       [f.answer for f in planted_case.on(planted).forget.working])  # fmt: skip
        learned = token_logprobs(logits(planted, batch), batch.labels).sum()
    assert learned > token_logprobs(logits(planted, batch), batch.labels).sum()


def test_dampening_says_what_it_needs(planted: Model, planted_case: Case) -> None:
    with pytest.raises(UserError, match="alpha 0 and strength 1 must be above zero"):
        ablate.selective_dampening(planted, planted_case, NEURONS, alpha=0.0)
