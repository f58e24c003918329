"""The texts that are put around a question. Working and sealed prompts use different ones."""

from __future__ import annotations

from ...model import Prompt

WORKING = "Question: {}\nAnswer:"
SEALED = "Q: {}\nA:"
SLOT = "{}"


def framed(frame: str, question: str, subject: str) -> Prompt:
    """A question in its frame, which knows where the subject stands."""
    before, _, after = frame.partition(SLOT)
    return Prompt.spot(f"{before}{question}{after}", subject)
