"""What every locator of the table must do, on every architecture. A new locator needs no new test here."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
import torch

from loka import locate
from loka._util.errors import UserError
from loka.knowledge import Case
from loka.locate import METHODS, Localization, LocalizationRecord, Locator
from loka.locate.contrast import contrast
from loka.locate.counterfactual import Pairs, pairs
from loka.locate.knowledge_neurons import answer_probability_scores
from loka.model import Model, Part

FEW_STEPS = {"knowledge_neurons": lambda model, both, parts: answer_probability_scores(model, both, steps=3)}
SCORERS = {name: FEW_STEPS.get(name, row.scores) for name, row in METHODS.items() if row.scores}


def equal_length_pairs(model: Model, case: Case, n: int = 3) -> Pairs:
    """Pairs of prompts of equal length with answers of one token."""
    short = [f for f in case.forget.working if len(f.answer.split()) == 1 and f.prompt.startswith("the capital")]
    found = pairs(model, case, short[:n])
    assert found.clean.mask.all()
    assert found.corrupted.mask.all()
    return found


@pytest.mark.parametrize("name", SCORERS)
def test_raw_scores(tiny: Callable[[str], Model], planted_case: Case, architecture: str, name: str) -> None:
    model, parts = tiny(architecture), METHODS[name].parts
    both = equal_length_pairs(model, planted_case.whole())
    before = model.digest()
    scores, effect = SCORERS[name](model, both, parts)
    assert effect.shape == (3,)
    assert effect.dtype == np.float64
    assert np.isfinite(effect).all()
    assert tuple(scores) == parts
    for part, values in scores.items():
        assert values.shape == (3, model.n_layers, model.units(part)), part
        assert values.dtype == np.float64
        assert np.isfinite(values).all(), part
        relu = architecture == "OPTForCausalLM" and part == "neuron"  # half of its neurons are silent
        assert (np.abs(values) > 0).mean() > (0.3 if relu else 0.5), part
    assert model.digest() == before
    assert not any(p.requires_grad or p.grad is not None for p in model.hf.parameters())
    again, _ = SCORERS[name](model, equal_length_pairs(model, planted_case.whole(), n=2), parts)
    for part, values in again.items():  # a row does not depend on the other rows
        np.testing.assert_allclose(values, scores[part][:2], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_a_localization(planted: Model, planted_case: Case, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row, calls, steps = METHODS[name], [], []

    def grad(*args: object, **options: object) -> object:
        calls.append(1)
        return differentiate(*args, **options)

    differentiate = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", grad)
    found = locate.perform(name, planted, planted_case, progress=lambda *step: steps.append(step))
    assert bool(calls) == row.needs_gradients
    assert row.name == found.record.method == name
    assert found.parts == row.default_parts
    assert set(row.default_parts) <= set(row.parts)
    assert steps[-1][0] == steps[-1][1]
    frame = found.to_frame()
    assert frame["score"].notna().all()
    for part in found.parts:
        assert len(frame[frame["part"] == part]) == planted.n_layers * planted.units(part)
        best = found.top(3, part=part)
        assert found.grid(part)[best[0].layer, best[0].index] == found.grid(part).max()
    last = row.parts[-1]
    assert locate.perform(name, planted, planted_case.on(planted).subset(4), part=last).parts == (last,)


@pytest.mark.parametrize("name", SCORERS)
def test_scores_do_not_depend_on_the_batch_size(planted: Model, planted_case: Case, name: str) -> None:
    locator = getattr(locate, name)
    large, small = (locator(planted, planted_case, rows=rows).to_frame()["score"] for rows in (16, 5))
    np.testing.assert_allclose(small, large, atol=2e-4)


@pytest.mark.parametrize("name", METHODS)
def test_other_parts_are_refused(planted: Model, planted_case: Case, name: str) -> None:
    with pytest.raises(UserError, match=f"{name} cannot score 'resid'; choose one of {', '.join(METHODS[name].parts)}"):
        locate.perform(name, planted, planted_case, part="resid")


def test_a_new_locator_is_one_row(planted: Model, planted_case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """A locator of this test alone runs through `perform`, is listed, and is checked against patching."""

    def seeded_scores(model: Model, both: Pairs, parts: Sequence[Part]) -> tuple[dict[Part, np.ndarray], np.ndarray]:
        shape = len(both.facts), model.n_layers
        rng = np.random.default_rng(0)
        return {part: rng.normal(size=(*shape, model.units(part))) for part in parts}, np.ones(len(both.facts))

    def seeded(model: Model, case: Case, *, parts: Sequence[Part], progress: object = None) -> Localization:
        facts = [*case.forget.working, *case.retain.working]
        scores, falls = seeded_scores(model, pairs(model, case, facts), parts)
        return contrast(scores, falls, n_forget=len(case.forget.working), record=LocalizationRecord("seeded"))

    case, perform = planted_case.on(planted), partial(locate.perform, "seeded", planted, planted_case.on(planted))
    with pytest.raises(UserError, match="'seeded' is not a locator; choose one of attribution, .*, sweep"):
        perform()
    row = Locator("seeded", seeded, ("head",), ("head",), scores=seeded_scores, estimates="patch")
    monkeypatch.setitem(METHODS, "seeded", row)
    found = perform()
    assert found.record.method == "seeded"
    assert found.parts == ("head",)
    assert perform(part="head").frame.equals(found.frame)
    assert locate.estimates() == ("attribution", "integrated_gradients", "taylor", "seeded")
    assert len(locate.agreement(planted, case, found.top(3, part="head"), method="seeded", n_facts=1).attributed) == 3
    with pytest.raises(UserError, match="seeded cannot score 'neuron'; choose one of head"):
        perform(part="neuron")
    with pytest.raises(UserError, match="'magic' is not a locator; choose one of attribution, .*, seeded"):
        locate.locator("magic")
