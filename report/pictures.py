"""A localization's pictures as files: for print, and as pages that show scores on hover."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from .._util.files import inside, write_atomic
from ..locate import Localization

# A page shows what it holds: no script runs, and nothing is fetched.
POLICY = (
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
    "style-src 'unsafe-inline'\">"
)


def pictures(found: Localization, folder: Path, *, figures: bool = True, html: bool = True) -> list[Path]:
    """Write a localization's pictures into a folder.

    Args:
        figures: `localization` and `scatter`, as PNG and SVG.
        html: an offline page for each part's heatmap and scatter plot, which shows each site's scores on hover.

    Raises:
        UserError: the folder is a link that leads elsewhere, or cannot be written to.
    """
    out: list[Path] = []
    if figures:
        for name, figure in (("localization", found.plot()), ("scatter", found.plot(scatter=True))):
            save(folder, name, figure)
            out += [folder / f"{name}.png", folder / f"{name}.svg"]
    for name, page in _pages(found) if html else ():
        write_atomic(inside(folder.parent, f"{folder.name}/{name}.html"), page)
        out.append(folder / f"{name}.html")
    return out


def save(folder: Path, name: str, figure: Figure) -> bytes:
    """Write both files of a figure and return the SVG. Without dates and random ids, equal runs give equal files."""
    png, svg = BytesIO(), BytesIO()
    figure.savefig(png, format="png", dpi=160, metadata={"Software": None})
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(svg, format="svg", dpi=160, metadata={"Date": None})
    for suffix, data in (("png", png.getvalue()), ("svg", svg.getvalue())):
        write_atomic(inside(folder.parent, f"{folder.name}/{name}.{suffix}"), data)
    return svg.getvalue()


def _pages(found: Localization) -> Iterator[tuple[str, str]]:
    about = f"{found.record.case} in {found.record.model}"
    for part in found.parts:
        for name, scatter in ((part, False), (f"{part}_scatter", True)):
            head = f'<!doctype html><html lang="en"><meta charset="utf-8">{POLICY}'
            title = f"<title>{escape(f'{part}: {about}')}</title>"
            yield name, f'{head}{title}<body style="margin:16px">{found.html(part, scatter=scatter)}</body></html>'
