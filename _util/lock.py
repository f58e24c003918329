"""One process at a time works on a folder."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from .errors import UserError
from .files import private_folder

NAME = "lock"


def hold(folder: Path, owner: object) -> None:
    """Lock a folder until `owner` is gone, or the process ends, however it ends. The same process may lock it again.

    The file `lock` in the folder says which process works there. It stays, and means nothing after that process.

    Raises:
        UserError: another process works on the folder, or the folder cannot be made.
    """
    if (lock := _acquire(folder)) is not None:
        weakref.finalize(owner, lock.release)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder while the block runs; see `hold`."""
    lock = _acquire(folder)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _acquire(folder: Path) -> FileLock | None:
    """The lock; `None` for a folder that nobody can write to."""
    path = private_folder(folder).resolve() / NAME
    other = _owner(path)
    lock = FileLock(path, timeout=0, is_singleton=True, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"{other} works on {str(folder)!r}; wait until it ends, stop it, or name another --out."
        ) from None
    except PermissionError:
        return None
    except OSError as error:
        if os.access(folder, os.W_OK):
            raise UserError(f"{str(path)!r} cannot be locked ({error}); name a folder on another disk.") from error
        return None
    started = datetime.fromtimestamp(psutil.Process().create_time()).isoformat(" ", "seconds")
    path.write_text(f"process {os.getpid()}, which began at {started},")
    return lock


def _owner(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")[:100] or "another process"
    except (OSError, ValueError):
        return "another process"
