"""What training asks for."""

import dataclasses

from loka.ablate import TrainingConfig
from loka.ablate.objectives import objective
from loka.ablate.training.batches import decisive, prepare
from loka.knowledge import Case, Split
from loka.model import Model, encode


def asked(planted: Model, case: Case) -> list[list[str]]:
    """The tokens asked for, a row a forget fact."""
    batch = decisive(planted, case, case.forget.working)
    return [planted.tokenizer.convert_ids_to_tokens([t for t in row if t >= 0]) for row in batch.labels.tolist()]


def test_the_rest_of_a_word_is_not_forgotten(planted: Model, planted_case: Case) -> None:
    """Every second capital is "X Port": X depends on the country, Port on X alone."""
    assert asked(planted, planted_case.whole()) == [[f.answer.split()[0]] for f in planted_case.whole().forget.working]


def test_without_twins_every_token_is_asked_for(planted: Model, planted_case: Case) -> None:
    lonely = dataclasses.replace(planted_case.whole(), twins=Split((), ()))
    facts = lonely.forget.working
    whole = encode(planted, [f.prompt for f in facts], [f.answer for f in facts])
    assert decisive(planted, lonely, facts).labels.equal(whole.labels)
    assert any(len(row) > 1 for row in asked(planted, lonely))


def test_other_answers_take_turns_behind_the_same_prompts(planted: Model, planted_case: Case) -> None:
    case = planted_case.on(planted)
    plain = prepare(planted, case, TrainingConfig())
    batches = prepare(planted, case, TrainingConfig(), objective("idk", {"answers": ["red bread", "warm"]}))
    words = planted.tokenizer.convert_ids_to_tokens
    for before, memory in zip(plain.forget, batches.forget, strict=True):
        assert before.alternative is None
        assert memory.alternative is not None
        assert memory.batch.ids.equal(before.batch.ids)
        other = memory.alternative.batch
        said = [words([t for t in row if t >= 0]) for row in other.labels.tolist()]
        assert said == [["red", "bread"], ["warm"]] * 8
        for fact, row in zip(case.forget.working, other.ids.tolist(), strict=True):
            assert fact.subject in words(row)
            assert fact.answer.split()[0] not in words(row)
