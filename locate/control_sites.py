"""Control sites: as many as were located, chosen without regard to the knowledge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable

import numpy as np

from .._util.errors import UserError
from ..knowledge import Case, accepts_spec
from ..model import Model, Part, Site
from .attribution import attribution
from .general_importance import mark_general
from .localization import Localization

Locate = Callable[[Model, Case], Localization]


@accepts_spec
def control_sites(
    model: Model,
    case: Case,
    sites: Collection[Site],
    *,
    locator: Locate = attribution,
    by: str = "score",
    seed: int = 0,
) -> dict[str, list[Site]]:
    """Control sites to compare with `sites`, by the name of the control.

    `random` is drawn by `random_sites`, `all_layers` by `all_layer_sites`, and `other_relation` by
    `other_relation_sites` if the case keeps facts of another relation.

    Args:
        locator, by: the locator and the column that chose `sites`.
        seed: draws the random sites.

    Raises:
        UserError: no sites.

    Cost: that of the locator, once.
    """
    if not sites:
        raise UserError("a control has as many sites as it is compared with; give at least one site.")
    found = {"random": random_sites(model, sites, seed=seed), "all_layers": all_layer_sites(model, sites, seed=seed)}
    if case.other_relations:
        found["other_relation"] = other_relation_sites(model, case, sites, locator=locator, by=by)
    return found


def random_sites(model: Model, sites: Iterable[Site], *, without: Collection[Site] = (), seed: int = 0) -> list[Site]:
    """Draw as many other sites of the same parts, with the same number in each layer and none from `without`.

    A layer with too few other sites gives all of them. A whole `attn` or `mlp` has no other site in its layer.
    """
    rng = np.random.default_rng(seed)
    chosen = set(sites)
    out: list[Site] = []
    places: set[tuple[int, Part]] = {(s.layer, s.part) for s in chosen}
    for layer, part in sorted(places):
        taken = {model.unit(s) for s in chosen if (s.layer, s.part) == (layer, part)}
        barred = taken | {model.unit(s) for s in without if (s.layer, s.part) == (layer, part)}
        free = [i for i in range(model.units(part)) if i not in barred]
        drawn = rng.choice(free, size=min(len(taken), len(free)), replace=False)
        out += [model.site(layer, part, int(i)) for i in sorted(drawn)]
    return out


def all_layer_sites(model: Model, sites: Iterable[Site], *, seed: int = 0) -> list[Site]:
    """Draw as many other sites of the same parts uniformly from all layers, so that not even the layer is located.

    For neurons, this control spreads the same budget over all MLPs. For methods that do not need equal sizes,
    `model.sites("mlp")` or `model.sites("neuron")` gives all of them. A part with too few other sites gives all of
    them.
    """
    rng = np.random.default_rng(seed)
    chosen = set(sites)
    out: list[Site] = []
    for part, n in _sizes(chosen):
        free = [s for s in model.sites(part) if s not in chosen]
        out += sorted(free[i] for i in rng.choice(len(free), size=min(n, len(free)), replace=False))
    return out


@accepts_spec
def other_relation_sites(
    model: Model,
    case: Case,
    sites: Iterable[Site],
    *,
    relation: str | None = None,
    locator: Locate = attribution,
    by: str = "score",
) -> list[Site]:
    """Locate as many sites of the same parts for the retain facts of another relation.

    Half of that relation's working retain facts are located and contrasted with the other half; sites that any text
    needs come last (`mark_general`). The result may include sites that serve both relations.

    Args:
        relation: by default the first one, by name, that the case only keeps.
        locator: called with model and case; it must score the parts of `sites`.
        by: the column to rank the sites by.

    Raises:
        UserError: no such relation, or too few of its facts.

    Cost: that of the locator.
    """
    others = case.other_relations
    if not others or (relation or others[0]) not in others:
        step = f"choose one of {', '.join(others)}" if others else "keep at least four facts of one in the case file"
        raise UserError(f"{case.name!r} has no other relation {relation or 'of four facts'!r} to locate; {step}.")
    found = mark_general(model, case, locator(model, case.targeting(relation or others[0])))
    return [site for part, n in _sizes(sites) for site in found.top(n, part=part, by=by)]


def _sizes(sites: Iterable[Site]) -> list[tuple[Part, int]]:
    """The number of distinct sites of each part."""
    counts: Counter[Part] = Counter(s.part for s in set(sites))
    return sorted(counts.items())
