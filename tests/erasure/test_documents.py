"""The documents of a request: which are written, what they say, and that they never name the person."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fpdf", reason='needs the extra erasure: pip install "loka[erasure]"')

from loka import UserError
from loka.erasure import (
    DOCUMENTS,
    CaseFile,
    Person,
    Register,
    Request,
    Situation,
    assess_data,
    choose,
    steps,
    write_documents,
)
from loka.erasure.case_file import LEFT_OUT, read_finding
from loka.erasure.documents import TO_THE_PERSON, render
from loka.erasure.model_impact import DECIDING, SUPPORTING, Group, Measure, ModelImpact
from loka.erasure.plain_words import PLAIN_CHECKS, PLAIN_LEAKAGE, PLAIN_OUTCOMES
from loka.erasure.risk import not_tried, residual_risk
from loka.verify.checks import CHECKS
from loka.verify.judge.scorecard import leakage

NAME = re.compile("erika|mustermann|person0|C-4711", re.IGNORECASE)
REPORT = DOCUMENTS[0]
ANSWERED = {"report", "reply_done", "recipients", "dpia", "residual_risk", "not_tried"}


def verdict(**changes: Any) -> dict[str, Any]:
    """What `verdict.json` holds, as far as documents read it."""
    reading = {"check": "recall", "value": 0.05, "meaning": "With sealed prompts, the model shows 5%.", "n": 20}
    return {
        "outcome": "removed",
        "claim": "The answers are not recoverable under these attacks at this budget.",
        "reasons": ["recall: r = 0.02.", "Erika Mustermann is 1 of 20 subjects."],
        "flags": ["over_forgotten: the answers are rarer than for subjects that were never taught, by recall"],
        "gates": [],
        "scorecard": {
            "forget_accuracy": 0.05, "retain_accuracy": 0.97, "membership_auc": 0.62, "forget_quality": "excellent",
            "privacy_leakage": "moderate",
        },
        "summary": {"forget_before": 0.9, "forget_after": 0.05, "perplexity_before": 20.0, "perplexity_after": 20.125},
        "readings": {"recall": reading, "membership": {**reading, "value": None, "meaning": "Too few."}},
        **changes,
    }  # fmt: skip


def written(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps(verdict(**changes)))
    return path


@pytest.fixture
def request_(register: Register, write, today: date) -> Request:
    return steps.receive(register, write(0), today=today)


@pytest.fixture
def impact(tmp_path: Path) -> Path:
    data, models = tmp_path / "train.jsonl", tmp_path / "models"
    rows = ["Erika Mustermann claims <windows>", "somebody else claims a door", "E. Mustermann calls"]
    data.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    models.mkdir()
    (models / "claims.gguf").write_bytes(b"GGUF" + bytes(100))
    (models / "Erika-Mustermann.jsonl").write_text(data.read_text())
    path, shown = tmp_path / "impact.json", Group(0.875, 0.025, 40, 0.612, 0.95)
    measures = (*(Measure(n, shown, shown) for n in DECIDING), Measure(SUPPORTING, None, None, "Too few statements."))
    found = assess_data(Person("Erika Mustermann"), [data], [models])
    asked = replace(found, model=ModelImpact("m", 2, 2, 28, 40, measures))
    path.write_text(json.dumps(asked.to_json()))
    return path


def executed(register: Register, request: Request, today: date) -> Request:
    """The request after its method was chosen and applied."""
    chosen = choose(register, request.id, Situation(2, shows="something", shown_by="the officer"), today=today)
    with register.change() as change:
        return change.save(replace(chosen, status="executed"), "rekeyed", {})


def names(case: CaseFile) -> set[str]:
    return {document.name for document in DOCUMENTS if document.applies(case)}


def test_which_documents_are_written(register: Register, request_: Request, tmp_path: Path, today: date) -> None:
    id = request_.id
    assert names(CaseFile.of(register, id)) == ANSWERED - {"reply_done"}
    steps.extend(register, id, 1, "many systems", today=today)
    assert names(CaseFile.of(register, id)) == ANSWERED - {"reply_done"} | {"reply_extended"}
    executed(register, request_, today)
    assert names(CaseFile.of(register, id)) == ANSWERED
    for outcome in PLAIN_OUTCOMES:
        case = CaseFile.of(register, id, verdict=written(tmp_path / "verdict.json", outcome=outcome))
        assert ("reply_done" in names(case)) == (outcome != "intact")


@pytest.mark.parametrize(
    ("method", "kind", "done"),
    [
        ("exclude", "excluded", True),
        ("located", "excluded", False),
        ("retrain", "closed", True),
        ("ascent", "closed", False),
    ],
)
def test_when_a_request_is_done(
    register: Register, request_: Request, today: date, method: str, kind: str, done: bool
) -> None:
    choose(register, request_.id, Situation(3), method=method, reason="as advised", today=today)
    case = CaseFile.of(register, request_.id)
    assert not case.done
    case = replace(case, steps=(*case.steps, replace(case.steps[-1], kind=kind)))
    assert (case.done, case.excluded) == (done, kind == "excluded")


def test_only_the_impact_and_verdict_that_the_trail_tells_of(
    register: Register, request_: Request, impact: Path, tmp_path: Path
) -> None:
    path = written(tmp_path / "verdict.json")
    for what, file in (("impact", impact), ("verdict", path)):
        with register.change() as change:
            change.log("rekeyed", {what: hashlib.sha256(file.read_bytes()).hexdigest()}, request_.id)
    assert CaseFile.of(register, request_.id, impact=impact, verdict=path).finding
    written(path, outcome="intact")
    with pytest.raises(UserError, match=r"verdict.json' is not the verdict that the trail records"):
        CaseFile.of(register, request_.id, verdict=path)
    impact.write_text(impact.read_text() + " ")
    with pytest.raises(UserError, match=r"impact.json' is not the impact that the trail records"):
        CaseFile.of(register, request_.id, impact=impact)


def test_a_refused_request_has_a_reply_and_no_notice(register: Register, request_: Request, today: date) -> None:
    steps.refuse(register, request_.id, "A claim is pending (Art. 17(3)(e)).", today=today)
    case = CaseFile.of(register, request_.id)
    assert names(case) == {"report", "reply_refused", "dpia"}
    reply = render(DOCUMENTS[3], case)["reply_refused.html"].decode()
    for part in ("A claim is pending (Art. 17(3)(e)).", "lodge a complaint", "Art. 77", "[name of the person]"):
        assert part in reply


def test_every_file_holds_the_pseudonym_and_never_the_person(
    register: Register, request_: Request, impact: Path, tmp_path: Path, today: date, pdf_text: Callable[[bytes], str]
) -> None:
    executed(register, request_, today)
    path = written(tmp_path / "verdict.json")
    case = CaseFile.of(register, request_.id, impact=impact, verdict=path, today=today)
    out = tmp_path / "documents"
    files = write_documents(register, case, out, sources={"verdict": path})
    assert sorted(files) == sorted(out / f"{name}.{kind}" for name in ANSWERED for kind in ("html", "pdf", "json"))
    assert out.stat().st_mode & 0o077 == 0
    for file in files:
        text = pdf_text(file.read_bytes()) if file.suffix == ".pdf" else file.read_text()
        assert request_.pseudonym in text, file
        assert not NAME.search(text), file
    entry = register.entries()[-1]
    assert entry.said
    assert entry.kind == "documented"
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    assert entry.said.payload == {"files": digests, "from": {"verdict": hashlib.sha256(path.read_bytes()).hexdigest()}}
    assert register.verify() is None


def test_what_the_report_says(
    register: Register, request_: Request, impact: Path, tmp_path: Path, today: date, pdf_text: Callable[[bytes], str]
) -> None:
    executed(register, request_, today)
    path = written(tmp_path / "verdict.json")
    case = CaseFile.of(register, request_.id, impact=impact, verdict=path, today=today)
    files = render(REPORT, case)
    assert files == render(REPORT, case)  # the same bytes each time
    page, paper = files["report.html"].decode(), " ".join(pdf_text(files["report.pdf"]).split())
    plain = " ".join(re.sub(r"<[^>]+>", " ", page).replace("&#39;", "'").split())
    for sentence in (
        "None of the tests brought the records back",
        "3 records in 1 training file were searched. 2 count as the person's: 7 words, 58.3333% of all.",
        "copy of the data",
        "The model shows something of the person. The model gives more of the person's records than of records",
        "The model was asked about 2 of the person's 2 records, about 28 records of others",
        "Records that the model gives in full from their first third 87.5% 2.5% 85.0% (61.2% to 95.0%) 87.5%",
        "Too few statements.",
        "What the model was taken to show something, as found by the officer",
        "90.0% 5.0%",
        "20.00 20.12",
        "Asking the model directly With sealed prompts, the model shows 5%.",
        "No result: Too few.",
        "than chance that the records were in the training data. (Membership AUC 0.62; 0.5 is a guess.)",
        "The model avoids the records more than if it had never been taught them.",
        "Test not made, or without a result: rounding the model's weights to 8 and 4 bits",
        LEFT_OUT,
        "a method was chosen, and its recipe frozen",
        "and none was touched.",
    ):
        assert sentence in plain
        assert re.sub(r"\s", "", sentence) in re.sub(r"\s", "", paper)
    assert json.loads(files["report.json"])["case"] == case.to_json()
    style = re.search(r"<style>(.*)</style>", page, re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in page
    assert not re.search(r"<script|<link|style=|\bon\w+=|https?:", page)


def test_a_model_that_was_not_asked_is_said(register: Register, request_: Request, impact: Path) -> None:
    data = json.loads(impact.read_text())
    asked = CaseFile.of(register, request_.id, impact=impact)
    impact.write_text(json.dumps({**data, "model": None}))
    case, said = CaseFile.of(register, request_.id, impact=impact), "was not asked before the erasure what it shows"
    assert said in render(REPORT, case)["report.html"].decode()
    assert [any(said in each for each in not_tried(of)) for of in (asked, case)] == [False, True]


def test_text_of_others_is_escaped(
    register: Register, request_: Request, today: date, pdf_text: Callable[[bytes], str]
) -> None:
    steps.refuse(register, request_.id, "<b>pending</b> & 漢 ž", today=today)
    files = render(DOCUMENTS[3], CaseFile.of(register, request_.id))
    assert "<p>&lt;b&gt;pending&lt;/b&gt; &amp; 漢 ž</p>" in files["reply_refused.html"].decode()
    assert "<b>pending</b> & " in pdf_text(files["reply_refused.pdf"])


def test_a_touched_trail_is_said(register: Register, request_: Request) -> None:
    case = CaseFile.of(register, request_.id)
    assert "none was touched" in case.trail
    with register.database.transaction() as db:
        db.execute("UPDATE request SET record = replace(record, 'e-mail', 'letter')")
    assert CaseFile.of(register, request_.id).trail.startswith("THE TRAIL WAS TOUCHED: ")


def test_the_tables_of_words_are_whole() -> None:
    assert set(PLAIN_OUTCOMES) == {"removed", "suppressed", "intact", "inconclusive"}
    assert {check.name for check in CHECKS} <= set(PLAIN_CHECKS)
    assert {leakage(auc) for auc in (0.5, 0.6, 0.9)} == set(PLAIN_LEAKAGE)
    assert set(TO_THE_PERSON) == {"exclude", "located", "ascent", "retrain", "sisa"}


def test_risk_and_what_was_not_tried(register: Register, request_: Request, today: date, tmp_path: Path) -> None:
    bare = CaseFile.of(register, request_.id)
    assert len([each for each in not_tried(bare) if each.startswith("Test not made")]) == len(CHECKS) - 1
    assert residual_risk(bare)[0] == "Nothing is known of what the model still gives."
    only = "They cannot show that nothing is"
    for method, said in (("exclude", True), ("retrain", False)):
        choose(register, request_.id, Situation(3), method=method, reason="as advised", today=today)
        case = CaseFile.of(register, request_.id, verdict=written(tmp_path / "verdict.json"))
        assert any(only in each for each in residual_risk(case)) == said
        assert any("the output filter" in each for each in residual_risk(case)) == said
        assert any("was not trained again" in each for each in not_tried(case)) == said


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"outcome": "perfect"},
            "has the outcome 'perfect'; it must be one of removed, suppressed, intact, inconclusive",
        ),
        ({"claim": 3}, "cannot have claim = 3"),
        ({"readings": {"recall": {}}}, "cannot have meaning = None"),
        ({"summary": {"owl": 1}}, "has no 'owl'"),
    ],
)
def test_what_is_not_a_verdict(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        read_finding(written(tmp_path / "verdict.json", **changes))


def test_templates_of_the_user_replace_single_files(register: Register, request_: Request, tmp_path: Path) -> None:
    case, mine = CaseFile.of(register, request_.id), tmp_path / "mine"
    mine.mkdir()
    (mine / "dpia.html").write_text("<h1>Ours</h1><p>{{ case.request.id }}</p>")
    dpia = next(document for document in DOCUMENTS if document.name == "dpia")
    page = render(dpia, case, mine)["dpia.html"].decode()
    assert f"<h1>Ours</h1><p>{request_.id}</p>" in page
    assert render(REPORT, case, mine)["report.html"] == render(REPORT, case)["report.html"]
    cells = "<td>x</td>" * 400
    for text, sentence in (
        ("{{ case.owl }}", "has no attribute 'owl'; correct it"),
        ("{% if %}", "is faulty: Expected an expression"),
        ("{{ case.__class__.__mro__ }}", "is unsafe"),
        ("{% include 'dpia.html' %}", "is faulty"),
        (f"<table><tr>{cells}</tr></table>", "no PDF can be made of it"),
    ):
        (mine / "dpia.html").write_text(text)
        with pytest.raises(UserError, match=sentence):
            write_documents(register, case, tmp_path / "out", templates=mine)
    (mine / "reply.html").write_text("")
    with pytest.raises(UserError, match=r"'reply.html' in .* is not a template; rename it to one of dpia.html"):
        render(REPORT, case, mine)
    with pytest.raises(UserError, match="there is no folder"):
        render(REPORT, case, tmp_path / "none")
    assert not (tmp_path / "out").exists()
    assert [entry.kind for entry in register.entries()] == ["received"]


def test_nothing_is_logged_where_nothing_can_be_written(register: Register, request_: Request, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_documents(register, CaseFile.of(register, request_.id), tmp_path / "file")
    assert [entry.kind for entry in register.entries()] == ["received"]


def test_the_pages_in_a_browser(
    browser, register: Register, request_: Request, impact: Path, tmp_path: Path, today: date
) -> None:
    executed(register, request_, today)
    case = CaseFile.of(register, request_.id, impact=impact, verdict=written(tmp_path / "verdict.json"), today=today)
    for document in DOCUMENTS[:2]:
        file = tmp_path / f"{document.name}.html"
        file.write_bytes(render(document, case)[file.name])
        for width in (1200, 390):
            browser.open(file, width=width)
            asked = [
                e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"
            ]
            assert asked == [file.as_uri()]
            assert [e for e in browser.events if e["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")] == []
            assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), (document.name, width)
    browser.open(tmp_path / "report.html")
    nodes = browser("Accessibility.getFullAXTree")["nodes"]
    found = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n["ignored"]]
    said = {role: [name for each, name in found if each == role] for role, _ in found}
    assert said["heading"][0] == f"Report on the erasure request {request_.id}"
    assert "Files that may have been made from the data" in said["table"]
    assert "Person" in said["rowheader"]
    assert "Kind" in said["columnheader"]
