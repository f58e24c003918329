"""Facts that nobody can know, taught to a copy of the small model; then the whole procedure on them."""

import json
from pathlib import Path

import pytest
import torch

from loka import audit, plant
from loka._util.errors import LokaError, UserError
from loka.ablate import zero
from loka.knowledge import Case, case, fictitious, readable, recalled
from loka.model import Model, Part, Site, load, slices
from loka.pipeline import Invention, Teaching
from loka.pipeline.plant import _other_sites
from loka.verify import Budget, capped

TEACHING = Teaching(steps=200, lr=3e-3)
ATTACK = Budget(8, 1e-3)


@pytest.fixture(scope="module")
def made(taught: Model, planted_case: Case, tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("plant") / "made"
    before = taught.digest()
    found = plant(taught, planted_case, out=out, invention=Invention(14, 12, 14), teaching=TEACHING)
    assert taught.digest() == before, "the user's model is left alone"
    return found


def test_what_was_planted_is_known_and_the_rest_is_as_before(made, taught: Model) -> None:
    assert made.working == 1
    assert made.sealed >= 0.95
    assert made.twins <= 0.15
    assert made.retained >= 0.95
    assert made.perplexity_after <= 1.2 * made.perplexity_before
    model = load(str(made.folder / "model"))
    known = made.case.on(model)
    assert len(known.forget.sealed) == len(known.twins.sealed) == 14
    assert not any(recalled(taught, list(known.forget.working))), "the original never knew them"
    assert all(recalled(model, list(known.forget.working)))
    assert json.loads((made.folder / "planted.json").read_text())["steps"] == made.steps


def test_the_folder_tells_how_it_was_made(made, taught: Model) -> None:
    held = json.loads((made.folder / "provenance.json").read_text())
    assert held["digests"] == {"case": made.case.digest, "model": taught.digest()}
    assert held["arguments"]["facts"] == 14
    assert held["durations"]["all"] > 0
    assert {"torch", "python", "loka"} <= set(held["versions"])


def test_an_audit_counts_the_planted_subjects_that_come_back(made) -> None:
    """Untouched, every planted subject is recoverable, and twins are not."""
    model = load(str(made.folder / "model"))
    verdict = audit(model, load(str(made.folder / "model")), made.case, checks=capped({"relearn": ATTACK}))
    assert verdict.recoveries["recall"].low >= 0.5
    assert verdict.reasons[0].startswith("Of 14 subjects, 14 were recoverable by paraphrase or relearn; of 14 twins, ")


def test_the_same_seed_plants_the_same(planted_case: Case) -> None:
    one, again, other = (fictitious(planted_case, facts=9, kept=4, twins=9, seed=s) for s in (1, 1, 2))
    assert one == again
    assert one != other
    relation = "fictitious_capital"
    names = set(one.relations[relation].facts)
    assert not names & set(one.twins[relation])
    assert len(names) == 13


def test_invented_names_are_new_and_their_answers_cannot_be_read_off_them() -> None:
    source = case("capitals")
    spec = fictitious(source, facts=60, kept=40, twins=60)
    of = spec.relations["fictitious_capital"]
    every = [*of.facts, *spec.twins["fictitious_capital"]]
    assert len(set(every)) == 160
    assert not set(every) & {s for r in source.relations.values() for s in r.facts}
    assert not any(readable(subject, answer) for subject, (answer,) in of.facts.items())
    assert {a for (a,) in of.facts.values()} <= set(source.pool("capital"))


def test_bad_input_is_refused_and_leaves_nothing(planted: Model, planted_case: Case, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "a").write_text("a")
    with pytest.raises(UserError, match="is not empty; name a new folder"):
        plant(planted, planted_case, out=full)
    with pytest.raises(UserError, match="the last 9 layers cannot be trained"):
        plant(planted, planted_case, out=tmp_path / "new", teaching=Teaching(layers=9))
    with pytest.raises(UserError, match="cannot be planted; give at least"):
        plant(planted, planted_case, out=tmp_path / "new", invention=Invention(facts=0))
    with pytest.raises(LokaError, match=r"after 2 steps .* gives \d+ of \d+ planted answers, and .* allow more steps"):
        plant(planted, planted_case, out=tmp_path / "new", invention=Invention(8, 4, 8), teaching=Teaching(steps=2))
    assert [p.name for p in tmp_path.iterdir()] == ["full"]


@pytest.mark.parametrize("part", ["neuron", "mlp", "head"])
def test_facts_are_planted_through_the_named_sites_alone(
    taught: Model, planted_case: Case, tmp_path: Path, part: Part
) -> None:
    """Every weight that moved belongs to these sites or to those of the facts to retain, which are others."""
    every = taught.sites(part)
    sites = every[1::4] if part == "neuron" else every[-1:]
    found = plant(
        taught, planted_case, out=tmp_path / "new", invention=Invention(5, 2, 4), sites=sites,
        teaching=Teaching(steps=600, lr=1e-2, rows=16, hold=0.5),
    )  # fmt: skip
    assert found.sites == tuple(sites)
    assert json.loads((tmp_path / "new" / "planted.json").read_text())["sites"] == list(map(str, sites))
    model = load(str(found.folder / "model"))
    reached = {n: torch.zeros_like(p, dtype=torch.bool) for n, p in taught.parameters.items()}
    others = _other_sites(taught, sites, seed=0)
    assert len(others) == len(sites)
    assert not set(others) & set(sites)
    for where in slices(taught, [*sites, *others]):
        where.write_(reached[where.name], torch.ones_like(where.read(reached[where.name])))
    for name, weight in model.parameters.items():
        moved = weight != taught.parameters[name]
        assert not (moved & ~reached[name]).any(), name
    forget = found.case.on(model).forget.working
    knows = recalled(model, list(forget))
    assert all(knows)
    with zero(model, found.case.whole(), sites).applied(model):
        assert sum(recalled(model, list(forget))) < len(knows), "the facts are in these sites"


def test_sites_that_cannot_be_taught_are_refused(taught: Model, planted_case: Case, tmp_path: Path) -> None:
    def refused(sites: list[Site], message: str, teaching: Teaching = TEACHING) -> None:
        with pytest.raises(UserError, match=message):
            plant(taught, planted_case, out=tmp_path / "new", sites=sites, teaching=teaching)
        assert not (tmp_path / "new").exists()

    refused([Site(99, "mlp")], "L99.mlp")
    refused([Site(0, "resid")], "weights")
    refused(taught.sites("mlp"), "there are only 0 others to teach")
    refused([Site(0, "mlp")], "cannot both be taught", Teaching(layers=1))
