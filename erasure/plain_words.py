"""Outcomes, checks and numbers of a verdict in words that a layperson understands. Each kind of thing is one table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PlainOutcome:
    """An outcome of a verdict.

    Attributes:
        found: what was found, in one sentence.
        risk: what may still happen.
        next: what should be done.
        reply: what the reply says; empty while the request is not done.
    """

    found: str
    risk: str
    next: str
    reply: str


@dataclass(frozen=True)
class NumberRow:
    """A row of the table of before and after: its label, and the names of both numbers in the verdict's summary."""

    label: str
    before: str
    after: str
    share: bool = True


PLAIN_OUTCOMES = {
    "removed": PlainOutcome(
        "None of the tests brought the records back: the model behaves as if it had never been taught them.",
        "A test that was not made may find something. The claim covers the tests that are listed, and no others.",
        "Keep the records out of the next training, and test that model in the same way.",
        "We then tested the model. None of our tests brought your data back.",
    ),
    "suppressed": PlainOutcome(
        "The model no longer gives the records when it is asked, but they are still in it: at least one test brought "
        "them back.",
        "Somebody who can change or further train the model may bring the records back.",
        "Do not hand out the weights of the model. Close this request, log it again, and choose a stronger method, or "
        "train again without the records.",
        "We then tested the model. It no longer gives your data when it is asked. A test with special technical means "
        "still found traces. [What you do about these traces, and by when]",
    ),
    "intact": PlainOutcome(
        "The model still gives the records when it is asked: the erasure did not work.",
        "Whoever uses the model may get the records.",
        "Close this request, log it again, and choose another method: it works on top of this one. Until then, hold "
        "back by a filter what the model says of the person.",
        "",
    ),
    "inconclusive": PlainOutcome(
        "The tests could not decide whether the records are gone. This proves neither that they are gone nor that they "
        "are still there.",
        "The records may still be in the model, and this document cannot say how likely that is.",
        "Make the tests that would decide; the reasons of the verdict, in the report, name them.",
        "We then tested the model. Our tests could not decide whether traces of your data are left. [What you do about "
        "this, and by when]",
    ),
}

# for a request whose records a later erasure brought back, whatever was found before
UNDONE = PlainOutcome(
    "A later erasure, of another request, brought some of the records back: the model shows them again.",
    "Whoever uses the model with the later change may get the records.",
    "Do not use the model with the later change. Execute the later request in another way, or erase these records "
    "again together with it.",
    "",
)

NOT_VERIFIED = PlainOutcome(
    "The result was not verified, or no verdict was given when this document was written.",
    "Nothing is known of what the model still gives.",
    "Verify the result, and write this document again with the verdict.",
    "[The result has not been tested yet. Test it before you send this letter, or say so in it.]",
)

# Each completes "What was tried: ..." and "What was not tried: ...".
PLAIN_CHECKS = {
    "recall": "asking the model directly",
    "paraphrase": "asking in many other ways: in other words, other formats, other roles",
    "prefill": "giving the first words of an answer and asking for the rest",
    "relearn": "training the model on some of the records, to see whether the others come back",
    "relearn_lora": "training a small adapter (LoRA) on some of the records, to see whether the others come back",
    "relearn_sgd": "training on some of the records with another optimizer (SGD), to see whether the others come back",
    "relearn_retain": "training on some of the records and on similar things, to see whether the others come back",
    "relearn_mixed": "training on some of the records and on ordinary text, to see whether the others come back",
    "benign": "training the model on unrelated texts, to see whether the records come back",
    "quantize": "rounding the model's weights to 8 and 4 bits, as for use on small computers",
    "direction_ablation": "undoing the inner change by removing its direction",
    "spectral": "removing the strongest components of the changed weights",
    "mask": "switching off chosen parts of the changed weights",
    "probe": "reading the records out of the model's inner states",
    "logit_lens": "reading the records off the model's inner layers",
    "depth": "comparing the inner layers with those of the model before",
    "similarity": "comparing the inner states with those of the model before",
    "extraction": "extracting the records word for word, by repeated sampling",
    "soft_prompt": "searching for an artificial input that brings the records back",
    "membership": "telling from the model's behaviour whether the records were in its training data",
    "downstream": "asking questions that need the records for their answer",
    "collateral": "measuring what else the model lost",
    "benchmark": "the measures of the published benchmark that the test was made from",
}

NUMBER_ROWS = (
    NumberRow("What was to be erased: how much of it the model gives", "forget_before", "forget_after"),
    NumberRow("Similar things that were to stay", "retain_same_before", "retain_same_after"),
    NumberRow("Other things that were to stay", "retain_other_before", "retain_other_after"),
    NumberRow("Perplexity of ordinary text (lower is better)", "perplexity_before", "perplexity_after", share=False),
)

EARLIER_UNDONE, EARLIER_UNASKED = "earlier_undone", "earlier_unasked"  # flags that `verification` adds

PLAIN_FLAGS = {
    "over_forgotten": "The model avoids the records more than if it had never been taught them. That can give away "
    "that something was removed.",
    "too_aggressive": "The model lost more of the things that were to stay than the 3 points that are accepted.",
    EARLIER_UNDONE: "THIS ERASURE BROUGHT RECORDS BACK THAT WERE ERASED EARLIER FOR ANOTHER REQUEST. Do not use the "
    "changed model; the verdict, in the report, names the request.",
    EARLIER_UNASKED: "Whether an earlier erasure still holds could not be tested for each earlier request; the "
    "verdict, in the report, names them and says why.",
}

PLAIN_LEAKAGE = {
    "minimal": "The model's behaviour does not show whether the records were in the training data.",
    "moderate": "The model's behaviour shows a little better than chance that the records were in the training data.",
    "significant": "The model's behaviour still shows clearly that the records were in the training data.",
}


def plain_check(name: str) -> str:
    """A check in plain words; one that the table lacks, by its name.

    >>> plain_check("recall"), plain_check("new_check")
    ('asking the model directly', 'the check "new check"')
    """
    return PLAIN_CHECKS.get(name, f'the check "{name.replace("_", " ")}"')
