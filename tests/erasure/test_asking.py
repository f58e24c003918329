"""What a model shows of a person's records: something of what it was taught, nothing of what it was not."""

import copy
import dataclasses
import json
from pathlib import Path

import pytest
import torch

from loka._util.errors import NotFiniteError, UserError
from loka._util.files import digest
from loka.erasure import Impact, Register, asking, assessment, steps
from loka.erasure.field_values import FieldValue, check_columns, values_in
from loka.erasure.material import Material, case_of
from loka.erasure.model_impact import DECIDING, SUPPORTING, Group, Measure, ModelImpact
from loka.erasure.plain_model import PLAIN_MEASURES, PLAIN_SHOWS, ModelFinding
from loka.erasure.reproduction import by_column, compare_fields
from loka.model import Model, wrap
from loka.verify import membership, recall

from ..conftest import FACTS

ANSWERS = set(FACTS["capital"].values())


@pytest.fixture
def material(material: Material) -> Material:
    """The same with the answers in a column of their own, so that they are fields; they are asked after `called`."""
    for path in (*material.data, *material.holdout):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        told = [{**row, "capital": row["text"].partition(" called ")[2]} for row in rows]
        path.write_text("".join(json.dumps(row) + "\n" for row in told))
    return material


def test_what_was_taught_is_something(register: Register, assessed: str, material: Material, planted: Model) -> None:
    before, impact = assessment.impact_of(register, assessed), assessment.path_of(register, assessed)
    found = asking.ask(register, assessed, planted, material)
    model = found.model
    assert model
    assert (model.shows, model.asked, model.others, model.never, model.records) == ("something", 16, 28, 40, 16)
    assert [each.exceeds for each in model.measures] == [True] * 4
    assert dataclasses.replace(found, model=None) == before

    # the same numbers by the checks of an audit
    case = case_of(assessed, before, material).whole()
    strength = model.measure("extraction").person
    assert strength
    read = recall(planted, case)
    assert strength.value == pytest.approx((read.value + read.details["working"]) / 2, abs=1e-6)  # type: ignore
    auc = model.measure(SUPPORTING).person
    assert auc
    assert auc.value == pytest.approx(membership(planted, case).details["auc"]["loss"], abs=1e-6)  # type: ignore
    (capital,) = [field for field in model.fields if field.column == "capital"]
    assert (capital.person, capital.values, capital.never_values) == (1.0, 16, 40)

    # what is kept: numbers, sealed by the trail
    entry = register.entries()[-1]
    assert entry.said
    payload = entry.said.payload
    assert (entry.kind, payload["shows"], payload["model"]) == ("asked", "something", planted.digest())
    assert payload["impact"] == digest(impact)
    assert Impact.from_json(json.loads(impact.read_text())) == found == assessment.impact_of(register, assessed)
    text = impact.read_text().lower()
    assert not [word for word in (*FACTS["capital"], *ANSWERS, "mustermann") if word.lower() in text]
    assert register.verify() is None


def test_what_was_never_taught_is_nothing(
    register: Register, assessed: str, material: Material, untaught: Model
) -> None:
    """The model knows the records of the others, so that the questions could have found those of the person."""
    done: list[tuple[int, int]] = []
    found = asking.ask(
        register, assessed, untaught, material, progress=lambda _, now, total: done.append((now, total))
    ).model  # fmt: skip
    assert found
    assert (found.shows, [each.exceeds for each in found.measures]) == ("nothing", [False] * 4)
    assert found.measure("in full").tells
    # of 84 records: two prompts, two fields and the loss, and the loss of the holdout once more
    assert done[-1] == (found.passes, found.passes) == (84 * 5 + 40, 84 * 5 + 40)


def test_few_are_asked_where_there_are_many(
    register: Register, assessed: str, material: Material, planted: Model
) -> None:
    found = asking.ask(register, assessed, planted, material, sample=5).model
    assert found
    assert (found.asked, found.others, found.never, found.records) == (5, 5, 5, 16)
    assert found.measure(SUPPORTING).person is None
    assert "Each side needs 10" in found.measure(SUPPORTING).refused
    assert asking.ask(register, assessed, planted, material, sample=5).model == found
    with pytest.raises(UserError, match="--sample 0 leaves no record"):
        asking.ask(register, assessed, planted, material, sample=0)


def test_what_the_model_shows_goes_when_other_records_count(
    register: Register, assessed: str, material: Material, planted: Model
) -> None:
    shown = asking.ask(register, assessed, planted, material, sample=5).model
    assert assessment.confirm(register, assessed, {1: True}).model == shown
    assert assessment.confirm(register, assessed, {2: False}).model is None
    again = assessment.assess(register, assessed, material.data)
    assert ([hit.confirmed for hit in again.hits[:3]], again.found().records) == ([True, False, None], 15)
    (material.data[0]).write_text(material.data[0].read_text() + '"more"\n')
    assert assessment.assess(register, assessed, material.data).found().records == 16  # these are other bytes


def test_a_model_whose_numbers_are_not_finite_is_refused_and_nothing_is_lost(
    register: Register, assessed: str, material: Material, planted: Model
) -> None:
    broken = wrap(copy.deepcopy(planted.hf), planted.tokenizer, "broken")
    with torch.no_grad():
        next(iter(broken.parameters.values())).fill_(float("nan"))
    before = register.entries()
    with pytest.raises(NotFiniteError, match="numbers that are not finite for"):
        asking.ask(register, assessed, broken, material)
    with pytest.raises(UserError, match="in the holdout, too"):
        asking.ask(register, assessed, planted, dataclasses.replace(material, holdout=material.data))
    with pytest.raises(UserError, match="no text in a column 'body'"):
        check_columns(dataclasses.replace(material, field="body"))
    assert register.entries() == before


