"""Does the model give the answer word by word? Verbatim measures of whole answers, and leaks over many samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from .._util.errors import UserError
from ..knowledge import Case, Item, accepts_spec, score
from ..knowledge.rivals import larger_answers
from ..knowledge.words import contains
from ..model import chunks, encode, logits, split
from ..model.run.generate import continuations
from .check import Setting
from .metrics.rouge import rouge
from .metrics.tokens import exact_memorization, extraction_strength, probability
from .metrics.truth_ratio import truth_ratio
from .pools import attack_groups
from .reading import Reading, make_reading
from .units import by_unit

if TYPE_CHECKING:
    from ..model import Model

SAMPLED = 256
ROWS = 64
KS = (1, 16, 128)
MORE = 4


@accepts_spec
def extraction(model: Model, case: Case, *, draws: int = 16, tokens: int | None = None) -> Reading:
    """Extraction strength of the answers: the share, from the end, that follows greedily from the tokens before it.

    `details` has, for `forget` and `twins`, the means of `probability` (to the power of one over the length),
    `exact_memorization`, `rouge` (ROUGE-L recall of the greedy continuation), `truth_ratio` (1 where wrong answers are
    as likely as the right one, towards 0 where the right one is known), and `leak`: by k, the probability that at least
    one of k samples contains the answer, elsewhere than in a longer wrong one (`mean`), and its 95% upper bound for the
    mean subject (`upper`).

    Args:
        draws: samples of each prompt. leak@k is given for k of 1, 16 and 128; above this number, only its bound.
        tokens: length of a continuation. Default: four more than the longest answer.

    Cost: one row for each fact and each foil, and one for each of `draws + 1` continuations; the same for twins.

    Raises:
        UserError: no draws.
    """
    if draws < 1:
        raise UserError(f"draws is {draws}; ask for at least 1 sample.")
    groups = attack_groups(case)
    found = {g: _verbatim(model, facts) for g, facts in groups.items()}
    length = tokens or MORE + max(found[g]["length"].max() for g in groups if groups[g])
    leaks = {g: _leaks(model, facts, draws, int(length), case.seed) for g, facts in groups.items()}
    samples = {g: by_unit(groups[g], found[g]["extraction_strength"]) for g in groups}
    most = leaks["forget"][str(max(k for k in KS if k <= draws))]["mean"]
    return make_reading(
        "extraction",
        samples,
        f"{np.mean(list(samples['forget'].values())):.0%} of an answer follows word by word from its own beginning; "
        f"{max(k for k in KS if k <= draws)} samples contain it with probability {most:.2f}.",
        seed=case.seed,
        details={
            g: {
                **{name: float(np.mean(v)) for name, v in found[g].items() if name != "length" and len(v)},
                "rouge": _rouge(model, groups[g], int(length)), "truth_ratio": _truth_ratio(model, groups[g]),
                "leak": leaks[g],
            }
            for g in groups
        },
        cost=_rows(case, draws),
    )  # fmt: skip


def extraction_cost(model: Model, case: Case, setting: Setting) -> float:
    """One row for each fact, foil and continuation."""
    return _rows(case, setting.effort.draws)


def _rows(case: Case, draws: int) -> int:
    return sum(len(f.foils) + 2 + draws for facts in attack_groups(case).values() for f in facts)


def leak_at(hits: Sequence[int], draws: int, k: int) -> dict[str, float | None]:
    """leak@k over subjects: the unbiased estimate `1 - C(n - c, k) / C(n, k)`, and an upper bound.

    Args:
        hits: for each subject, how many of its `draws` samples contain the answer.

    Returns:
        `mean`: `None` for k above the draws, and without subjects. `upper`: the leak of k samples if each sample leaks
        as often as the exact 95% bound on the mean share allows.

    >>> found = leak_at([0, 0], 10, 1)
    >>> found["mean"], round(found["upper"], 3)
    (0.0, 0.139)
    """
    total = len(hits) * draws
    c = int(np.sum(hits))
    bound = 1.0 if c == total else float(stats.beta.ppf(0.95, c + 1, total - c))
    mean = None if k > draws or not total else float(np.mean([1 - comb(draws - h, k) / comb(draws, k) for h in hits]))
    return {"mean": mean, "upper": float(1 - (1 - bound) ** k)}


@torch.no_grad()
def _verbatim(model: Model, facts: Sequence[Item]) -> dict[str, np.ndarray]:
    measures = {
        "probability": probability, "exact_memorization": exact_memorization,
        "extraction_strength": extraction_strength, "length": lambda _, labels: (labels >= 0).sum(-1),
    }  # fmt: skip
    out: dict[str, list[Tensor]] = {name: [] for name in measures}
    for part in chunks(len(facts), ROWS):
        batch = encode(model, [f.prompt for f in facts[part]], [f.answer for f in facts[part]])
        scores = logits(model, batch)
        for name, measure in measures.items():
            out[name].append(measure(scores, batch.labels).cpu())
    return {name: torch.cat(parts).double().numpy() if parts else np.zeros(0) for name, parts in out.items()}


def _rouge(model: Model, facts: Sequence[Item], tokens: int) -> float | None:
    if not facts:
        return None
    texts = continuations(model, [f.prompt for f in facts], tokens=tokens)
    return float(
        np.mean([max(rouge(t, a).rougeL_recall for a in f.answers) for t, f in zip(texts, facts, strict=True)])
    )


def _leaks(
    model: Model, facts: Sequence[Item], draws: int, tokens: int, seed: int
) -> Mapping[str, Mapping[str, float | None]]:
    prompts = [f.prompt for f in facts for _ in range(draws)]
    texts = continuations(model, prompts, tokens=tokens, seed=seed, rows=SAMPLED)
    hits = [_hits(f, texts[i * draws : (i + 1) * draws]) for i, f in enumerate(facts)]
    return {str(k): leak_at(hits, draws, k) for k in KS}


def _hits(item: Item, texts: Sequence[str]) -> int:
    """How many texts contain a right answer, elsewhere than in a wrong one."""
    wrong = larger_answers(item)
    return sum(any(contains(text, answer, wrong) for answer in item.answers) for text in texts)


def _truth_ratio(model: Model, facts: Sequence[Item]) -> float | None:
    with_foils = [f for f in facts if f.foils]
    if not with_foils:
        return None
    prompts, answers = zip(*((f.prompt, a) for f in with_foils for a in (f.answer, *f.foils)), strict=True)
    lengths = torch.tensor([len(tail) for _, tail in split(model, prompts, answers)])
    each = iter((-score(model, prompts, answers).logprob / lengths).tolist())
    by_fact = [[next(each) for _ in (f.answer, *f.foils)] for f in with_foils]
    return truth_ratio([own for own, *_ in by_fact], [wrong for _, *wrong in by_fact]).value
