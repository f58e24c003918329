"""How much of a text a generation repeats, word by word.

Lin 2004, ROUGE, aclanthology.org/W04-1013. The arithmetic is that of the package rouge-score, and so are the words of
plain English text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...knowledge.words import words
from .conventions import MUSE, OPEN_UNLEARNING, STATED, TOFU, check_convention


@dataclass(frozen=True)
class Rouge:
    """Shares from 0 to 1. Recall is relative to the truth, precision to the generation; F1 is their harmonic mean.

    `rouge1` counts words in any order, `rougeL` the longest common subsequence of words.
    """

    rouge1_recall: float
    rougeL_recall: float
    rougeL_f1: float


class _Tokenizer:
    """The words of any script (`words`); those of a to z with more than three letters are stemmed (Porter)."""

    def __init__(self) -> None:
        from nltk.stem.porter import PorterStemmer

        self.stem = PorterStemmer().stem

    def tokenize(self, text: str) -> list[str]:
        return [self.stem(w) if len(w) > 3 and w.isascii() else w for w in words(text)]


def rouge(generation: str, truth: str, *, convention: str = STATED) -> Rouge:
    """Compare a generation with the truth, by words.

    Words are runs of letters and digits in any script, whatever their case; a character is a word where the script has
    no spaces. English words of more than three letters are stemmed (Porter). An empty text gives zeros.

    Args:
        convention: `open-unlearning`, `tofu` and `muse` use rouge-score, which splits texts at everything but a to z
            and 0 to 9. So accented letters separate words, and texts in other scripts give zeros.

    Raises:
        UserError: a convention that is none of these.

    >>> rouge("東京", "東京").rougeL_recall, rouge("東京", "東京", convention="tofu").rougeL_recall
    (1.0, 0.0)
    """
    check_convention(convention, OPEN_UNLEARNING, TOFU, MUSE)
    # Imported here because it loads nltk, which takes seconds.
    from rouge_score.rouge_scorer import RougeScorer

    tokenizer = _Tokenizer() if convention == STATED else None
    scorer = RougeScorer(["rouge1", "rougeL"], use_stemmer=True, tokenizer=tokenizer)
    found = scorer.score(target=truth, prediction=generation)
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
