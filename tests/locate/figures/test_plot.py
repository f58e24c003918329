"""Figures of a localization: symmetric colours, layer 0 at the bottom, the best sites marked."""

from collections.abc import Mapping

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure

from loka._util.errors import UserError
from loka.locate import Localization, LocalizationRecord
from loka.locate.contrast import contrast
from loka.model import Site

NAMES = [str(i) for i in range(6)]


def located(units: Mapping[str, int], n_layers: int = 5, scale: float = 1.0) -> Localization:
    rng = np.random.default_rng(0)
    scores = {part: scale * rng.normal(0.02, 0.3, (12, n_layers, n)) for part, n in units.items()}
    return contrast(scores, np.full(12, 8.0), n_forget=6, record=LocalizationRecord("by hand"))  # type: ignore[arg-type]


def drawn(figure: Figure) -> list[Axes]:
    """Draw a figure, and return its axes without the colour bars."""
    figure.draw_without_rendering()
    return [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]


def test_heads_and_neurons_side_by_side() -> None:
    figure = located({"head": 4, "neuron": 64}).plot()
    heads, ranks, counts = drawn(figure)
    assert heads.get_ylabel().startswith("layer")
    assert [ax.get_xlabel() for ax in (heads, ranks, counts)] == ["head", "rank within the layer", "neurons"]
    bars = [ax for ax in figure.axes if ax.get_label() == "<colorbar>"]
    assert [ax.get_ylabel() for ax in bars] == ["contrast, share of a fact's effect"] * 2


def test_colours_are_symmetric_about_zero() -> None:
    for ax in drawn(located({"head": 4, "neuron": 64}).plot()):
        for image in ax.images:
            low, high = image.get_clim()
            assert low == -high < 0


def test_a_notebook_displays_it_without_pyplot() -> None:
    figure = located({"head": 4}).plot()
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]


def test_layer_zero_is_at_the_bottom() -> None:
    for ax in drawn(located({"head": 4, "neuron": 64}).plot()):
        low, high = ax.get_ylim()
        assert low < 0 < 4 < high


def outlined(ax: Axes) -> set[tuple[int, int]]:
    """The row and column of every frame."""
    (frames,) = (c for c in ax.collections if isinstance(c, PatchCollection))
    corners = (path.get_extents().min for path in frames.get_paths())
    return {(round(float(y) + 0.5), round(float(x) + 0.5)) for x, y in corners}


def test_the_best_heads_are_outlined_unless_others_are_chosen() -> None:
    found = located({"head": 4})
    (ax,) = drawn(found.plot("head"))
    assert outlined(ax) == {(s.layer, s.index) for s in found.top(5, part="head")}
    (ax,) = drawn(found.plot("head", chosen=[Site(3, "head", 2), Site(0, "mlp")]))
    assert outlined(ax) == {(3, 2)}


def test_the_chosen_neurons_stand_at_their_ranks() -> None:
    found = located({"neuron": 64})
    sites = [*found.top(3), found.top(300)[-1]]
    ranks, counts = drawn(found.plot("neuron", chosen=sites))
    order = np.argsort(-found.grid("neuron"), axis=1)
    where = {(s.layer, order[s.layer].tolist().index(s.index) + 1) for s in sites}
    assert outlined(ranks) == {at for at in where if at[1] <= 40}
    assert sum(p.get_width() for p in counts.patches) == 4  # type: ignore[attr-defined]


def test_sites_whose_interval_spans_zero_are_faint() -> None:
    found = located({"head": 4, "mlp": 1})
    heads, mlps = drawn(found.plot())
    spans = (found.grid("head", "low") <= 0) & (found.grid("head", "high") >= 0)
    assert 0 < spans.sum() < spans.size
    np.testing.assert_array_equal(heads.images[0].get_alpha() < 1, spans)
    alone = (found.grid("mlp", "low") <= 0) & (found.grid("mlp", "high") >= 0)
    faint = [p.get_facecolor()[3] < 1 for p in mlps.patches]  # type: ignore[attr-defined]
    assert faint == alone[:, 0].tolist()


def test_neurons_are_ranked_and_counted() -> None:
    found = located({"neuron": 64}, n_layers=40)
    ranks, counts = drawn(found.plot("neuron"))
    image = np.asarray(ranks.images[0].get_array())
    assert image.shape == (40, 40)
    assert (np.diff(image, axis=1) <= 0).all()
    layers = [s.layer for s in found.top(200)]
    widths = [p.get_width() for p in counts.patches]  # type: ignore[attr-defined]
    assert widths == np.bincount(layers, minlength=40).tolist()


def test_all_zero_scores_can_be_scattered() -> None:
    assert drawn(located({"head": 4, "neuron": 400}, scale=0.0).plot(scatter=True))


@pytest.mark.parametrize("n_layers", [1, 90])
@pytest.mark.parametrize(
    "units", [{"neuron": 3}, {"kv": 2}, {"mlp": 1, "attn": 1}, {"head": 64, "kv": 8, "neuron": 50}]
)
def test_any_part_and_depth(units: dict[str, int], n_layers: int) -> None:
    assert drawn(located(units, n_layers).plot())


def test_all_zero_scores_can_be_drawn() -> None:
    assert drawn(located({"head": 4, "neuron": 64}, scale=0.0).plot())


def test_the_scatter_has_forget_up_and_retain_across() -> None:
    found = located({"head": 4, "neuron": 64})
    for ax, part in zip(drawn(found.plot(scatter=True)), found.parts, strict=True):
        across, up = np.asarray(ax.collections[0].get_offsets()).T
        rows = found.frame[found.frame["part"] == part]
        np.testing.assert_allclose(np.sort(across), np.sort(rows["retain"]))
        np.testing.assert_allclose(np.sort(up), np.sort(rows["forget"]))
        np.testing.assert_allclose(up - across, np.asarray(ax.collections[0].get_array()))
        low, high = ax.collections[0].get_clim()
        assert low == -high < 0
        assert "facts to keep" in ax.get_xlabel()
        assert "facts to forget" in ax.get_ylabel()
        best = found.top(1, part=part)[0]
        assert f"L{best.layer}.{best.index}" in [t.get_text() for t in ax.texts]


def test_the_few_strongest_of_many_stand_at_the_edge() -> None:
    found = located({"neuron": 300})
    (ax,) = drawn(found.plot("neuron", scatter=True))
    limit = ax.get_xlim()[1]
    points = np.asarray(ax.collections[0].get_offsets())
    size = np.abs(points).max(1)
    out = int((found.frame[["forget", "retain"]].abs().max(axis=1) > limit).sum())
    assert 1 <= out <= 10
    assert (size == size.max()).sum() == out
    assert size.max() <= limit
    assert f"{out} at the edge" in ax.get_title(loc="left")


def test_a_part_without_scores_is_refused() -> None:
    with pytest.raises(UserError, match="'head' was not scored"):
        located({"neuron": 8}).plot("head")
