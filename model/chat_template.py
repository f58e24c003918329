"""A message in a tokenizer's chat template."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

DAY = "26 Jul 2024"  # so that tomorrow gives today's numbers
SAME_DAY = "{%- macro strftime_now(format) -%}" + DAY + "{%- endmacro -%}"
OPEN_THOUGHT, NO_THOUGHT = "<think>", "\n\n</think>\n\n"


def rendered(tokenizer: PreTrainedTokenizerBase, message: str) -> str | None:
    """A message up to where the reply begins; `None` where the tokenizer has no template.

    The template sees a fixed day, and a block of reasoning is closed, so that the reply itself follows.
    """
    template = getattr(tokenizer, "chat_template", None)
    if not template:
        return None
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True, enable_thinking=False,
        chat_template=f"{SAME_DAY}{template}", date_string=DAY,
    )  # fmt: skip
    assert isinstance(text, str)
    return text.rstrip() + NO_THOUGHT if text.rstrip().endswith(OPEN_THOUGHT) else text
