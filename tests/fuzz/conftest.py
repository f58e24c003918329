"""What the tests of mangled files share: `attack` reads one kind of file, mangled in many ways.

LOKA_FUZZ sets the number of inputs of each kind; the normal suite has few, 1,000 take under three minutes for all.
"""

from __future__ import annotations

import importlib.util
import os
import resource
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from loka._util.errors import LokaError

INPUTS = int(os.environ.get("LOKA_FUZZ", "25"))
SECONDS = 20  # for one input; a hang is more
GROWTH = 2**30  # bytes


def _beside(name: str) -> ModuleType:
    """A module of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


mangle = _beside("mangle")


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    `read`: what a user's call does with it. `same`: where a change must not go unnoticed, whether what was read of a
    changed file is all right beside what was read of the whole one: the same, or told apart from it.
    """

    path: Path
    read: Callable[[Path], Any]
    ways: tuple[Any, ...] = mangle.TEXT
    same: Callable[[Any, Any], bool] | None = None


class Hang(BaseException):
    """An input that takes too long."""


@contextmanager
def soon() -> Iterator[None]:
    """Raise `Hang` where the block takes over `SECONDS`."""

    def stop(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def attack(kind: Kind, n: int = INPUTS) -> None:
    """Read a file mangled in `n` ways."""
    whole, right = kind.path.read_bytes(), kind.read(kind.path) if kind.same else None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(n):
        data = mangle.mangled(whole, seed, kind.ways)
        kind.path.write_bytes(data)
        try:
            with soon(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = kind.read(kind.path)
        except LokaError as error:
            said = str(error)
            assert kind.path.name in said or kind.path.parent.name in said, (seed, said)
            assert len(said) < 5000, (seed, said[:200])
        except BaseException as error:
            raise AssertionError(f"seed {seed} of {kind.path.name}: {data[:2000]!r}") from error
        else:
            if kind.same and data != whole:
                assert kind.same(found, right), f"seed {seed}: a change passed unnoticed"
    kind.path.write_bytes(whole)
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert grown < GROWTH, f"memory grew by {grown / 2**20:.0f} MiB"
