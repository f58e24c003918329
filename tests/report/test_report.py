"""The report: complete, escaped, self-contained, and the same each time."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import loka.report
from loka._util.errors import UserError
from loka._util.files import write_json
from loka._util.provenance import Provenance
from loka.audit.summary import columns
from loka.locate import Localization, LocalizationRecord
from loka.locate.contrast import contrast
from loka.model import Edit, EditRecord, Slice
from loka.report.figures import before_after
from loka.report.folder import RunFolder
from loka.verify import Reading, Summary, at_step, compare, judge, make_reading, refusal, scorecard

HOSTILE = "<script>alert('x')</script> & \"$\\frac{$\""
FIGURES = {"before_after", "recovery", "relearning", "probe", "localization", "agreement"}
SUBJECTS = [f"Country {i}" for i in range(23)] + [HOSTILE]
STEPS, BUDGET, LAYERS = (1, 2, 3, 4, 6, 8), 4, 31
MEANS = {"before": 0.95, "after": 0.16, "shallow": 0.72, "random": 0.5, "twins": 0.05}


def spread(mean: float, names: list[str], seed: int, width: float = 0.08) -> dict[str, float]:
    values = np.clip(np.random.default_rng(seed).normal(mean, width, len(names)), 0, 1)
    return {f"capital/{n}": float(v) for n, v in zip(names, values, strict=True)}


TWINS = [f"Nowhere {i}" for i in range(60)]


def relearned(model: str, steps: tuple[int, ...]) -> Reading:
    groups = {"forget": (MEANS[model], SUBJECTS)} | ({"twins": (MEANS["twins"], TWINS)} if model == "after" else {})
    by_step = {
        g: {str(s): spread(m * (0.4 + 0.6 * s / 8), names, s) for s in (STEPS if g == "twins" else steps)}
        for g, (m, names) in groups.items()
    }
    curve = {g: {s: float(np.mean(list(v.values()))) for s, v in of.items()} for g, of in by_step.items()}
    details = {
        "steps": steps[-1],
        "lr": 2e-5,
        "folds": 5,
        "curve": curve,
        "by_step": by_step,
        "accuracy": {"forget": 0.1},
    }
    samples = {g: of[str(steps[-1])] for g, of in by_step.items()}
    return make_reading("relearn", samples, "After some steps held-out answers come back.", details=details, cost=900.0)


def asked(check: str, share: float, **more: Any) -> Reading:
    samples = {"forget": spread(share, SUBJECTS, 1, 0.1 * (0 < share < 1)), "twins": spread(0.0, TWINS, 2, 0.0)}
    return make_reading(check, samples, f"{share:.0%} of the answers. {HOSTILE}", cost=120.0, **more)


def collateral(same: float, other: float, perplexity: float) -> Reading:
    samples = {"same": spread(same, ["a", "b"], 3, 0), "other": spread(other, ["gold", "silver"], 4, 0)}
    samples = {"forget": {**samples["same"], **samples["other"]}, **samples}
    return make_reading(
        "collateral", samples, "Facts to keep.", details={"perplexity": perplexity, "kl": 0.02, "tokens": 4000}
    )


def probed() -> Reading:
    samples = {"forget": spread(0.62, SUBJECTS, 5), "retain": spread(0.93, ["c"], 6), "twins": spread(0.5, TWINS, 7),
               "shuffled": spread(0.49, SUBJECTS, 8), "random_weights": spread(0.53, SUBJECTS, 9)}  # fmt: skip
    rise = 0.5 + 0.3 / (1 + np.exp(-(np.arange(LAYERS) - 14) / 3.0))
    by_layer = {"subject": rise.tolist(), "last": (0.5 + 0.4 * (rise - 0.5)).tolist()}
    return make_reading(
        "probe", samples, "A probe.", details={"layer": 19, "position": "subject", "by_layer": by_layer}
    )


def readings() -> dict[str, dict[str, Reading]]:
    before = [
        asked("recall", 1.0),
        asked("paraphrase", 1.0),
        probed(),
        collateral(0.97, 1.0, 21.25),
        relearned("before", STEPS),
    ]
    after = [asked("recall", 0.0), asked("paraphrase", 0.08), probed(), collateral(0.89, 0.96, 23.375),
             refusal("membership", "A classifier can separate members by their text alone."),
             relearned("after", (BUDGET,))]  # fmt: skip
    shallow = [asked("recall", 0.04), relearned("shallow", STEPS)]
    random = [asked("recall", 0.25), collateral(0.81, 0.98, 22.5), relearned("random", (BUDGET,))]
    models = {"before": before, "after": after, "shallow": shallow, "random": random}
    return {m: {r.check: r for r in listed} for m, listed in models.items()}


def at_common_budget(found: dict[str, dict[str, Reading]]) -> dict[str, dict[str, Reading]]:
    early = {m: {**found[m], "relearn": at_step(found[m]["relearn"], BUDGET)} for m in ("before", "shallow")}
    return {**found, **early}


def summary() -> Summary:
    own = compare(at_common_budget(readings()), "relearn")
    assert own is not None
    return Summary(**{
        "forget_before": 1.0, "forget_after": 0.0125, "retain_same_before": 0.971, "retain_same_after": 0.886,
        "retain_other_before": 0.995, "retain_other_after": 0.964, "perplexity_before": 21.25,
        "perplexity_after": 23.375,
        "shallow_forget_after": 0.042, "random_forget_after": 0.253, "random_retain_same_after": 0.811,
        "relearn_target": 0.112, "relearn_twins": 0.035, "relearn_original": 0.665, "relearn_shallow": 0.504,
        "relearn_r": own.r, "relearn_r_low": own.low, "relearn_r_high": own.high, "shallow_r": 0.745,
        "random_relearn_r": 0.508, "edited_parameters": 691200, "edited_share": 0.00514, "facts_known": 56,
        "facts_total": 100,
    })  # fmt: skip


def located() -> Localization:
    rng = np.random.default_rng(0)
    strong = np.exp(-(((np.arange(LAYERS - 1) - 17) / 5) ** 2))[None, :, None]
    scores = {
        part: np.r_[np.ones(12), 0.4 * np.ones(12)][:, None, None] * strong * rng.standard_t(3, (1, LAYERS - 1, units))
        + 0.1 * rng.standard_normal((24, LAYERS - 1, units))
        for part, units in (("head", 9), ("neuron", 96))
    }
    falls = 8 + rng.random(24)
    return contrast(scores, falls, n_forget=12, record=LocalizationRecord("attribution", "smollm2"))  # type: ignore[arg-type]


def write_verdict(folder: Path, **changes: Any) -> dict[str, Any]:
    found = readings()
    card = scorecard(0.0, 0.92, None)
    verdict = judge(at_common_budget(found), scorecard=card, summary=summary()).to_json(
        {"case": "c" * 64, "model": "d" * 64}
    )
    write_json(folder / "verdict.json", verdict | changes)
    write_json(folder / "readings.json", {m: {c: r.to_json() for c, r in of.items()} for m, of in found.items()})
    return verdict | changes


def write_located(folder: Path) -> None:
    located().save(folder / "localization.parquet")
    points = np.random.default_rng(1).normal(0, 0.4, (24, 1)) + np.random.default_rng(2).normal(0, 0.1, (24, 2))
    check = {
        "rank_correlation": 0.873,
        "n_sites": 24,
        "n_pairs": 12,
        "sites": ["L0.head.0"] * 24,
        "points": points.tolist(),
    }
    write_json(folder / "localization_check.json", check)
    sites = [f"L{17 - i % 5}.neuron.{i}" for i in range(400)]
    config = {"steps": 120, "lr": 3e-4, "objective": "undial", "seed": 0}
    record = EditRecord("reset", "smollm2", "capitals", tuple(sites), {"config": config})
    where = Slice("model.layers.0.mlp.up_proj.weight", 0, torch.arange(2))
    Edit((where,), (torch.zeros(2, 4),), "d" * 64, record).save(folder / "edit.safetensors")


def write_provenance(folder: Path) -> None:
    (folder / "case.yaml").write_text("name: capitals <b>\npurpose: safety\n")
    made = {
        "command": "loka run capitals --model smollm2 --out run", "seed": 0, "threads": 2,
        "arguments": {"case": "capitals", "model": "smollm2", "profile": "quick", "recipe": {"method": "reset"}},
        "digests": {"case": "c" * 64, "model": "d" * 64}, "versions": {"torch": "2.9.0", "loka": "0.1.0"},
        "durations": {"locate": 41.3, "ablate": 754.0, "verify": 7800.0}, "peak_memory_gib": 3.25,
    }  # fmt: skip
    write_json(folder / "provenance.json", made)


def read(folder: Path) -> str:
    return loka.report.write(folder).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run folder; no test changes it."""
    folder = tmp_path_factory.mktemp("whole")
    write_provenance(folder)
    write_located(folder)
    write_verdict(folder, claim=f"Hidden, not gone. {HOSTILE}")
    return folder


