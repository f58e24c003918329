"""The words of the register: channels, grounds, statuses, kinds of entries. Each kind of thing is one table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Term:
    """A value that a request file may give, its meaning, and other ways to write it."""

    name: str
    meaning: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Status:
    """Where a request stands.

    Attributes:
        next: what is to be done next, in words for the register page.
        open: the deadline still runs.
        needs_person: while the request is open, the person's data is still needed, so it is not purged.
    """

    name: str
    next: str
    open: bool = True
    needs_person: bool = True


CHANNELS = (
    Term("e-mail", "by e-mail", ("email", "mail")),
    Term("letter", "by letter", ("post", "fax")),
    Term("web form", "through a form on a web page or in an app", ("form", "web", "portal", "app")),
    Term("telephone", "by telephone", ("phone",)),
    Term("in person", "spoken, or handed over in person", ("counter",)),
    Term("authority", "through a supervisory authority", ("supervisory authority",)),
    Term("representative", "through a lawyer, a guardian or another representative", ("lawyer",)),
)

GROUNDS = (
    Term("a", "the data are no longer necessary for their purpose", ("no longer necessary", "necessity")),
    Term("b", "the person withdrew consent", ("consent withdrawn", "withdrawal of consent", "consent")),
    Term("c", "the person objects to the processing", ("objection",)),
    Term("d", "the data were processed unlawfully", ("unlawful", "unlawful processing")),
    Term("e", "a legal obligation demands erasure", ("legal obligation",)),
    Term("f", "the data were collected from a child for an online service", ("child",)),
)

STATUSES = {
    status.name: status
    for status in (
        Status("received", "to be assessed"),
        Status("assessed", "a method is to be chosen"),
        Status("chosen", "the method is to be applied"),
        Status("executed", "the result is to be verified", needs_person=False),
        Status("verified", "the person is to be answered", needs_person=False),
        Status("refused", "the person may complain", open=False),
        Status("closed", "nothing is left to do", open=False),
    )
}

KINDS = {
    "received": "the request was logged",
    "identified": "the person's identity was verified",
    "extended": "the deadline was extended",
    "chosen": "a method was chosen, and its recipe frozen",
    "documented": "documents were written",
    "refused": "the request was refused",
    "closed": "the request was closed",
    "purged": "the person's data was deleted from the register",
    "expired": "ended requests and the content of their entries were deleted",
    "rekeyed": "the person's data and identifiers went under new keys",
    "rotated": "new keys were made",
    "restored": "the register came back from a backup without its last entries",
    "assessed": "training data were searched for the person's records",
    "asked": "a model was asked what it shows of the person's records",
    "confirmed": "somebody said of records whether they are the person's",
    "executing": "an edit or a training of the model was begun",
    "executed": "the model was changed, and the change kept",
    "rolled back": "the change was not kept, because it broke a safeguard",
    "replayed": "the edit was applied again, or made anew for another base model",
    "verified": "the changed model was audited",
    "asked again": "the records were asked again under a later erasure, and the erasure holds",
    "came back": "A LATER ERASURE BROUGHT SOME OF THE RECORDS BACK",
    "excluded": "the person went on the exclusion list",
    "listed": "the exclusion list was written",
    "held back": "training data were copied without the records of the people on the exclusion list",
}


def find_term(text: str, terms: Sequence[Term]) -> str | None:
    """The name of the term that a text means, whatever its case, spaces and hyphens; `None` if there is none.

    >>> find_term("E_Mail", CHANNELS), find_term("Art. 17(1)(b)", GROUNDS), find_term("owl", CHANNELS)
    ('e-mail', 'b', None)
    """
    known = {_plain(word): term.name for term in terms for word in (term.name, *term.aliases)}
    return known.get(_plain(text))


def listed(terms: Sequence[Term]) -> str:
    """The terms with their meanings, for an error."""
    return ", ".join(t.name if len(t.name) > 1 else f"{t.name} ({t.meaning})" for t in terms)


def meanings(terms: Sequence[Term]) -> Mapping[str, str]:
    """The meaning of each term, by its name."""
    return {term.name: term.meaning for term in terms}


def _plain(text: str) -> str:
    without_article = re.sub(r"^art(icle|\.)?\s*17\s*", "", text.strip().casefold())
    return re.sub(r"[^a-z]", "", without_article)
