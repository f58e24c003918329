"""The report's examples, and its words for each kind of item."""

import re
from pathlib import Path
from typing import Any

import pytest

from loka import report
from loka._util.files import write_json
from loka.knowledge.kinds import SEALED, WORKING
from loka.report.examples import MOST, cut, examples, question
from loka.report.words import WORDS, words_of
from loka.verify import Reading, Summary, judge, make_reading, scorecard
from loka.verify.asking import ASKING

HOSTILE = "<script>alert('x')</script> & \"quoted\""
LONG = f"Question: who is {HOSTILE}?\nAnswer: {'a word ' * 40}"
Said = dict[str, str]


def recall(kind: str, said: list[Said] | None, units: tuple[str, ...] = ("capital/Ann",)) -> Reading:
    samples = {"forget": dict.fromkeys(units, 0.5), "twins": {"capital/Nobody": 0.0, "capital/Noone": 0.1}}
    meaning = ASKING[kind].meaning.format("50%")  # type: ignore[index]
    details = {} if said is None else {"examples": said}
    return make_reading("recall", samples, f"With sealed prompts, the model {meaning}.", details=details)


def example(prompt: str, answer: str, said: str) -> Said:
    return {"prompt": prompt, "answer": answer, "said": said}


def folder(path: Path, before: Reading, after: Reading, **more: Any) -> Path:
    """A run folder with these readings and the verdict on them."""
    readings = {"before": {"recall": before}, "after": {"recall": after}}
    verdict = judge(readings, scorecard=scorecard(0.5, 1.0, None), summary=Summary(facts_known=1, facts_total=2))
    write_json(path / "verdict.json", verdict.to_json({}) | more)
    write_json(path / "readings.json", {m: {c: r.to_json() for c, r in of.items()} for m, of in readings.items()})
    return path


def page(path: Path, **options: Any) -> str:
    return report.write(path, **options).read_text(encoding="utf-8")


BEFORE = [example("the first is", "Tunis", "Tunis"), example(LONG, "gone", HOSTILE), example("only before", "x", "y")]
AFTER = [example(LONG, "gone", ""), example("the first is", "Tunis", "Paris, of course")]


def test_rows_are_matched_by_their_prompts() -> None:
    found = examples({"before": {"recall": recall("fact", BEFORE)}, "after": {"recall": recall("fact", AFTER)}})
    assert [row.prompt.short[:10] for row in found] == ["Question: ", "the first ", "only befor"]
    assert (found[0].before.short, found[0].after.short) == (HOSTILE, "")
    assert (found[1].answer.short, found[1].before.short, found[1].after.short) == (
        "Tunis",
        "Tunis",
        "Paris, of course",
    )
    assert (found[2].before.short, found[2].after.short) == ("y", "\N{EN DASH}")


def test_long_texts_are_cut_after_a_word_and_stay_whole_in_the_title(tmp_path: Path) -> None:
    short = cut(LONG)
    assert len(short.short) <= MOST + 1
    assert short.short.endswith(" word a…")
    assert LONG.startswith(short.short[:-1])
    assert short.whole == LONG.strip()
    assert cut("x" * 500).short == "x" * MOST + "…"
    html = page(folder(tmp_path, recall("question", BEFORE), recall("question", AFTER)))
    titles = re.findall(r'<span title="([^"]*)">[^<]*…</span>', html)
    assert len(titles) == 1
    assert "&lt;script&gt;" in titles[0]
    assert titles[0].endswith("a word")


def test_a_question_is_read_without_its_frame() -> None:
    assert [question(f.replace("{}", "Who is it?")) for f in (WORKING, SEALED, "{}", "Q: {}")] == [
        "Who is it?", "Who is it?", "Who is it?", "Q: Who is it?",
    ]  # fmt: skip


def test_texts_of_examples_are_escaped(tmp_path: Path) -> None:
    html = page(folder(tmp_path, recall("fact", BEFORE), recall("fact", AFTER)))
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 3  # the prompt, the prompt's title, what the original said
    assert '<span class="none">(nothing)</span>' in html
    assert "Paris, of course" in html


def test_a_redacted_report_has_numbers_in_the_place_of_texts(tmp_path: Path) -> None:
    units = ("capital/Jane Roe", "capital/John Roe")
    path = folder(tmp_path, recall("fact", BEFORE, units), recall("fact", AFTER, units))
    whole, redacted = page(path), page(path, redact=True)
    for text in ("Tunis", "Paris", "alert", "the first is", "only before", "Roe"):
        assert text in whole
        assert text not in redacted
    rows = re.findall(r'<th scope="row">(item \d)</th><td>(.*?)</td><td>(.*?)</td>', redacted)
    assert [(name, before) for name, before, _ in rows] == [("item 1", "0%"), ("item 2", "100%"), ("item 3", "0%")]
    assert [after for *_, after in rows][:2] == ["0%", "0%"]
    assert "unit 2</th>" in redacted


@pytest.mark.parametrize("said", [None, [], [{"answer": "x"}]])
def test_readings_without_examples_have_no_table(tmp_path: Path, said: list[Said] | None) -> None:
    html = page(folder(tmp_path, recall("fact", said), recall("fact", said)))
    assert "In its own words" not in html
    assert "Facts to forget, answered" in html


def test_every_kind_has_its_words(tmp_path: Path) -> None:
    assert set(WORDS) == set(ASKING)
    for kind, words in WORDS.items():
        assert words_of({"recall": recall(kind, None)}) is words
        html = page(folder(tmp_path / kind, recall(kind, None), recall(kind, None)))
        assert f"{words.things.capitalize()} to forget, {words.shown}" in html
        assert f"{words.things.capitalize()} the original knows" in html
        assert ASKING[kind].meaning.format("this share") in html
        assert ("Facts" in html) == (kind == "fact")
    mixed = make_reading(
        "recall", {"forget": {"a/b": 0.5}}, "With sealed prompts, the model shows 50% of what it is asked for."
    )
    assert words_of({"recall": mixed}).things == "items"
    assert words_of({}).things == "facts"
