"""Training that begins with an edit, and what holds the rest where it was."""

import pytest
import torch

from loka import ablate, locate
from loka._util.errors import UserError
from loka.ablate.objectives import ForgetBatch, objective
from loka.ablate.training.batches import prepare
from loka.knowledge import Case
from loka.model import Edit, Model, Site, logits

SITES = [Site(1, "mlp"), Site(2, "mlp")]


@pytest.fixture(scope="module")
def found(taught: Model, planted_case: Case) -> list[Site]:
    return locate.attribution(taught, planted_case).top(200)


@pytest.fixture(scope="module")
def half(taught: Model, planted_case: Case) -> Edit:
    """An edit that has removed some of what is to be forgotten."""
    return ablate.memit(taught, planted_case, steps=6, contexts=2, weight=10.0)


def test_the_edited_teacher_is_the_model_that_training_begins_with(
    planted: Model, planted_case: Case, half: Edit
) -> None:
    """Its divergence from what that model says without the answers is then how surely it does not say them, in nats."""
    goals = [objective("undial", {"teacher": t}) for t in ("original", "edited")]
    lessons = prepare(planted, planted_case.on(planted), retain_rows=12, neutral_rows=4, seed=0)
    memory = lessons.forget[0]
    with torch.no_grad(), half.applied(planted):
        of_original, of_edited = (goal.begun(planted, [memory])[0] for goal in goals)
        assert of_original is memory
        assert of_edited.answers is memory.answers
        asked = memory.batch.labels >= 0
        scores = logits(planted, memory.batch)[asked].double()
        answers = scores.softmax(-1).gather(-1, memory.batch.labels[asked][:, None])
        losses = [float(goal(ForgetBatch(planted, m))) for goal, m in zip(goals, (of_original, of_edited), strict=True)]
    assert losses[1] == pytest.approx(-float((1 - answers).log().mean()), rel=1e-3, abs=1e-5)
    assert losses[0] > losses[1] + 0.1


def test_training_from_an_edit_is_following_it_up(planted: Model, planted_case: Case, half: Edit) -> None:
    training = {"objective": "undial", "steps": 3, "lr": 3e-3, "states": 1.0}
    tuned = ablate.tune(planted, planted_case, SITES, begun=half, **training)
    followed = ablate.follow_up(planted, planted_case, SITES, first=half, **training)
    assert tuned.digest() == followed.digest() != half.digest()
    assert tuned.about["arguments"]["begun"] == followed.about["arguments"]["first"] == half.digest()
    assert "sites" not in tuned.about
    assert followed.about["arguments"]["alpha"] == 1.0, "what was left out is said, too"


def test_held_states_get_the_same_gradient_where_blocks_run_again(planted: Model, planted_case: Case) -> None:
    both = [
        ablate.tune(planted, planted_case, SITES, steps=3, lr=3e-3, states=10.0, checkpointing=again)
        for again in (False, True)
    ]
    for plain, again in zip(*(edit.values for edit in both), strict=True):
        torch.testing.assert_close(plain, again, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objective": "UNDIAL"}, "'UNDIAL' is no objective"),
        ({"settings": {"teacher": "me"}}, "teacher = 'me'"),
        ({"gamma": 1.0}, "'gamma' is no argument of the training; choose of alpha, "),
        ({"sites": []}, "there are no sites to train"),
        ({"states": -1.0}, "states=-1.0 is no weight; give 0"),
        ({"between": -1}, "between=-1 is no number of mixtures; give 0"),
        ({"whiten": 0.0}, "whiten=0.0 is no damping; give a number above 0"),
        ({"relapse": {"evry": 2}}, "'evry' is no setting of relapse; choose of every, radius, start, steps"),
        ({"relapse": {"every": 0}}, "every=0, .* cannot be simulated; give every and steps of 1 or more"),
    ],
)
def test_what_the_training_refuses_is_refused_before_the_first_edit(
    changes: dict, words: str, planted: Model, planted_case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ablate.METHODS, "memit", lambda *_, **__: pytest.fail("the first edit was made"))
    arguments = {"sites": SITES, "first": "memit", "own": True, "objective": "undial"} | changes
    with pytest.raises(UserError, match=words):
        ablate.follow_up(planted, planted_case, **arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"states": -1.0}, "states=-1.0 is no weight; give 0"),
        ({"states": float("nan")}, "states=nan is no weight; give 0"),
        ({"relapse": {"radius": -0.1}}, "radius=-0.1. cannot be simulated"),
        ({"relapse": {"width": 1}}, "'width' is no setting of relapse"),
        ({"whiten": -0.1}, "whiten=-0.1 is no damping; give a number above 0"),
        ({"whiten": float("nan")}, "whiten=nan is no damping"),
        ({"between": -1}, "between=-1 is no number of mixtures; give 0"),
    ],
)
def test_tune_refuses_what_cannot_be_trained(arguments: dict, words: str, planted: Model, planted_case: Case) -> None:
    with pytest.raises(UserError, match=words):
        ablate.tune(planted, planted_case, SITES, **arguments)
