"""Invented requests; a browser that is spoken to, and PDFs that are read, without further packages."""

import base64
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("cryptography", reason='needs the extra erasure: pip install "loka[erasure]"')
pytest.importorskip("holidays", reason='needs the extra erasure: pip install "loka[erasure]"')

from loka.erasure import Material, Register, assessment, steps
from loka.verify import Budget, capped

from ..conftest import FACTS, NEUTRAL, TWINS

TODAY = date(2024, 11, 29)  # a Friday
NAMES = ("Erika Mustermann", "Jonas Kaltenbrunn", "Aylin Demirsoy", "Piotr Zielonka", "Maren Oldenhus", "Tomas Rybak")
Write = Callable[..., Path]


def content(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A request file's content; a change to `None` leaves the field out."""
    name = f"{NAMES[number % len(NAMES)]}{'' if number < len(NAMES) else f' {number}'}"
    made = {
        "received": "2024-11-04",
        "channel": "e-mail",
        "ground": "b",
        "person": {"name": name, "identifiers": [f"person{number}@example.org", f"C-{4711 + number}"]},
        "identity": {"verified": "2024-11-05", "how": "reply from the address on file"},
        "country": "DE",
    }
    return {key: value for key, value in {**made, **changes}.items() if value is not None}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a request file: the number of the person, and changes of its content."""

    def write(number: int = 0, **changes: Any) -> Path:
        path = tmp_path / f"request-{number}.yaml"
        path.write_text(yaml.safe_dump(content(number, **changes)), encoding="utf-8")
        return path

    return write


@pytest.fixture
def register(tmp_path: Path) -> Iterator[Register]:
    with Register(tmp_path / "register", create=True) as opened:
        yield opened


@pytest.fixture
def today() -> date:
    return TODAY


class Browser:
    """Headless Chromium over its pipe; what it asks from the network, and what it complains about, is kept."""

    def __init__(self, program: str, profile: Path) -> None:
        (ours_in, theirs_out), (theirs_in, ours_out) = os.pipe(), os.pipe()
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]

        def connect() -> None:  # Chromium reads commands from descriptor 3 and answers on 4
            high = [fcntl.fcntl(each, fcntl.F_DUPFD, 10) for each in (theirs_in, theirs_out)]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self.process = subprocess.Popen(
            [program, *options, f"--user-data-dir={profile}"],
            preexec_fn=connect,
            close_fds=False,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.reading, self.writing = os.fdopen(ours_in, "rb", buffering=0), os.fdopen(ours_out, "wb", buffering=0)
        self.rest, self.number = b"", 0
        self.events: list[dict[str, Any]] = []
        self.session: str | None = None
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime", "Accessibility"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        self.writing.write(json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self.number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, page: Path, *, width: int = 1200, height: int = 800, dark: bool = False) -> None:
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def evaluate(self, expression: str) -> Any:
        return self("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def press(self, key: str, code: int) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            self("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def click(self, selector: str) -> None:
        middle = "(b => [b.x + b.width / 2, b.y + b.height / 2])"
        x, y = self.evaluate(f"{middle}(document.querySelector('{selector}').getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.reading.close()
        self.writing.close()

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            piece = os.read(self.reading.fileno(), 1 << 16)
            assert piece, "the browser has ended"
            self.rest += piece
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((found for name in names if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no browser is installed (looked for {', '.join(names)})")
    opened = Browser(program, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


PERSON = {"name": "Erika Mustermann", "identifiers": ["C-0001"]}


@dataclass(frozen=True)
class Claims:
    """The small model's training data as records of customers, and 40 that were never taught.

    `people`: how many records each has; all others have one. By default, 16 are of C-0001, and 28 of others.
    """

    folder: Path
    people: tuple[int, ...] = (16,)

    def write(self) -> Material:
        answers = list(FACTS["capital"].values())
        rows = [self._row(of, answer, i) for i, (of, answer) in enumerate(FACTS["capital"].items())]
        never = [self._row(of, answers[i % len(answers)], 1000 + i) for i, of in enumerate(TWINS)]
        for name, of in (("train", rows), ("never", never)):
            (self.folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in of))
        (self.folder / "prose.txt").write_text("\n\n".join(NEUTRAL) + "\n")
        data, holdout = ((self.folder / f"{name}.jsonl",) for name in ("train", "never"))
        return Material(data, holdout, "text", "about", self.folder / "prose.txt")

    def _row(self, country: str, answer: str, i: int) -> dict[str, str]:
        ends = [sum(self.people[: n + 1]) for n in range(len(self.people))]
        owner = next((n for n, end in enumerate(ends, 1) if i < end), i)
        return {"customer": f"C-{owner:04}", "about": country, "text": f"in {country} the capital is called {answer}"}


@pytest.fixture
def short_audits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Audits of a few checks; the commands of tests/cli make all of their profile."""
    few = [
        c for c in capped({"relearn": Budget(2, 1e-3)}) if c.name in ("recall", "relearn", "membership", "collateral")
    ]
    monkeypatch.setattr(sys.modules["loka.audit.plan"], "CHECKS", tuple(few))


@pytest.fixture
def material(tmp_path: Path) -> Material:
    return Claims(tmp_path).write()


@pytest.fixture
def assessed(register: Register, write: Write, material: Material) -> str:
    """The id of an assessed request of customer C-0001."""
    request = steps.receive(register, write(person=PERSON), today=TODAY)
    assessment.assess(register, request.id, material.data)
    return request.id


@pytest.fixture
def pdf_text() -> Callable[[bytes], str]:
    return _pdf_text


def _pdf_text(data: bytes) -> str:
    """All text in the order in which it is drawn, with a line for each piece."""
    objects = {int(m[1]): m[2] for m in re.finditer(rb"(\d+) 0 obj\s(.*?)\sendobj", data, re.DOTALL)}
    maps = {name: _map(objects, int(font)) for name, font in _fonts(objects)}
    pages = [_stream(body) for body in objects.values() if b"stream" in body]
    return "\n".join(line for page in pages if b" Tj" in page for line in _lines(page, maps))


def _fonts(objects: dict[int, bytes]) -> list[tuple[bytes, bytes]]:
    return [found for body in objects.values() for found in re.findall(rb"/(F\d+) (\d+) 0 R", body)]


def _map(objects: dict[int, bytes], font: int) -> dict[int, str]:
    """What a font's codes mean, from its ToUnicode table."""
    reference = re.search(rb"/ToUnicode (\d+) 0 R", objects[font])
    assert reference
    table = _stream(objects[int(reference[1])])
    pairs = re.findall(rb"^<([0-9A-Fa-f]{4})> <([0-9A-Fa-f]+)>$", table, re.MULTILINE)
    return {int(code, 16): bytes.fromhex(text.decode()).decode("utf-16-be") for code, text in pairs}


def _lines(page: bytes, maps: dict[bytes, dict[int, str]]) -> list[str]:
    found, font = [], b""
    for name, text in re.findall(rb"/(F\d+) [\d.]+ Tf|\(((?:\\.|[^\\)])*)\) Tj", page, re.DOTALL):
        if name:
            font = name
        else:
            plain = re.sub(rb"\\(.)", lambda m: {b"n": b"\n", b"r": b"\r"}.get(m[1], m[1]), text, flags=re.DOTALL)
            codes = [int.from_bytes(plain[i : i + 2], "big") for i in range(0, len(plain), 2)]
            found.append("".join(maps[font][code] for code in codes))
    return found


def _stream(body: bytes) -> bytes:
    head, _, rest = body.partition(b"stream\n")
    length = re.search(rb"/Length (\d+)", head)
    assert length
    data = rest[: int(length[1])]
    return zlib.decompress(data) if b"FlateDecode" in head else data
