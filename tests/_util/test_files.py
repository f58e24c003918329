import errno
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError

from loka._util import files
from loka._util.errors import LokaError, UserError
from loka._util.files import atomic, check_writable, digest, inside, parse_json, read_json, write_atomic, write_json


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "edit.safetensors"
    path.write_text("old")
    return path


def left_alone(target: Path) -> bool:
    return target.read_text() == "old" and list(target.parent.iterdir()) == [target]


def test_writes_text_and_bytes_and_makes_the_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    write_atomic(path, "é")
    assert path.read_bytes() == "é".encode()
    write_atomic(path, b"\x00\x01")
    assert path.read_bytes() == b"\x00\x01"
    assert os.listdir(path.parent) == ["b.txt"]


def test_the_temporary_is_beside_the_target_and_has_its_suffix(target: Path) -> None:
    with atomic(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == target.suffix
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt(), FileNotFoundError(2, "no", "x")])
def test_a_failing_writer_leaves_the_old_file_and_its_error_passes(target: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, atomic(target) as temporary:
        temporary.write_text("half")
        raise error
    assert caught.value is error
    assert left_alone(target)


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "full"), SafetensorError("I/O error: No space left on device (os error 28)")],
)
def test_a_full_disk_is_a_failed_job(target: Path, error: Exception) -> None:
    with (
        pytest.raises(LokaError, match="the disk is full. Free some space") as caught,
        atomic(target) as temporary,
    ):
        temporary.write_text("half")
        raise error
    assert caught.value.exit_status == 1
    assert str(target) in str(caught.value)
    assert left_alone(target)


def test_a_disk_may_fill_up_at_the_very_end(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(LokaError, match="the disk is full"):
        write_atomic(target, "new")
    assert left_alone(target)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_forbidden_place_is_the_users_error(target: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def replace(source: Path, _: Path) -> None:
        raise OSError(code, os.strerror(code), str(source))

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(UserError, match="Choose a place that you may write to") as caught:
        write_atomic(target, "new")
    assert caught.value.exit_status == 2
    assert left_alone(target)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(target: Path) -> None:
    target.parent.chmod(0o500)
    try:
        with pytest.raises(UserError, match="Choose a place"):
            write_atomic(target, "new")
        assert left_alone(target)
    finally:
        target.parent.chmod(0o700)


def test_a_file_in_the_way_of_a_folder(target: Path) -> None:
    with pytest.raises(UserError, match="Move what is there"):
        write_atomic(target / "inside.json", "new")
    assert left_alone(target)


def test_a_folder_takes_its_place_whole(tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    with pytest.raises(ValueError, match="half"), atomic(folder) as temporary:
        temporary.mkdir()
        (temporary / "a").write_text("a")
        raise ValueError("half")
    assert list(tmp_path.iterdir()) == []
    with atomic(folder) as temporary:
        temporary.mkdir()
        (temporary / "a").write_text("a")
    assert os.listdir(folder) == ["a"]
    with pytest.raises(UserError, match="choose another name"), atomic(folder) as temporary:
        temporary.mkdir()
    assert os.listdir(tmp_path) == ["exported"]


def test_json_is_sorted_and_has_no_nan(tmp_path: Path) -> None:
    path = tmp_path / "readings.json"
    write_json(
        path,
        {"b": math.nan, "a": [0.1, math.inf, np.float32(0.5), np.int64(3), (True, None)], "é": Path("x")},
    )
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == {"a": [0.1, None, 0.5, 3, [True, None]], "b": None, "é": "x"}
    assert text.index('"a"') < text.index('"b"')
    assert text.endswith("}\n")


def test_json_that_cannot_be_written_leaves_the_old_file(target: Path) -> None:
    with pytest.raises(TypeError):
        write_json(target, {"model": object()})
    assert left_alone(target)


def test_digest_is_sha256(target: Path) -> None:
    assert digest(target) == "cba06b5736faf67e54b07b561eae94395e774c517a7d910a54369e1263ccfbd4"
    target.write_bytes(b"")
    assert digest(target) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


KILLED = """
import os, signal, sys, types
package = sys.modules["loka"] = types.ModuleType("loka")  # no more of the package than it needs
package.__path__ = [{path!r}]
from loka._util.files import atomic
with atomic({target!r}) as temporary:
    temporary.mkdir()
    (temporary / "model.safetensors").write_text("a whole model")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    """A folder of a model that nobody exports again to the same name goes, too; what a living process writes stays."""
    code = KILLED.format(path=str(Path(files.__file__).parents[1]), target=str(tmp_path / "exported"))
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) == 1
    with atomic(tmp_path / "a") as first:
        first.write_text("a")
        write_atomic(tmp_path / "b", "b")
        assert sorted(os.listdir(tmp_path)) == [first.name, "b"]
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_a_place_that_cannot_be_written_is_refused_before_anything(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "er")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*run: Not a directory .* Move what is there"):
        check_writable(tmp_path / "file" / "run")


def test_a_read_only_place_is_refused_before_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(UserError, match="Permission denied .* Choose a place that you may write to"):
        check_writable(tmp_path / "run")


def test_a_folder_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "figures").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="figures/a.svg' is a link that leads out of its folder; remove the link"):
        inside(tmp_path / "run", "figures/a.svg")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    assert inside(tmp_path / "link", "a.svg") == tmp_path / "link" / "a.svg", "the folder that was named may be a link"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' * 100_000, "nested too deeply"),
        ("NaN", "NaN is not a finite number"),
        ("[-Infinity]", "-Infinity is not a finite number"),
        ("1e999", "1e999 is not a finite number"),
        ("9" * 5000, "Exceeds the limit"),
        ("{", "Expecting property name"),
    ],
)
def test_json_that_no_stage_wrote_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(text)
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=f"a.json' cannot be read .*{words}.*; name another --out"):
        read_json(tmp_path / "a.json", "name another --out")
