"""Exact effects of sites on the planted facts, and a whole sweep as a localization."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from loka import locate
from loka._util.errors import UserError
from loka.knowledge import Case
from loka.locate.counterfactual import Pairs, log_odds, pairs
from loka.model import Model, Site, logits
from loka.model.run.hooks import record, run


@pytest.fixture
def some(planted: Model, planted_case: Case) -> Case:
    """A case of a few facts, to keep sweeps fast."""
    known = planted_case.on(planted)
    forget = dataclasses.replace(known.forget, working=known.forget.working[:6])
    retain = dataclasses.replace(known.retain, working=known.retain.working[:6])
    return dataclasses.replace(known, forget=forget, retain=retain)


def odds(model: Model, both: Pairs, corrupted: bool = False) -> np.ndarray:
    with torch.no_grad():
        return log_odds(logits(model, both.corrupted if corrupted else both.clean), both).double().cpu().numpy()


def test_all_sites_of_a_part_by_default(planted: Model, some: Case) -> None:
    effects = locate.patching(planted, some)
    assert effects.shape == (6, 4 * 4)
    chosen = [Site(3, "head", 2), Site(0, "head", 1)]
    np.testing.assert_allclose(locate.patching(planted, some, chosen), effects[:, [14, 1]], atol=1e-4)


def test_the_whole_stream_carries_the_whole_effect(planted: Model, some: Case) -> None:
    """With the last block's stream patched at every position, the model answers as for the other subject."""
    facts = list(some.forget.working)
    both = pairs(planted, some, facts)
    same = (both.clean.mask == both.corrupted.mask).all(1).cpu().numpy()
    fall = odds(planted, both) - odds(planted, both, corrupted=True)
    effects = locate.patching(planted, some, "resid")
    assert effects.shape == (6, 4)
    assert same.any()
    np.testing.assert_allclose(effects[same][:, 3], fall[same], atol=1e-3)
    assert fall.min() > 3


def test_effects_start_at_the_subject_and_end_at_the_last_token(planted: Model, some: Case) -> None:
    both = pairs(planted, some, some.forget.working)
    effects = locate.patching(planted, some, [Site(0, "resid"), Site(3, "resid")], positions="all")
    assert effects.shape[:2] == (6, 2)
    for row, fact in enumerate(both.facts):
        prompt = fact.prompt.split()
        own = prompt.index(fact.subject) - len(prompt)
        assert np.isnan(effects[row, :, : effects.shape[2] - len(prompt)]).all()
        assert (effects[row, :, -len(prompt) : own] == 0).all()
        assert (effects[row, 0, own:] != 0).all()
        assert effects[row, 1, -1] > 1, "after the last block, the whole effect is at the last token"
        assert np.abs(effects[row, 1, -len(prompt) : -1]).max() < 1e-4


def test_a_sweep_is_a_localization(planted: Model, some: Case, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    budget = locate.SweepBudget(checkpoint=tmp_path / "heads")
    found = locate.sweep(planted, some, budget=budget, progress=lambda *step: seen.append(step))
    assert found.parts == ("head",)
    assert len(found.frame) == 16
    assert (found.record.method, found.record.settings) == ("sweep", {"kind": "patch"})
    effects = locate.patching(planted, some)
    facts = [*some.forget.working, *[f for f in some.retain.working if f.relation == "capital"]]
    assert seen[-1] == (16 * len(facts), 16 * len(facts))
    kept = found.record.n_forget == 6
    assert kept
    np.testing.assert_allclose(found.frame["raw"], effects.mean(0), atol=1e-4)
    both = pairs(planted, some, some.forget.working)
    fall = odds(planted, both) - odds(planted, both, corrupted=True)
    np.testing.assert_allclose(found.frame["forget"], (effects / fall[:, None]).mean(0), atol=1e-4)
    again = locate.sweep(planted, some, part="head", budget=budget)
    assert again.frame.equals(found.frame)


def test_exact_and_attributed_neurons_agree(planted: Model, some: Case) -> None:
    found = locate.sweep(planted, some, part="neuron")
    estimated = locate.attribution(planted, some)
    best, wanted = (set(f.top(20, by="forget")) for f in (estimated, found))
    assert len(best & wanted) >= 8, "20 of 768 by chance share half a neuron"
    assert np.corrcoef(found.grid("neuron", "raw").ravel(), estimated.grid("neuron", "raw").ravel())[0, 1] > 0.6


def test_zeroing_a_head_equals_a_hook_that_returns_zeros(planted: Model, some: Case) -> None:
    both = pairs(planted, some, some.forget.working)
    effects = locate.patching(planted, some, [Site(2, "head", 1)], kind="zero")
    name = "blocks.2.attn.hook_z"

    def zero(value: torch.Tensor) -> torch.Tensor:
        value = value.clone()
        value[:, :, 1] = 0
        return value

    with torch.no_grad():
        wanted = log_odds(record(planted, both.clean, []).logits, both) - log_odds(
            run(planted, both.clean, [(name, zero)]), both
        )
    np.testing.assert_allclose(effects[:, 0], wanted.cpu().numpy(), atol=1e-4)
    assert np.abs(effects).max() > 1e-3


def test_errors_say_what_is_wrong(planted: Model, some: Case) -> None:
    with pytest.raises(UserError, match=r"sweep scores parts with units .*, not 'mlp'; loka.locate.patching"):
        locate.sweep(planted, some, part="mlp")
    first = some.forget.working[0]
    with pytest.raises(UserError, match=f"the answer '{first.answer}' of .* is one of its foils"):
        locate.patching(planted, some, facts=[dataclasses.replace(first, foils=(first.answer, "the garden"))])
    with pytest.raises(UserError, match="L9.head.0 is not in taught: its layers are 0 to 3"):
        locate.patching(planted, some, [Site(9, "head", 0)])
    with pytest.raises(UserError, match=r"top\(17\) of 16 head sites"):
        locate.sweep(planted, some, part="head").top(17, part="head")