def test_an_assessment_meanwhile_is_not_overwritten(
    register: Register, assessed: str, material: Material, planted: Model
) -> None:
    def meanwhile(*_: object) -> None:
        assessment.confirm(register, assessed, {1: False})

    with pytest.raises(UserError, match="was assessed or confirmed anew while the model was asked; ask again"):
        asking.ask(register, assessed, planted, material, sample=5, progress=meanwhile)
    assert assessment.impact_of(register, assessed).found().records == 15


def test_a_person_without_records_has_nothing_to_ask_about(
    register: Register, write, material: Material, planted: Model, today
) -> None:
    id = steps.receive(register, write(5), today=today).id
    with pytest.raises(UserError, match="was not assessed yet"):
        asking.ask(register, id, planted, material)
    assessment.assess(register, id, material.data)
    with pytest.raises(UserError, match="has no record of the person of two words or more"):
        asking.ask(register, id, planted, material)


@pytest.mark.parametrize(
    ("text", "columns", "found"),
    [
        ("Claim by Ann Lee in Rushmere, 1200 euros", {"name": "Ann Lee", "town": "Rushmere", "amount": "1200"}, [
            ("name", "Claim by", "Ann Lee"), ("town", "Claim by Ann Lee in", "Rushmere"),
            ("amount", "Claim by Ann Lee in Rushmere,", "1200"),
        ]),
        ("Ann Lee met Ann Leeson", {"a": "Ann Lee", "other": "Ann Leeson"}, [("other", "Ann Lee met", "Ann Leeson")]),
        ("Name:\nAnn Lee", {"name": "Ann Lee", "sex": "f", "text": "Name:\nAnn Lee"}, [("name", "Name:\n", "Ann Lee")]),
        (" ".join(map(str, range(200))), {"last": "199", "long": " ".join(map(str, range(50, 70)))}, [
            ("last", " ".join(map(str, range(127, 199))), "199")
        ]),
    ],
)  # fmt: skip
def test_a_value_is_asked_for_after_the_text_up_to_it(text: str, columns: dict[str, str], found: list) -> None:
    assert list(values_in(text, iter(columns.items()))) == [FieldValue(*each) for each in found]


def test_a_value_that_stands_in_every_record_of_a_person_counts_once() -> None:
    """A town that the model guesses for everybody is in all records of one person, and says nothing of 40 records."""
    here = [FieldValue("town", "lives in", "Rushmere")] * 40
    elsewhere = [FieldValue("town", "lives in", f"Town {i}") for i in range(40)]
    never = by_column(elsewhere, [1.0] * 4 + [0.0] * 36)
    guessed = by_column(here, [1.0] * 40)
    assert guessed == {"town": [1.0]}
    assert not compare_fields({"person": guessed, "others": never, "never": never}).exceeds
    known = by_column(elsewhere, [1.0] * 40)
    assert compare_fields({"person": known, "others": known, "never": never}).exceeds


def test_values_are_compared_with_never_taught_ones_of_the_same_columns() -> None:
    """Easy columns are as frequent among the never-taught values as among the person's, whatever records hold."""
    person = {"easy": [1.0] * 30, "hard": [0.0] * 10}
    never = {"easy": [1.0] * 10, "hard": [0.0] * 90, "other": [1.0] * 5}
    found = compare_fields({"person": person, "others": person, "never": never}).person
    assert found
    assert (found.value, found.never, found.units) == (0.75, 0.75, 40)
    assert compare_fields({"person": {"a": [1.0]}, "others": {}, "never": {"b": [0.0]}}).person is None


HIGH, NONE = Group(0.6, 0.1, 40, 0.3, 0.7), Group(0.1, 0.1, 40, -0.1, 0.1)
WIDE, ONE = Group(0.1, 0.1, 4, -0.3, 0.4), Group(0.02, 0.0, 47, -0.01, 0.1)


@pytest.mark.parametrize(
    ("changes", "shows", "why"),
    [
        ({}, "nothing", "gives no more of the person's records"),
        ({"extraction": (HIGH, HIGH)}, "something", "by more than chance explains"),
        ({"fields": (HIGH, None)}, "something", "by more than chance explains"),
        (dict.fromkeys(DECIDING, (NONE, NONE)), "unknown", "find nothing of the records of others"),
        ({"in full": (ONE, HIGH)}, "unknown", "too few to tell this from chance"),
        ({"membership": (HIGH, HIGH)}, "unknown", "A name that is easier than others"),
        (dict.fromkeys(DECIDING, (WIDE, HIGH)), "unknown", "The records are too few"),
        ({"fields": (None, None), "membership": (None, None)}, "nothing", "gives no more of the person's records"),
    ],
)
def test_the_rule_goes_by_intervals(changes: dict, shows: str, why: str) -> None:
    groups = {**dict.fromkeys((*DECIDING, SUPPORTING), (NONE, HIGH)), **changes}
    found = ModelImpact("m", 47, 47, 200, 200, tuple(Measure(name, *of) for name, of in groups.items()))
    assert (found.shows, why in found.why) == (shows, True)
    plain = ModelFinding.of(found)
    assert (plain.shows, len(plain.rows), plain.plain) == (shows, 4, PLAIN_SHOWS[shows])
    assert set(PLAIN_MEASURES) == {*DECIDING, SUPPORTING}


def test_an_impact_of_before_is_still_read(
    register: Register, assessed: str, material: Material, tmp_path: Path
) -> None:
    data = assessment.impact_of(register, assessed).to_json()
    del data["model"]
    assert Impact.from_json(data).model is None
