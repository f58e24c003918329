"""Write files whole or not at all, and take their digests."""

import errno
import hashlib
import json
import math
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import yaml

from .errors import LokaError, UserError

MOST_BYTES = 2**26  # of a JSON file

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_IN_THE_WAY = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY}


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn the system's errors when writing ``path`` into errors that say what to do next.

    Raises:
        LokaError: the disk is full.
        UserError: the place is read-only or forbidden, or a file or folder of another kind is in the way.
    """
    try:
        yield
    except LokaError:
        raise
    except Exception as error:
        if (explained := _explained(error, path)) is None:
            raise
        raise explained from error


def _explained(error: Exception, path: str | Path) -> LokaError | None:
    code = error.errno if isinstance(error, OSError) else None
    # safetensors reports a full disk in an error class of its own, by text alone
    if code in _FULL or "No space left on device" in str(error):
        return LokaError(f"cannot write {path}: the disk is full. Free some space, or choose another folder.")
    if code in _REFUSED:
        return UserError(f"cannot write {path}: {_reason(error)}. Choose a place that you may write to.")
    if code in _IN_THE_WAY:
        return UserError(f"cannot write {path}: {_reason(error)}. Move what is there, or choose another name.")
    return None


def _reason(error: Exception) -> str:
    named = getattr(error, "filename", None)
    text = getattr(error, "strerror", None) or str(error)
    return f"{text} ({named})" if named else text


def check_writable(folder: str | Path) -> None:
    """Refuse a folder that cannot be written to, or made, before anything is computed for it.

    Raises:
        UserError: the place is read-only or forbidden, or a file is in the way.
    """
    place = Path(folder).absolute()
    while not os.path.lexists(place):
        place = place.parent
    with writing(folder):
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
        if not os.access(place, os.W_OK | os.X_OK):
            code = errno.EROFS if os.statvfs(place).f_flag & os.ST_RDONLY else errno.EACCES
            raise PermissionError(code, os.strerror(code), str(place))


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``, and rename it to ``path`` at the end.

    The block may write a file or make a folder. A folder can only replace an empty one. If the block or the renaming
    fails, the temporary is removed and ``path`` stays as it was. What killed processes left in the same folder is
    removed, too. The temporary has the suffix of ``path``, for writers that look at it.

    Raises:
        LokaError: the disk is full.
        UserError: the place is read-only or forbidden, or a file or folder of another kind is in the way.
    """
    target = Path(path)
    temporary = target.with_name(f"{_mark(os.getpid())}{uuid4().hex[:8]}.{target.name}")
    try:
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            _sweep(target.parent)
            yield temporary
            _sync(temporary)
            os.replace(temporary, target)
    finally:
        _remove(temporary)


def _mark(process: int | str) -> str:
    """How the temporaries of one of this machine's processes begin."""
    machine = hashlib.sha256(platform.node().encode()).hexdigest()[:6]
    return f".loka-{machine}-{process}-"


def _sweep(folder: Path) -> None:
    """Remove the temporaries of processes that no longer live."""
    for path in folder.glob(f"{_mark('*')}*"):
        process = path.name.split("-")[2]
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            _remove(path)


def _sync(path: Path) -> None:
    """Force a file, or all files of a folder, to the disk, so that the data is there before the new name is."""
    for file in (file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]:
        descriptor = os.open(file, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # an earlier error matters more
            path.unlink()


def private_folder(path: str | Path) -> Path:
    """Make a folder that its owner alone can read. One that exists stays as it is. Raises as `atomic` does."""
    folder = Path(path)
    if not folder.exists():
        with writing(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def inside(folder: Path, name: str) -> Path:
    """The path of a file of a folder's own, below it at any depth.

    Raises:
        UserError: a link on the way leads out of the folder.
    """
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{str(path)!r} is a link that leads out of its folder; remove the link.")
    return path


def write_atomic(path: str | Path, data: bytes | str) -> None:
    """Write ``data`` (text as UTF-8) to ``path``, whole or not at all. Raises as `atomic` does."""
    with atomic(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def seal(obj: Any) -> str:
    """SHA-256 of what `write_json` would write, so that a file can say whether it is as it was written."""
    text = json.dumps(_plain(obj), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_json(path: str | Path, obj: Any, *, private: bool = False) -> None:
    """Write ``obj`` as JSON with sorted keys, whole or not at all. NaN and infinities become ``null``.

    Numbers of NumPy and torch count as numbers. Only its owner can read a ``private`` file. Raises as `atomic` does.
    """
    text = json.dumps(_plain(obj), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic(path) as temporary:
        temporary.touch(0o600 if private else 0o666)
        temporary.write_text(text + "\n", encoding="utf-8")


def write_yaml(path: str | Path, obj: Any) -> None:
    """Write ``obj`` as YAML, whole or not at all. Raises as `atomic` does."""
    write_atomic(path, yaml.safe_dump(obj, sort_keys=False, allow_unicode=True, width=120))


def read_json(path: str | Path, advice: str) -> Any:
    """The value of a JSON file, as `write_json` writes them.

    Args:
        advice: how an error ends: what to do about a file that cannot be read.

    Raises:
        UserError: a file that is not there, is not JSON, holds NaN or infinities, is nested too deeply, or has more
            than 64 MiB.
    """
    try:
        if os.path.getsize(path) > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
        return parse_json(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{str(path)!r} cannot be read ({reason}); {advice}.") from error


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: everything else; NaN, infinities, halves of surrogate pairs and endless depth included.
    """
    try:
        value = json.loads(text, parse_constant=_finite, parse_float=_finite)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text[:20]} is not a finite number")
    return value


def _plain(obj: Any) -> Any:
    if isinstance(obj, dict):
        return {key: _plain(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [_plain(value) for value in obj]
    if isinstance(obj, float):
        return obj if math.isfinite(obj) else None
    if isinstance(obj, Path):
        return str(obj)
    return _plain(obj.item()) if hasattr(obj, "item") else obj


def digest(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
