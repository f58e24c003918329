"""Training that starts from an edit, and the configuration that it shares with all trained edits."""

import dataclasses
import json
from functools import partial

import pytest
import torch

from loka import ablate
from loka._util.errors import UserError
from loka.ablate import SimulatedRelearning, TrainingConfig
from loka.ablate.objectives import ForgetBatch, objective
from loka.ablate.training.batches import prepare
from loka.knowledge import Bounds, Case
from loka.model import Edit, Model, Site, logits

pytestmark = pytest.mark.filterwarnings("ignore:.* new answers are written")

SITES = [Site(1, "mlp"), Site(2, "mlp")]
BRIEF = dataclasses.replace(ablate.METHODS["memit"].config, steps=6, contexts=2)


@pytest.fixture(scope="module")
def half(taught: Model, planted_case: Case) -> Edit:
    """An edit that has removed some of what is to be forgotten."""
    return ablate.memit(taught, planted_case, config=BRIEF, weight=10.0)


def test_the_edited_teacher_is_the_model_that_training_begins_with(
    planted: Model, planted_case: Case, half: Edit
) -> None:
    """Its divergence from that model's outputs without the answers is the mean of `-log(1 - p)` over the answers."""
    goals = [objective("undial", {"teacher": t}) for t in ("original", "edited")]
    memory = prepare(planted, planted_case.on(planted), TrainingConfig()).forget[0]
    with torch.no_grad(), half.applied(planted):
        of_original, of_edited = (goal.retarget(planted, [memory])[0] for goal in goals)
        assert of_original is memory
        assert of_edited.answers is memory.answers
        asked = memory.batch.labels >= 0
        scores = logits(planted, memory.batch)[asked].double()
        answers = scores.softmax(-1).gather(-1, memory.batch.labels[asked][:, None])
        losses = [float(goal(ForgetBatch(planted, m))) for goal, m in zip(goals, (of_original, of_edited), strict=True)]
    assert losses[1] == pytest.approx(-float((1 - answers).log().mean()), rel=1e-3, abs=1e-5)
    assert losses[0] > losses[1] + 0.1


def test_an_edit_may_come_first_and_its_training_is_told_whole(planted: Model, planted_case: Case, half: Edit) -> None:
    """Bit for bit as with the method that made it; no control on other sites can be made."""
    config = TrainingConfig("undial", steps=3, lr=3e-3)
    memit = partial(ablate.memit, config=BRIEF, weight=10.0)
    edits = [
        ablate.follow_up(planted, planted_case, SITES, config, first=first, own_sites=True) for first in (half, memit)
    ]
    assert edits[0].digest() == edits[1].digest() != half.digest()
    given, again = (edit.record for edit in edits)
    assert given.config == again.config == config.to_json(), "what was left out is said, too"
    assert (given.arguments["first"], given.sites) == (half.digest(), ())
    assert again.arguments["first"] == "memit"
    assert again.arguments["first_arguments"] == half.record.arguments
    assert ablate.rerun_on(planted, planted_case, edits[1], SITES).digest() == edits[1].digest()
    with pytest.raises(UserError, match=f"'{half.digest()}' is not a method"):
        ablate.rerun_on(planted, planted_case, edits[0], SITES)
    with pytest.raises(UserError, match="first='memit' is not an edit or a method; give one such as"):
        ablate.follow_up(planted, planted_case, SITES, config, first="memit")  # type: ignore[arg-type]


REFUSED = [
    ({"objective": "UNDIAL"}, "'UNDIAL' is not an objective"),
    ({"objective": "undial", "settings": {"teacher": "me"}}, "teacher = 'me'"),
    ({"gamma": 1.0}, "a training config has no 'gamma'; choose from objective, "),
    ({"mixup_rows": -1}, "mixup_rows=-1 is not allowed; give 0 or more"),
    ({"push_weight": float("nan")}, "push_weight=nan is not allowed; give 0 or more"),
    ({"retain_rows": 0}, "retain_rows=0 is not allowed; give 1 or more rows"),
    ({"precondition": 0.0}, "precondition=0.0 is not a damping; give a number above 0"),
    ({"precondition": float("nan")}, "precondition=nan is not a damping"),
    ({"every": 0, "bounds": {}}, "every=0 measures nothing to compare with bounds; give a number of steps"),
    ({"every": -1}, "every=-1 measures nothing"),
    (
        {"every": 1, "bounds": {"forgotten": 0.1}},
        "has no 'forgotten'; choose from forget, retain_drop, perplexity_rise",
    ),
    ({"simulated_relearning": {"evry": 2}}, "has no 'evry'; choose from start, every, steps, radius"),
    ({"simulated_relearning": {"every": 0}}, "every=0, .* cannot be simulated; give every and steps of 1 or more"),
    ({"simulated_relearning": {"radius": -0.1}}, "radius=-0.1. cannot be simulated"),
    ({"steps": "many"}, "cannot have steps = 'many'"),
    ({"objective": None, "settings": {"beta": 1.0}}, "have no effect; name an objective, or leave them out"),
]


@pytest.mark.parametrize(("values", "words"), REFUSED)
def test_what_cannot_be_trained_is_refused_by_the_configuration(values: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        TrainingConfig.from_json(values)


def test_a_configuration_is_read_as_it_is_written() -> None:
    config = TrainingConfig(
        "idk", {"answers": ("one", "two")}, bounds=Bounds(forget=0.1), every=3,
        simulated_relearning=SimulatedRelearning(radius=0.3), precondition=0.1,
    )  # fmt: skip
    values = json.loads(json.dumps(config.to_json()))
    again = TrainingConfig.from_json(values)
    assert again.to_json() == config.to_json() == values
    assert dataclasses.replace(again, settings=config.settings) == config
    assert TrainingConfig.from_json({"lr": "1e-4"}, again) == dataclasses.replace(again, lr=1e-4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        *[({"config": values}, words) for values, words in REFUSED],
        ({"sites": []}, "there are no sites to train"),
        ({"config": {"objective": "rmu", "settings": {"layer": 0}}}, "give a layer from 1 to 3"),
    ],
)
def test_what_the_training_refuses_is_refused_before_the_first_edit(
    changes: dict, words: str, planted: Model, planted_case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first(*_: object, **__: object) -> Edit:
        pytest.fail("the first edit was made")

    monkeypatch.setitem(ablate.METHODS, "memit", ablate.Method("memit", first))
    sites = changes.pop("sites", SITES)
    with pytest.raises(UserError, match=words):
        ablate.perform("follow_up", planted, planted_case, sites, {"first": "memit", "own_sites": True, **changes})
