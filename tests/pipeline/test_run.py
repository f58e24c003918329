"""The whole pipeline on a small model whose facts were planted: resumed, killed, and refused."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from loka import LokaError, UserError, ablate, knockout, locate, report
from loka._util.files import digest
from loka.ablate import SimulatedRelearning, TrainingConfig
from loka.knowledge import Case
from loka.model import Model
from loka.pipeline.recipe import Recipe
from loka.pipeline.run import Run, run
from loka.pipeline.selectivity import Overlap

RECIPE = Recipe(
    sites=60,
    config=TrainingConfig(
        steps=12,
        lr=5e-3,
        push_weight=0.1,
        retain_rows=16,
        simulated_relearning=SimulatedRelearning(start=4, every=4, steps=1, radius=0.1),
    ),
)
KEPT = ("edit.safetensors", "verdict.json", "localization.parquet")


class Killed(BaseException):
    """What a kill is to the pipeline: nothing may catch it."""


def start(out: Path, model: Model, case: Case, progress=None):
    return run(model, case, out=out, recipe=RECIPE, progress=progress)


@pytest.fixture(scope="module")
def whole(taught: Model, small_case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    start(out, taught, small_case)
    return out


def test_run_folder_is_complete(whole: Path) -> None:
    for name in (*KEPT, "case.yaml", "readings.json", "report.html", "provenance.json", "localization_check.json"):
        assert (whole / name).stat().st_size > 0, name
    verdict = json.loads((whole / "verdict.json").read_text())
    assert verdict["outcome"] in {"removed", "suppressed", "intact", "inconclusive"}
    summary = verdict["summary"]
    assert summary["forget_before"] > 0.9, "the model was taught these facts"
    assert summary["forget_after"] < summary["forget_before"]
    assert summary["facts_known"] == summary["facts_total"] == 20
    assert not [name for name in whole.rglob(".*") if name.is_file()], "temporary files were left behind"


def test_controls_are_beside_the_edit(whole: Path) -> None:
    readings = json.loads((whole / "readings.json").read_text())
    second = {"shallow_npo"}  # made where relearning does not expose the first sibling
    assert set(readings) - second == {"before", "after", "shallow", "random"}
    assert readings["before"]["recall"]["controls"]["twins"] < 0.1 < readings["before"]["recall"]["value"]
    assert {"recall", "paraphrase", "relearn", "probe", "collateral", "membership"} <= set(readings["after"])


def test_second_call_makes_nothing_again(whole: Path, planted: Model, small_case: Case) -> None:
    before = {name: (whole / name).read_bytes() for name in KEPT}
    seen: list[str] = []
    start(whole, planted, small_case, lambda what, done, total: seen.append(what))
    assert seen == []
    assert {name: (whole / name).read_bytes() for name in KEPT} == before


def test_killed_at_every_stage_and_started_again(whole: Path, planted: Model, small_case: Case, tmp_path: Path) -> None:
    """Each kind of work is killed the first time that it reports; what comes out in the end is what nothing stopped."""
    killed: set[str] = set()
    ended = 0

    def kill(what: str, done: int, total: int) -> None:
        part = f"{what}, started" if done == 0 else f"{what}, under way"
        if part not in killed:
            killed.add(part)
            raise Killed

    for _ in range(100):
        try:
            start(tmp_path, planted, small_case, kill)
            break
        except Killed:
            ended += 1
    assert ended == len(killed), "a kill was caught on the way"
    started = {"probe on after, started", "relearn on after, started"}
    under_way = {f"{what}, under way" for what in ("integrated_gradients", "editing", "shallow sibling")}
    assert {"relearn on after, under way", *started, *under_way} <= killed
    for name in ("edit.safetensors", "verdict.json"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes(), name


def test_folder_of_another_case_is_refused(whole: Path, planted: Model, files, tmp_path: Path) -> None:
    from loka.knowledge import case

    other = case(files.write(tmp_path, seed=1))
    before = {p: p.read_bytes() for p in whole.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match="run of another case"):
        start(whole, planted, other)
    assert {p: p.read_bytes() for p in whole.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    "name",
    ["edit.safetensors", "localization.parquet", "readings.json", "neutral_1.txt", "controls/random.safetensors"],
)
def test_a_file_that_changed_is_named_by_resume_and_report(whole: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    data = bytearray((out / name).read_bytes())
    data[len(data) // 2] ^= 1
    (out / name).write_bytes(data)
    for use in (Run, report.write):  # `loka export` begins with a Run
        with pytest.raises(UserError, match=f"{name}' has changed since it was finished"):
            use(out)


def test_every_file_that_is_read_again_is_listed(whole: Path) -> None:
    files = json.loads((whole / "provenance.json").read_text())["files"]
    unread = {"provenance.json", "report.html", "lock"}
    stored = {p.relative_to(whole).as_posix() for p in whole.rglob("*") if p.is_file() and p.parent.name != "figures"}
    assert set(files) == stored - unread
    assert all(files[name] == digest(whole / name) for name in files)


def test_located_in_another_way_with_its_controls(
    planted: Model, small_case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One part by one locator; what is answered with its best sites zeroed, and with those of each control."""
    current = Run(tmp_path, model=planted, case=small_case)
    found = current.localization("integrated_gradients", "head")
    assert found.parts == ("head",)
    assert found.record.method == "integrated_gradients"
    left = current.controls()
    assert left is not None
    assert list(left.index) == ["untouched", "best heads", "random", "all_layers", "other_relation"]
    assert left.loc["untouched", ["forget", "same", "other"]].tolist() == [1, 1, 1]
    assert left.loc["best heads", "sites"] == 4
    assert left["forget"].between(0, 1).all()
    worth = current.selectivity()
    assert worth is not None
    lost = (left.loc["untouched"] - left.loc["best heads"])[["forget", "same", "other"]]
    assert worth.lost == pytest.approx(lost.to_dict())
    assert worth.random == pytest.approx(1 - left.loc["random", "forget"])
    assert worth.counts["forget"] == len(current.case.forget.working)
    found_again = locate.stability(planted, current.case, k=4, part="head", templates=2)
    assert worth.paraphrases == Overlap(4, found_again.same.mean(), found_again.others.mean())
    assert "4 head sites" in str(worth)
    monkeypatch.setattr(locate, "stability", None)  # a folder's result is not made again
    again = Run(tmp_path, model=planted, case=small_case)
    assert again.selectivity() == worth
    assert again.localization().parts == ("head",)
    assert again.localization("integrated_gradients", "head").frame.equals(found.frame)
    assert again.controls().equals(left)
    with pytest.raises(UserError, match="holds a localization by integrated_gradients of heads; name another --out"):
        again.localization("attribution")
    with pytest.raises(UserError, match="'neuron' was not scored here"):
        again.edit()


