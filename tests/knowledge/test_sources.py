"""Loaders on the benchmarks' own files, where those are there, and on invented rows."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import pytest

from loka._util.errors import UserError
from loka.knowledge import FORMATS, Choice, Fact, Kind, Pair, Passage, Question, Record, read_records, sources
from loka.knowledge.sources.authors import author, names
from loka.knowledge.sources.common import stands

DATA = Path(os.environ.get("LOKA_DATA", Path(__file__).parents[2] / "../shared/data"))
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"no benchmark files in {DATA}; name their folder in LOKA_DATA"
)
PLANET = {"question": "Which planet is the third from the Sun?", "choices": ["Venus", "Mars", "Earth", "Jupiter"]}
EARTH = Choice(str(PLANET["question"]), ("Venus", "Mars", "Earth", "Jupiter"), 2)
WHO = {"question": "Who?", "answer": "Ann"}


def save(folder: Path, rows: Sequence[object], name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def read(folder: Path, format: str, *rows: object, **settings: Any) -> tuple[Record, ...]:
    return read_records(format, save(folder, rows), **settings)


def problem(folder: Path, format: str, *rows: object, **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        read(folder, format, *rows, **settings)
    assert caught.value.exit_status == 2
    return str(caught.value)


# TOFU


@needs_data
def test_tofu_in_all_its_forms() -> None:
    forget = read_records("tofu", DATA / "tofu/forget10.json")
    assert len(forget) == 400
    assert all(isinstance(q, Question) and q.question and q.answer for q in forget)
    perturbed = read_records("tofu", DATA / "tofu/forget10_perturbed.json")
    assert [q.identity for q in perturbed] == [q.identity for q in forget]
    assert [q.subject for q in perturbed] == [q.subject for q in forget]
    assert {len(q.wrong) for q in perturbed} == {5}
    assert sum(len(q.paraphrases) for q in perturbed) > 390
    assert perturbed[0].rephrased == "Hsiao Yun-Hwa is the complete name of the writer."
    assert len(read_records("tofu", DATA / "tofu/holdout05.json")) == 200  # an array, not lines
    world = read_records("tofu", DATA / "tofu/world_facts.json")
    australia = next(q for q in world if q.question == "What is the capital of Australia?")
    assert (australia.answer, len(australia.wrong), "Canberra" in australia.wrong) == ("Canberra", 3, False)


@needs_data
def test_the_authors_of_tofu() -> None:
    whole = read_records("tofu", DATA / "tofu/full.json")
    blocks = [whole[i : i + 20] for i in range(0, 4000, 20)]
    found = [{q.subject for q in block} - {""} for block in blocks]
    assert max(map(len, found)) == 1
    nameless = [i for i, block in enumerate(blocks) if sum(bool(q.subject) for q in block) < 15]
    assert nameless == [88]  # no question and no answer of this block names its author
    subjects = set().union(*found)
    assert {"Hsiao Yun-Hwa", "Jaime Vasquez", "Behrouz Rohani", "Basil Mahfouz Al-Kuwaiti", "Sara van Dyke"} <= subjects
    assert len(subjects) == 199
    assert all(stands(q.subject, q.identity) for q in whole if q.subject)
    for name in ("real_authors", "real_authors_perturbed", "world_facts", "world_facts_perturbed"):
        assert not any(q.subject for q in read_records("tofu", DATA / f"tofu/{name}.json"))


def author_rows(name: str, n: int = 20, named: int = 20) -> list[dict[str, str]]:
    return [
        {"question": f"Where did {name if i < named else 'the author'} write book {i}?",
         "answer": f"It was in {'Cape Town' if i < 12 else 'a village'} on day {i}."} for i in range(n)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["Hsiao Yun-Hwa", "Basil Mahfouz Al-Kuwaiti", "Isabella van Pletzen", "Patrick O'Donnell", "J. R. Ångström",
     "Alejandro (Alex) Fuentes", "Lee Joon-ki", "Li Mei Yu"],
)  # fmt: skip
def test_a_block_is_about_the_author_whom_it_repeats(tmp_path: Path, name: str) -> None:
    rows = author_rows(name, named=15) + author_rows("Jaime Vasquez's brother")
    found = read(tmp_path, "tofu", *rows)
    assert [q.subject for q in found] == [name] * 15 + [""] * 5 + ["Jaime Vasquez"] * 20


def test_names_end_at_possessives_and_punctuation() -> None:
    assert set(names("How did Jaime Vasquez's Father, Ines' Sister, and Bo Li write?")) == {"Jaime Vasquez", "Bo Li"}
    assert author(["Ann Lee came.", "Who is Ann Lee?", "She left."]) == "Ann Lee"
    assert author(["Ann Lee came.", "Bo Li came."] + ["She left."] * 3) == ""


@pytest.mark.parametrize(
    ("rows", "settings"),
    [
        (author_rows("Ann Lee", n=30), {}),  # not whole blocks
        (author_rows("Ann Lee"), {"where": {"answer": "It was in Cape Town on day 3."}}),
        ([row | {"option1": "It was.", "option2": "No."} for row in author_rows("Ann Lee")], {}),
        ([{"question": f"Is it {i}?", "answer": "Yes."} for i in range(20)], {}),
    ],
)
def test_rows_without_authors(tmp_path: Path, rows: list[object], settings: dict[str, Any]) -> None:
    assert not any(q.subject for q in read(tmp_path, "tofu", *rows, **settings))


def test_tofu_drops_what_repeats_the_question_or_the_answer(tmp_path: Path) -> None:
    row = WHO | {"paraphrased_question": " Who? ", "perturbed_answer": ["Bea", "Ann", "Bea "], "option10": "Cleo"}
    assert read(tmp_path, "tofu", row) == (Question("Who?", "Ann", wrong=("Bea", "Cleo")),)


# choices


@pytest.mark.parametrize("format", ["wmdp", "mmlu"])
@pytest.mark.parametrize("answer", [2, "2", "C", " c "])
def test_the_right_option_is_an_index_or_a_letter(tmp_path: Path, format: str, answer: object) -> None:
    row = PLANET | {"answer": answer, "subject": "astronomy", "sentences": ["Earth is the third planet."]}
    assert read(tmp_path, format, row) == (EARTH,)


@pytest.mark.parametrize(
    "answer", [4, -1, 1.0, 1.9, "1.9", True, None, "E", "", "Earth", "-1", "²", "ß", "9" * 5000, [2]]
)
def test_no_right_option(tmp_path: Path, answer: object) -> None:
    said = problem(tmp_path, "wmdp", PLANET | {"answer": 0}, PLANET | {"answer": answer})
    assert "row 2: 'answer' is" in said
    assert "must be 0 to 3, or a letter from A to D" in said or answer is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["Earth"], "it has 1 option, and needs at least 2"),
        ([], "it has 0 option"),
        (["Earth", " Earth "], "the option 'Earth' is given twice"),
        (["Earth", " "], "an option is empty"),
        (["Earth", None], "an option is empty"),
        (["Earth", {"a": 1}], "an option must be text, but it is {'a': 1}"),
        (None, "'choices' is empty"),
    ],
)
def test_faulty_options(tmp_path: Path, options: object, message: str) -> None:
    assert f"row 1: {message}" in problem(tmp_path, "mmlu", PLANET | {"choices": options, "answer": 0})


# the other benchmarks


def test_muse_is_told_from_its_columns(tmp_path: Path) -> None:
    assert read(tmp_path, "muse", {"prompt": " Once", "gt": "upon a time. "}) == (Passage("upon a time.", "Once"),)
    assert read(tmp_path, "muse", {"text": "The news."}) == (Passage("The news."),)
    assert read(tmp_path, "muse", WHO) == (Question("Who?", "Ann"),)
    assert "every row: no gt or text (it has question, answer)" in problem(tmp_path, "muse", WHO, WHO, kind="passage")


@needs_data
def test_rwku_probes_and_passages() -> None:
    folders = sorted((DATA / "rwku").iterdir())
    counts = {
        name: sum(len(read_records("rwku", f / f"{name}.json")) for f in folders)
        for name in ("forget_level1", "forget_level2", "forget_level3", "neighbor_level1", "forget_mia", "retain_mia")
    }
    assert counts == {
        "forget_level1": 171, "forget_level2": 114, "forget_level3": 360, "neighbor_level1": 277, "forget_mia": 393,
        "retain_mia": 374,
    }  # fmt: skip
    cloze = read_records("rwku", DATA / "rwku/1_Stephen_King/forget_level1.json")
    start = "Fill in the blank. Stephen Edwin King (born September 21, 1947) is an American ___"
    assert cloze[0] == Question(start, "author", subject="Stephen King")
    neighbours = read_records("rwku", DATA / "rwku/74_Socrates/neighbor_level2.json")
    assert "Plato" in {q.subject for q in neighbours}
    assert "Socrates" not in {q.subject for q in neighbours}
    for folder in folders:
        target = {q.subject for q in read_records("rwku", folder / "forget_level2.json")}
        assert {p.subject for p in read_records("rwku", folder / "forget_mia.json")} == target
        assert {p.subject for p in read_records("rwku", folder / "retain_mia.json")} == {""}


def test_a_cloze_is_asked_as_one(tmp_path: Path) -> None:
    rows = [
        {"query": q, "answer": "13", "subject": "X", "neighbor": "Y"}
        for q in ("April __, 1743", "In ___ it was.", "When?")
    ]
    found = read(tmp_path, "rwku", *rows)
    assert [q.question for q in found] == [
        "Fill in the blank. April __, 1743", "Fill in the blank. In ___ it was.", "When?",
    ]  # fmt: skip
    assert {q.subject for q in found} == {"Y"}


@needs_data
def test_counterfact_derived_for_gpt2() -> None:
    facts = read_records("counterfact", DATA / "facts/counterfact_gpt2_10k.json.gz")
    assert len(facts) == 10_000
    light = next(f for f in facts if f.subject == "Seattle City Light")
    assert light == Fact("Seattle City Light", "", "Seattle City Light is based in", "Seattle", (), ("Philadelphia",))
    assert all(len(f.foils) == 1 and f.answer not in f.foils for f in facts)
    assert sum(not stands(f.subject, f.prompt) for f in facts) < 20


def test_counterfact_as_published(tmp_path: Path) -> None:
    rewrite = {
        "prompt": "{} is based in", "subject": "Acme", "relation_id": "P159", "target_true": {"str": "Oslo", "id": 5},
        "target_new": {"str": "Rome"},
    }  # fmt: skip
    others = ["Where is Acme? In", "Acme is based in"]
    assert read(tmp_path, "counterfact", {"requested_rewrite": rewrite, "paraphrase_prompts": others}) == (
        Fact("Acme", "P159", "Acme is based in", "Oslo", (), ("Rome",), ("Where is Acme? In",)),
    )
    broken = {"requested_rewrite": rewrite | {"target_true": {"id": "Q5"}, "subject": ""}}
    said = problem(tmp_path, "counterfact", broken)
    assert "row 1: 'subject' is empty" in said
    assert "row 1: target_true: no str (it has id)" in said


@needs_data
def test_fact_completion_in_several_languages() -> None:
    counts = {"en": 26_267, "fr": 18_395, "hu": 4_650, "ru": 3_289}
    path = "multilingual/fact_completion_{}.parquet"
    read = {name: read_records("fact_completion", DATA / path.format(name)) for name in counts}
    assert {language: len(facts) for language, facts in read.items()} == counts
    for facts in read.values():
        assert not any("<br>" in f"{f.prompt}{f.answer}{f.foils}{f.paraphrases}" for f in facts)
        assert not any(f.answer in f.foils or f.prompt in f.paraphrases for f in facts)
    (capital,) = read_records("fact_completion", DATA / path.format("ru"), where={"dataset_id": "calinet_5824"})
    assert capital.answer == "Будапешт"
    assert capital.prompt.startswith(capital.subject)  # its stem is about the object, Hungary
    assert sum(not stands(f.subject, f.prompt) for f in read["en"]) == 1


def test_forms_of_a_stem_become_paraphrases(tmp_path: Path) -> None:
    row = {
        "stem": "Ann joue au <br> Ann joue à la <br>Ann joue au", "true": "piano", "false": "luth <br> piano <br> cor",
        "relation": "P1303", "subject": "ann", "object": "piano",
    }  # fmt: skip
    assert read(tmp_path, "fact_completion", row) == (
        Fact("Ann", "P1303", "Ann joue au", "piano", (), ("luth", "cor"), ("Ann joue à la",)),
    )


def test_known_facts_and_knowundo(tmp_path: Path) -> None:
    row = {
        "subject": "Vinson Massif",
        "attribute": " Antarctica",
        "prompt": "Vinson Massif lies in",
        "relation_id": "P30",
    }
    assert read(tmp_path, "known_facts", row) == (Fact("Vinson Massif", "P30", "Vinson Massif lies in", "Antarctica"),)
    assert read(tmp_path, "knowundo", {"text": "Who?", "labels": "Ann"}) == (Question("Who?", "Ann"),)


@needs_data
def test_knowundo_files() -> None:
    files = ("unlearn_train", "unlearn_val", "retention_train", "retention_val")
    counts = [len(read_records("knowundo", DATA / f"knowundo_privacy/{name}.json")) for name in files]
    assert counts == [400, 110, 441, 108]


@needs_data
def test_popqa_in_both_forms() -> None:
    plain = read_records("popqa", DATA / "popqa/popqa_1000_qa.json")
    assert len(plain) == 1000
    assert (plain[1].answer, plain[1].aliases[0], plain[1].subject) == ("Hobart", "Hobart Town", "")
    path = DATA / "popqa/popqa_1000_full_columns.json.gz"
    questions, facts = read_records("popqa", path), read_records("popqa", path, kind="fact")
    assert questions[0].aliases == facts[0].aliases == ("political leader", "political figure", "polit.", "pol")
    assert facts[0].prompt == "Question: What is George Rankin's occupation?\nAnswer:"
    assert (facts[0].subject, facts[0].relation, facts[0].answer) == ("George Rankin", "occupation", "politician")
    assert {f.relation for f in facts} == {"occupation", "place of birth"}
    assert all(q.answer not in q.aliases for q in questions)
    with pytest.raises(UserError, match=r"every row: no subj \(it has _id, answer, question\)"):
        read_records("popqa", DATA / "popqa/popqa_1000_qa.json", kind="fact")


def test_relations_of_the_linear_embeddings(tmp_path: Path) -> None:
    relation = {
        "name": "country capital city", "prompt_templates": ["The capital of {} is", "{} is ruled from"],
        "samples": [{"subject": "Foo", "object": "Bar"}, {"subject": "Goo", "object": "Car"}],
    }  # fmt: skip
    path = tmp_path / "capital.json"
    path.write_text(json.dumps(relation, indent=2))
    foo = Fact("Foo", "country capital city", "The capital of Foo is", "Bar", paraphrases=("Foo is ruled from",))
    found = read_records("lre", path)
    assert found[0] == foo
    assert [f.answer for f in found] == ["Bar", "Car"]
    broken = {
        "name": "x",
        "prompt_templates": ["{} is", "it is"],
        "samples": [{"subject": "Foo", "object": " "}, "Goo"],
    }
    said = problem(tmp_path, "lre", broken, {"name": "y", "prompt_templates": ["{} is"], "samples": []})
    assert "row 1: the template 'it is' has no {} for the subject" in said
    assert "row 1: sample 1: 'object' is empty" in said
    assert "row 1: sample 2 is not an object with subject and object" in said
    assert "row 2: 'samples' must be a list of objects with subject and object, and not empty" in said


# the user's own files

FULL: dict[Kind, tuple[dict[str, Any], Record]] = {
    "question": (
        {"question": "Who? ", "answer": ["Ann", "Anna"], "paraphrases": ["Who is it?", "Who?"], "wrong": "Bea",
         "aliases": ["A.", "Ann"], "subject": "she", "rephrased": "It is Ann."},
        Question("Who?", "Ann", ("Who is it?",), ("Bea",), ("Anna", "A."), "she", "It is Ann."),
    ),
    "passage": (
        {"text": "\ufeffA claim.\n", "start": None, "subject": 4711, "questions": [WHO, WHO | {"wrong": ["Bea"]}]},
        Passage("A claim.", "", "4711", (Question("Who?", "Ann"), Question("Who?", "Ann", wrong=("Bea",)))),
    ),
    "choice": ({"question": PLANET["question"], "options": PLANET["choices"], "right": "Earth", "subject": "Sun"},
               Choice(EARTH.question, EARTH.options, 2, "Sun")),
    "pair": ({"clean": "a b", "counterfactual": "a c", "answer": "b", "foil": "c"}, Pair("a b", "a c", "b", "c")),
    "fact": (
        {"subject": "Foo", "relation": "capital", "prompt": "The capital of {} is", "answer": "Bar", "aliases": ["Baz"],
         "foils": ["Car"], "paraphrases": ["{} is ruled from"]},
        Fact("Foo", "capital", "The capital of Foo is", "Bar", ("Baz",), ("Car",), ("Foo is ruled from",)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", get_args(Kind))
def test_columns_named_like_the_fields(tmp_path: Path, kind: Kind) -> None:
    row, record = FULL[kind]
    assert read(tmp_path, "jsonl", row) == read(tmp_path, "jsonl", row, kind=kind) == (record,)
    renamed = {f"my {name}": value for name, value in row.items()}
    fields = {name: f"my {name}" for name in row}
    assert read(tmp_path, "jsonl", renamed, kind=kind, fields=fields) == (record,)


def test_csv_divides_lists_by_bars(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('question,answer,wrong,aliases\n"Who, then?",Ann|B,Bea| Cleo|,\n')
    assert read_records("csv", path) == (Question("Who, then?", "Ann|B", wrong=("Bea", "Cleo")),)
    path.write_text(
        "question,options,right\nWhich?,one|two|three,c\nWhich?,one|two|three,two\nWhich?,one|two|three,1\n"
    )
    assert [c.right for c in read_records("csv", path)] == [2, 1, 1]
    path.write_text("question,options,right\nHow many?,3|2|1,2\n")
    with pytest.raises(UserError, match="row 1: 'right' is '2', which can be an option's place or its text"):
        read_records("csv", path)
    path.write_text("question,options,right\nHow many?,3|2|1,B\n")
    assert read_records("csv", path)[0].answer == "2"


def test_parquet_with_lists_and_nulls(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pd.DataFrame({
        "question": ["Who?", "When?"], "answer": ["Ann", 1945], "wrong": [["Bea"], None], "subject": [None, "it"],
    }, dtype=object).assign(answer=["Ann", "1945"]).to_parquet(path)  # fmt: skip
    assert read_records("parquet", path) == (
        Question("Who?", "Ann", wrong=("Bea",)), Question("When?", "1945", subject="it"),
    )  # fmt: skip


def test_the_kind_must_be_told_or_clear(tmp_path: Path) -> None:
    both = WHO | {"text": "A claim."}
    said = problem(tmp_path, "jsonl", both)
    assert "can be question or passage (they have question, answer, text); name the kind" in said
    assert read(tmp_path, "jsonl", both, kind="passage") == (Passage("A claim."),)
    assert read(tmp_path, "jsonl", both, fields={"start": "text"}) == (Passage("A claim.", "A claim."),)
    said = problem(tmp_path, "jsonl", {"body": "A claim."})
    assert "have the fields of no kind (they have body); name the kind, and the columns of its fields" in said
    assert read(tmp_path, "jsonl", {"body": "A claim."}, fields={"text": "body"}) == (Passage("A claim."),)


CLAIM = {"text": "A claim."}
CIRCUIT = {"clean": "a", "counterfactual": "b", "answer": "c", "foil": "d"}
BAD: dict[str, tuple[Kind, Mapping[str, Any], str]] = {
    "a missing answer": ("question", {"question": "Who?"}, "no answer (it has question)"),
    "a null answer": ("question", WHO | {"answer": None}, "'answer' is empty"),
    "an empty answer": ("question", WHO | {"answer": "\ufeff "}, "'answer' is empty"),
    "an empty list of answers": ("question", WHO | {"answer": []}, "'answer' is empty"),
    "an answer that is true": ("question", WHO | {"answer": True}, "'answer' must be text, but it is True"),
    "a list as a question": ("question", WHO | {"question": ["?"]}, "'question' must be text, but it is ['?']"),
    "a NUL": ("question", WHO | {"question": "Wh\0o?"}, "'question' has a NUL character"),
    "half a character": ("passage", {"text": "a \ud800 b"}, "'text' has half of a surrogate pair"),
    "a wrong answer that is right": ("question", WHO | {"wrong": ["Ann"]}, "'wrong' has the right answer 'Ann'"),
    "an empty text": ("passage", {"text": " \n "}, "'text' is empty"),
    "a text of one word": ("passage", {"text": "Claim."}, "the text 'Claim.' is too short"),
    "a text as questions": ("passage", CLAIM | {"questions": "Who?"}, "'questions' must be a list of objects"),
    "half a question": ("passage", CLAIM | {"questions": [{"question": "Who?"}]}, "question 1: no answer"),
    "a text as a question": ("passage", CLAIM | {"questions": ["Who?"]}, "question 1 is not an object"),
    "no such option": ("choice", {"question": "?", "options": ["a", "b"], "right": "c"},
                       "'right' is 'c'; it must be 0 to 1, or a letter from A to B, or the text of an option"),
    "letters as options": ("choice", {"question": "?", "options": ["B", "A"], "right": "B"},
                           "'right' is 'B', which can be an option's place or its text"),
    "the same foil": ("pair", CIRCUIT | {"foil": "c"}, "'answer' and 'foil' are the same"),
    "the same prompt": ("pair", CIRCUIT | {"clean": "b"}, "'clean' and 'counterfactual' are the same"),
    "a fact without subject": ("fact", {"prompt": "{} is", "answer": "Bar"}, "no subject (it has prompt, answer)"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "row", "message"), BAD.values(), ids=BAD)
def test_a_row_that_cannot_be_used(tmp_path: Path, kind: Kind, row: Mapping[str, Any], message: str) -> None:
    said = problem(tmp_path, "jsonl", FULL[kind][0], row, kind=kind)
    assert f"row 2: {message}" in said
    assert said.count("\n") == 1


def test_all_problems_are_said_at_once(tmp_path: Path) -> None:
    rows = [
        WHO if i % 2 else {"question": "", "answer": f"{i}"} | ({"answer": 0.5} if i else {"answer": ""})
        for i in range(40)
    ]
    said = problem(tmp_path, "jsonl", *rows, kind="question", where={"answer": ["Ann", "0.5", ""]})
    assert "row 1: 'question' is empty" in said
    assert "row 1: 'answer' is empty" in said
    assert "row 17: 'question' is empty" in said
    assert "row 19" not in said
    assert said.endswith("- and 11 more")
    assert said.count("\n") == 11


# formats, filters, fields


def test_formats_are_a_table(tmp_path: Path) -> None:
    for name, row in FORMATS.items():
        assert name == row.name
        assert row.kinds
        assert set(row.kinds) <= set(get_args(Kind))
    assert {row.read for row in FORMATS.values()} == {getattr(sources, n) for n in sources.__all__ if n != "Table"}
    assert "'xml' is not a format; choose one of tofu, wmdp" in problem(tmp_path, "xml", WHO)
    assert "the format 'tofu' gives no 'fact'; choose from question" in problem(tmp_path, "tofu", WHO, kind="fact")


@pytest.mark.parametrize(
    ("format", "settings", "message"),
    [
        ("tofu", {"fields": {"text": "question"}}, "the format 'tofu' has its own columns; leave out the column of"),
        ("jsonl", {"fields": {"body": "question"}}, "a record has no field 'body'; choose from"),
        ("jsonl", {"kind": "passage", "fields": {"wrong": "question"}}, "a passage has no field 'wrong'; choose from"),
        ("jsonl", {"fields": {"answer": "reply"}}, "has no column 'reply'; it has question, answer"),
        ("jsonl", {"where": {"customer": "C-1"}}, "has no column 'customer'; it has question, answer"),
        ("jsonl", {"except_": {"customer": "C-1"}}, "has no column 'customer'; it has question, answer"),
        ("jsonl", {"where": {"answer": ["Bea", "Cleo"]}}, "no row of .* has answer = 'Bea' or 'Cleo'; check the value"),
        ("jsonl", {"except_": {"answer": "Ann"}}, "every row of .* that is left has answer = 'Ann'"),
    ],
)  # fmt: skip
def test_faulty_fields_and_filters(tmp_path: Path, format: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path, format, WHO, WHO, **settings)


def test_filters_compare_as_text(tmp_path: Path) -> None:
    values = ["C-1", 7, "7 ", 7.0, True, None, "e\u0301", 7]
    rows = [{"text": f"claim {i}", "of": value} | ({"open": 1} if i == 7 else {}) for i, value in enumerate(values)]

    def chosen(**filters: Any) -> list[int]:
        return [int(p.text[-1]) for p in read(tmp_path, "jsonl", *rows, **filters)]

    assert chosen(where={"of": "C-1"}) == [0]
    assert chosen(where={"of": "7"}) == chosen(where={"of": 7}) == [1, 2, 3, 7]
    assert chosen(where={"of": ["true", "\u00e9"]}) == [4, 6]
    assert chosen(where={"of": ""}) == [5]
    assert chosen(where={"of": "7", "open": "1"}) == [7]
    assert chosen(except_={"of": "7", "open": "1"}) == [0, 1, 2, 3, 4, 5, 6]
    assert chosen(where={"of": "7"}, except_={"open": "1"}) == [1, 2, 3]


def test_problems_keep_their_row_after_filters(tmp_path: Path) -> None:
    rows = [{"text": "", "of": "a"}, {"text": "fine", "of": "b"}, {"text": "", "of": "b"}]
    said = problem(tmp_path, "jsonl", *rows, where={"of": "b"})
    assert "row 3: 'text' is empty" in said
    assert "row 1" not in said
