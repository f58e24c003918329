"""Errors are one sentence with the value, what is allowed, and the next step."""

import dataclasses
from collections.abc import Callable

import pytest

from loka import locate
from loka._util.errors import UserError
from loka.knowledge import Case, Fact
from loka.locate.counterfactual import pairs
from loka.model import Model, Site

Call = Callable[[Model, Case], object]


def with_facts(case: Case, **changes: object) -> Case:
    """The same case with another first forget fact."""
    first, *rest = case.forget.working
    working = (dataclasses.replace(first, **changes), *rest)  # type: ignore[arg-type]
    return dataclasses.replace(case, forget=dataclasses.replace(case.forget, working=working))


def answer_as_foil(case: Case) -> Case:
    return with_facts(case, foils=(case.forget.working[0].answer, "the garden"))


CALLS: dict[str, tuple[Call, str]] = {
    "pairs of unequal length by position": (
        lambda m, c: locate.tracing(m, c, c.forget.working[0], other="the garden"),
        r"has \d+ tokens and its counterfactual .* \d+, so their positions do not match; sweep without positions",
    ),
    "an answer among its foils, attributed": (
        lambda m, c: locate.attribution(m, answer_as_foil(c)),
        "is one of its foils, so its log-odds say nothing; give foils that are wrong",
    ),
    "an answer among its foils, swept": (lambda m, c: locate.sweep(m, answer_as_foil(c)), "is one of its foils"),
    "an answer among its foils, on edges": (lambda m, c: locate.eap(m, answer_as_foil(c)), "is one of its foils"),
    "an unknown part, attributed": (
        lambda m, c: locate.attribution(m, c, parts=("expert",)),  # type: ignore[arg-type]
        "'expert' has no activations of its own to record; choose one of neuron, head, attn, mlp, q, k, v",
    ),
    "a whole stream, attributed": (
        lambda m, c: locate.integrated_gradients(m, c, parts=("resid",)),
        "'resid' has no activations of its own",
    ),
    "a part that writes nothing": (
        lambda m, c: locate.direct_logit(m, c, parts=("kv",)),
        "'kv' does not write to the residual stream; choose from neuron, head, attn, mlp",
    ),
    "an unknown part, patched": (
        lambda m, c: locate.patching(m, c, "expert"),  # type: ignore[arg-type]
        "'expert' is not a part of a model; choose one of neuron, head",
    ),
    "an unknown part, swept": (
        lambda m, c: locate.sweep(m, c, part="expert"),  # type: ignore[arg-type]
        r"sweep scores parts with units \(neuron, head",
    ),
    "a unit that is not there": (
        lambda m, c: locate.patching(m, c, [Site(0, "head", 12)]),
        "L0.head.12 is not in taught: a layer's heads are 0 to 3",
    ),
    "a unit that is not there, compared": (
        lambda m, c: locate.agreement(m, c, [Site(0, "head", 1), Site(7, "head", 0)]),
        "L7.head.0 is not in taught: its layers are 0 to 3",
    ),
    "an estimate of something else": (
        lambda m, c: locate.agreement(m, c, [Site(0, "head", 1), Site(1, "head", 0)], method="direct_logit"),
        "'direct_logit' does not estimate an intervention; check one of attribution, integrated_gradients, taylor",
    ),
    "nothing to compare": (lambda m, c: locate.agreement(m, c, []), "agreement compares at least two sites"),
    "more sites than there are": (
        lambda m, c: locate.attribution(m, c).top(769),
        r"top\(769\) of 768 neuron sites: ask for 1 to 768",
    ),
    "more paraphrased sites than there are": (
        lambda m, c: locate.stability(m, c, part="head", k=16),
        "k=16 of 16 head sites: ask for 1 to 15",
    ),
    "an unknown column": (
        lambda m, c: locate.attribution(m, c).top(3, by="importance"),
        "there is no column 'importance'; choose one of score, forget, retain",
    ),
    "a budget too small for one row": (
        lambda m, c: locate.sweep(m, c, budget=locate.SweepBudget(memory=10.0)),
        r"a row of this sweep takes about .* MiB, and the memory given or free is .* MiB; give more by memory=",
    ),
    "an empty batch": (lambda m, c: locate.attribution(m, c, rows=0), "rows=0 is not a batch size; give 1 or more"),
    "an empty batch, swept": (
        lambda m, c: locate.sweep(m, c, budget=locate.SweepBudget(rows=0)),
        "rows=0 is not a batch size",
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_one_clear_sentence(planted: Model, planted_case: Case, name: str) -> None:
    call, message = CALLS[name]
    with pytest.raises(UserError, match=message) as caught:
        call(planted, planted_case.on(planted))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_foils_that_cannot_be_compared_are_named(planted: Model) -> None:
    """A foil that begins the answer, or begins with it, departs at no token."""
    ask = "my sister looks for"
    other = Fact("dog", "", "my dog looks for", "bread")
    both = Case.of([Fact("sister", "", ask, "the garden", foils=("the garden at night", "warm bread")), other])
    with pytest.warns(UserWarning, match="1 foils are left out.* 'the garden at night' of 'the garden'"):
        pairs(planted, both, both.forget.working[:1])
    alone = Case.of([Fact("sister", "", ask, "the garden", foils=("the", "the garden at night")), other])
    with pytest.raises(
        UserError, match=r"each foil of 'the garden' begins with it or is its beginning \(the, the garden"
    ):
        pairs(planted, alone, alone.forget.working[:1])
