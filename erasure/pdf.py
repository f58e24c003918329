"""A document as PDF, laid out from the same HTML as the page; no network and no programs of the system are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

from .extra import extra

if TYPE_CHECKING:
    from fpdf import FPDF

FONT = "DejaVu"
FILES = {"": "DejaVuSans.ttf", "B": "DejaVuSans-Bold.ttf"}
# size in points, bold, space above and below in millimetres
STYLES = {
    "h1": (16, True, 4, 3),
    "h2": (12, True, 5, 1.5),
    "p": (9.5, False, 0.5, 1.5),
    "li": (9.5, False, 0, 1),
    "caption": (8.5, False, 2, 1),
    "footer": (7.5, False, 0, 0),
}
LINE = 1.45  # line height, in sizes of the font
INDENT = 5  # millimetres
UNBROKEN = 40  # millimetres; a lower paragraph stays on one page
TEXT, SOFT, RULE, PANEL = (28, 33, 39), (89, 98, 109), (205, 210, 216), (245, 246, 248)
WIDEST, PADDING = 46, 5  # characters of a cell that count for the width of its column, and what is added
HIDDEN = ("head", "style", "script")


@dataclass
class Cell:
    """A cell of a table; `head` for one that names its row or column."""

    head: bool
    text: str = ""


@dataclass
class Block:
    """A paragraph, heading or list item with its text, or a table with its rows of cells."""

    tag: str
    text: str = ""
    rows: list[list[Cell]] = field(default_factory=list)
    header: bool = False


class _Blocks(HTMLParser):
    """The blocks of a page, in their order; tags within a line are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[Block] = []
        self.table: Block | None = None
        self.open: Block | None = None
        self.hidden = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.hidden += tag in HIDDEN
        if tag == "table":
            self.table = Block("table")
            self.blocks.append(self.table)
        elif tag == "thead" and self.table:
            self.table.header = True
        elif tag == "tr" and self.table:
            self.table.rows.append([])
        elif tag in ("th", "td") and self.table and self.table.rows:
            self.table.rows[-1].append(Cell(tag == "th"))
        elif tag in STYLES:
            self.open = Block(tag)
            self.blocks.insert(len(self.blocks) - (tag == "caption"), self.open)

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag in HIDDEN
        if tag == "table":
            self.table = None
        if self.open and tag == self.open.tag:
            self.open = None

    def handle_data(self, data: str) -> None:
        if self.hidden:
            return
        if self.open:
            self.open.text += data
        elif self.table and self.table.rows and self.table.rows[-1]:
            self.table.rows[-1][-1].text += data
        elif data.strip():  # text of a tag that has no style
            self.blocks.append(Block("p", data))


def write_pdf(html: str, *, title: str, footer: str, on: date) -> bytes:
    """The PDF of a page's body. The same input gives the same bytes.

    Raises:
        UserError: the extra `erasure` is not installed.
        ValueError: a table has more columns than a page is wide.
    """
    with extra():
        from fpdf.errors import FPDFException
    parser = _Blocks()
    parser.feed(html)
    parser.close()
    pdf = _paper(title, footer, on)
    try:
        for block in parser.blocks:
            if block.tag == "table":
                _table(pdf, block)
            elif text := " ".join(block.text.split()):
                _paragraph(pdf, block.tag, text)
        return bytes(pdf.output())
    except FPDFException as error:
        raise ValueError(f"no PDF can be made of it ({error})") from error


def _paper(title: str, footer: str, on: date) -> FPDF:
    with extra():
        from fpdf import FPDF
    import matplotlib

    class Paper(FPDF):
        def footer(self) -> None:
            _style(self, "footer", SOFT)
            self.set_y(-14)
            self.multi_cell(0, 4, footer, new_x="LMARGIN", new_y="NEXT")
            self.cell(0, 4, f"Page {self.page_no()} of {{nb}}", align="R")

    pdf = Paper(format="A4")
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for style, name in FILES.items():
        pdf.add_font(FONT, style, fonts / name)
    pdf.set_margins(22, 20, 22)
    pdf.set_auto_page_break(True, 22)
    pdf.set_title(title)
    pdf.set_lang("en")
    pdf.set_creation_date(datetime.combine(on, time(), UTC))
    pdf.add_page()
    return pdf


def _style(pdf: FPDF, tag: str, colour: tuple[int, int, int] = TEXT) -> float:
    """Set the font; returns the height of a line in millimetres."""
    size, bold, _, _ = STYLES[tag]
    pdf.set_font(FONT, "B" if bold else "", size)
    pdf.set_text_color(*colour)
    return size * LINE / pdf.k


def _paragraph(pdf: FPDF, tag: str, text: str) -> None:
    _, _, above, below = STYLES[tag]
    height = _style(pdf, tag, SOFT if tag == "caption" else TEXT)
    if tag in ("h1", "h2", "caption") and pdf.will_page_break(4 * height + above):  # not alone at the end of a page
        pdf.add_page()
    pdf.ln(above)
    if tag in ("h1", "h2"):
        pdf.start_section(text, level=int(tag[1]) - 1, strict=False)
    width = pdf.epw - (INDENT if tag == "li" else 0)
    lines = pdf.multi_cell(width, height, text, align="L", dry_run=True, output="LINES")
    whole = height * len(lines)  # type: ignore[arg-type]
    if whole < UNBROKEN and pdf.will_page_break(whole):
        pdf.add_page()
    if tag == "li":
        pdf.cell(INDENT, height, "•")
    pdf.multi_cell(width, height, text, align="L", new_x="LMARGIN", new_y="NEXT")
    pdf.ln(below)


def _table(pdf: FPDF, block: Block) -> None:
    rows = [[Cell(cell.head, " ".join(cell.text.split())) for cell in row] for row in block.rows if row]
    if not rows:
        return
    with extra():
        from fpdf.fonts import FontFace
    height = _style(pdf, "p") * 0.95
    pdf.set_font_size(8.5)
    pdf.set_draw_color(*RULE)
    with pdf.table(
        borders_layout="HORIZONTAL_LINES",
        col_widths=_widths(rows),
        first_row_as_headings=block.header,
        headings_style=FontFace(emphasis="BOLD", color=SOFT, fill_color=PANEL),
        line_height=height,
        padding=(0.8, 1.5),
        text_align="LEFT",
        v_align="TOP",
        width=pdf.epw,
    ) as table:
        for cells in rows:
            row = table.row()
            for cell in cells:
                row.cell(cell.text, style=FontFace(emphasis="BOLD" if cell.head else None))
    pdf.ln(2)


def _widths(rows: Sequence[Sequence[Cell]]) -> list[int]:
    """The columns' shares of the width, by their longest cells."""
    columns = range(max(map(len, rows)))
    longest = [max(len(row[i].text) for row in rows if i < len(row)) for i in columns]
    return [min(each + PADDING, WIDEST) for each in longest]