@pytest.fixture(scope="module")
def page(whole: Path) -> str:
    return read(whole)


def test_the_page_needs_nothing_else(page: str) -> None:
    assert not re.search(r"<(script|link|iframe|object|base)\b", page)
    assert all(
        v.startswith("data:image/") for v in re.findall(r"""\s(?:src|srcset|href|action)\s*=\s*["']?([^"'>]*)""", page)
    )
    assert not re.search(r"@import|url\(|https?://", re.sub(r"data:[^\"]*", "", page))
    assert page.count("<img ") == len(FIGURES)


def test_what_comes_from_the_files_is_escaped(page: str) -> None:
    assert "<script" not in page
    assert "capitals <b>" not in page
    assert page.count("&lt;script&gt;") >= 4  # the claim, a subject, and what two checks mean
    assert "capitals &lt;b&gt;" in page


def test_every_number_of_the_summary_is_there(page: str) -> None:
    numbers = summary().to_json()
    numbers = {k: v for k, v in numbers.items() if v is not None}
    shares = [k for k in numbers if re.match("forget|retain|shallow_forget|random_(forget|retain)", k)]
    for key in shares:
        assert f">{100 * numbers[key]:.1f}%<" in page, key  # type: ignore[operator]
    means = re.compile("perplexity|relearn|shallow_r$|random_relearn_r$")
    for key in filter(means.match, numbers):
        assert f"{numbers[key]:.2f}" in page, key
    for text in ("691,200 (0.51% of all)", "56 of 100", "-8.5 points", "+10.0%", "reset on 400 neurons", "0.87",
                 "12 min 34 s"):  # fmt: skip
        assert text in page, text


