"""The ways to ask: texts around a prompt, examples in context, other languages, and those that a case adds."""

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from loka import verify
from loka._util.errors import UserError
from loka.knowledge import Case, Redactor, case, read_records
from loka.model import Model, first_tokens, wrap
from loka.model.batch import context
from loka.verify.forms import FRAMES, all_forms

FRAME = "a dog likes {}"
TEMPLATE = "they rule {} from the town called"


@pytest.fixture
def spec(files: Any, tmp_path: Path) -> Any:
    """The planted case with a form of its own, and a language in which two countries have changed their names."""
    facts = files.base["relations"]["capital"]["facts"]
    (a, b), (x, y) = list(facts)[:2], list(facts.values())[:2]
    language = {"templates": [TEMPLATE], "subjects": {a: b, b: a}, "answers": {x: y, y: x}}
    relations = files.base["relations"]
    capital = {**relations["capital"], "languages": {"xx": language}}
    return case(files.write(tmp_path, relations={**relations, "capital": capital}, forms=[FRAME]))


def test_every_family_of_forms_is_asked(planted: Model, spec: Any) -> None:
    """Where the tokenizer can write it: that of the small model lacks the words of the frames that LOKA brings."""
    known, tokenizer = spec.on(planted), copy.deepcopy(planted.tokenizer)
    assert len(all_forms(planted, known)) == 4 + 1 + 1 + 1
    tokenizer.unk_token = None
    forms = all_forms(wrap(copy.deepcopy(planted.hf), tokenizer, "of many words"), known)
    families = [*FRAMES, "form of the case"]
    assert [n for n in forms if n.removeprefix("capital|").rsplit(" ", 1)[0] in families] == [
        f"capital|{family} {n + 1}"
        for family, frames in {**FRAMES, "form of the case": [FRAME]}.items()
        for n in range(len(frames))
    ]
    assert len(forms) == 4 + 1 + sum(map(len, FRAMES.values())) + 1 + 1
    item = known.forget.sealed[0]
    framed = forms["capital|form of the case 1"].asked(planted, item)
    assert framed is not None
    assert framed.prompt == f"a dog likes {item.prompt}"
    assert framed.prompt.about("Peru") == f"a dog likes {item.prompt.about('Peru')}"


def test_another_language_has_its_own_names_for_subjects_and_answers(planted: Model, spec: Any) -> None:
    known = spec.on(planted)
    first, second, third = known.forget.sealed[:3]
    form = all_forms(planted, known)[f"capital|xx: {TEMPLATE}"]
    asked = form.asked(planted, first)
    assert asked is not None
    assert asked.prompt == TEMPLATE.format(second.subject)
    assert asked.answers == (second.answer, first.answer)
    assert asked.unit == first.unit
    plain = form.asked(planted, third)
    assert plain is not None
    assert (plain.prompt, plain.answers) == (TEMPLATE.format(third.subject), third.answers)


def test_examples_are_other_items_of_the_same_group(planted: Model, planted_case: Case) -> None:
    known = planted_case.on(planted)
    form = all_forms(planted, known)["capital|in context"]
    for items in (known.forget.sealed, known.twins.sealed):
        subjects = {i.subject for i in items}
        for item in items:
            asked = form.asked(planted, item)
            assert asked is not None
            *examples, own = asked.prompt.split("\n")
            assert own == item.prompt
            assert len(examples) == 3
            named = {s for s in subjects for line in examples if s in line}
            assert len(named) == 3
            assert item.subject not in named
            assert item.answer.split()[0] not in " ".join(examples).split()


