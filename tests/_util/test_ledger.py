"""A finished file that changes, and a file that no stage wrote, are named and refused."""

import dataclasses
from pathlib import Path

import pytest

from loka._util.errors import UserError
from loka._util.files import digest, write_atomic
from loka._util.ledger import check_files, finishing, list_case
from loka._util.provenance import Provenance, read_provenance, recorded


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a case, one finished file, and a figure that nobody reads again."""
    Provenance.of_call("loka run", {}, seed=0, digests={}).write(tmp_path)
    write_atomic(tmp_path / "case.yaml", "name: some")
    list_case(tmp_path)
    with finishing(tmp_path, "readings.json") as path:
        write_atomic(path, "{}")
    write_atomic(tmp_path / "figures" / "a.svg", "<svg/>")
    check_files(tmp_path)
    return tmp_path


def files(folder: Path) -> dict[str, str | None]:
    made = read_provenance(folder)
    assert made is not None
    return dict(made.files or {})


def test_every_finished_file_is_listed_by_its_digest(folder: Path) -> None:
    assert files(folder) == {name: digest(folder / name) for name in ("case.yaml", "readings.json")}
    with (
        recorded(folder, command="loka verify", arguments={}, seed=0, digests={}),
        finishing(folder, "verdict.json") as path,
    ):
        write_atomic(path, "{}")
    assert set(files(folder)) == {"case.yaml", "readings.json", "verdict.json"}


@pytest.mark.parametrize("name", ["case.yaml", "readings.json"])
def test_one_flipped_bit_is_refused(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[0] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(UserError, match=rf"{name}' has changed since it was finished \(SHA-256 \w{{12}}, not"):
        check_files(folder)


@pytest.mark.parametrize("name", ["edit.safetensors", "controls/random.safetensors", "localization.parquet"])
def test_a_file_of_no_stage_is_refused(folder: Path, name: str) -> None:
    write_atomic(folder / name, "from elsewhere")
    with pytest.raises(UserError, match=f"{name}' is of no stage of this folder; move it away"):
        check_files(folder)


def test_a_run_that_was_killed_while_it_wrote_goes_on(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt), finishing(folder, "readings.json") as path:
        write_atomic(path, '{"after": {}}')
        raise KeyboardInterrupt
    check_files(folder)
    with finishing(folder, "readings.json") as path:
        write_atomic(path, '{"after": {}}')
    assert files(folder)["readings.json"] == digest(folder / "readings.json")


def test_a_folder_of_an_earlier_version_has_no_list(folder: Path) -> None:
    made = read_provenance(folder)
    assert made is not None
    dataclasses.replace(made, files=None).save(folder)
    (folder / "readings.json").write_text("changed")
    check_files(folder)
    with finishing(folder, "verdict.json") as path:
        write_atomic(path, "{}")
    check_files(folder)


def test_a_link_out_of_the_folder_is_not_followed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (folder / "controls").symlink_to(tmp_path_factory.mktemp("elsewhere"))
    with pytest.raises(UserError, match="is a link that leads out of its folder"), finishing(folder, "controls/a") as _:
        pytest.fail("it would be written there")