def test_unknown_locators_and_parts(planted: Model, small_case: Case, tmp_path: Path) -> None:
    current = Run(tmp_path, model=planted, case=small_case)
    for method, part, said in (
        ("magic", None, "'magic' is not a locator; choose one of attribution, integrated_gradients"),
        ("knowledge_neurons", "head", "knowledge_neurons cannot score 'head'; choose one of neuron"),
        ("attribution", "resid", "attribution cannot score 'resid'; choose one of neuron, head, attn, mlp, q, k, v"),
    ):
        with pytest.raises(UserError, match=said):
            current.localization(method, part)
    assert not (tmp_path / "localization.parquet").exists()


def test_whole_parts_have_rows_pictures_and_no_controls(planted: Model, small_case: Case, tmp_path: Path) -> None:
    current = Run(tmp_path, model=planted, case=small_case)
    found = current.localization("direct_logit", "mlp")
    assert [s.index for s in found.top(4, part="mlp")] == [None] * 4
    assert current.controls() is None
    written = {p.name for p in report.pictures(found, tmp_path / "figures")}
    assert written == {
        "localization.png", "localization.svg", "scatter.png", "scatter.svg", "mlp.html", "mlp_scatter.html",
    }  # fmt: skip
    assert {p.name for p in (tmp_path / "figures").iterdir()} == written
    page = (tmp_path / "figures" / "mlp.html").read_text()
    assert 'http-equiv="Content-Security-Policy" content="default-src \'none\'' in page
    assert page.startswith("<!doctype html>")
    assert "L3.mlp\ncontrast" in page
    assert report.pictures(found, tmp_path / "none", figures=False, html=False) == []


