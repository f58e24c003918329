"""Find what may have been made from training data: models, adapters, GGUFs, quantized copies, data snapshots.

Files are recognised by their names and by the first bytes. No weights are loaded, nothing is unpickled, and links that
lead to folders are not followed.
"""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._util.errors import UserError
from .._util.files import digest
from .records import kind_of

HEADER = 2**24  # bytes of a header that are read at most
# the numbers of llama.cpp for files that are not quantized
_UNQUANTIZED = {0: "float32", 1: "float16", 32: "bfloat16"}
_INTEGERS = frozenset({"I8", "U8", "I4", "U4", "F8_E4M3", "F8_E5M2", "F4"})
_BY_SUFFIX = {
    ".bin": "checkpoint", ".pt": "checkpoint", ".pth": "checkpoint", ".ckpt": "checkpoint", ".h5": "checkpoint",
    ".msgpack": "checkpoint", ".onnx": "exported model", ".tflite": "exported model", ".mlmodel": "exported model",
    ".engine": "exported model", ".arrow": "data", ".json": "data", ".txt": "data", ".zip": "archive",
    ".tar": "archive", ".tgz": "archive", ".gz": "archive", ".zst": "archive", ".7z": "archive", ".xz": "archive",
    ".faiss": "search index", ".index": "search index", ".sqlite3": "database", ".db": "database",
}  # fmt: skip
# parts of every model's folder, which hold no training data
_PLAIN = frozenset({
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "vocab.json", "added_tokens.json", "merges.txt", "adapter_config.json", "requirements.txt", "license.txt",
    "readme.txt",
})  # fmt: skip
_STATE = frozenset({"optimizer.pt", "scheduler.pt", "trainer_state.json", "training_args.bin", "rng_state.pth"})


@dataclass(frozen=True)
class Artefact:
    """A file that may hold what training data left.

    Attributes:
        kind: `model`, `quantized model`, `adapter`, `edit`, `gguf`, `quantized gguf`, `checkpoint`, `training state`,
            `exported model`, `data`, `copy of the data`, `archive`, `search index`, `database` or
            `unreadable`.
        size: bytes.
        detail: what its header says, such as the base model.
    """

    kind: str
    path: str
    size: int
    detail: str = ""


def artefacts(folders: Iterable[str | Path], copies: Mapping[str, str] | None = None) -> tuple[Artefact, ...]:
    """The artefacts in these folders, in order of their paths.

    Args:
        copies: digests of the searched training files, with a name for each: a file with the same bytes is a copy.

    Raises:
        UserError: a folder that does not exist.
    """
    found: dict[Path, Artefact] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise UserError(f"there is no folder {str(folder)!r}; name folders in which models and copies are kept.")
        for path in _files(folder):
            if (made := _recognised(path, copies or {})) is not None:
                found[path] = made
    return tuple(found[path] for path in sorted(found))


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders.sort()
        yield from (path for name in sorted(names) if (path := Path(place, name)).is_file())


def _recognised(path: Path, copies: Mapping[str, str]) -> Artefact | None:
    size, name = path.stat().st_size, path.name.lower()
    start = _start(path)
    if start is None:
        return Artefact("unreadable", str(path), size)
    if start[:4] == b"GGUF":
        return Artefact(*_gguf(start, str(path), size))
    if name.endswith(".safetensors"):
        return _safetensors(path, size)
    if name in _STATE:
        return Artefact("training state", str(path), size)
    if name in _PLAIN or name.endswith(".index.json"):
        return None
    if kind_of(path) is not None or name.endswith((".arrow", ".json", ".txt")):
        same = copies.get(digest(path)) if copies else None
        return Artefact(
            "copy of the data" if same else "data", str(path), size, f"same bytes as {same}" if same else ""
        )
    return Artefact(kind, str(path), size) if (kind := _BY_SUFFIX.get(path.suffix.lower())) else None


def _start(path: Path) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read(2**16)
    except OSError:
        return None


def _gguf(start: bytes, path: str, size: int) -> tuple[str, str, int, str]:
    """GGUF says in `general.file_type` how it is quantized. Without that, the file's name may."""
    key = b"general.file_type" + struct.pack("<I", 4)
    at = start.find(key)
    number = int.from_bytes(start[at + len(key) : at + len(key) + 4], "little") if at >= 0 else None
    if number in _UNQUANTIZED:
        return "gguf", path, size, _UNQUANTIZED[number]
    if number is None and not re.search(r"q[2-8]", Path(path).name.lower()):
        return "gguf", path, size, "it does not say whether it is quantized"
    return "quantized gguf", path, size, "" if number is None else f"file type {number}"


def _safetensors(path: Path, size: int) -> Artefact:
    header = _header(path, size)
    if header is None:
        return Artefact("model", str(path), size, "its header cannot be read")
    about = header.pop("__metadata__", None) or {}
    config = _json(path.with_name("config.json"))
    if "loka-edit-" in str(about.get("loka", "")):
        return Artefact("edit", str(path), size)
    if any("lora_" in name for name in header) or path.name.startswith("adapter_"):
        base = _json(path.with_name("adapter_config.json")).get("base_model_name_or_path", "")
        return Artefact("adapter", str(path), size, f"of {base}" if base else "")
    integers = any(isinstance(t, dict) and t.get("dtype") in _INTEGERS for t in header.values())
    base = config.get("_name_or_path") or ""
    kind = "quantized model" if integers or "quantization_config" in config else "model"
    return Artefact(kind, str(path), size, f"of {base}" if base else "")


def _header(path: Path, size: int) -> dict[str, Any] | None:
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(size - 8, HEADER):
            return None
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):
            return None
    return header if isinstance(header, dict) else None


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size <= HEADER else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
