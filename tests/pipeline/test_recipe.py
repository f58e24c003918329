"""Recipes: the built-in ones, their files, and what a file may not say."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from loka import UserError
from loka.ablate import METHODS, RewriteConfig, RoundPlan, SimulatedRelearning, TrainingConfig
from loka.knowledge import Bounds, CaseSpec, Split
from loka.pipeline.recipe import Recipe, recipes

COMMON = TrainingConfig(
    "twin_distribution", lr=1e-3, retain_weight=30.0, neutral_weight=6.0, retain_rows=32, neutral_rows=3, bfloat16=True
)
QUICK = dataclasses.replace(
    COMMON, steps=50, simulated_relearning=SimulatedRelearning(10, 4, 4, 0.1), mixup_rows=256, precondition=0.1
)
THOROUGH = dataclasses.replace(
    COMMON, retain_weight=60.0, steps=150, simulated_relearning=SimulatedRelearning(10, 2, 6, 0.1), mixup_rows=512,
    warm_up=40,
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "sites", "config", "counts"),
    [
        ("quick", 600, QUICK, None),
        ("thorough", 2000, THOROUGH, None),
        ("rounds", 300, TrainingConfig(steps=40, lr=2e-3, every=20), (300, 150)),
        ("rounds-thorough", 400,
         TrainingConfig(steps=600, lr=2e-3, every=50, retain_rows=32, neutral_rows=8), (400, 300, 300)),
        ("npo", 600, TrainingConfig("npo"), None),
    ],
)  # fmt: skip
def test_the_numbers_of_the_usual_recipes(
    name: str, sites: int, config: TrainingConfig, counts: tuple[int, ...] | None
) -> None:
    recipe = Recipe.load(name)
    assert (recipe.name, recipe.part, recipe.sites, recipe.config) == (name, "neuron", sites, config)
    if counts:
        assert METHODS["rounds"].read(recipe.arguments)["plan"] == RoundPlan(counts)


def test_every_method_has_a_recipe_at_its_defaults() -> None:
    for name in METHODS.keys() - {"tune", "rounds"}:
        recipe = Recipe.load(name)
        assert recipe.method == name
        assert recipe.config == METHODS[name].config
        assert recipe.sites == (0 if name in ("rome", "memit") else 600)


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_is_read_as_it_is_written(name: str, tmp_path: Path) -> None:
    recipe = Recipe.load(name)
    assert Recipe.from_json(recipe.to_json()) == recipe
    path = tmp_path / "own.yaml"
    path.write_text(recipe.to_yaml())
    assert Recipe.load(path) == recipe


def test_a_file_says_only_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "method: reset\nsites: 50\nlocator: attribution\n"
        "config: {lr: 5e-3, every: 10, bounds: {forget: 0.1}, simulated_relearning: {steps: 4}}\n"
    )
    recipe = Recipe.load(path)
    config = TrainingConfig(
        steps=60, lr=5e-3, every=10, bounds=Bounds(forget=0.1), simulated_relearning=SimulatedRelearning(steps=4)
    )
    assert recipe == Recipe("mine", "reset", sites=50, locator="attribution", config=config)
    path.write_text("method: memit\nconfig: {contexts: 2}\narguments: {weight: 10.0}\n")
    recipe = Recipe.load(path)
    assert (recipe.part, recipe.sites) == ("mlp", 0)
    assert recipe.config == dataclasses.replace(RewriteConfig(clamp=0.75, target_loss=0.2), contexts=2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("metod: tune", "a recipe has no 'metod'; choose from name, method, part, sites, locator, config"),
        ("method: melt", "'melt' is not a method; choose from zero, mean"),
        ("config: {lrr: 1}", "a training config has no 'lrr'; choose from objective, settings, steps, lr"),
        ("config: {steps: many}", "cannot have steps = 'many'"),
        ("config: {objective: rmx}", "'rmx' is not an objective; choose from undial"),
        ("config: {simulated_relearning: {evry: 2}}", "has no 'evry'; choose from start, every, steps, radius"),
        ("without_twins: {objectve: undial}", "a training config has no 'objectve'"),
        ("{method: zero, config: {steps: 1}}", "zero has no config; leave it out"),
        ("{method: zero, sites: 0}", "zero cannot edit 0 sites; give 1 or more"),
        ("arguments: {rank: 3}", "tune has no argument 'rank'; it takes config"),
        ("arguments: {config: {steps: 3}}", "config is a field of its own"),
        ("locator: magic", "'magic' is not a locator; choose from attribution"),
        ("part: brain", "cannot have part = 'brain'"),
        ("{method: memit, part: neuron, sites: 50}", "'memit' edits whole MLPs and chooses them itself"),
        ("- tune", "must map names to values"),
        ("config: [unclosed", "is not valid YAML"),
        ("", "must map names to values, but it is None"),
        ("config: []", "a training config must map names to values, but it is []"),
        ("config: {lr: .inf}", "lr=inf is not allowed"),
        ("{method: zero, without_twins: {steps: 1}}", "zero has no config; leave it out, and without_twins too"),
        ("{method: lora, arguments: {rank: many}}", "lora cannot have rank = 'many'"),
        ("{method: rounds, arguments: {plan: 3}}", "rounds cannot have plan = 3"),
        ("{method: rounds, arguments: {plan: {counts: [0]}}}", "must give every round at least one site"),
        ("{method: follow_up, arguments: {first: melt}}", "'melt' is not a method; choose from zero"),
        ("{method: memit, arguments: {answers: 3}}", "memit cannot have answers = 3"),
        ("{name: &a [x, *a]}", "stands inside its own value"),
    ],
)
def test_a_wrong_file_is_refused_in_one_sentence_that_names_it(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        Recipe.load(path)
    said = str(caught.value)
    assert words in said
    assert str(path) in said
    assert "\n" not in said


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UserError, match="'slow' is neither a recipe nor a YAML file; choose from follow_up, .*quick"):
        Recipe.load("slow")


def test_a_file_runs_no_code(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(f"name: !!python/object/apply:os.mkdir [{str(tmp_path / 'made')!r}]")
    with pytest.raises(UserError, match="is not valid YAML"):
        Recipe.load(path)
    assert not (tmp_path / "made").exists()
    assert yaml.safe_load(Recipe.load("quick").to_yaml())["sites"] == 600


def test_without_twins_the_usual_recipes_take_an_objective_that_needs_none(planted_case: CaseSpec) -> None:
    case = planted_case.whole()
    lonely = dataclasses.replace(case, twins=Split((), ()))
    for name, config in (("quick", QUICK), ("thorough", THOROUGH)):
        recipe = Recipe.load(name)
        assert recipe.on(case) == recipe
        alone = recipe.on(lonely)
        assert alone.config == dataclasses.replace(config, objective="undial", push_weight=0.25)
        assert alone.on(lonely) == alone
    own = Recipe(config=TrainingConfig("twin_distribution"))
    assert own.on(lonely) == own
    assert Recipe.load("zero").on(lonely) == Recipe.load("zero")


def test_an_argument_keeps_its_value_where_any_number_will_do() -> None:
    """The record of an edit says what the recipe says."""
    method = METHODS["selective_dampening"]
    assert [type(v) for v in method.read({"alpha": 10, "strength": 0.5}).values()] == [int, float]
    assert method.read({"alpha": "1e-3"}) == {"alpha": 1e-3}, "YAML reads a number without a point as text"
