"""What a model reads and where its texts end, checked when it is loaded.

- Text becomes tokens of the model's vocabulary, and tokens become text again.
- The tokens that start, pad and end texts are of that vocabulary, too.
- A chat template, where there is one, can be filled in.
"""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .._util.errors import UserError, first_line
from .chat_template import rendered
from .ends import end_ids

_TEXTS = ["The capital of France is Paris: 1, 2, 3.", "a"]


def check_text(hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raise `UserError` if a tokenizer cannot read plain text, or gives or names tokens that the model lacks."""
    rows = hf.get_input_embeddings().get_parameter("weight").shape[0]
    try:
        read: Any = tokenizer(_TEXTS)["input_ids"]
        read += tokenizer(_TEXTS, add_special_tokens=False)["input_ids"]
        tokenizer.batch_decode(read)
        rendered(tokenizer, _TEXTS[0])
    except Exception as error:  # whatever a tokenizer of any make, or a template, trips over
        raise UserError(
            f"the tokenizer of {name} cannot read plain text ({first_line(error)}); give the tokenizer's files as they "
            "came with the model."
        ) from error
    own = [tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id]
    tokens = [*(i for ids in read for i in ids), *(i for i in own if i is not None)]
    # a configuration's default may name an end that a small vocabulary lacks; it is never reached
    tokens += [i for i in end_ids(hf, tokenizer) if type(i) is not int or i < 0]
    if wrong := [i for i in tokens if type(i) is not int or not 0 <= i < rows]:
        raise UserError(
            f"{name} is given the token {str(wrong[0])[:60]}, and its tokens are 0 to {rows - 1}; give the tokenizer, "
            "config.json and generation_config.json that came with the weights."
        )
