"""A folder's provenance is written before the work and after it, adds up over calls, and reads back."""

import dataclasses
import json
from pathlib import Path

import pytest

from loka._util.errors import UserError
from loka._util.provenance import NAME, Provenance, read_provenance, recorded

CALL = {"command": "loka plant", "arguments": {"model": "smollm2"}, "seed": 3, "digests": {"case": "c" * 64}}
RUN = Provenance(
    "loka run", {"case": "capitals", "recipe": {"method": "tune"}}, 0, 2, {"case": "c" * 64}, {"torch": "2.9"},
    durations={"locate": 41.3}, peak_memory_gib=99999.0, recipe={"method": "tune"},
    located={"method": "attribution", "part": None},
)  # fmt: skip


def content(folder: Path) -> dict[str, object]:
    return json.loads((folder / NAME).read_text(encoding="utf-8"))


def test_the_file_has_these_keys_and_reads_back(tmp_path: Path) -> None:
    plain = dataclasses.replace(RUN, arguments={"case": "capitals"}, recipe=None, located=None)
    keys = {"command", "arguments", "seed", "threads", "digests", "versions", "durations", "peak_memory_gib"}
    for made, wanted in ((plain, keys), (RUN, keys | {"recipe", "located"})):
        made.write(tmp_path)
        assert set(content(tmp_path)) == wanted
        assert read_provenance(tmp_path) == made
    assert read_provenance(tmp_path / "nowhere") is None


def test_a_recipe_among_the_arguments_alone_is_read(tmp_path: Path) -> None:
    """Older folders have the recipe there, and no localization."""
    data = {k: v for k, v in RUN.to_json().items() if k not in ("recipe", "located")}
    (tmp_path / NAME).write_text(json.dumps(data))
    assert read_provenance(tmp_path) == dataclasses.replace(RUN, located=None)


def test_durations_add_up_over_calls(tmp_path: Path) -> None:
    with recorded(tmp_path, **CALL) as durations:
        first = content(tmp_path)
        assert first["durations"] == {"all": 0.0}
        assert {k: first[k] for k in CALL} == CALL
        durations["probe"] = 1.5
    with pytest.raises(RuntimeError), recorded(tmp_path, **{**CALL, "seed": 4}) as durations:
        durations |= {"probe": 2.0, "relearn": 4.0}
        raise RuntimeError
    made = read_provenance(tmp_path)
    assert made is not None
    assert made.seed == 4
    assert made.durations.keys() == {"all", "probe", "relearn"}
    assert (made.durations["probe"], made.durations["relearn"]) == (3.5, 4.0)
    assert made.peak_memory_gib is not None
    assert made.peak_memory_gib > 0


def test_the_folder_of_a_run_keeps_the_runs_provenance(tmp_path: Path) -> None:
    RUN.write(tmp_path)
    with recorded(tmp_path, **CALL) as durations:
        durations["probe"] = 1.0
    made = read_provenance(tmp_path)
    assert made is not None
    assert made == dataclasses.replace(RUN, durations=made.durations)
    assert made.durations == {"locate": 41.3, "probe": 1.0, "all": made.durations["all"]}


@pytest.mark.parametrize(
    "text",
    [
        "{", "[]", '"run"', '{"command": "loka run"}',
        *(json.dumps(RUN.to_json() | wrong) for wrong in (*({"threads": n} for n in (0, 10**5, "x")), {"digests": 3})),
    ],
)  # fmt: skip
def test_a_file_of_another_kind_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(UserError, match=r"provenance.json' cannot be read .*; name another --out"):
        read_provenance(tmp_path)


def test_a_sealed_file_is_what_was_written(tmp_path: Path) -> None:
    """Whoever changes a recipe in it, or a digest along with its file, is told."""
    dataclasses.replace(RUN, files={}).write(tmp_path)
    text = (tmp_path / NAME).read_text()
    assert read_provenance(tmp_path) == dataclasses.replace(RUN, files={})
    for old, new in (('"method": "tune"', '"method": "zero"'), ('"seal"', '"sael"'), ('"threads": 2', '"threads": 3')):
        (tmp_path / NAME).write_text(text.replace(old, new))
        with pytest.raises(UserError, match="it has changed since it was written"):
            read_provenance(tmp_path)
