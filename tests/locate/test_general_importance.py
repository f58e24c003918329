"""Gradient times activation on neutral text finds the sites that any text needs, so that an edit can spare them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from loka import ablate, locate
from loka._util.errors import UserError
from loka.knowledge import Case, neutral_working, text_loss
from loka.locate import Localization
from loka.model import Model, Site, encode_texts, logits, token_logprobs
from loka.model.layout import head_output, neuron_output


def by_hand(model: Model, texts: list[str], layer: int, part: str) -> np.ndarray:
    """The importance of one layer's units, by PyTorch hooks, one text at a time."""
    module, kept, total, tokens = (neuron_output if part == "neuron" else head_output)(model, layer), [], 0.0, 0

    def keep(_module: object, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        kept.append(given[0].detach().requires_grad_(True))
        return (kept[-1], *given[1:])

    handle = module.register_forward_pre_hook(keep)
    try:
        for text in texts:
            batch = encode_texts(model, [text])
            with torch.enable_grad():
                loss = -token_logprobs(logits(model, batch), batch.labels).sum()
            (grad,) = torch.autograd.grad(loss, [kept[-1]])
            product = (kept[-1].detach() * grad)[0].unflatten(-1, (model.units(part), -1)).sum(-1)
            total = total + product.double().abs().sum(0)
            tokens += batch.tokens
    finally:
        handle.remove()
    return (total / tokens).numpy()


@pytest.mark.parametrize("part", ["neuron", "head"])
def test_importance_is_the_mean_size_of_gradient_times_activation(
    part: str, planted: Model, planted_case: Case
) -> None:
    texts = neutral_working(planted, planted_case)[:12]
    found = locate.general_importance(planted, planted_case, part, passages=12)
    assert found.shape == (planted.n_layers, planted.units(part))
    for layer in (0, 3):
        np.testing.assert_allclose(found[layer], by_hand(planted, texts, layer, part), rtol=1e-3, atol=1e-6)


def test_text_needs_the_excluded_sites(planted: Model, planted_case: Case) -> None:
    """Positive control: zeroing the excluded neurons costs far more than zeroing as many others."""
    every = planted.sites("neuron")
    kept = locate.exclude_general(planted, planted_case, every, share=0.1)
    needed = sorted(set(every) - set(kept))
    assert len(needed) == pytest.approx(0.1 * len(every), abs=1)
    texts = neutral_working(planted, planted_case)

    def loss(sites: list[Site]) -> float:
        with ablate.zero(planted, planted_case, sites).applied(planted):
            total, tokens = text_loss(planted, texts).sum(0).tolist()
        return total / tokens

    others = [loss(locate.random_sites(planted, needed, without=needed, seed=s)) for s in range(3)]
    total, tokens = text_loss(planted, texts).sum(0).tolist()
    assert loss(needed) - total / tokens > 3 * (max(others) - total / tokens)


def test_the_other_sites_keep_their_order(planted: Model, planted_case: Case) -> None:
    given = [*reversed(planted.sites("neuron")), *planted.sites("head")]
    assert locate.exclude_general(planted, planted_case, given, share=0) == given
    kept = locate.exclude_general(planted, planted_case, given, share=0.25)
    assert kept == [s for s in given if s in set(kept)]
    assert sum(s.part == "head" for s in kept) == 0.75 * planted.n_layers * planted.n_heads
    for share in (1.0, -0.1):
        with pytest.raises(UserError, match=f"share={share} is not a share of sites"):
            locate.exclude_general(planted, planted_case, given, share=share)
    with pytest.raises(UserError, match="'kv' has no activations of its own"):
        locate.exclude_general(planted, planted_case, [Site(0, "kv", 0)])


def test_random_sites_leave_out_given_sites(planted: Model) -> None:
    sites = [Site(0, "neuron", i) for i in range(50)]
    barred = [Site(0, "neuron", i) for i in range(60, 192)]
    drawn = locate.random_sites(planted, sites, without=barred)
    assert drawn == [Site(0, "neuron", i) for i in range(50, 60)]


def test_marked_sites_come_last(planted: Model, planted_case: Case) -> None:
    found = locate.integrated_gradients(planted, planted_case)
    every = found.top(768)
    kept = locate.exclude_general(planted, planted_case, every)
    needed = [s for s in every if s not in set(kept)]
    assert len(needed) == 8  # one per cent
    marked = locate.mark_general(planted, planted_case, found)
    assert marked.top(768) == [*kept, *needed]
    assert marked.top(20) == kept[:20]
    steady = [s for s in found.top(768, by="frequency") if s in set(kept)]
    assert marked.top(20, by="frequency") == steady[:20]
    assert set(marked.frame.query("part == 'head'")["general"]) == {True, False}
    assert found.top(768) == every  # the given one is as it was
    mlps = locate.integrated_gradients(planted, planted_case, parts=("mlp",))
    assert locate.mark_general(planted, planted_case, mlps).frame.equals(mlps.frame)


def test_a_file_from_before_has_no_marks(planted: Model, planted_case: Case, tmp_path: Path) -> None:
    found = locate.attribution(planted, planted_case)
    old = Localization(found.frame.drop(columns="general"), found.record).save(tmp_path / "old.parquet")
    assert Localization.load(old).frame.equals(found.frame)
