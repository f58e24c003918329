"""The one place where text becomes tokens.

A row starts with the tokens that the tokenizer puts before every text, such as BOS, and ends with the text's own last
token, so that no special token is ever a label. A text that brings its own start, such as a rendered chat, gets no
second one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .._util.errors import UserError
from .chat_template import rendered
from .prompt import Prompt, join, takes_space

if TYPE_CHECKING:
    from .load import Model


def token_ids(model: Model, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of each text, with the tokens that start every text and without those that would end one."""
    if not texts:
        return []
    start = start_ids(model)
    plain = model.tokenizer([str(t) for t in texts], add_special_tokens=False)["input_ids"]
    return [ids if start and ids[: len(start)] == start else [*start, *ids] for ids in plain]


def start_ids(model: Model) -> list[int]:
    """The tokens that the tokenizer puts before every text."""
    return model.cache.get("start", id(model.tokenizer), lambda: _start(model))


def _start(model: Model) -> list[int]:
    plain = model.tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = model.tokenizer("a")["input_ids"]
    at = next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), 0)
    return whole[:at]


def split(model: Model, prompts: Sequence[str], answers: Sequence[str]) -> list[tuple[list[int], list[int]]]:
    """The tokens of each prompt and of its answer, split from the tokens of both together.

    Raises:
        UserError: an answer without a token of its own.
    """
    distinct = list(dict.fromkeys(prompts))  # with a pool of answers, a prompt recurs many times
    heads = dict(zip(distinct, token_ids(model, distinct), strict=True))
    wholes = token_ids(model, [join(p, a) for p, a in zip(prompts, answers, strict=True)])
    out = []
    for prompt, answer, full in zip(prompts, answers, wholes, strict=True):
        head = heads[prompt]
        same = next((i for i, (a, b) in enumerate(zip(head, full, strict=False)) if a != b), min(len(head), len(full)))
        if same == len(full):
            raise UserError(f"the answer {answer!r} adds no token to the prompt {prompt!r}; give another answer.")
        if same == 0:
            raise UserError(
                f"nothing stands before the answer {answer!r}, so no token predicts its first one; give a prompt."
            )
        out.append((full[:same], full[same:]))
    return out


def first_tokens(model: Model, answers: Sequence[str], *, prompt: str = "a") -> list[int]:
    """Each answer's first token after a prompt. With the default, that is its first token after a space."""
    stem = prompt if not takes_space(prompt) else "a"
    return [tail[0] for _, tail in split(model, [stem] * len(answers), answers)]


def chat(model: Model, message: str, start: str = "") -> Prompt | None:
    """A message in the model's chat template, and the start of the reply; `None` for a tokenizer without a template."""
    text = rendered(model.tokenizer, message)
    return None if text is None else Prompt(f"{text}{start}")