def test_what_falls_silent(planted: Model, small_case: Case) -> None:
    """All neurons of the model: nothing is answered; none: all is."""
    left = knockout(planted, small_case, {"everything": planted.sites("neuron")})
    assert left.loc["everything", "sites"] == 768
    assert left.loc["untouched", ["forget", "same", "other"]].tolist() == [1, 1, 1]
    assert left.loc["everything", ["forget", "same", "other"]].mean() < 0.2


def test_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run folder"):
        Run(tmp_path)


def test_what_cannot_run_is_refused_before_it_starts(planted: Model, small_case: Case, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'fast' is not a profile; choose one of quick, standard, full"):
        run("no-such-model", small_case, out=tmp_path, profile="fast")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="edits 5000 sites of part neuron, but taught has 768; give fewer"):
        run(planted, small_case, out=tmp_path, recipe=Recipe(sites=5000))
    with pytest.raises(UserError, match="edits sites of part neuron, but sweep scores head"):
        run(planted, small_case, out=tmp_path / "sweep", recipe=Recipe(sites=5, locator="sweep"))
    assert not (tmp_path / "sweep" / "localization.parquet").exists()


def test_full_disk_leaves_what_was_there(
    planted: Model, small_case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = Run(tmp_path, model=planted, case=small_case, recipe=RECIPE)
    current.localization()
    before = (tmp_path / "localization.parquet").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(LokaError, match="disk is full"):
        current.edit()
    assert not (tmp_path / "edit.safetensors").exists()
    assert (tmp_path / "localization.parquet").read_bytes() == before


def test_rounds_locate_again_and_keep_what_is_finished(planted: Model, small_case: Case, tmp_path: Path) -> None:
    config = TrainingConfig(steps=6, lr=5e-3, every=3)
    recipe = Recipe(method="rounds", sites=30, config=config, arguments={"plan": {"counts": [30, 20]}})

    def kill(what: str, done: int, total: int) -> None:
        if (what, done) == ("editing", 8):
            raise Killed

    with pytest.raises(Killed):
        Run(tmp_path, model=planted, case=small_case, recipe=recipe, progress=kill).edit()
    assert [p.name for p in (tmp_path / "rounds").iterdir()] == ["round-1.safetensors"]
    steps: list[int] = []
    edit = Run(tmp_path, model=planted, case=small_case, progress=lambda what, done, total: steps.append(done)).edit()
    assert min(steps) > 6
    assert [r.sites for r in edit.record.rounds] == [30, 20]
    assert len(set(edit.record.sites or ())) == 50
    assert (tmp_path / "edit.safetensors").exists()


@pytest.mark.filterwarnings("ignore:.* new answers are written")
def test_a_run_lets_a_method_choose_its_own_sites(planted: Model, small_case: Case, tmp_path: Path) -> None:
    memit = Recipe.load("memit")
    recipe = dataclasses.replace(memit, config=dataclasses.replace(memit.config, steps=6, contexts=2))
    edit = Run(tmp_path, model=planted, case=small_case, recipe=recipe).edit()
    same = ablate.memit(planted, small_case, config=recipe.config)
    assert edit.record.sites == same.record.sites == ("L0.mlp", "L1.mlp")
    assert edit.digest() == same.digest()
    assert Run(tmp_path, model=planted, case=small_case).recipe == recipe, "a second call goes on with the same"
