"""Nothing is cut without a word: what is longer than a model's context is refused, by every way to read it."""

from collections.abc import Callable

import pytest

from loka import verify
from loka._util.errors import UserError
from loka.knowledge import Case, Fact, score
from loka.model import Model, encode_texts
from loka.model.run.generate import continuations
from loka.model.run.prefix_cache import score_continuations

LONG = "the river looks for the garden and "


def text(words: int) -> str:
    return " ".join((LONG * words).split()[:words])


@pytest.mark.parametrize("make", ["GPT2LMHeadModel", "LlamaForCausalLM"])
def test_what_is_longer_than_the_context_is_refused(tiny: Callable[[str], Model], make: str) -> None:
    model = tiny(make)
    model.hf.config.max_position_embeddings = 64
    said = "a text of (66|65) tokens .* does not fit the context of .*, 64 tokens; shorten it or divide it"
    for ask in (
        lambda: score(model, [text(64), text(63)], ["the sea at"[:7], "bread"]),  # they share their beginning
        lambda: score(model, [text(63)], ["the sea"]),
        lambda: continuations(model, [text(65)], tokens=2),
        lambda: encode_texts(model, [text(65)]),
        lambda: score_continuations(model, [(tuple(range(4, 60)), tuple(range(4, 14)))]),
    ):
        with pytest.raises(UserError, match=said):
            ask()
    assert score(model, [text(62)], ["the sea"]).logprob.isfinite().all()


def test_a_passage_is_read_to_its_end(tiny: Callable[[str], Model]) -> None:
    model = tiny("LlamaForCausalLM")
    batch = encode_texts(model, [text(400)])
    assert batch.tokens == 400
    assert int((batch.labels >= 0).sum()) == 399


@pytest.mark.parametrize("make", ["GPT2LMHeadModel", "LlamaForCausalLM"])
def test_a_continuation_ends_where_the_context_does(tiny: Callable[[str], Model], make: str) -> None:
    model = tiny(make)
    model.hf.config.max_position_embeddings = 64
    model.hf.config.eos_token_id = model.tokenizer.eos_token_id
    long, short = text(60), text(20)
    alone = {p: continuations(model, [p], tokens=30)[0] for p in (long, short)}
    assert 1 <= len(alone[long].split()) <= 5
    assert continuations(model, [long, short], tokens=30) == [alone[long], alone[short]], "whatever stands beside it"


def test_a_soft_prompt_needs_room_too(planted: Model) -> None:
    case = Case.of([Fact(f"dog {i}", "", text(58 - i), "bread", foils=("water",)) for i in range(2)])
    assert verify.soft_prompt(planted, case, tokens=1, steps=1).value is not None
    with pytest.raises(UserError, match="does not fit the context of taught, 64 tokens"):
        verify.soft_prompt(planted, case, tokens=4, steps=1)
