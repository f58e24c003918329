"""Names that a package imports when they are first used (PEP 562), so that what does not need them starts at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module


def on_demand(package: str, places: Mapping[str, Iterable[str]]) -> Callable[[str], object]:
    """The `__getattr__` of a package: it imports a name from its module when it is first asked for, and keeps it.

    Type checkers need the same imports under `if TYPE_CHECKING:`.

    Args:
        package: its `__name__`.
        places: names by the module that has them, relative to the package. The names of `"."` are modules themselves.

    >>> get = on_demand("collections", {".": ["abc"], ".abc": ["Sized"]})
    >>> get("abc").__name__, get("Sized").__name__
    ('collections.abc', 'Sized')
    """
    where = {name: module for module, names in places.items() for name in names}

    def get(name: str) -> object:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        at = where[name]
        found = import_module(f".{name}", package) if at == "." else getattr(import_module(at, package), name)
        setattr(sys.modules[package], name, found)
        return found

    return get
