"""The register page, as text and in a real browser, with the keyboard and for a screen reader."""

import base64
import hashlib
import re
from datetime import date, timedelta
from pathlib import Path

import pytest

from loka.erasure import Request, write_page
from loka.erasure.page import page
from loka.erasure.record import Decision, Extension, Identity

TODAY = date(2024, 11, 29)
LEFT = {"ER-2024-0001": 20, "ER-2024-0002": -3, "ER-2024-0003": 0, "ER-2024-0004": 5}
ID = "ER-2024-0005"  # of the closed request
STATUSES = ("executed", "received", "chosen", "assessed")


def requests() -> list[Request]:
    """Four open requests, the later received the earlier, and a closed one."""
    made = []
    for number, (id, left) in enumerate(LEFT.items()):
        received = TODAY - timedelta(days=10 + number)
        due = TODAY + timedelta(days=left)
        request = Request(id, f"P-{number}", received, "e-mail", "b", due, due, status=STATUSES[number], notes="a note")
        made.append(request)
    closing = Decision(TODAY, "<b>answered</b>")
    closed = Request(ID, "P-5", TODAY, "letter", "a", TODAY, TODAY, status="closed", closing=closing)
    return [*made, closed]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(requests(), tmp_path_factory.mktemp("page") / "register.html", today=TODAY)


def shown(browser) -> list[str]:
    """The ids of the rows that can be seen, in their order."""
    rows = "[...document.querySelectorAll('section:first-of-type tbody tr')].filter(row => row.checkVisibility())"
    return browser.evaluate(f"{rows}.map(row => row.querySelector('th').firstChild.textContent)")


def test_the_text_of_the_page() -> None:
    text = page(requests(), TODAY)
    assert "4 requests are open: 1 overdue, 2 due within a week." in text
    assert text.count("3 days overdue") == text.count("due today") == text.count("20 days left") == 8
    style = re.search(r"<style>(.*)</style>", text, re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in text
    assert not re.search(r"<script|<link|style=|\bon\w+=|https?:|answered|a note", text)
    assert "No request is open." in page([], TODAY)


def test_what_stands_beside_a_request() -> None:
    first = requests()[0]
    extension, identity = Extension(2, TODAY, "many"), Identity(TODAY, "by letter")
    plain, extended = (page([each], TODAY) for each in (first, Request(**{**vars(first), "extension": extension})))
    assert "extended by" not in plain
    assert "extended by 2 months" in extended
    assert "the identity is not verified" in plain
    assert "the identity is not verified" not in page([Request(**{**vars(first), "identity": identity})], TODAY)


def test_it_opens_without_network_scripts_or_complaints(browser, file: Path) -> None:
    browser.open(file)
    asked = [e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    assert asked == [file.as_uri()]
    assert [e for e in browser.events if e["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")] == []
    wide = "document.documentElement.scrollWidth <= innerWidth"
    assert browser.evaluate(wide)
    browser.open(file, width=390)
    assert browser.evaluate(wide)


def test_it_sorts_by_mouse(browser, file: Path) -> None:
    browser.open(file)
    by_days = sorted(LEFT, key=lambda id: LEFT[id])
    assert shown(browser) == by_days
    browser.click("#descending")
    assert shown(browser) == by_days[::-1]
    browser.click("#ascending")
    browser.click("#by-received")
    assert shown(browser) == list(LEFT)[::-1]
    browser.click(".received-ascending label[for=by-request]")  # the head of a column sorts, too
    assert shown(browser) == list(LEFT)
    browser.click("#by-status")
    assert shown(browser) == ["ER-2024-0002", "ER-2024-0004", "ER-2024-0003", "ER-2024-0001"]
    marked = "[...document.querySelectorAll('[aria-sort]')].filter(e => e.checkVisibility())"
    said = browser.evaluate(f"{marked}.map(e => e.textContent.trim() + ' ' + e.getAttribute('aria-sort'))")
    assert said == ["Status ▲ ascending"]


def test_it_sorts_by_keyboard(browser, file: Path) -> None:
    browser.open(file)
    browser.press("Tab", 9)
    assert browser.evaluate("document.activeElement.id") == "by-days"
    assert browser.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.press("ArrowDown", 40)
    assert browser.evaluate("document.activeElement.id") == "by-request"
    assert shown(browser) == list(LEFT)
    browser.press("Tab", 9)
    browser.press("ArrowDown", 40)
    assert shown(browser) == list(LEFT)[::-1]
    browser.press("Tab", 9)  # a table that is wider than the window can be scrolled by keys
    assert browser.evaluate("document.activeElement.getAttribute('aria-label')") == "Open requests by request"


def test_what_a_screen_reader_finds(browser, file: Path) -> None:
    browser.open(file)
    nodes = browser("Accessibility.getFullAXTree")["nodes"]
    found = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n["ignored"]]
    names = {role: [name for each, name in found if each == role] for role, _ in found}
    assert names["radio"] == ["Days left", "Request", "Received", "Status", "ascending", "descending"]
    assert names["group"] == ["Sort by", "Direction"]
    assert names["table"] == ["Open requests by days left, ascending", "Ended requests, the latest first"]
    assert names["heading"] == ["Erasure requests", "Open requests", "Ended requests"]
    by_days = sorted(LEFT, key=lambda id: LEFT[id])
    assert [name[: len(ID)] for name in names["rowheader"]] == [*by_days, ID]


@pytest.mark.parametrize("dark", [False, True])
def test_days_left_differ_by_colour_and_can_be_read(browser, file: Path, dark: bool) -> None:
    browser.open(file, dark=dark)
    contrasts = []
    for level in ("overdue", "soon", "fine"):
        style = f"getComputedStyle(document.querySelector('.{level}'))"
        text, back = (browser.evaluate(f"{style}.{name}") for name in ("color", "backgroundColor"))
        contrasts.append((text, back, contrast(text, back)))
    assert len({back for _, back, _ in contrasts}) == 3
    assert min(ratio for *_, ratio in contrasts) >= 4.5, contrasts


def contrast(first: str, second: str) -> float:
    """The contrast of two colours as WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted(map(luminance, (first, second)))
    return (high + 0.05) / (low + 0.05)
