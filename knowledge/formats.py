"""Every format that items can be read from, by its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .._util.errors import UserError
from . import sources
from .fact import Fact
from .item import Choice, Passage

Item = Fact | Choice | Passage


@dataclass(frozen=True)
class Format:
    """One format: its loader, and the kinds of item that it may give."""

    name: str
    read: Callable[..., Sequence[Item]]
    kinds: tuple[type[Item], ...]


FORMATS: dict[str, Format] = {
    row.name: row
    for row in (
        Format("questions", sources.questions, (Fact,)),
        Format("tofu", sources.tofu, (Fact,)),
        Format("wmdp", sources.wmdp, (Choice,)),
        Format("mmlu", sources.wmdp, (Choice,)),
        Format("muse", sources.muse, (Fact, Passage)),
        Format("rwku", sources.rwku, (Fact, Passage)),
        Format("counterfact", sources.counterfact, (Fact,)),
        Format("known_facts", sources.known_facts, (Fact,)),
    )
}


def read_items(format: str, source: str | Path, **settings: str) -> Sequence[Item]:
    """The items of a local file or of a data set on the hub.

    Args:
        format: one of `FORMATS`.
        source: see `knowledge.rows`.
        settings: arguments of the format's loader (`template`, `config`, `split`, ...).

    Raises:
        UserError: an unknown format, or input that the loader rejects.
    """
    if format not in FORMATS:
        raise UserError(f"{format!r} is not a format; choose one of {', '.join(FORMATS)}.")
    return FORMATS[format].read(source, **settings)
