"""Was it in the training data? Attacks that use the loss, where text alone does not give the answer away.

`verify.metrics.attacks` has the attacks and their sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from torch import Tensor

from .._util.errors import NotFiniteError
from ..knowledge import Case, Item, accepts_spec
from ..model import Prompt, chunks, encode_texts, join, logits, token_ids
from .check import Setting
from .judge.statistics import interval
from .metrics.attacks import SHARE, attack_auc, loss_score, min_k_plus_plus_score, min_k_score, zlib_score
from .reading import Reading, make_reading, refusal
from .units import by_unit

if TYPE_CHECKING:
    from ..model import Model

TEXT_AUC = 0.6
LEAST = 10
ROWS = 32


@accepts_spec
def membership(model: Model, case: Case) -> Reading:
    """How well the model's own loss separates what is to be forgotten from what was never taught (AUC).

    For facts, statements with sealed prompts are compared with those of twins; for all other kinds, the texts
    themselves with the held-out ones that the case names, or else with its twins. A text's subject is not scored where
    it stands: all records of one person share a name, which may be easier or harder than others whatever was taught.

    The value is the AUC of the loss attack. `details["auc"]` has all four attacks (loss, zlib, min-k, min-k++); above
    0.5, members look more familiar. `details["tpr"]` has the share of members found at 5% and at 1% false alarms, and
    `details["privacy_leakage"]` is `|AUC - 0.5|`.

    The check is refused, with the reason, where a side has fewer than ten statements, or where a classifier that sees
    the text alone can separate the sides (cross-validated AUC over 0.6). A difference in loss would then say nothing
    about training.

    Cost: one row for each statement.

    Raises:
        NotFiniteError: the model's scores are not finite.
    """
    sides = _sides(case)
    members, others = ([_statement(i) for i in side] for side in sides)
    if min(len(members), len(others)) < LEAST:
        return refusal("membership", f"Each side needs {LEAST} statements; there are {len(members)} and {len(others)}.")
    by_text = text_auc(*([_masked(i) for i in side] for side in sides), seed=case.seed, groups=_groups(sides))
    if by_text > TEXT_AUC:
        return refusal(
            "membership",
            f"A classifier can separate members from non-members by their text alone (AUC {by_text:.2f}, at most "
            f"{TEXT_AUC} allowed), so a difference in loss would say nothing about training.",
        )
    scores = attacks(model, [*members, *others])
    if not all(np.isfinite(found).all() for found in scores.values()):
        raise NotFiniteError(f"the scores of {model.name} on these texts are not finite, so they rank nothing.")
    truth = np.array([1] * len(members) + [0] * len(others))
    auc = {name: attack_auc(list(s[: len(members)]), list(s[len(members) :])) for name, s in scores.items()}
    placement = {n: (s[: len(members), None] > s[None, len(members) :]).mean(1) for n, s in scores.items()}
    return make_reading(
        "membership",
        {"forget": by_unit(sides[0], placement["loss"])},
        f"The loss separates forgotten statements from never-taught ones with AUC {auc['loss']:.2f} (chance: 0.5).",
        seed=case.seed,
        details={
            "auc": auc, "ci": {n: list(interval(p, seed=case.seed)) for n, p in placement.items()}, "text_auc": by_text,
            "tpr": {n: {str(f): _tpr(truth, s, f) for f in (0.05, 0.01)} for n, s in scores.items()},
            "privacy_leakage": abs(auc["loss"] - 0.5),
        },
        cost=membership_cost(model, case, Setting()),
    )  # fmt: skip


def membership_cost(model: Model, case: Case, setting: Setting) -> float:
    """One row for each statement."""
    return sum(map(len, _sides(case)))


def _sides(case: Case) -> tuple[list[Item], list[Item]]:
    """Members and non-members. What was taught is the working text, except for facts, which templates only quote."""
    if any(i.kind == "fact" for i in case.forget.sealed):
        return list(case.forget.sealed), list(case.twins.sealed)
    never = case.holdout.working or case.twins.working
    kinds = {i.kind for i in never}
    return [i for i in case.forget.working if i.kind in kinds], list(never)


def attacks(model: Model, texts: Sequence[str], *, share: float = SHARE) -> dict[str, np.ndarray]:
    """The scores of each attack, `[text]`; a higher score means more likely a member.

    Tokens in the slots of a text that is a `Prompt` are not scored, unless nothing else is left.
    """
    out: dict[str, list[float]] = {"loss": [], "zlib": [], "min_k": [], "min_k++": []}
    for part in chunks(len(texts), ROWS):
        batch = encode_texts(model, texts[part])
        with torch.no_grad():
            logp = logits(model, batch).float().log_softmax(-1)
        for text, row, asked in zip(texts[part], logp, batch.labels, strict=True):
            labels = _without_slots(model, text, asked)
            every = row[labels >= 0]
            token = every.gather(-1, labels[labels >= 0][:, None])[:, 0]
            out["loss"].append(loss_score(token))
            out["zlib"].append(zlib_score(token, text))
            out["min_k"].append(min_k_score(token, share=share))
            out["min_k++"].append(min_k_plus_plus_score(token, every, share=share))
    return {name: np.array(values) for name, values in out.items()}


def _without_slots(model: Model, text: str, labels: Tensor) -> Tensor:
    """The labels of a text's tokens, `[keep]`, with -100 for those that a slot touches."""
    slots = text.slots if isinstance(text, Prompt) else ()
    rest, first = labels.clone(), len(labels) - int((labels >= 0).sum()) - 1  # where the text's first token would stand
    for start, end in slots:
        before, through = (_tokens_of(model, text, at) for at in (start, end))
        rest[max(first + min(before), 0) : first + max(through)] = -100
    return rest if (rest >= 0).any() else labels


