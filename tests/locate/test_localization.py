"""A localization holds contrasted scores with their confidence, and can be queried, saved and loaded."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loka import locate
from loka._util import table
from loka._util.errors import UserError
from loka.knowledge import Case
from loka.locate import Localization, LocalizationRecord
from loka.locate.contrast import contrast
from loka.locate.localization import COLUMNS
from loka.model import Model, Site


@pytest.fixture(scope="module")
def found(taught: Model, planted_case: Case) -> Localization:
    return locate.attribution(taught, planted_case)


def made(forget: np.ndarray, retain: np.ndarray, falls: np.ndarray | None = None) -> Localization:
    """A localization of raw neuron scores `[fact, layer, unit]`."""
    raw = np.concatenate([forget, retain])
    return contrast(
        {"neuron": raw},
        np.ones(len(raw)) if falls is None else falls,
        n_forget=len(forget),
        record=LocalizationRecord("by hand"),
    )


def test_every_head_and_neuron_has_a_row(found: Localization, taught: Model) -> None:
    assert tuple(found.frame.columns) == COLUMNS
    assert found.parts == ("neuron", "head")
    assert len(found.frame) == 4 * (192 + 4)
    assert found.grid("neuron").shape == (4, 192)
    assert found.grid("head")[2, 3] == found.frame.query("part == 'head' and layer == 2 and index == 3")["score"].item()
    assert found.record.digest == taught.digest()
    assert found.record.n_forget <= 16


def test_columns_are_consistent(found: Localization) -> None:
    frame = found.frame
    assert np.allclose(frame["score"], frame["forget"] - frame["retain"])
    assert ((frame["low"] <= frame["score"]) & (frame["score"] <= frame["high"])).mean() > 0.98
    assert frame["q"].between(0, 1).all()
    assert frame["frequency"].between(0, 1).all()
    neurons = frame[frame["part"] == "neuron"]
    assert neurons["frequency"].sum() == pytest.approx(round(0.005 * len(neurons)), rel=0.05)


def test_of_two_groups_to_keep_the_one_that_needs_a_site_more_counts() -> None:
    rng = np.random.default_rng(0)
    forget, near, far = (rng.normal(0, 0.1, (n, 1, 3)) for n in (9, 8, 12))
    forget += 1.0
    near[:, 0, 0] += 1.0  # the first site serves those that are near, the second the others, the third neither
    far[:, 0, 1] += 1.0
    raw = np.concatenate([forget, near, far])
    record, ones = LocalizationRecord("by hand"), np.ones(len(raw))
    both = contrast({"neuron": raw}, ones, n_forget=9, record=record, groups=(8, 12))
    wanted = forget.mean(0) - np.maximum(near.mean(0), far.mean(0))
    np.testing.assert_allclose(both.grid("neuron"), wanted)
    assert [str(s) for s in both.significant_sites()] == ["L0.neuron.2"]
    spans = (both.grid("neuron", "low") <= 0) & (both.grid("neuron", "high") >= 0)
    assert spans[0].tolist() == [True, True, False]
    one = contrast({"neuron": raw}, ones, n_forget=9, record=record)
    assert len(one.significant_sites()) == 3, "in one group of both, either is only half of what is kept"


def test_the_contrast_by_hand() -> None:
    rng = np.random.default_rng(0)
    forget, retain = rng.normal(0, 0.1, (8, 2, 3)), rng.normal(0, 0.1, (10, 2, 3))
    forget[:, 1, 2] += 2
    falls = np.r_[np.full(8, 2.0), np.full(10, 4.0)]
    found = made(forget, retain, falls)
    wanted = forget.mean(0) / 2 - retain.mean(0) / 4
    np.testing.assert_allclose(found.grid("neuron"), wanted)
    np.testing.assert_allclose(found.grid("neuron", "raw"), forget.mean(0))
    assert found.top(1) == [Site(1, "neuron", 2)]
    best = found.frame.iloc[5]
    assert best["low"] > 0.5
    assert best["frequency"] == 1
    assert best["q"] < 1e-6
    assert found.frame["q"].drop(5).min() > 0.01


def test_the_contrast_removes_what_serves_all_facts_equally() -> None:
    noise = np.random.default_rng(0).normal(0, 1e-3, (2, 6, 1, 3))
    forget, retain = noise
    forget[:, 0, 0], retain[:, 0, 0] = 3, 3  # template machinery
    forget[:, 0, 1] = 1
    found = made(forget, retain)
    assert found.top(1) == [Site(0, "neuron", 1)]
    assert found.top(1, by="forget") == [Site(0, "neuron", 0)]


def test_facts_without_an_effect_are_left_out() -> None:
    forget, retain = np.ones((4, 1, 2)), np.zeros((4, 1, 2))
    forget[0] = 100
    falls = np.array([1e-6, 1, 1, 1, 1, 1, 1, 1])
    found = made(forget, retain, falls)
    assert found.record.n_forget == 3
    np.testing.assert_allclose(found.grid("neuron"), 1)
    with pytest.raises(UserError, match="nothing to locate"):
        made(forget, retain, np.zeros(8))


def test_scores_are_signed() -> None:
    forget, retain = np.zeros((4, 1, 3)), np.zeros((4, 1, 3))
    forget[:, 0, 0], forget[:, 0, 1] = -5, 1
    assert made(forget, retain).top(1) == [Site(0, "neuron", 1)]


def test_top_is_best_first_and_refuses_impossible_numbers(found: Localization) -> None:
    scores = found.frame.set_index(["part", "layer", "index"])["score"]
    best = [scores["neuron", s.layer, s.index] for s in found.top(50)]
    assert best == sorted(scores["neuron"], reverse=True)[:50]
    assert all(s.part == "head" for s in found.top(16, part="head"))
    for k in (0, -1, 17):
        with pytest.raises(UserError, match=rf"top\({k}\) of 16 head sites: ask for 1 to 16"):
            found.top(k, part="head")
    with pytest.raises(UserError, match="'mlp' was not scored here; choose from neuron, head"):
        found.top(1, part="mlp")


def test_saved_and_read_again(found: Localization, tmp_path: Path) -> None:
    again = Localization.load(found.save(tmp_path / "localization.parquet"))
    pd.testing.assert_frame_equal(again.frame, found.frame, check_dtype=False)
    assert again.record == found.record
    assert again.top(30) == found.top(30)
    assert again.top(5, part="head") == found.top(5, part="head")
    assert list(tmp_path.iterdir()) == [tmp_path / "localization.parquet"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a localization"):
        Localization.load(tmp_path / "none.parquet")
    (tmp_path / "junk.parquet").write_bytes(b"junk")
    with pytest.raises(UserError, match="is not a localization"):
        Localization.load(tmp_path / "junk.parquet")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(UserError, match="is not a localization"):
        Localization.load(tmp_path / "other.parquet")
    old = pa.table({"part": ["head"]}).replace_schema_metadata({"loka": '{"method": "attribution"}'})
    pq.write_table(old, tmp_path / "old.parquet")
    with pytest.raises(UserError, match="names no kind of table, so an older version wrote it; `loka locate` makes"):
        Localization.load(tmp_path / "old.parquet")


def test_to_frame_is_a_copy(found: Localization) -> None:
    copy = found.to_frame()
    copy.loc[:, "score"] = 0.0
    assert found.frame["score"].abs().max() > 0


def test_significant_sites() -> None:
    """One unit in 300 differs and is found; where none differs, the answer is that nothing is localizable."""
    rng = np.random.default_rng(0)
    forget, retain = rng.normal(0, 0.1, (2, 12, 3, 100))
    nothing = made(forget, retain)
    assert nothing.significant_sites() == []
    assert "none stands out: not localizable" in str(nothing)
    forget[:, 1, 7] += 0.6
    found = made(forget, retain)
    assert found.significant_sites() == [Site(1, "neuron", 7)]
    assert str(found).startswith("neuron: 1 of 300 stand out (q of 0.05 or less); best: L1.neuron.7 +0.")
    for level in (0, 1, 5):
        with pytest.raises(UserError, match=f"level={level} is not a share"):
            found.significant_sites(level=level)


def test_false_discoveries_are_few() -> None:
    """Sixty units in 300 differ: nearly all of them are significant, and few of the others."""
    rng = np.random.default_rng(0)
    forget, retain = rng.normal(0, 0.1, (2, 16, 3, 100))
    forget[:, :, :20] += 0.15
    listed = made(forget, retain).significant_sites(level=0.1)
    true = [s for s in listed if s.index < 20]
    assert len(true) >= 50
    assert len(listed) - len(true) <= 0.2 * len(listed)


def test_a_file_of_another_version_is_refused(planted: Model, planted_case: Case, tmp_path: Path) -> None:
    found = locate.attribution(planted, planted_case, parts=("head",))
    path, good = tmp_path / "l.parquet", {"kind": "localization", "record": found.record.to_json()}
    for frame, metadata, words in (
        (found.frame, {"kind": "localization", "method": "attribution"}, "is missing; locate it again"),
        (found.frame.drop(columns=["low"]), good, "lacks the column 'low'"),
        (found.frame.assign(score="x"), good, "'score' that is not numbers"),
    ):
        table.write(path, frame, metadata)
        with pytest.raises(UserError, match=words):
            Localization.load(path)
    table.write(path, found.frame.iloc[:-1], good)
    with pytest.raises(UserError, match="15 head sites do not fill 4 layers"):
        Localization.load(path).grid("head")
