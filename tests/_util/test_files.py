import errno
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError

from loka._util.errors import LokaError, UserError
from loka._util.files import atomic, digest, write_atomic, write_json


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
