"""The harness's view of a model in memory."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from ...model import Model
from .quiet import library


def reader(model: Model, rows: int) -> Any:
    """An `HFLM` around the model and a copy of its tokenizer, that reads so many rows at a time.

    It refuses answers without tokens by a `ValueError`. The harness would count them as certain wherever a longer
    answer follows the same prompt. Prompts that are too long for the model lose their beginning, as in the harness.
    """
    base: Any = library("models.huggingface").HFLM

    class Reader(base):
        def _loglikelihood_tokens(self, requests: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
            empty = next((texts for texts, _, answer in requests if not answer), None)
            if empty is not None:
                raise ValueError(f"the answer {empty[1]!r} adds no tokens to its prompt; does it lack a space?")
            return super()._loglikelihood_tokens(requests, *args, **kwargs)

    tokenizer = copy.deepcopy(model.tokenizer)
    return Reader(pretrained=model.hf, tokenizer=tokenizer, backend="causal", batch_size=rows)
