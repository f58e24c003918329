"""`loka new`: a case file from a benchmark's files or one's own, which then reads as a case."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner, Result

from loka._util.errors import UserError
from loka.cli.new import new
from loka.knowledge import case
from loka.knowledge.draft import Sources, draft

DATA = Path(os.environ.get("LOKA_DATA", Path(__file__).parents[2] / "../shared/data")).resolve()
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"no benchmark files in {DATA}; name their folder in LOKA_DATA"
)
CUSTOMERS = [f"C-{i}" for i in range(5)]
CLAIMS = [
    {"body": f"Claim {i}: the car of customer {c} was hit by hail on day {i} of the year and repaired.", "customer": c}
    for i in range(8)
    for c in CUSTOMERS
]
NEVER = [
    {"body": f"Claim {i}: the boat of {i} sank in the harbour after a storm.", "customer": f"N-{i}"} for i in range(9)
]
PLANETS = [
    {"question": f"Which planet is number {i}?", "choices": ["Venus", "Mars", "Earth"], "answer": i % 3}
    for i in range(9)
]


def save(name: str, rows: Sequence[object]) -> str:
    Path(name).write_text("\n".join(json.dumps(row) for row in rows))
    return name


def loka_new(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(new)
    return CliRunner().invoke(app, list(map(str, arguments)))


def refused(*arguments: object) -> str:
    result = loka_new(*arguments, "--out", "case.yaml")
    assert isinstance(result.exception, UserError), result.output
    assert not Path("case.yaml").exists()
    return str(result.exception)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test works in a folder of its own, with a few files in it."""
    monkeypatch.chdir(tmp_path)
    save("train.jsonl", CLAIMS)
    save("holdout.jsonl", NEVER)
    save("planets.json", PLANETS)
    save("mmlu.json", [row | {"question": f"And again: {row['question']}"} for row in PLANETS])


