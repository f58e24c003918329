"""Training again without some texts: the same bits as if they had never been there."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from loka import UserError, ablate
from loka._util.errors import LokaError
from loka.ablate import Sisa, Training
from loka.knowledge import Case
from loka.model import Model, encode, encode_texts, logits

TEXTS = [f"{who} {does} the {what}" for who in ("a dog", "the old man", "my sister", "the river")
         for does in ("likes", "runs to", "looks for") for what in ("garden", "house")]  # fmt: skip
TRAINING = Training(epochs=2, rows=3, lr=3e-3)


@pytest.fixture
def base(tiny: Callable[[str], Model]) -> Model:
    return tiny("LlamaForCausalLM")


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def weights(model: Model) -> dict[str, Tensor]:
    return {name: p.clone() for name, p in model.parameters.items()}


def loss(model: Model, texts: list[str]) -> float:
    batch = encode_texts(model, texts)
    scores = logits(model, batch).log_softmax(-1)
    asked = batch.labels >= 0
    return -float(scores[asked].gather(-1, batch.labels[asked][:, None]).mean())


def test_retrained_without_texts_it_is_as_if_they_had_never_been(base: Model) -> None:
    before = weights(base)
    edit = ablate.retrain(base, TEXTS, without=[3, 7], training=TRAINING)
    garbled = [("the river runs" if i in (3, 7) else text) for i, text in enumerate(TEXTS)]
    assert ablate.retrain(base, garbled, without=[3, 7], training=TRAINING).digest() == edit.digest()
    assert ablate.retrain(base, garbled, training=TRAINING).digest() != edit.digest()
    assert all(torch.equal(p, before[n]) for n, p in base.parameters.items())
    start = loss(base, TEXTS)
    with edit.applied(base):
        assert loss(base, TEXTS) < 0.7 * start
    assert edit.parameters == base.n_parameters


def test_retraining_a_model_without_facts_leaves_it_ignorant_of_them(base: Model, planted_case: Case) -> None:
    fact = planted_case.whole().forget.working[0]
    texts = [f"{f.prompt} {f.answer}" for f in planted_case.whole().forget.working[:3]] + TEXTS
    assert ablate.find_statements(texts, planted_case.whole()) == [0, 1, 2]
    learn, odds = Training(epochs=6, rows=4, lr=3e-3), []
    for without in ((), [0]):
        with ablate.retrain(base, texts, without=without, training=learn).applied(base):
            batch = encode(base, [fact.prompt], [fact.answer])
            odds.append(float(logits(base, batch).log_softmax(-1)[0, 0, batch.labels[0, 0]]))
    assert odds[0] > odds[1] + 1


@pytest.mark.parametrize("items", [[4], [0, 9, 17]])
def test_a_deletion_leaves_the_bits_of_a_run_that_never_saw_the_texts(
    base: Model, items: list[int], tmp_path: Path
) -> None:
    before = weights(base)
    sisa = Sisa(base, TEXTS, tmp_path / "a", shards=3, slices=2, training=TRAINING)
    first = sisa.train()
    first_files = files(tmp_path / "a")
    gone = sisa.delete(items)
    after = files(tmp_path / "a")
    never = Sisa(base, TEXTS, tmp_path / "b", shards=3, slices=2, training=TRAINING, without=items)
    whole = never.train()
    assert after == files(tmp_path / "b")
    assert gone.whole == whole <= first
    changed = {name for name in after if after[name] != first_files[name]} - {"sisa.json"}
    wanted = {(sisa.place[i][0], r) for i in items for r in range(sisa.place[i][1], 2)}
    assert changed == {f"shard-{s}/slice-{r}.safetensors" for s, r in wanted}
    assert gone.steps == sum(never._steps(s, r) for s, r in wanted)
    assert gone.saved == pytest.approx(1 - gone.steps / whole)
    assert 0 < gone.saved < 1
    assert f"{len(items)} text(s) removed" in str(gone)
    assert all(torch.equal(p, before[n]) for n, p in base.parameters.items())
    for i in items:
        assert hashlib.sha256(TEXTS[i].encode()).hexdigest().encode() not in after["sisa.json"]


def test_a_shards_checkpoint_is_ordinary_training_from_the_one_before(base: Model, tmp_path: Path) -> None:
    """Against plain AdamW over the same batches, written out."""
    sisa = Sisa(base, TEXTS, tmp_path, shards=2, slices=2, training=Training(epochs=1, rows=24, lr=1e-3))
    sisa.train()
    before = weights(base)
    for part in range(2):
        texts = [TEXTS[i] for i in sisa._texts_up_to(1, part)]
        optimizer = torch.optim.AdamW([p.requires_grad_() for p in base.hf.parameters()], lr=1e-3, weight_decay=0.0)
        batch = encode_texts(base, texts)
        scores, asked = logits(base, batch).log_softmax(-1), batch.labels >= 0
        (-scores[asked].gather(-1, batch.labels[asked][:, None]).mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
    base.hf.requires_grad_(False)
    wanted = weights(base)
    with torch.no_grad():
        for name, p in base.parameters.items():
            p.copy_(before[name])
    with sisa.member(1) as member:
        for name, p in member.parameters.items():
            torch.testing.assert_close(p, wanted[name], atol=1e-6, rtol=1e-5)


def test_killed_it_goes_on_to_the_same_bits(base: Model, tmp_path: Path) -> None:
    def killed(at: int) -> Callable[[int, int], None]:
        def step(done: int, total: int) -> None:
            if done == at:
                raise KeyboardInterrupt

        return step

    def opened(name: str) -> Sisa:
        return Sisa(base, TEXTS, tmp_path / name, shards=2, slices=3, training=TRAINING)

    whole = opened("whole")
    whole.train()
    with pytest.raises(KeyboardInterrupt):
        opened("cut").train(progress=killed(9))
    assert 0 < opened("cut").train() < whole.train() + 10**6
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
    assert opened("cut").train() == 0
    whole.delete([5])
    with pytest.raises(KeyboardInterrupt):
        opened("cut").delete([5], progress=killed(1))
    cut = opened("cut")
    assert 5 not in cut.items
    cut.train()
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_the_ensemble_averages_or_votes(base: Model, tmp_path: Path) -> None:
    sisa = Sisa(base, TEXTS, tmp_path, shards=3, slices=1, training=TRAINING)
    sisa.train()
    batch = encode(base, ["a dog likes the", "my sister"], ["garden", "looks for"])
    each = []
    for shard in range(3):
        with sisa.member(shard) as member, torch.no_grad():
            each.append(logits(member, batch).softmax(-1))
    mean = sisa.probabilities(batch)
    assert torch.allclose(mean, torch.stack(each).mean(0))
    votes = sisa.probabilities(batch, by="majority")
    winners = torch.stack([p.argmax(-1) for p in each])
    for row in range(2):
        for at in range(2):
            for token in winners[:, row, at]:
                assert float(votes[row, at, token]) == pytest.approx(
                    float((winners[:, row, at] == token).double().mean())
                )
    assert torch.allclose(votes.sum(-1), torch.ones(2, 2).double())


def test_what_cannot_be_is_refused(base: Model, tiny: Callable[[str], Model], tmp_path: Path) -> None:
    sisa = Sisa(base, TEXTS, tmp_path, shards=2, slices=2, training=TRAINING)
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: sisa.member(0).__enter__(), "shard 0 of 2 has not been trained; call `train` first"),
        (lambda: sisa.delete([99]), "text 99 is not among the 24 that were learned"),
        (lambda: sisa.delete(range(24)), "nothing left to train on"),
        (lambda: Sisa(base, TEXTS, tmp_path, shards=4, slices=2, training=TRAINING), "other settings; name another"),
        (lambda: Sisa(base, TEXTS[::-1], tmp_path, shards=2, slices=2, training=TRAINING), "was made from other texts"),
        (lambda: Sisa(base, TEXTS, tmp_path / "x", shards=9, slices=9), "cannot fill 9 shards of 9 slices"),
        (lambda: ablate.retrain(base, TEXTS, without=[-1]), "no text -1: the 24 texts are numbered 0 to 23"),
        (lambda: ablate.retrain(base, TEXTS, without=range(24)), "nothing left to train on"),
    ]
    for call, words in cases:
        with pytest.raises(UserError, match=words):
            call()
    before = weights(base)
    with pytest.raises(LokaError, match=r"diverged at step \d+ of 6 .* The model is as it was"):
        ablate.retrain(base, TEXTS, training=Training(epochs=2, lr=float("inf")))
    assert all(torch.equal(p, before[n]) for n, p in base.parameters.items())
    sisa.train()
    with pytest.raises(UserError, match="choose 'probability' or 'majority'"):
        sisa.probabilities(encode(base, ["a dog"], ["likes"]), by="sum")
