"""Interactive drawings hold every site's name and scores, without scripts or network."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from loka._util.errors import UserError
from loka.locate import Localization, LocalizationRecord
from loka.locate.contrast import contrast
from loka.model import Part

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def found() -> Localization:
    rng = np.random.default_rng(0)
    scores: dict[Part, np.ndarray] = {p: rng.normal(0.02, 0.3, (12, 5, n)) for p, n in (("head", 4), ("neuron", 64))}
    return contrast(scores, np.full(12, 8.0), n_forget=6, record=LocalizationRecord("by hand"))


def tips(fragment: str, shape: str) -> dict[str, str]:
    """Each site's colour, by the name in its tooltip."""
    return {
        e.findtext(f"{SVG}title", "").splitlines()[0]: e.get("fill", "")
        for e in ET.fromstring(fragment).iter(f"{SVG}{shape}")
    }


def test_the_heatmap_shows_every_head_with_its_score(found: Localization) -> None:
    seen = tips(found.html("head"), "rect")
    assert set(seen) == {f"L{layer}.head.{i}" for layer in range(5) for i in range(4)}
    best = found.top(1, part="head")[0]
    row = found.frame.query("part == 'head' and layer == @best.layer and index == @best.index")["score"]
    assert f"{best}\ncontrast {row.item():+.4f}" in found.html("head")
    red, blue = (int(seen[str(best)][i : i + 2], 16) for i in (1, 5))
    assert red > blue


def test_faint_cells_have_an_interval_that_spans_zero_and_framed_ones_are_chosen(found: Localization) -> None:
    chosen = found.top(3, part="head")
    cells = {
        e.findtext(f"{SVG}title", "").splitlines()[0]: e
        for e in ET.fromstring(found.html("head", chosen=chosen)).iter(f"{SVG}rect")
    }
    assert {name for name, e in cells.items() if e.get("stroke")} == set(map(str, chosen))
    rows = found.frame.query("part == 'head' and low <= 0 <= high")
    spans = {f"L{a}.head.{b}" for a, b in zip(rows["layer"], rows["index"], strict=True)}
    assert {name for name, e in cells.items() if e.get("fill-opacity")} == spans


def test_the_heatmap_shows_each_layers_best_neurons(found: Localization) -> None:
    seen = set(tips(found.html("neuron"), "rect"))
    assert len(seen) == 5 * 40
    assert {str(s) for s in found.top(20)} <= seen


def test_the_scatter_has_forget_up_and_retain_across(found: Localization) -> None:
    fragment = found.html("head", scatter=True)
    assert len(tips(fragment, "circle")) == 20
    spots = {
        e.findtext(f"{SVG}title", "").splitlines()[0]: (float(e.get("cx", 0)), -float(e.get("cy", 0)))
        for e in ET.fromstring(fragment).iter(f"{SVG}circle")
    }
    heads = found.frame.query("part == 'head'")
    names = [f"L{a}.head.{b}" for a, b in zip(heads["layer"], heads["index"], strict=True)]
    across, up = np.array([spots[n] for n in names]).T
    assert np.corrcoef(across, heads["retain"])[0, 1] > 0.9999
    assert np.corrcoef(up, heads["forget"])[0, 1] > 0.9999


def test_it_works_without_scripts_and_network(found: Localization) -> None:
    for fragment in (found.html("head"), found.html("neuron", scatter=True)):
        assert "<script" not in fragment
        assert set(re.findall(r"https?://[^\"]+", fragment)) == {"http://www.w3.org/2000/svg"}


def test_a_part_without_scores_is_refused(found: Localization) -> None:
    with pytest.raises(UserError, match="'mlp' was not scored here"):
        found.html("mlp")