def test_a_customer_of_the_users_own_file() -> None:
    result = loka_new(
        "jsonl", "--kind", "passage", "--forget", "train.jsonl", "--where", "customer=C-3", "--text", "body",
        "--subject", "customer", "--twins", "holdout.jsonl", "--out", "requests/claims.yaml",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == "Next: loka run requests/claims.yaml --data . --out DIR"
    text = Path("requests/claims.yaml").read_text()
    columns = {"kind": "passage", "format": "jsonl", "source": "../train.jsonl", "text": "body", "subject": "customer"}
    assert yaml.safe_load(text) == {
        "name": "claims",
        "purpose": "privacy",
        "sets": {
            "target": columns | {"where": {"customer": "C-3"}},
            "others": columns | {"except": {"customer": "C-3"}},
            "never": columns | {"source": "../holdout.jsonl"},
        },
        "forget": {"target": "all"},
        "retain": {"others": {"working": 0.5, "sealed": 0.5}},
        "twins": {"never": "all"},
        "neutral": {"working": {"sampled": 96}, "sealed": "prose.txt"},
        "unit": "item",
        "seed": 0,
    }
    assert "# 8 passages: what is to be forgotten" in text
    assert "# 32 passages about 4 subjects: what must be kept" in text
    assert "# 9 passages about 9 subjects: what the model was never taught" in text
    with pytest.raises(
        UserError, match=r"'../train.jsonl' is outside the folder of the case file; put it there, or name"
    ):
        case("requests/claims.yaml")
    found = case("requests/claims.yaml", data=["."]).whole()
    assert {item.subject for item in found.forget.working} == {"C-3"}
    assert {item.subject for item in found.retain.working} <= set(CUSTOMERS) - {"C-3"}


def test_a_corpus_is_edited_on_and_questions_judge() -> None:
    save("corpus.jsonl", [{"text": row["body"]} for row in CLAIMS])
    result = loka_new(
        "wmdp", "--forget", "planets.json", "--retain", "mmlu.json", "--retain-format", "mmlu", "--corpus",
        "corpus.jsonl", "--out", "case.yaml",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    written = yaml.safe_load(Path("case.yaml").read_text())
    assert written["sets"] == {
        "target": {"kind": "choice", "format": "wmdp", "source": "planets.json"},
        "corpus": {"kind": "passage", "format": "jsonl", "source": "corpus.jsonl"},
        "others": {"kind": "choice", "format": "mmlu", "source": "mmlu.json"},
    }
    assert written["forget"] == {"corpus": {"working": "all"}, "target": {"sealed": "all"}}
    assert (written["purpose"], written["twins"]) == ("safety", {})
    found = case("case.yaml").whole()
    assert {item.kind for item in found.forget.working} == {"passage"}
    assert {item.kind for item in found.forget.sealed} == {"choice"}


@needs_data
def test_tofu() -> None:
    files = {"--forget": "forget05_perturbed", "--retain": "retain_perturbed", "--twins": "holdout05"}
    options = [part for option, name in files.items() for part in (option, DATA / f"tofu/{name}.json")]
    result = loka_new("tofu", *options, "--out", "authors.yaml", "--name", "authors: 05", "--purpose", "safety")
    assert result.exit_code == 0, result.output
    text = Path("authors.yaml").read_text()
    assert "# 200 questions about 10 subjects: what is to be forgotten" in text
    assert "# 400 questions about 20 subjects: what must be kept" in text
    written = yaml.safe_load(text)
    assert (written["name"], written["purpose"]) == ("authors: 05", "safety")
    assert not os.path.isabs(written["sets"]["target"]["source"])
    assert len(case("authors.yaml", data=[DATA]).whole().forget.working) == 200


def test_several_values_and_strange_names() -> None:
    rows = [{"it's: a": f"Text {i} of {v} goes on and on.", "null": v} for i in range(4) for v in ("yes", "#1", "ü")]
    save("a b.jsonl", rows)
    result = loka_new(
        "jsonl", "--forget", "a b.jsonl", "--field", "text=it's: a", "--where", "null=yes", "--where", "null=#1",
        "--out", "case.yaml",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    spec = case("case.yaml")
    assert [len(spec.records[name]) for name in ("target", "others")] == [8, 4]


def test_facts_are_drawn_by_subject() -> None:
    facts = [{"subject": f"Foo{i}", "prompt": "The capital of {} is", "answer": f"Bar{i}"} for i in range(6)]
    save("facts.jsonl", facts[:3])
    save("more.jsonl", facts[3:])
    text = draft(Sources("jsonl", "facts.jsonl", "more.jsonl"), Path(), name="facts")
    assert yaml.safe_load(text)["unit"] == "subject"
    assert "# 3 facts about 3 subjects" in text
    assert "No set is named" in text


def test_a_data_set_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("loka.knowledge.rows.read_hub", lambda *place: asked.append(place) or PLANETS)
    text = draft(Sources("wmdp", "cais/wmdp:wmdp-bio:test", "cais/mmlu", retain_format="mmlu"), Path("x"), name="bio")
    assert asked == [("cais/wmdp", "wmdp-bio", "test"), ("cais/mmlu", None, "train")]
    assert yaml.safe_load(text)["sets"] == {
        "target": {"kind": "choice", "format": "wmdp", "source": "cais/wmdp", "config": "wmdp-bio", "split": "test"},
        "others": {"kind": "choice", "format": "mmlu", "source": "cais/mmlu", "split": "train"},
    }


def test_an_existing_file_stays_as_it_is() -> None:
    Path("mine.yaml").write_text("mine")
    result = loka_new("wmdp", "--forget", "none.json", "--retain", "mmlu.json", "--out", "mine.yaml")
    assert "'mine.yaml' exists already" in str(result.exception)
    assert Path("mine.yaml").read_text() == "mine"
    result = loka_new("wmdp", "--forget", "planets.json", "--retain", "mmlu.json", "--out", "case.json")
    assert "'case.json' is not the name of a case file; it must end in .yaml" in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["wmdp", "--forget", "none.json"], "the data file 'none.json' does not exist"),
        (["riddles", "--forget", "none.json"], "'riddles' is not a format"),
        (["xml", "--forget", "planets.json", "--retain", "mmlu.json"], "'xml' is not a format"),
        (["wmdp", "--forget", "none.json", "--retain", "mmlu.json"], "the data file 'none.json' does not exist"),
        (["wmdp", "--forget", "planets.json", "--retain", "train.jsonl"], "every row: no question"),
        (["wmdp", "--forget", "planets.json", "--retain", "mmlu.json", "--kind", "fact"], "gives no 'fact'"),
        (["wmdp", "--forget", "planets.json", "--retain", "mmlu.json", "--text", "x"], "no set takes a column for"),
        (["wmdp", "--forget", "planets.json", "--where", "answer"], "--where 'answer' has no two sides"),
        (["wmdp", "--forget", "planets.json", "--where", "answer=7"], "no row of 'planets.json' has answer = '7'"),
        (["wmdp", "--forget", "planets.json", "--retain", "mmlu.json", "--purpose", "fun"], "'fun' is not a purpose"),
        (["jsonl", "--forget", "train.jsonl", "--where", "customer=C-1"], "name the kind, and the columns"),
        (["jsonl", "--forget", "train.jsonl", "--where", "who=C-1", "--text", "body"], "has no column 'who'"),
    ],
)  # fmt: skip
def test_faulty_input_is_one_sentence(arguments: list[str], message: str) -> None:
    assert message in refused(*arguments)


def test_without_a_file_to_keep_the_case_keeps_nothing() -> None:
    assert loka_new("wmdp", "--forget", "planets.json", "--out", "case.yaml").exit_code == 0
    assert case("case.yaml").file.retain == {}
    assert case("case.yaml").whole().forget.sealed
