"""Items about invented names in the places of real ones, for sets that have no never-taught items of the same form."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from .._util.errors import UserError
from ..model import Prompt
from .invent import invent
from .item import Item

# More words to learn the look of names from, where a case has few.
SOUNDS: tuple[str, ...] = (
    "Adela", "Alvaro", "Anselm", "Aurelia", "Bertil", "Bianca", "Casimir", "Celeste", "Dorian", "Edwina", "Elias",
    "Farida", "Florian", "Gideon", "Helena", "Ilona", "Jasper", "Katrin", "Leander", "Lucinda", "Marek", "Miriam",
    "Nikolai", "Odette", "Pascal", "Quentin", "Renata", "Silvan", "Tamara", "Ulrich", "Valeria", "Wanda", "Albrecht",
    "Bonetti", "Carrasco", "Delacroix", "Eriksen", "Fontaine", "Galvani", "Hoffman", "Iversen", "Jansen", "Kowalski",
    "Lindqvist", "Marchetti", "Novotny", "Okafor", "Petrova", "Quiroga", "Rasmussen", "Santoro", "Takahashi", "Ullman",
    "Vasiliev", "Whitaker", "Yamada", "Zeller",
)  # fmt: skip


def invented_names(subjects: Iterable[str], n: int, rng: random.Random) -> list[str]:
    """`n` names of two invented words that sound like the words of real names."""
    real = list(dict.fromkeys(subjects))
    words = list(dict.fromkeys(w for s in real for w in s.replace("-", " ").split() if w.isalpha()))
    try:
        made = invent([*words, *SOUNDS], 2 * n, rng)
    except UserError as error:
        raise UserError(
            f"{n} names could not be invented for never-taught items; name a set of them under twins."
        ) from error
    return [f"{made[i].capitalize()} {made[n + i].capitalize()}" for i in range(n)]


def about_nobody(items: Sequence[Item], names: Mapping[str, str]) -> list[Item]:
    """The items in whose prompts a subject stands, with the invented name in its place, in the answers too."""
    return [
        _about(item, names[item.subject])
        for item in items
        if item.subject in names and all(p.slots for p in item.prompts)
    ]


def _about(item: Item, name: str) -> Item:
    def swapped(text: str) -> str:
        return str(Prompt.spot(text, item.subject).about(name))

    return replace(
        item,
        subject=name,
        unit=f"{item.unit} about {name}" if item.unit != item.subject else name,
        prompt=item.prompt.about(name),
        paraphrases=tuple(p.about(name) for p in item.paraphrases),
        answer=swapped(item.answer),
        aliases=tuple(map(swapped, item.aliases)),
        foils=tuple(map(swapped, item.foils)),
        rephrased=swapped(item.rephrased),
        rivals=tuple(map(swapped, item.rivals)),
    )
