"""How much of a text a generation repeats, word by word.

Lin 2004, ROUGE, aclanthology.org/W04-1013. The arithmetic is that of the package rouge-score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .conventions import OPEN_UNLEARNING, STATED, check_convention


@dataclass(frozen=True)
class Rouge:
    """Shares from 0 to 1. Recall is relative to the truth, precision to the generation; F1 is their harmonic mean.

    `rouge1` counts words in any order, `rougeL` the longest common subsequence of words.
    """

    rouge1_recall: float
    rougeL_recall: float
    rougeL_f1: float


def rouge(generation: str, truth: str) -> Rouge:
    """Compare a generation with the truth, by words.

    Texts are lower-cased and split at everything but a to z and 0 to 9, so accented letters separate words. Words of
    more than three characters are stemmed (Porter). An empty text gives zeros.
    """
    # Imported here because it loads nltk, which takes seconds.
    from rouge_score.rouge_scorer import RougeScorer

    found = RougeScorer(["rouge1", "rougeL"], use_stemmer=True).score(target=truth, prediction=generation)
    return Rouge(float(found["rouge1"].recall), float(found["rougeL"].recall), float(found["rougeL"].fmeasure))


def cut(generation: str, stops: Sequence[str]) -> str:
    """A raw generation up to its first stop string (end of sequence, a new question), stripped."""
    for stop in stops:
        generation = generation.split(stop, 1)[0] if stop else generation
    return generation.strip()


def without_prompt(text: str, prompt: str, *, convention: str = STATED) -> str:
    """The answer in a text that starts with its prompt, stripped.

    `convention="open-unlearning"` removes the prompt everywhere, even within the answer.

    Raises:
        UserError: a convention that is neither `stated` nor `open-unlearning`.
    """
    check_convention(convention, OPEN_UNLEARNING)
    return (text.replace(prompt, "") if convention == OPEN_UNLEARNING else text.removeprefix(prompt)).strip()
