"""Can a linear map read the answer off the model's states?

Structural probing with control tasks: Hewitt & Liang 2019, arXiv:1909.03368.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from .._util.errors import NotFiniteError
from ..knowledge import Case, Item, accepts_spec
from ..knowledge.kinds import kind_of
from ..model.run.states import residuals, unembedding, untrained
from .check import Setting
from .reading import Reading, make_reading, refusal
from .units import by_unit

if TYPE_CHECKING:
    from ..model import Model

ALPHA = 1e3
FOLDS = 5
LEAST = 5
POSITIONS = ("subject", "last")


@dataclass(frozen=True)
class _Probed:
    """States `[fact, 2, layer, d_model]`, and the place of each fact's answer in the pool, `[fact]`."""

    facts: list[Item]
    states: np.ndarray
    target: np.ndarray


@accepts_spec
def probe(model: Model, case: Case) -> Reading:
    """How well a ridge map from the residual stream to the answer's unembedding ranks the right answer.

    The map is fitted on retain facts of the same relation alone, so training and test share no subject.
    Cross-validation within the retain facts chooses the layer and the position. A subject's number is the share of the
    pool's other answers that rank below the right one: 0.5 is chance, 1 is perfect.

    Controls: `retain` (held-out retain facts: the best that the probe can do), `shuffled` (fitted on permuted answers),
    `twins` (answers assigned but never taught), `random_weights` (an untrained model). `details["by_layer"]` has the
    forget facts' mean by position and layer. The probe is never sufficient evidence alone.

    Cost: two rows for each fact, one for each twin.

    Raises:
        NotFiniteError: the model's states are not finite.
    """
    retained = _of_relation(case, [*case.retain.working, *case.retain.sealed])
    if len(retained) < LEAST:
        return refusal("probe", f"Only {len(retained)} facts to keep are of the forgotten relation, too few to fit on.")
    if len({f.answer for f in retained}) < 2:
        return refusal(
            "probe", "All facts to keep of the forgotten relation have one answer, so nothing can be fitted."
        )
    asked = _of_relation(case, case.forget.sealed)
    never = _of_relation(case, case.twins.sealed)
    pool = _answers(case, [*asked, *retained, *never])
    alike = _alike(unembedding(model, pool).numpy())

    def probed(source: Model, facts: Sequence[Item]) -> _Probed:
        chosen = list(facts)
        states = residuals(source, [f.prompt for f in chosen]).float().numpy() if chosen else np.zeros((0, 2, 1, 1))
        if not np.isfinite(states).all():
            raise NotFiniteError(f"the states of {source.name} are not finite, so no probe can be fitted on them.")
        return _Probed(chosen, states, np.array([pool.index(f.answer) for f in chosen], dtype=int))

    retain, forget, twins = (probed(model, items) for items in (retained, asked, never))
    where, held_out = _best_place(retain, alike)
    ranks = _rank(retain, forget, alike, where)
    shuffled = np.random.default_rng(case.seed).permutation(retain.target)
    blank = untrained(model, seed=case.seed)
    samples = {
        "forget": _keyed(forget, ranks),
        "retain": _keyed(retain, held_out),
        "twins": _keyed(twins, _rank(retain, twins, alike, where) if never else []),
        "shuffled": _keyed(forget, _rank(_Probed(retain.facts, retain.states, shuffled), forget, alike, where)),
        "random_weights": _keyed(
            forget,
            _rank(probed(blank, retain.facts), probed(blank, asked), alike, where),
        ),
    }
    return make_reading(
        "probe",
        samples,
        f"A linear probe ranks the right answer above {ranks.mean():.0%} of the others "
        f"({held_out.mean():.0%} for facts to keep; chance is 50%).",
        seed=case.seed,
        details={
            "layer": where[1], "position": POSITIONS[where[0]],
            "by_layer": {
                name: [float(_rank(retain, forget, alike, (p, i)).mean()) for i in range(forget.states.shape[2])]
                for p, name in enumerate(POSITIONS)
            },
        },
        cost=probe_cost(model, case, Setting()),
    )  # fmt: skip


def probe_cost(model: Model, case: Case, setting: Setting) -> float:
    """Two rows for each fact of the first forgotten relation, one for each of its twins."""
    fitted = _of_relation(case, [*case.retain.working, *case.retain.sealed, *case.forget.sealed])
    return 2 * len(fitted) + len(_of_relation(case, case.twins.sealed))


def _of_relation(case: Case, facts: Sequence[Item]) -> list[Item]:
    """The facts of the first forgotten relation that name their subjects; of sets, those of the sets near to it too."""
    first = next(i.relation for i in case.forget.sealed if kind_of(i).shared)
    sets = set() if first in case.spec.relations else {*case.near, *(t.relation for t in case.twins.sealed)}
    return [f for f in facts if f.relation in {first, *sets} and kind_of(f).shared and f.prompt.slots]


def _answers(case: Case, facts: Sequence[Item]) -> tuple[str, ...]:
    """The pool of the first forgotten relation, and whatever else the facts answer."""
    first = next(i.relation for i in case.forget.sealed if kind_of(i).shared)
    return tuple(dict.fromkeys([*case.pool(first), *(f.answer for f in facts)]))


def _best_place(data: _Probed, alike: np.ndarray) -> tuple[tuple[int, int], np.ndarray]:
    """The position and layer with the best held-out ranks among the facts, and these ranks."""
    best: tuple[tuple[int, int], np.ndarray] | None = None
    folds = GroupKFold(min(FOLDS, len(np.unique(data.target))))
    splits = list(folds.split(data.target, groups=data.target))
    for position in range(data.states.shape[1]):
        for layer in range(data.states.shape[2]):
            ranks = np.zeros(len(data.facts))
            for train, test in splits:
                seen, unseen = (_Probed([], data.states[i], data.target[i]) for i in (train, test))
                ranks[test] = _rank(seen, unseen, alike, (position, layer))
            if best is None or ranks.mean() > best[1].mean():
                best = (position, layer), ranks
    assert best is not None
    return best


def _alike(table: np.ndarray) -> np.ndarray:
    """Products of each unembedding with all normalised ones, `[answer, answer]`; their common mean is removed."""
    table = table - table.mean(0)
    return table @ table.T / np.linalg.norm(table, axis=1)


def _rank(train: _Probed, test: _Probed, alike: np.ndarray, where: tuple[int, int]) -> np.ndarray:
    """The share of the pool's other answers that the fitted map ranks below the right one, `[fact]`.

    Mapping a state to an unembedding and comparing this with the pool's are both linear, so one map to the products
    `alike` does both.
    """
    position, layer = where
    scaler = StandardScaler().fit(train.states[:, position, layer])
    ridge = Ridge(alpha=ALPHA).fit(scaler.transform(train.states[:, position, layer]), alike[train.target])
    scores = np.asarray(ridge.predict(scaler.transform(test.states[:, position, layer])))
    right = scores[np.arange(len(test.target)), test.target][:, None]
    below = (scores < right).sum(1) + 0.5 * ((scores == right).sum(1) - 1)
    return below / (alike.shape[0] - 1)


def _keyed(data: _Probed, ranks: Sequence[float] | np.ndarray) -> dict[str, float]:
    return by_unit(data.facts, ranks)
