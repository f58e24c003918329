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

from ..knowledge import Case, Fact, accepts_spec
from ..model.run.states import residuals, unembedding, untrained
from .check import Setting
from .reading import Reading, make_reading
from .units import unit_key

if TYPE_CHECKING:
    from ..model import Model

ALPHA = 1e3
FOLDS = 5
POSITIONS = ("subject", "last")


@dataclass(frozen=True)
class _Probed:
    """States `[fact, 2, layer, d_model]`, and the place of each fact's answer in the pool, `[fact]`."""

    facts: list[Fact]
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
    """
    relation = case.forgotten_relations[0]
    pool = case.pool(relation)
    alike = _alike(unembedding(model, pool).numpy())

    def probed(source: Model, facts: Sequence[Fact]) -> _Probed:
        chosen = [f for f in facts if f.relation == relation]
        states = residuals(source, [f.prompt for f in chosen], [f.subject for f in chosen]).float().numpy()
        return _Probed(chosen, states, np.array([pool.index(f.answer) for f in chosen]))

    retain = probed(model, [*case.retain.working, *case.retain.sealed])
    forget, twins = probed(model, case.forget.sealed), probed(model, case.twins.sealed)
    where, held_out = _best_place(retain, alike)
    ranks = _rank(retain, forget, alike, where)
    shuffled = np.random.default_rng(case.seed).permutation(retain.target)
    blank = untrained(model, seed=case.seed)
    samples = {
        "forget": _keyed(forget, ranks),
        "retain": _keyed(retain, held_out),
        "twins": _keyed(twins, _rank(retain, twins, alike, where)),
        "shuffled": _keyed(forget, _rank(_Probed(retain.facts, retain.states, shuffled), forget, alike, where)),
        "random_weights": _keyed(
            forget,
            _rank(probed(blank, retain.facts), probed(blank, case.forget.sealed), alike, where),
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
    first = case.forgotten_relations[0]
    fitted = [*case.retain.working, *case.retain.sealed, *case.forget.sealed]
    return 2 * sum(f.relation == first for f in fitted) + sum(f.relation == first for f in case.twins.sealed)


def _best_place(data: _Probed, alike: np.ndarray) -> tuple[tuple[int, int], np.ndarray]:
    """The position and layer with the best held-out ranks among the facts, and these ranks."""
    best: tuple[tuple[int, int], np.ndarray] | None = None
    folds = GroupKFold(min(FOLDS, len(data.facts)))
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


def _keyed(data: _Probed, ranks: np.ndarray) -> dict[str, float]:
    return {unit_key(f): float(v) for f, v in zip(data.facts, ranks, strict=True)}
