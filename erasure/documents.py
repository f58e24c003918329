"""The documents of a request: each as HTML, PDF and JSON, from one data model, by templates that can be replaced."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import ChoiceLoader, FileSystemLoader, StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup, escape

from .._util.errors import UserError
from .._util.files import check_writable, digest, private_folder, write_atomic
from .case_file import CaseFile
from .pdf import write_pdf
from .register import Register
from .risk import not_tried, residual_risk

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Document:
    """A kind of document: the name of its template and files, its title, and for which cases it is written."""

    name: str
    title: str
    applies: Callable[[CaseFile], bool] = lambda case: True


def _granted(case: CaseFile) -> bool:
    return not case.request.refusal


DOCUMENTS = (
    Document("report", "Report for the file"),
    Document("reply_done", "Reply to the person", lambda c: c.done),
    Document(
        "reply_extended", "Reply to the person: extension",
        lambda c: c.request.extension is not None and c.request.state.open and not c.done,
    ),
    Document("reply_refused", "Reply to the person: refusal", lambda c: c.request.refusal is not None),
    Document("recipients", "Notice to recipients", _granted),
    Document("dpia", "Paragraph for the impact assessment"),
    Document("residual_risk", "Residual risk", _granted),
    Document("not_tried", "What was not tried", _granted),
)  # fmt: skip

# What was done, as it is told to the person.
TO_THE_PERSON = {
    "exclude": "We did not change the model itself. Your data are kept out of its next training, and until then a "
    "filter holds back what it may say of you.",
    "located": "We found the parts of the model that hold your data, and changed them so that it no longer gives them.",
    "ascent": "We trained the model to unlearn your data.",
    "retrain": "We trained the model again, without your data.",
    "sisa": "We trained those parts of the model again that had learned from your data, this time without them.",
}


def write_documents(
    register: Register, case: CaseFile, out: Path, *, templates: Path | None = None, sources: Mapping[str, Path] = {}
) -> list[Path]:
    """Write every document that applies to a case as HTML, PDF and JSON, and log that with their digests.

    Nothing is written if one of them cannot be rendered. The folder can be read by its owner alone, if it is made.

    Args:
        out: the folder. Documents that are there are replaced.
        templates: a folder with files that take the place of those in `erasure/templates`.
        sources: files that the case was read from, by what they are; their digests are logged.

    Raises:
        UserError: a place that cannot be written, a template that is unknown or faulty, or the extra is not installed.
        LokaError: the disk is full.
    """
    files = {
        name: data
        for document in DOCUMENTS
        if document.applies(case)
        for name, data in render(document, case, templates).items()
    }
    check_writable(out)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    with register.change() as change:
        private_folder(out)
        for name, data in files.items():
            write_atomic(out / name, data)
        read = {what: digest(path) for what, path in sources.items()}
        change.log("documented", {"files": dict(digests), "from": dict(read)}, case.request.id)
    return [out / name for name in files]


def render(document: Document, case: CaseFile, templates: Path | None = None) -> dict[str, bytes]:
    """One document by the names of its files: HTML, PDF and JSON. Raises as `write_documents`."""
    environment = _environment(templates)
    title = f"{document.title}: {case.request.id}"
    values = {
        "case": case, "document": document, "next": case.request.state.next, "texts": TO_THE_PERSON,
        "residual_risk": residual_risk(case), "not_tried": not_tried(case),
    }  # fmt: skip
    try:
        body = environment.get_template(f"{document.name}.html").render(values)
        style = environment.get_template("style.css").render(values)
        hashed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        page = environment.get_template("layout.html").render(
            values, body=Markup(body), style=Markup(style), style_hash=hashed
        )
        who = f"{case.request.pseudonym} · {case.written}"
        footer = f"{title} · {who}. A draft for the data-protection officer; no legal advice."
        paper = write_pdf(body, title=title, footer=footer, on=case.written)
    except (TemplateError, UnicodeDecodeError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        if templates is None:
            raise
        where = getattr(error, "name", None) or document.name
        raise UserError(f"the template of {where!r} in {str(templates)!r} is faulty: {error}; correct it.") from error
    data = {
        "document": document.name, "title": document.title, "residual_risk": values["residual_risk"],
        "not_tried": values["not_tried"], "case": case.to_json(),
    }  # fmt: skip
    return {
        f"{document.name}.html": page.encode(),
        f"{document.name}.pdf": paper,
        f"{document.name}.json": (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode(),
    }


def _environment(templates: Path | None) -> ImmutableSandboxedEnvironment:
    if templates is not None:
        known = sorted(path.name for path in TEMPLATES.iterdir())
        if not templates.is_dir():
            raise UserError(f"there is no folder {str(templates)!r}; name one with any of {', '.join(known)}.")
        if unknown := sorted(
            path.name for path in templates.iterdir() if path.name not in known and path.name[0] != "."
        ):
            raise UserError(
                f"{unknown[0]!r} in {str(templates)!r} is not a template; rename it to one of {', '.join(known)}, or "
                "remove it."
            )
    folders = [folder for folder in (templates, TEMPLATES) if folder]
    made = ImmutableSandboxedEnvironment(
        loader=ChoiceLoader([FileSystemLoader(folder) for folder in folders]),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters["placeholders"] = _placeholders
    return made


def _placeholders(text: str) -> Markup:
    """The text with what is left to fill in, in square brackets, marked."""
    return Markup(re.sub(r"(\[[^\]]*\])", r"<mark>\1</mark>", str(escape(text))))
