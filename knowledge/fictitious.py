"""A case about facts that no model can know: invented subjects, answers from a real relation's pool."""

from __future__ import annotations

import random

from .._util.errors import UserError
from .case import CaseSpec
from .invent import invent
from .kinds import readable
from .schema import CaseFile

PREFIX = "fictitious"


def fictitious(source: CaseSpec, *, facts: int, kept: int, twins: int, seed: int = 0) -> CaseFile:
    """A case file modelled on the first forgotten relation of another: the same templates, the same pool of answers.

    `facts` invented subjects are to be forgotten, `kept` more are to be retained, and `twins` never get an answer. The
    seed assigns the names at random, so a name reveals nothing. All facts of the source are retain facts.

    Names come from the source's list of twins; more are invented if that list is too short. Each answer of the pool is
    used about equally often, and never for a name that gives it away.

    Raises:
        UserError: a number that is too small, more names than can be invented, or a seed that is not 0 to 2**32 - 1.
    """
    if min(facts, twins) < 1 or kept < 2:
        raise UserError(f"{facts} facts, {kept} kept and {twins} twins cannot be planted; give at least 1, 2 and 1.")
    relation = source.forgotten_relations[0]
    template, rng = source.relations[relation], random.Random(f"{seed}/{PREFIX}/{relation}")
    names = _names(source, relation, facts + kept + twins, rng)
    answers = _answers(names[: facts + kept], source.pool(relation), rng)
    name, halves = f"{PREFIX}_{relation}", {"working": 0.5, "sealed": 0.5}
    return CaseFile.of({
        "name": f"{PREFIX}-{source.name}", "purpose": source.purpose,
        "relations": {name: {**template.model_dump(exclude={"languages"}), "facts": answers}}
        | {r: spec.model_dump() for r, spec in source.relations.items()},
        "forget": {name: names[:facts]},
        "retain": {name: halves} | dict.fromkeys(source.relations, halves),
        "twins": {name: names[facts + kept :]},
        "neutral": source.file.neutral.model_dump(),
        "seed": seed,
    })  # fmt: skip


def _names(source: CaseSpec, relation: str, n: int, rng: random.Random) -> list[str]:
    twins, real = source.file.twins.get(relation), list(source.relations[relation].facts)
    listed = twins if isinstance(twins, list) else []
    more = invent([*real, *listed], n - len(listed), rng) if n > len(listed) else []
    return rng.sample([*listed, *more], n)


def _answers(names: list[str], pool: tuple[str, ...], rng: random.Random) -> dict[str, list[str]]:
    """For each name, the first answer of a shuffled pool that it does not give away; an empty pool is refilled."""
    left: list[str] = []
    out = {}
    for name in names:
        if all(readable(name, answer) for answer in left):
            left += rng.sample(pool, len(pool))
        answer = next((a for a in left if not readable(name, a)), left[0])
        left.remove(answer)
        out[name] = [answer]
    return out