def _tokens_of(model: Model, text: str, at: int) -> tuple[int, int]:
    """The number of whole tokens of a text before a character, and with the one that the character divides."""
    whole, head = token_ids(model, [text, text[:at].rstrip()])
    same = next((i for i, (a, b) in enumerate(zip(whole, head, strict=False)) if a != b), min(len(whole), len(head)))
    return same, same + (same < len(head))


def text_auc(
    members: Sequence[str], others: Sequence[str], *, seed: int = 0, groups: Sequence[str] | None = None
) -> float:
    """The cross-validated AUC of a classifier on character n-grams: what the text alone gives away.

    Args:
        groups: `[members and others]`, whom each text is about. No group is on both sides of a fold, so that what is
            said again and again of one person does not pass for the look of the texts.
    """
    texts = [*members, *others]
    truth = np.array([1] * len(members) + [0] * len(others))
    model = make_pipeline(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 3)), LogisticRegression(class_weight="balanced")
    )
    n = min(5, len(set(groups[: len(members)])), len(set(groups[len(members) :]))) if groups else 5
    kind = StratifiedGroupKFold if groups else StratifiedKFold
    folds = kind(n, shuffle=True, random_state=seed)
    scores = cross_val_predict(model, texts, truth, cv=folds, groups=groups, method="decision_function")
    return float(roc_auc_score(truth, scores))


def _statement(item: Item) -> str:
    """What is said of an item, with a slot for the subject's name unless it is a fact: twins of facts sound alike."""
    text = join(item.prompt, item.answer)
    return f"{text}." if item.kind == "fact" else Prompt.spot(text, item.subject)


def _masked(item: Item) -> str:
    """The statement without the subject's name, except for a fact: a twin's name should sound like a real one."""
    text = _statement(item)
    return str(text.about("X")) if isinstance(text, Prompt) else text


def _groups(sides: tuple[list[Item], list[Item]]) -> list[str] | None:
    """Whom each statement is about, if there are at least two on either side, and not one for each."""
    subjects = [[i.subject or i.unit for i in side] for side in sides]
    enough = all(len(set(side)) > 1 for side in subjects) and any(len(set(side)) < len(side) for side in subjects)
    return [s for side in subjects for s in side] if enough else None


def _tpr(truth: np.ndarray, scores: np.ndarray, fpr: float) -> float:
    false, true, _ = roc_curve(truth, scores)
    return float(true[false <= fpr].max())
