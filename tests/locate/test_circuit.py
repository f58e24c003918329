"""A circuit's drawings show its strongest edges; its file holds the whole circuit."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from loka._util.errors import UserError
from loka.locate import Circuit, Localization, LocalizationRecord
from loka.locate.circuit import circuit
from loka.locate.contrast import contrast
from loka.locate.figures.graph import layout
from loka.model import Model
from loka.model.run.wiring import wiring

SVG = "{http://www.w3.org/2000/svg}"


def random_circuit(model: Model) -> Circuit:
    n = int(wiring(model).real.sum())
    raw = np.random.default_rng(0).normal(0.01, 0.3, (12, 1, n))
    found = contrast({"edge": raw}, np.full(12, 8.0), n_forget=6, record=LocalizationRecord("x"))  # type: ignore[dict-item]
    return circuit(model, found)


@pytest.fixture(scope="module")
def made(tiny: Callable[[str], Model]) -> Circuit:
    return random_circuit(tiny("LlamaForCausalLM"))


def test_saved_and_read_again(made: Circuit, tmp_path: Path) -> None:
    again = Circuit.load(made.save(tmp_path / "circuit.parquet"))
    pd.testing.assert_frame_equal(again.frame, made.frame, check_dtype=False)
    assert again.record == made.record
    assert again.top(9) == made.top(9)
    assert again.wiring.sources == made.wiring.sources
    assert again.wiring.targets == made.wiring.targets
    assert again.wiring.parallel == made.wiring.parallel
    np.testing.assert_array_equal(again.wiring.real, made.wiring.real)
    np.testing.assert_array_equal(again.grid(), made.grid())
    assert list(tmp_path.iterdir()) == [tmp_path / "circuit.parquet"]


def test_other_files_are_refused(made: Circuit, tmp_path: Path) -> None:
    raw = {"neuron": np.random.default_rng(0).normal(size=(4, 1, 3))}
    neurons = contrast(raw, np.ones(4), n_forget=2, record=LocalizationRecord("by hand"))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"is not a circuit but a localization; Circuit.save writes one"):
        Circuit.load(neurons.save(tmp_path / "a.parquet"))
    with pytest.raises(UserError, match="is not a localization but a circuit"):
        Localization.load(made.save(tmp_path / "b.parquet"))
    with pytest.raises(UserError, match="is not a circuit"):
        Circuit.load(tmp_path / "none.parquet")


def test_the_strongest_edges_have_either_sign(made: Circuit) -> None:
    best = made.strongest(30)
    sizes = best["score"].abs()
    assert sizes.is_monotonic_decreasing
    assert sizes.min() >= made.frame["score"].abs().drop(best.index).max()
    assert (best["score"] < 0).any()
    for ask in (made.top, made.strongest, made.plot, made.html):
        with pytest.raises(UserError, match=f"of {len(made.frame)} edges: ask for 1 to {len(made.frame)}"):
            ask(len(made.frame) + 1)


def test_every_architecture_can_be_drawn(tiny: Callable[[str], Model], architecture: str) -> None:
    """A drawing of all edges has all nodes, with parallel blocks, separate keys and shared keys."""
    found = random_circuit(tiny(architecture))
    k = len(found.frame)
    figure = found.plot(k)
    figure.draw_without_rendering()
    ax, bar = figure.axes
    assert len(ax.patches) - len(range(0, 5, 2)) == k
    names = {t.partition("<")[0] for t in (*found.wiring.sources, *found.wiring.targets)}
    assert len(ax.texts) == len(names)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("head", "layer")
    assert [t.get_text() for t in ax.get_yticklabels()] == ["embedding", "0", "1", "2", "logits"]
    low, high = bar.get_ylim()
    assert low == -high


def test_information_flows_upwards(tiny: Callable[[str], Model], architecture: str) -> None:
    found = random_circuit(tiny(architecture))
    drawn = layout(found.strongest(len(found.frame)), found.wiring, "score")
    for row, (a, _, b) in zip(drawn.edges.itertuples(), drawn.curves, strict=True):
        assert a[1] < b[1], f"{row.source}->{row.target}"


def test_edges_are_coloured_by_sign_and_wide_by_size(made: Circuit) -> None:
    best = made.strongest(25)
    groups = [g for g in ET.fromstring(made.html(25)).iter(f"{SVG}g") if g.get("fill") == "none"]
    assert len(groups) == 25
    width = []
    for group, row in zip(groups, best.iloc[::-1].itertuples(), strict=True):
        tip = group.findtext(f"{SVG}title", "").splitlines()
        assert tip[0] == f"{row.source} \u2192 {row.target}"
        assert tip[1].startswith(f"contrast {row.score:+.4f}")
        path = group.findall(f"{SVG}path")[1]
        colour = path.get("stroke", "")
        red, blue = (int(colour[i : i + 2], 16) for i in (1, 5))
        assert (red > blue) == (row.score > 0)
        width.append(float(path.get("stroke-width", 0)))
    assert width == sorted(width)


def test_it_works_without_scripts_and_network(made: Circuit) -> None:
    fragment = made.html()
    assert "<script" not in fragment
    assert set(re.findall(r"https?://[^\"]+", fragment)) == {"http://www.w3.org/2000/svg"}
    tips = [e.text or "" for e in ET.fromstring(fragment).iter(f"{SVG}title")]
    assert any(t.startswith("layer 2, MLP\nedges that leave it: ") for t in tips)