@pytest.mark.usefixtures("page")
def test_the_figures_are_files_too(whole: Path) -> None:
    for name in FIGURES:
        assert (whole / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in (whole / "figures" / f"{name}.svg").read_bytes()
    assert {p.stem for p in (whole / "figures").iterdir()} == FIGURES


def test_a_second_report_is_the_same_and_the_run_is_left_alone(whole: Path, page: str) -> None:
    before = {p.name: p.read_bytes() for p in whole.iterdir() if p.is_file()}
    assert read(whole) == page
    assert {p.name: p.read_bytes() for p in whole.iterdir() if p.is_file()} == before


@pytest.mark.parametrize("outcome", ["removed", "suppressed", "intact", "inconclusive"])
def test_each_outcome_says_what_it_means(tmp_path: Path, outcome: str) -> None:
    write_verdict(tmp_path, outcome=outcome, recoveries={})
    (tmp_path / "readings.json").unlink()
    page = read(tmp_path)
    assert re.search(rf"</span> {outcome}</span>", page)
    assert loka.report.texts.MEANS[outcome][0][:40] in page


def test_the_controls_are_compared_at_the_frozen_budget(whole: Path) -> None:
    found = RunFolder.read(whole).recoveries["relearn"]
    stored = {m: {c: Reading.from_json(json.loads(json.dumps(r.to_json(), sort_keys=True))) for c, r in of.items()}
              for m, of in readings().items()}  # fmt: skip
    truth = compare(at_common_budget(stored), "relearn", model="shallow")
    assert list(found) == ["after", "random", "shallow"]
    assert truth is not None
    assert found["shallow"] == truth
    late = compare(readings(), "relearn", model="shallow")
    assert late is not None
    assert late.r != truth.r


def test_before_verifying_no_claim_is_made(tmp_path: Path) -> None:
    write_provenance(tmp_path)
    write_located(tmp_path)
    page = read(tmp_path)
    for text in (
        "not yet verified",
        "No check has been run yet",
        f"loka run capitals --model smollm2 --out {tmp_path}",
    ):
        assert text in page
    assert "Scorecard" not in page
    assert {p.stem for p in (tmp_path / "figures").iterdir()} == {"localization", "agreement"}


def test_an_audit_alone_needs_no_localization(tmp_path: Path) -> None:
    write_verdict(tmp_path)
    page = read(tmp_path)
    assert "Nothing was located in this folder" in page
    assert "no provenance.json" in page
    arguments = {"before": "a model", "after": "another.safetensors"}
    made = Provenance.of_call("loka verify", arguments, seed=0, digests={})
    dataclasses.replace(made, files=None).write(tmp_path)
    page = read(tmp_path)
    assert "on a model" in page
    assert "another.safetensors" in page


def test_what_was_not_measured_is_said(tmp_path: Path) -> None:
    write_verdict(tmp_path, summary=Summary().to_json(), recoveries={})
    (tmp_path / "readings.json").unlink()
    page = read(tmp_path)
    assert page.count('title="not measured"') > 10
    assert "None" not in page
    assert not re.search(r"\bnan\b", page, re.IGNORECASE)


def test_a_control_that_is_not_there_has_no_key() -> None:
    without = dataclasses.replace(summary(), **{k: None for k in summary().to_json() if k.startswith("random")})
    found = [columns(s, {}, ("random", "shallow")) for s in (summary(), without)]
    keys = [{t.get_text() for t in before_after(c).legends[0].get_texts()} for c in found]
    assert keys[0] - keys[1] == {"random sites"}


def test_an_empty_folder_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither localization.parquet nor verdict.json.*loka run"):
        loka.report.write(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "text"), [("verdict.json", "{"), ("readings.json", '{"after": {"recall": {}}}'),
                                            ("case.yaml", "a: [")])  # fmt: skip
def test_a_broken_file_is_named(tmp_path: Path, name: str, text: str) -> None:
    write_verdict(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=name):
        loka.report.write(tmp_path)


def test_files_of_an_earlier_version_that_do_not_fit_are_refused_in_a_sentence(tmp_path: Path) -> None:
    """They are not listed by digests, so their content is all that is known of them."""
    write_verdict(tmp_path)
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    verdict["gates"][0] = 3
    (tmp_path / "verdict.json").write_text(json.dumps(verdict))
    with pytest.raises(UserError, match=r"the files of '.*' do not fit together \(.*name.*\); run the command"):
        read(tmp_path)
