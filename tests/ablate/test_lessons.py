"""What training asks for."""

import dataclasses
from collections.abc import Sequence

from loka.ablate import tune
from loka.ablate.lessons import decisive, prepare
from loka.knowledge import Case, Fact, Split, neighbours
from loka.model import Batch, Model, Site, encode


def asked(planted: Model, case: Case) -> list[list[str]]:
    """The tokens asked for, a row a forget fact."""
    batch = decisive(planted, case, case.forget.working)
    return [planted.tokenizer.convert_ids_to_tokens([t for t in row if t >= 0]) for row in batch.labels.tolist()]


def test_the_rest_of_a_word_is_not_forgotten(planted: Model, planted_case: Case) -> None:
    """Every second capital is "X Port": X depends on the country, Port on X alone."""
    assert asked(planted, planted_case) == [[f.answer.split()[0]] for f in planted_case.forget.working]


def test_without_twins_every_token_is_asked_for(planted: Model, planted_case: Case) -> None:
    lonely = dataclasses.replace(planted_case, twins=Split((), ()))
    facts = lonely.forget.working
    whole = encode(planted, [f.prompt for f in facts], [f.answer for f in facts])
    assert decisive(planted, lonely, facts).labels.equal(whole.labels)
    assert any(len(row) > 1 for row in asked(planted, lonely))


def test_other_answers_take_turns_behind_the_same_prompts(planted: Model, planted_case: Case) -> None:
    case = planted_case.on(planted)
    plain = prepare(planted, case, retain_rows=12, neutral_rows=4, seed=0)
    lessons = prepare(planted, case, retain_rows=12, neutral_rows=4, seed=0, instead=["red bread", "warm"])
    words = planted.tokenizer.convert_ids_to_tokens
    for before, memory in zip(plain.forget, lessons.forget, strict=True):
        assert before.instead is None
        assert memory.instead is not None
        assert memory.batch.ids.equal(before.batch.ids)
        other = memory.instead.batch
        said = [words([t for t in row if t >= 0]) for row in other.labels.tolist()]
        assert said == [["red", "bread"], ["warm"]] * 8
        for fact, row in zip(case.forget.working, other.ids.tolist(), strict=True):
            assert fact.subject in words(row)
            assert fact.answer.split()[0] not in words(row)


def test_further_facts_are_rehearsed_beside_those_to_keep(planted: Model, planted_case: Case) -> None:
    case = planted_case.on(planted)
    few = dataclasses.replace(case, retain=Split(case.retain.working[:4], ()), twins=Split(case.twins.working[:4], ()))
    few = dataclasses.replace(few, digest="few", aside=())
    plain, more = (prepare(planted, few, retain_rows=12, neutral_rows=4, seed=0, further=n) for n in (0, 8))
    rows = [
        {tuple(row) for memory in lessons.retain for row in words(planted, memory.batch)} for lessons in (plain, more)
    ]
    named = neighbours(planted, few, 8)
    assert named
    assert rows[1] - rows[0] == {tuple(row) for row in words(planted, encoded(planted, named))}
    assert rows[0] < rows[1]
    edit = tune(planted, few, [Site(1, "neuron", 3)], steps=1, neighbours=8)
    assert edit.about["neighbours"] == len(named)


def words(model: Model, batch: Batch) -> list[list[str]]:
    """The tokens of each row, without padding."""
    return [
        model.tokenizer.convert_ids_to_tokens(ids[mask.bool()]) for ids, mask in zip(batch.ids, batch.mask, strict=True)
    ]


def encoded(model: Model, facts: Sequence[Fact]) -> Batch:
    return encode(model, [f.prompt for f in facts], [f.answer for f in facts])


def test_states_are_remembered_where_something_is_to_be_kept(planted: Model, planted_case: Case) -> None:
    plain, held = (
        prepare(planted, planted_case.on(planted), retain_rows=12, neutral_rows=4, seed=0, states=states)
        for states in (False, True)
    )
    assert [m.batch.ids.tolist() for m in plain.retain] == [m.batch.ids.tolist() for m in held.retain]
    assert all(m.stream is None for m in (*plain.retain, *held.forget, *held.neutral))
    assert all(m.stream is not None and m.stream.shape[:2] == m.batch.ids.shape for m in held.retain)
