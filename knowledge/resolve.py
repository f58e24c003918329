"""Turn names, files and specs into cases."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from .._util.errors import UserError
from .case import BUILT_IN, Case, CaseSpec, built_in_text
from .inline import content_digest
from .places import Places
from .read_case import read
from .read_text import read_text
from .sets import read_sets

if TYPE_CHECKING:
    from ..model import Model

P = ParamSpec("P")
R = TypeVar("R")


def accepts_spec(
    verb: Callable[Concatenate[Model, Case, P], R],
) -> Callable[Concatenate[Model, Case | CaseSpec, P], R]:
    """Let a verb `(model, case, ...)` take a `CaseSpec` as well: it is resolved on the model before the verb runs.

    For a verb that compares a model with its `original`, it is resolved on the original.
    """

    @functools.wraps(verb)
    def call(model: Model, case: Case | CaseSpec, *args: P.args, **kwargs: P.kwargs) -> R:
        return verb(model, resolved(kwargs.get("original", model), case), *args, **kwargs)  # type: ignore[arg-type]

    return call


def resolved(model: Model, case: Case | CaseSpec) -> Case:
    """The case that the model knows of a spec; a `Case` is returned unchanged.

    Raises:
        UserError: neither of the two, such as a name.
    """
    check_case(case)
    return case.on(model) if isinstance(case, CaseSpec) else case


def check_case(case: object) -> None:
    """Raise `UserError` unless it is a case or the spec of one; a name, for example, is neither."""
    if not isinstance(case, Case | CaseSpec):
        raise UserError(f"{case!r} is not a case; read one with loka.case(...), by its name or its file's path.")


def case(name: str | Path, *, data: Iterable[str | Path] = ()) -> CaseSpec:
    """A built-in case by name, or the case in a YAML file.

    Args:
        data: folders that the case may read data files and texts from, besides the folder of its own file.

    Raises:
        UserError: no such case, a file with errors (all of them named, with line and field), or one that names a file
            outside these folders.

    >>> case("capitals").purpose
    'safety'
    """
    path = Path(name)
    if str(name) in cases() and not path.exists():
        path = BUILT_IN / f"{name}.yaml"
    if not os.path.isfile(path):
        raise UserError(
            f"there is no case {str(name)!r}; built in are {', '.join(cases())}, or give a YAML file's path."
        )
    file, places = read(path), Places(path, tuple(map(Path, data)))
    records = read_sets(file, places)
    named = dict.fromkeys(n for n in (file.neutral.working, file.neutral.sealed) if isinstance(n, str))
    own = {n: read_text(found) for n in named if path.parent != BUILT_IN and (found := places.find(n)) is not None}
    texts = {n: text for n in named if (text := built_in_text(n)) is not None} | own
    return CaseSpec(file, path, content_digest(file, records, texts), records, own)


def cases() -> list[str]:
    """The names of the built-in cases."""
    return sorted(p.stem for p in BUILT_IN.glob("*.yaml"))
