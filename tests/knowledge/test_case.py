"""Case files: all errors at once with line and field, and cases that keep what is worked on from what is judged on."""

import inspect
from pathlib import Path

import pytest

from loka import ablate, knowledge, locate, verify
from loka._util.errors import UserError
from loka.knowledge import Case, CaseSpec, Fact, Item, case, cases, readable
from loka.model import Model

GOOD = """\
name: small
purpose: safety
relations:
  capital:
    working: ["the capital of {} is"]
    sealed: ["in {} the capital is called"]
    facts:
      Foo: Barville
      Goo: [Carville, Carton]
      Hoo: Darville
      Joo: Earville
  symbol:
    working: ["the sign of {} is"]
    sealed: ["we write {} as"]
    facts: {gold: Au, silver: Ag}
forget: {capital: [Foo]}
retain: {capital: {working: 0.6, sealed: 0.4}, symbol: {working: 0.5, sealed: 0.5}}
twins: {capital: [Zoo, Yoo]}
neutral: {working: {sampled: 20}, sealed: prose.txt}
seed: 0
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "small.yaml"
    path.write_text(text)
    return path


def errors(folder: Path, *changes: tuple[str, str]) -> str:
    text = GOOD
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    with pytest.raises(UserError) as caught:
        case(write(folder, text))
    assert str(folder / "small.yaml") in str(caught.value)
    assert caught.value.exit_status == 2
    return str(caught.value)


def test_a_good_file_loads(tmp_path: Path) -> None:
    found = case(write(tmp_path, GOOD)).whole()
    assert [f.subject for f in found.forget.working] == [f.subject for f in found.forget.sealed] == ["Foo"]
    assert found.forget.working[0].prompt == "the capital of Foo is"
    assert found.forget.sealed[0].prompt == "in Foo the capital is called"
    assert found.pool("capital") == ("Barville", "Carville", "Darville", "Earville")
    assert [f.subject for f in found.twins.sealed] == ["Zoo", "Yoo"]
    assert len(found.digest) == len(found.spec.digest) == 64


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("purpose: safety", "purpose: revenge", "line 2, purpose: Input should be 'safety', 'privacy'"),
        ('working: ["the capital of {} is"]', 'working: ["the capital is"]', "line 5, relations.capital.working"),
        ('["the capital of {} is"]', "[]", "line 5, relations.capital.working: List should have at least 1 item"),
        ('"the capital of {} is"', '"the capital of {} is "', "ends in white space"),
        ("      Foo: Barville\n", "", "forget names 'Foo', which has no fact under relations.capital.facts"),
        (
            "Goo: [Carville, Carton]",
            "Goo: []",
            "line 9, relations.capital.facts.Goo: Value should have at least 1 item",
        ),
        ("facts: {gold: Au, silver: Ag}", "facts: {}", "line 15, relations.symbol.facts"),
        ("forget: {capital: [Foo]}", "forget: {}", "line 16, forget"),
        ("forget: {capital: [Foo]}", "forget: {capital: []}", "line 16, forget.capital"),
        ("forget: {capital: [Foo]}", "forget: {capital: 0}", "line 16, forget.capital"),
        (
            "forget: {capital: [Foo]}",
            "forget: {town: [Foo]}",
            "line 16, forget.town: forget names 'town', which is not among the relations and sets",
        ),
        ("working: 0.6, sealed: 0.4", "working: 0.6, sealed: 0.5", "add up to 1.1"),
        ("working: 0.6, sealed: 0.4", "working: [Foo], sealed: 0.4", "'Foo' of capital is in both forget and retain"),
        ("working: 0.6, sealed: 0.4", "working: [Goo], sealed: [Goo]", "'Goo' of capital is in both retain.working"),
        ("[Zoo, Yoo]", "[Zoo, Goo]", "the twin 'Goo' of capital is a real subject"),
        ("seed: 0", "seed: 0\nextra: 1", "line 21, extra: Extra inputs are not permitted"),
        ("seed: 0", "seed: 0\nname: again", "line 21, name: given twice"),
        ("seed: 0", "seed: -1", "line 20, seed: Input should be greater than or equal to 0"),
        ("seed: 0", "seed: 4294967296", "line 20, seed: Input should be less than 4294967296"),
        ("{sampled: 20}", "{sampled: 100001}", "line 19, neutral.working"),
        ("[Zoo, Yoo]", "100001", "line 18, twins.capital: '100001' is not an amount; give all, a number up to 100,000"),
        ("      Hoo: Darville", "      Foo: Darville", "line 10, relations.capital.facts.Foo: given twice"),
        ('"in {} the capital is called"', '"the capital of {} is"', "is in working and in sealed or paraphrases"),
        ("name: small\n", "", "name: Field required"),
        ('    sealed: ["we write {} as"]\n', "", "line 13, relations.symbol.sealed: Field required"),
        ("{sampled: 20}", "{sampled: 0}", "line 19, neutral.working"),
        (
            "Foo: Barville",
            'Foo: "Barville "',
            "line 8, relations.capital.facts.Foo: 'Barville ' has white space around",
        ),
        ("Foo: Barville", 'Foo: " "', "line 8, relations.capital.facts.Foo: ' ' is blank; give a text"),
        ("[Carville, Carton]", '[Carville, "\\tCarton"]', "'\\tCarton' has white space around it; remove it"),
        ("      Hoo:", '      " Hoo":', "' Hoo' has white space around it; remove it"),
        ("  symbol:", "  sym/bol:", "'sym/bol' has '/' in it, which separates names from what follows; rename it"),
        ("  symbol:", "  sym|bol:", "'sym|bol' has '|' in it"),
        ("[Foo]}", "[Foo, Goo, Foo]}", "line 16, forget.capital: 'Foo' is listed twice; keep it once"),
        ("[Zoo, Yoo]", "[Zoo, Yoo, Zoo]", "line 18, twins.capital: 'Zoo' is listed twice"),
        ("working: 0.6", "working: [Goo, Goo]", "line 17, retain.capital.working: 'Goo' is listed twice"),
        ('["we write {} as"]', '["we write {} as", "we write {} as"]', "'we write {} as' is listed twice"),
        (
            "      Hoo:",
            '      "G\\u00f6": X\n      "Go\\u0308": Y\n      Hoo:',
            "'G\\xf6' and 'Go\\u0308' are two spellings",
        ),
        ("[Zoo, Yoo]", '["Z\\u00f6", "Zo\\u0308"]', "are two spellings of one subject; keep one"),
        (
            '"we write {} as"',
            '"chat:we write {} as"',
            "starts with 'chat:', the name of another way to ask; rephrase it",
        ),
    ],
)
def test_a_fault_is_named_with_line_and_field(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert said in errors(tmp_path, (old, new))


def test_a_case_of_lists_says_what_its_file_may_not_have() -> None:
    items = [Fact("Foo", "capital", "the capital of Foo is", "Barville")]
    with pytest.raises(UserError, match="the case 'some' cannot have seed: input should be less than 4294967296"):
        Case.of(items, name="some", seed=2**32)
    assert Case.of(items, seed=2**32 - 1).seed == 2**32 - 1


def test_all_faults_at_once(tmp_path: Path) -> None:
    said = errors(
        tmp_path,
        ("purpose: safety", "purpose: revenge"),
        ('"we write {} as"', '"we write it as"'),
        ("Goo: [Carville, Carton]", "Goo: []"),
        ("seed: 0", "seed: 0\nextra: 1\nname: again"),
    )
    for part in ("line 2, purpose", "relations.symbol.sealed", "facts.Goo", "extra", "given twice"):
        assert part in said
    assert "5 error(s)" in said


def test_broken_yaml_names_the_line(tmp_path: Path) -> None:
    assert "not valid YAML (line 16" in errors(tmp_path, ("[Foo]}", "[Foo}"))
    for text in ("- a\n- b\n", "just text\n", ""):
        with pytest.raises(UserError, match="holds no mapping"):
            case(write(tmp_path, text))
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is not UTF-8: byte 1, on line 1, is 0xff"):
        case(path)


def test_yaml_cannot_run_anything(tmp_path: Path) -> None:
    said = errors(tmp_path, ("seed: 0", "seed: !!python/object/apply:os.getcwd []"))
    assert "seed" in said


def test_an_unknown_case_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no case 'nothing'; built in are agreement, authors, capitals"):
        case("nothing")
    with pytest.raises(UserError, match="there is no case"):
        case(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="there is no case"):
        case(tmp_path)


def test_words_that_yaml_takes_for_something_else_stay_words(tmp_path: Path) -> None:
    found = case(write(tmp_path, GOOD.replace("silver: Ag", "silver: No, null: 1.50")))
    assert found.relations["symbol"].facts["silver"] == ["No"]
    assert found.relations["symbol"].facts["null"] == ["1.50"]


def drawn(files, folder: Path, **changes: object) -> Case:
    return case(files.write(folder, **changes))


def test_a_number_to_forget_is_drawn_by_the_seed(planted: Model, files, tmp_path: Path) -> None:
    def subjects(seed: int) -> list[str]:
        found = drawn(files, tmp_path / str(seed), forget={"capital": 12}, seed=seed).on(planted)
        return [f.subject for f in found.forget.sealed]

    assert len(subjects(0)) == 12
    assert subjects(0) == subjects(0)
    assert subjects(0) != subjects(1)


def test_too_large_a_number_is_said(planted: Model, files, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="asks for 60 capital facts, but the model knows 4[34]"):
        drawn(files, tmp_path, forget={"capital": 60}).on(planted)


def test_parts_do_not_overlap(planted: Model, planted_case: Case) -> None:
    found = planted_case.on(planted)
    parts = {
        name: {(f.relation, f.subject) for f in facts}
        for name, facts in (
            ("forget", found.forget.working), ("working", found.retain.working), ("sealed", found.retain.sealed),
            ("twins", found.twins.sealed), ("aside", found.unknown),
        )
    }  # fmt: skip
    names = list(parts)
    assert all(not parts[a] & parts[b] for i, a in enumerate(names) for b in names[:i])
    assert {(f.relation, f.subject) for f in found.forget.sealed} == parts["forget"]
    assert len(parts["forget"]) == 16
    assert {r for r, _ in parts["working"]} == {r for r, _ in parts["sealed"]} == {"capital", "symbol"}


def test_working_and_sealed_prompts_do_not_overlap(planted: Model, planted_case: Case) -> None:
    found = planted_case.on(planted)
    for split in (found.forget, found.retain, found.twins):
        working = {p for f in split.working for p in f.prompts}
        assert working
        assert not working & {p for f in split.sealed for p in f.prompts}


def test_what_the_model_does_not_know_is_set_aside(planted: Model, files, tmp_path: Path) -> None:
    """Three facts are given another answer than the model was taught."""
    relations = files.base["relations"]
    facts = dict(relations["capital"]["facts"])
    wrong = list(facts)[:3]
    facts |= dict.fromkeys(wrong, "garden")
    changed = {**relations, "capital": {**relations["capital"], "facts": facts}}
    unread = drawn(files, tmp_path, relations=changed)
    found = unread.on(planted)
    assert (found.facts_known, found.facts_total) == (41, 44)
    assert {f.subject for f in found.unknown} == set(wrong)
    assert len(found.forget.sealed) == 13
    assert not set(wrong) & {f.subject for f in [*found.forget.sealed, *found.retain.working, *found.retain.sealed]}
    assert unread.on(planted) is found


def test_a_model_that_knows_none_of_it_is_refused(planted: Model, files, tmp_path: Path) -> None:
    relations = files.base["relations"]
    facts = dict.fromkeys(relations["capital"]["facts"], "garden") | {"Elsewhere": "bread"}
    changed = {**relations, "capital": {**relations["capital"], "facts": facts}}
    with pytest.raises(UserError, match="the model knows none of the 16 capital facts"):
        drawn(files, tmp_path, relations=changed).on(planted)


def test_foils_are_wrong_answers_of_the_same_kind(planted: Model, planted_case: Case) -> None:
    found = planted_case.on(planted)
    for fact in [*found.forget.working, *found.retain.sealed, *found.twins.working]:
        assert len(fact.foils) == len(set(fact.foils)) == 9
        assert not set(fact.foils) & set(fact.answers)
        assert set(fact.foils) <= set(found.pool(fact.relation))


@pytest.mark.parametrize("name", ["capitals", "elements", "authors"])
def test_built_in_cases(name: str) -> None:
    found = case(name).whole()
    assert name in cases()
    for relation, of in found.spec.relations.items():
        for subject, answers in of.facts.items():
            assert all(a == a.strip() for a in (subject, *answers)), (relation, subject)
            assert len(set(answers)) == len(answers)
    for fact in [*found.forget.sealed, *found.retain.sealed, *found.twins.sealed]:
        assert fact.foils
        assert not set(fact.foils) & set(fact.answers), fact.subject
    forgotten = found.forgotten_relations[0]
    assert not {t.subject for t in found.twins.sealed} & set(found.spec.relations[forgotten].facts)
    assert len(found.twins.sealed) >= 60
    assert len({t.subject for t in found.twins.sealed}) == len(found.twins.sealed)
    of = found.spec.relations[forgotten]
    assert not set(of.working) & {*of.sealed, *of.paraphrases}
    assert len(of.sealed) + len(of.paraphrases) >= 10
    assert len(knowledge.neutral_sealed(found)) >= 10


def test_the_built_in_capitals_are_many_and_not_readable() -> None:
    found = case("capitals").whole()
    assert len(found.spec.relations["capital"].facts) >= 100
    assert found.spec.relations["capital"].facts["Kenya"][0] == "Nairobi"
    assert len(found.forget.sealed) >= 12
    for fact in found.forget.sealed:
        assert not readable(fact.subject, fact.answer), fact.subject


def test_drawn_facts_are_never_readable(planted: Model, files, tmp_path: Path) -> None:
    """A subject whose answer is nearly its name is never drawn, however many are asked for."""
    relations = files.base["relations"]
    facts = {f"{a.split()[0]}ia": a for a in relations["capital"]["facts"].values()} | relations["capital"]["facts"]
    changed = {**relations, "capital": {**relations["capital"], "facts": facts}}
    found = drawn(files, tmp_path, relations=changed, forget={"capital": 40}).whole()
    assert len(found.forget.sealed) == 40
    assert not any(readable(f.subject, f.answer) for f in found.forget.sealed)
    assert sum(readable(s, a) for s, a in facts.items()) >= 44


@pytest.mark.parametrize(
    ("subject", "answer", "wanted"),
    [
        ("Tunisia", "Tunis", True), ("Mexico", "Mexico City", True), ("Guatemala", "Guatemala City", True),
        ("helium", "He", True), ("São Tomé and Príncipe", "Sao Tome", True), ("Panama", "Panama City", True),
        ("Kenya", "Nairobi", False), ("gold", "Au", False), ("France", "Paris", False), ("iron", "Fe", False),
    ],
)  # fmt: skip
def test_readable(subject: str, answer: str, wanted: bool) -> None:
    assert readable(subject, answer) is wanted


def test_facts_have_prompts_and_answers() -> None:
    fact = Item("Foo", "capital", "the capital of Foo is", "Bar", ("Baz",), ("Qux",), ("Foo is ruled from",))
    assert fact.prompts == ("the capital of Foo is", "Foo is ruled from")
    assert fact.answers == ("Bar", "Baz")
    assert fact.asked("tell me:").prompts == ("tell me:",)
    assert fact.asked("tell me:").answers == fact.answers


def test_what_is_not_a_case_is_refused_by_every_verb(planted: Model) -> None:
    from loka import ablate, locate, verify

    for verb in (locate.attribution, verify.recall, lambda m, c: ablate.zero(m, c, m.sites("head")[:1])):
        with pytest.raises(UserError, match=r"'capitals' is not a case; read one with loka.case"):
            verb(planted, "capitals")


def test_reading_a_case_under_an_edit_is_refused(fresh: Model, planted_case: Case, files, tmp_path: Path) -> None:
    from loka import ablate
    from loka.model import Site

    edit = ablate.zero(fresh, planted_case, [Site(0, "head", 0)])
    unread = case(files.write(tmp_path, seed=3))
    with edit.applied(fresh), pytest.raises(UserError, match="before an edit is applied"):
        unread.on(fresh)
    known = planted_case.on(fresh)
    with edit.applied(fresh):
        assert planted_case.on(fresh) is known


def test_every_verb_takes_what_a_file_says(planted: Model, planted_case: CaseSpec) -> None:
    """`zero` alone does without asking the model what it knows."""
    for package in (locate, ablate, verify):
        for name in package.__all__:
            verb = getattr(package, name)
            if inspect.isfunction(verb) and list(inspect.signature(verb).parameters)[:2] == ["model", "case"]:
                assert hasattr(verb, "__wrapped__") or name == "zero", name
    assert verify.recall(planted, planted_case) == verify.recall(planted, planted_case.on(planted))


def test_the_facts_relations_decide_what_is_near() -> None:
    """A set to retain with facts of the forgotten relation and of others is near in the former only."""
    facts = {r: [Fact(f"{r}{i}", r, f"{r}{i} is", f"answer {r}{i}") for i in range(4)] for r in ("river", "town")}
    kept = [*facts["river"][2:], *facts["town"]]
    found = Case.of(facts["river"][:2], retain=kept)
    assert found.near == ("river",)
    assert {i.relation for i in found.other_relation((*found.retain.working, *found.retain.sealed))} == {"town"}
    assert Case.of(facts["river"][:2], retain=facts["town"]).near == ("river", "town"), "the first set"
