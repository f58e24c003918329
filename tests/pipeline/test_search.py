"""The smallest edit within a budget: every point is what its edit gives, and a killed search goes on."""

import dataclasses
import json
from pathlib import Path

import pytest

import loka
from loka import Edit, UserError, ablate
from loka.ablate import RewriteConfig, TrainingConfig
from loka.knowledge import Bounds, Case, hold_out
from loka.model import Model, Site
from loka.pipeline.recipe import Recipe
from loka.pipeline.search import Search, search

GRID = {"sizes": (60, 20), "strengths": (1.0, 0.5)}
RECIPE = Recipe(config=TrainingConfig(steps=25, lr=5e-3, push_weight=0.3, retain_weight=5.0))
WIDE = Bounds(forget=0.5, retain_drop=0.5, perplexity_rise=1.0)


def run(model: Model, case: Case, out: Path | None, bounds: Bounds = WIDE, progress=None) -> Search:
    return search(model, case, out=out, bounds=bounds, recipe=RECIPE, progress=progress, **GRID)


@pytest.fixture(scope="module")
def folder(taught: Model, planted_case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    run(taught, planted_case, folder)
    return folder


def test_the_edit_found_is_the_smallest_that_meets_the_bounds(planted: Model, planted_case: Case, folder: Path) -> None:
    found, held = run(planted, planted_case, folder), hold_out(planted, planted_case)
    assert [(p.sites, p.strength) for p in found.points] == [(20, 0.5), (20, 1.0), (60, 0.5), (60, 1.0)]
    met = [p for p in found.points if p.met]
    assert found.best is not None
    assert found.best == min(met, key=lambda p: (p.sites, p.strength))
    edit = Edit.load(folder / "edit.safetensors")
    assert found.edit is not None
    assert edit.digest() == found.edit.digest()
    assert edit.parameters == found.best.parameters
    with edit.applied(planted):
        now = held.measure(planted)
    assert (now.forget, now.retain, now.perplexity) == (found.best.forget, found.best.retain, found.best.perplexity)
    assert now.forget <= 0.5
    assert "the smallest within the budget" in str(found)
    assert f"{found.best.sites} sites" in str(found)
    assert (folder / "figures" / "search.svg").stat().st_size > 1000
    assert json.loads((folder / "search.json").read_text())["best"]["sites"] == found.best.sites


def test_when_no_edit_meets_the_bounds_that_is_said(planted: Model, planted_case: Case, tmp_path: Path) -> None:
    found = search(
        planted, planted_case, out=tmp_path, bounds=Bounds(forget=0.0, retain_drop=-1.0), sizes=(5,), strengths=(1.0,),
        recipe=Recipe(method="zero"),
    )  # fmt: skip
    assert found.best is found.edit is None
    assert "No edit is within the budget" in str(found)
    assert "5 sites at strength 1" in str(found)
    assert not (tmp_path / "edit.safetensors").exists()
    assert json.loads((tmp_path / "search.json").read_text())["best"] is None


def test_a_killed_search_goes_on_point_by_point(
    planted: Model, planted_case: Case, folder: Path, tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    seen: list[tuple[str, int]] = []

    def kill(what: str, done: int, total: int) -> None:
        if (what, done) == ("points", 1):
            raise Killed

    with pytest.raises(Killed):
        run(planted, planted_case, tmp_path, progress=kill)
    assert len(json.loads((tmp_path / "search.json").read_text())["points"]) == 1
    run(planted, planted_case, tmp_path, progress=lambda what, done, total: seen.append((what, done)))
    assert not [what for what, _ in seen if what == "editing 20 sites"]  # its edit had been kept
    for name in ("search.json", "edit.safetensors"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    with pytest.raises(UserError, match="holds another search \\(bounds differ\\); name another --out"):
        run(planted, planted_case, tmp_path, bounds=dataclasses.replace(WIDE, forget=0.1))


def test_neither_the_sealed_part_nor_what_is_held_out_is_trained_on(
    planted: Model, planted_case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, cases = hold_out(planted, planted_case), []
    real = ablate.tune

    def spy(model: Model, case: Case, sites: list[Site], config: TrainingConfig) -> Edit:
        cases.append(case)
        return real(model, case, sites, config)

    monkeypatch.setitem(ablate.METHODS, "tune", ablate.Method("tune", spy))
    short = dataclasses.replace(RECIPE, config=TrainingConfig(steps=1))
    search(planted, planted_case, recipe=short, sizes=(5,), strengths=(1.0,))
    (case,) = cases
    assert not {f.subject for f in case.retain.working} & {f.subject for f in held.facts}
    assert not set(case.passages) & set(held.texts)


@pytest.mark.filterwarnings("ignore:.* new answers are written")
def test_a_scaled_edit_goes_a_share_of_the_way(planted: Model, planted_case: Case) -> None:
    for edit in (
        ablate.zero(planted, planted_case, [Site(1, "neuron", 3)]),
        ablate.memit(planted, planted_case, [Site(1, "mlp")], RewriteConfig(steps=2, contexts=0), weight=10.0),
    ):
        norms = [edit.scaled(planted, s).summary(planted).norms for s in (0.25, 0.5, 1.0)]
        for name, whole in norms[2].items():
            assert [n[name] / whole for n in norms] == pytest.approx([0.25, 0.5, 1.0], rel=1e-3)
        assert edit.scaled(planted, 1.0) is edit
        with pytest.raises(UserError, match="the strength 0 must be above 0"):
            edit.scaled(planted, 0.0)


def test_what_cannot_be_is_refused(planted: Model, planted_case: Case) -> None:
    for changes, words in (
        ({"sizes": (5, 10_000)}, "give sizes from 1 to 768 and strengths above 0"),
        ({"strengths": (0.0,)}, "strengths above 0"),
    ):
        with pytest.raises(UserError, match=words):
            search(planted, planted_case, **changes)
    assert loka.search is search
