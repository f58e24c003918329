"""Sites that a choice of sites is compared with: as many, found without looking for the knowledge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable

import numpy as np

from .._util.errors import UserError
from ..knowledge import Case
from ..model import Model, Part, Site
from .attribution import attribution
from .localization import Localization

Locator = Callable[[Model, Case], Localization]


def controls(
    model: Model,
    case: Case,
    sites: Collection[Site],
    *,
    locator: Locator = attribution,
    by: str = "score",
    seed: int = 0,
) -> dict[str, list[Site]]:
    """What `sites` should be compared with, by name, as many each.

    `random`: see `random_sites`; `all_layers`: `all_layer_sites`; `other_relation`: `other_relation_sites`, where the
    case keeps facts of another relation. `locator` and `by` are those that chose `sites`.

    Raises:
        UserError: no sites.

    Cost: that of the locator, once.
    """
    if not sites:
        raise UserError("controls are of the size of what they are compared with; give at least one site.")
    found = {"random": random_sites(model, sites, seed=seed), "all_layers": all_layer_sites(model, sites, seed=seed)}
    if case.on(model).other_relations:
        found["other_relation"] = other_relation_sites(model, case, sites, locator=locator, by=by)
    return found


def random_sites(model: Model, sites: Iterable[Site], *, without: Collection[Site] = (), seed: int = 0) -> list[Site]:
    """As many other sites of the same parts, the same number in each layer, drawn by the seed, none of `without`.

    Where a layer has too few others, as many as there are; of a whole `attn` or `mlp` there is no other.
    """
    rng = np.random.default_rng(seed)
    given = set(sites)
    out: list[Site] = []
    places: set[tuple[int, Part]] = {(s.layer, s.part) for s in given}
    for layer, part in sorted(places):
        taken = {s.index for s in given if (s.layer, s.part) == (layer, part)}
        barred = taken | {s.index for s in without if (s.layer, s.part) == (layer, part)}
        free = [i for i in range(model.units(part)) if i not in barred and None not in taken]
        drawn = rng.choice(free, size=min(len(taken), len(free)), replace=False)
        out += [Site(layer, part, int(i)) for i in sorted(drawn)]
    return out


def all_layer_sites(model: Model, sites: Iterable[Site], *, seed: int = 0) -> list[Site]:
    """As many other sites of the same parts from all layers alike, drawn by the seed: not even the layer is located.

    For neurons this is the control that spreads the same budget over all MLPs. Their whole, for methods
    that need no equal size, is `model.sites("mlp")`, or neuron by neuron `model.sites("neuron")`. Where there are
    too few others, as many as there are.
    """
    rng = np.random.default_rng(seed)
    given = set(sites)
    out: list[Site] = []
    for part, n in _sizes(given):
        free = [s for s in model.sites(part) if s not in given]
        out += sorted(free[i] for i in rng.choice(len(free), size=min(n, len(free)), replace=False))
    return out


def other_relation_sites(
    model: Model,
    case: Case,
    sites: Iterable[Site],
    *,
    relation: str | None = None,
    locator: Locator = attribution,
    by: str = "score",
) -> list[Site]:
    """As many sites of the same parts, located in the same way for facts of another relation that are to be kept.

    Half of that relation's working retain facts are located, the other half are what they are contrasted with.
    Sites that serve both relations may be among them.

    Args:
        relation: by default the first, by name, of those that are kept and not forgotten.
        locator: called with model and case; parts that `sites` has must be among those it scores.
        by: the column that orders them.

    Raises:
        UserError: no such relation, or too few of its facts.

    Cost: that of the locator.
    """
    case = case.on(model)
    others = case.other_relations
    if not others or (relation or others[0]) not in others:
        have = f"choose one of {', '.join(others)}" if others else "keep at least four facts of one in the case file"
        raise UserError(f"{case.name!r} has no other relation {relation or 'of four facts'!r} to locate; {have}.")
    found = locator(model, case.targeting(relation or others[0]))
    return [site for part, n in _sizes(sites) for site in found.top(n, part=part, by=by)]


def _sizes(sites: Iterable[Site]) -> list[tuple[Part, int]]:
    """How many distinct sites of each part."""
    counts: Counter[Part] = Counter(s.part for s in set(sites))
    return sorted(counts.items())
