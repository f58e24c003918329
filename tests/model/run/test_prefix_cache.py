"""Prompts that are read in parts score as whole rows do, on every architecture."""

from collections.abc import Callable

import pytest
import torch

from loka.knowledge import score
from loka.model import Model, encode, logits, split, token_logprobs
from loka.model.run.prefix_cache import prefill, reads_in_parts, score_continuations

PROMPTS = [
    *(f"the old man of {name} likes the house at" for name in ("a dog", "my sister", "the small red bird", "bread")),
    "the old man of bread", "the garden", "my sister looks for the red house", "my sister looks for warm bread at",
]  # fmt: skip
ANSWERS = ["warm", "the sea at night", "warm bread", "a small bird sings", "the garden"]
ROWS = [(p, a) for i, p in enumerate(PROMPTS) for a in ANSWERS[: 1 + i % 5]]


@torch.no_grad()
def alone(model: Model, prompt: str, answer: str) -> tuple[float, bool]:
    """One row by itself, without cached keys and values."""
    batch = encode(model, [prompt], [answer])
    out = logits(model, batch)
    return float(token_logprobs(out, batch.labels).sum()), bool((out.argmax(-1) == batch.labels).all())


def tokens(model: Model) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    rows = split(model, [p for p, _ in ROWS], [a for _, a in ROWS])
    return [(tuple(head), tuple(tail)) for head, tail in rows]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Callable[[Model], list[tuple[int, ...]]]:
    """The shapes of all inputs that a model reads from now on."""

    def watch(model: Model) -> list[tuple[int, ...]]:
        shapes: list[tuple[int, ...]] = []
        own = model.hf.forward

        def forward(*args: object, input_ids: torch.Tensor, **given: object) -> object:
            shapes.append(tuple(input_ids.shape))
            return own(*args, input_ids=input_ids, **given)

        monkeypatch.setattr(model.hf, "forward", forward)
        return shapes

    return watch


@pytest.mark.parametrize("most", [64, 3])
def test_rows_in_parts_score_as_whole_ones(
    architecture: str, most: int, tiny: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny(architecture)
    monkeypatch.setattr("loka.model.run.prefix_cache.CALL", 2)  # so that short rows are shared, and split by length
    wanted = [alone(model, p, a) for p, a in ROWS]
    for prefixes in (True, False):
        logprob, greedy = score_continuations(model, tokens(model), most=most, prefixes=prefixes)
        assert logprob.tolist() == pytest.approx([w for w, _ in wanted], abs=1e-9)
        assert greedy.tolist() == [g for _, g in wanted]


def test_a_greedy_answer_is_likeliest_at_every_token(planted: Model, planted_case) -> None:
    facts = planted_case.on(planted).forget.sealed
    found = score(
        planted, [f.prompt for f in facts for _ in (0, 1)], [a for f in facts for a in (f.answer, f.foils[0])]
    )
    assert found.greedy.tolist() == [True, False] * len(facts)


def test_shared_beginnings_are_read_once(tiny: Callable[[str], Model], read, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("LlamaForCausalLM")
    monkeypatch.setattr("loka.model.run.prefix_cache.CALL", 2)
    rows, shapes = tokens(model), read(model)
    score_continuations(model, rows)
    whole = sum(len(head) + len(tail) for head, tail in rows)
    distinct = sum(map(len, {head for head, _ in rows})) + sum(len(tail) for _, tail in rows)
    assert sum(n * width for n, width in shapes) < distinct < whole
    prefix = len(model.tokenizer("the old man of")["input_ids"])
    assert (1, prefix) in shapes


def test_a_wrapped_model_reads_whole_rows(tiny: Callable[[str], Model], read) -> None:
    model = tiny("LlamaForCausalLM")
    assert reads_in_parts(model)
    for part in (model.hf, model.hf.get_input_embeddings()):
        handle = part.register_forward_hook(lambda *_: None)
        assert not reads_in_parts(model)
        handle.remove()
    model.hf(
        input_ids=torch.tensor([[1, 2]], device=model.device), output_hidden_states=True
    )  # transformers leaves its hooks in place
    assert reads_in_parts(model)
    shapes = read(model)
    assert not reads_in_parts(model)
    before = score(model, [p for p, _ in ROWS], [a for _, a in ROWS]).logprob
    assert sum(n for n, _ in shapes) == len(ROWS)
    assert before.tolist() == pytest.approx([alone(model, p, a)[0] for p, a in ROWS], abs=1e-9)


def test_padding_does_not_shift_a_sliding_window(tiny: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("MistralForCausalLM")
    model.hf.config.sliding_window = 5
    model.hf.model.config.sliding_window = 5
    monkeypatch.setattr("loka.model.run.prefix_cache.CALL", 2)
    wanted = [alone(model, p, a)[0] for p, a in ROWS]
    assert score_continuations(model, tokens(model))[0].tolist() == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("columns", [0, 1, 6, 99])
@torch.no_grad()
def test_a_batch_continues_after_its_first_columns(
    architecture: str, columns: int, tiny: Callable[[str], Model]
) -> None:
    model = tiny(architecture)
    batch = encode(model, PROMPTS[3:6], ANSWERS[:3])
    width = batch.ids.shape[1]
    wanted = token_logprobs(logits(model, batch), batch.labels)
    rest, past = prefill(model, batch, columns)
    assert rest.ids.shape[1] == width - min(columns, width - batch.keep - 1)
    for _ in range(2):  # the cache can be used again
        scored = token_logprobs(logits(model, rest, past), batch.labels)
        torch.testing.assert_close(scored, wanted, atol=1e-9, rtol=0)
