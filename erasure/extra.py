"""The packages of the extra `erasure`, which only this folder needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .._util.errors import UserError


@contextmanager
def extra() -> Iterator[None]:
    """Say how to install what an import in this block does not find.

    Raises:
        UserError: a package of the extra is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise UserError(f"erasure requests need more packages ({error}); run pip install 'loka[erasure]'.") from error