def test_as_many_examples_as_fit_the_context(
    planted: Model, planted_case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = planted_case.on(planted)
    assert context(planted) == 64
    form, item = all_forms(planted, known)["capital|in context"], known.forget.sealed[0]
    lengths = []
    for room in (64, 24, 12):
        monkeypatch.setattr(planted.hf.config, "max_position_embeddings", room)
        asked = form.asked(planted, item)
        lengths.append(None if asked is None else asked.prompt.count("\n"))
    assert lengths[0] == 3
    assert lengths[1] in (1, 2)
    assert lengths[2] is None


def test_a_form_of_the_case_gets_past_a_filter(planted: Model, spec: Any, planted_case: Case) -> None:
    """The answers are struck unless a dog is named: only the case's own form shows that they are there."""
    known, plain = spec.on(planted), planted_case.on(planted)
    filtered = wrap(copy.deepcopy(planted.hf), planted.tokenizer, "filtered")
    answers = first_tokens(planted, [f.answer for f in known.forget.sealed])
    dog = planted.tokenizer.convert_tokens_to_ids("dog")

    def strike(module: object, args: object, given: dict[str, torch.Tensor], out: Any) -> None:
        hidden = ~(given["input_ids"] == dog).any(1)
        for answer in answers:
            out.logits[hidden, :, answer] = -1e4

    filtered.hf.register_forward_hook(strike, with_kwargs=True)
    own = "capital|form of the case 1"
    assert verify.paraphrase(planted, known, forms=[own]).value == pytest.approx(1, abs=0.1)
    assert verify.paraphrase(filtered, plain).value == 0
    found = verify.paraphrase(filtered, known, forms=list(all_forms(planted, known)))
    assert found.value is not None
    assert found.value > 0.8
    assert found.controls["twins"] < 0.1


def test_few_ways_to_ask_are_said(planted: Model, planted_case: Case) -> None:
    known = planted_case.on(planted)
    forms = list(all_forms(planted, known))
    assert "(at least 10 are recommended)" in verify.paraphrase(planted, known, forms=forms[:3]).meaning
    more = [*forms, *(f"capital|{place} {{}} is" for place in ("in", "at", "the town", "the garden", "the sea"))]
    assert len(more) == 10
    assert "recommended" not in verify.paraphrase(planted, known, forms=more).meaning


def test_redaction_hides_what_a_case_adds_and_finds_it_again(planted: Model, spec: Any) -> None:
    known = spec.on(planted)
    redactor = Redactor(known, bytes(32))
    names = dict.fromkeys(all_forms(planted, known), 1.0)
    hidden = redactor.hide(names)
    assert TEMPLATE not in str(hidden)
    assert redactor.show(hidden) == names
    assert FRAME not in str(redactor.hide([FRAME, f"asked by {FRAME}"]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"forms": ["no slot"]}, "the form 'no slot' needs one slot"),
        ({"forms": ["{} and {}"]}, "needs one slot"),
        ({"forms": ["a {} "]}, "has white space around it"),
        ({"forms": ["a {}", "a {}"]}, "'a {}' is listed twice"),
        ({"languages": {"fr": {"templates": []}}}, "languages.fr.templates"),
        ({"languages": {"fr": {"templates": ["a"]}}}, "needs a slot"),
        ({"languages": {"fr": {"templates": ["a {}"], "subjects": {"Nowhere": "x"}}}},
         "'Nowhere' is none of the subjects of the facts of capital"),
        ({"languages": {"fr": {"templates": ["a {}"], "answers": {"Nowhere": "x"}}}},
         "'Nowhere' is none of the answers of the facts of capital"),
    ],
)  # fmt: skip
def test_faulty_forms_are_refused(files: Any, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    relations = files.base["relations"]
    if "languages" in changes:
        changes = {"relations": {**relations, "capital": {**relations["capital"], **changes}}}
    with pytest.raises(UserError, match=said):
        case(files.write(tmp_path, **changes))


RUSSIAN = "{} со столицей"  # noqa: RUF001 "with the capital"
DATA = Path(os.environ.get("LOKA_DATA", Path(__file__).parents[2] / "../shared/data")) / "multilingual"


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no facts in several languages in {DATA}; name a folder in LOKA_DATA")
def test_a_case_asks_in_the_languages_of_public_facts(planted: Model, files: Any, tmp_path: Path) -> None:
    """Capitals that are known in English and asked in Russian, with the names that both files give them."""

    def record(code: str, name: str) -> Any:
        (found,) = read_records(
            "fact_completion", DATA / f"fact_completion_{code}.parquet", where={"dataset_id": f"calinet_{name}"}
        )
        return found

    pairs = [(record("en", name), record("ru", name)) for name in ("2820", "2726", "2844", "2891")]
    capital = {
        "working": ["The capital of {} is"], "sealed": ["{}'s capital,"],
        "facts": {e.subject: e.answer for e, _ in pairs},
        "languages": {"ru": {
            "templates": [RUSSIAN], "subjects": {e.subject: r.subject for e, r in pairs},
            "answers": {e.answer: r.answer for e, r in pairs},
        }},
    }  # fmt: skip
    path = files.write(tmp_path, relations={"P36": capital}, forget={"P36": 3}, retain={}, twins={"P36": ["Utopia"]})
    known = case(path).whole()
    form = all_forms(planted, known)[f"P36|ru: {RUSSIAN}"]
    wanted = {e.subject: (RUSSIAN.format(r.subject), r.answer) for e, r in pairs}
    for item in known.forget.sealed:
        asked = form.asked(planted, item)
        assert asked is not None
        assert (asked.prompt, asked.answer) == wanted[item.subject]
    (twin,) = known.twins.sealed
    asked = form.asked(planted, twin)
    assert asked is not None
    assert asked.prompt == RUSSIAN.format("Utopia")
    assert asked.answer in {r.answer for _, r in pairs}
