"""Mixups of subjects: the original's outputs on them, which subjects they mix, and that they keep others in place."""

import dataclasses

import pytest
import torch

from loka import locate
from loka.ablate import TrainingConfig, tune
from loka.ablate.training.mixup import mixups
from loka.knowledge import Case, Split
from loka.model import Model, encode, logits
from loka.model.train.distill import divergence, label_logits, record_outputs
from loka.verify import recall


@pytest.fixture
def known(planted: Model, planted_case: Case) -> Case:
    return planted_case.on(planted)


def test_a_mixup_of_a_subject_with_itself_is_the_subject(planted: Model, known: Case) -> None:
    alone = dataclasses.replace(known, retain=Split(known.retain.working[:1], ()), unknown=())
    (fact,) = alone.retain.working
    assert fact.relation in alone.forgotten_relations
    (memory,) = mixups(planted, alone, 3, seed=0)
    assert (memory.batch.labels >= 0).sum(-1).tolist() == [1, 1, 1]  # of an answer of two tokens the first
    for row in range(3):
        prompt = planted.tokenizer.decode(memory.batch.ids[row][memory.batch.mask[row].bool()])
        asked = next(p for p in fact.prompts if prompt.startswith(p))
        plain = record_outputs(planted, encode(planted, [asked], [fact.answer.split()[0]]))
        torch.testing.assert_close(memory.rows([row]).logprobs, plain.logprobs)
        assert memory.rows([row]).tokens.equal(plain.tokens)


def test_mixups_are_of_subjects_to_keep_and_lie_between_them(planted: Model, known: Case) -> None:
    memories = mixups(planted, known, 40, seed=0)
    assert [len(m.batch.ids) for m in memories] == [32, 8]
    names = {f.subject for f in (*known.retain.working, *known.unknown) if f.relation in known.forgotten_relations}
    words = {w for m in memories for w in planted.tokenizer.convert_ids_to_tokens(m.batch.ids.flatten().tolist())}
    others = (known.forget.working, known.forget.sealed, known.retain.sealed, known.twins.working, known.twins.sealed)
    assert words & names
    assert not words & {f.subject for some in others for f in some} - names
    for memory in memories:
        assert divergence(planted, memory).item() == pytest.approx(0, abs=1e-5)  # as the original says it
        said = logits(planted, memory.batch)[memory.batch.labels >= 0]
        assert not torch.allclose(said, label_logits(planted, memory.batch, memory.injected), atol=0.1)
    again, other = (mixups(planted, known, 40, seed=seed) for seed in (0, 1))
    assert all(a.batch.ids.equal(m.batch.ids) for a, m in zip(again, memories, strict=True))
    assert not all(a.batch.ids.shape == m.batch.ids.shape and a.batch.ids.equal(m.batch.ids)
                   for a, m in zip(other, memories, strict=True))  # fmt: skip


def test_without_subjects_to_keep_there_are_none(planted: Model, known: Case) -> None:
    assert not mixups(planted, dataclasses.replace(known, retain=Split((), ()), unknown=()), 8, seed=0)


def test_rehearsed_mixups_keep_others_of_their_kind(planted: Model, planted_case: Case, known: Case) -> None:
    others = mixups(planted, known, 64, seed=9)
    found = locate.attribution(planted, planted_case).top(200)
    moved, forgotten = [], []
    for rows in (0, 256):
        edit = tune(
            planted,
            planted_case,
            found,
            TrainingConfig(steps=40, lr=3e-3, retain_weight=5.0, push_weight=0.3, mixup_rows=rows),
        )
        with torch.no_grad(), edit.applied(planted):
            moved.append(sum(float(divergence(planted, memory)) for memory in others))
            forgotten.append(recall(planted, planted_case).details["working"])
    assert moved[1] < 0.75 * moved[0], moved  # on mixups that were not rehearsed
    assert max(forgotten) <= 0.3
