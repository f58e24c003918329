"""The documentation names every public name, beside a link to the file that defines it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = (".", "model", "knowledge", "locate", "ablate", "verify", "audit", "pipeline", "erasure")
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def defined_in(package: Path, name: str) -> Path:
    """The file or folder in which a name that a package's `__init__.py` imports is defined."""
    tree = ast.parse((package / "__init__.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):  # some stand under `if TYPE_CHECKING:`
        if not isinstance(node, ast.ImportFrom) or name not in (a.asname or a.name for a in node.names):
            continue
        source = package.joinpath(*(node.module or "").split("."))
        inner = next(a.name for a in node.names if name == (a.asname or a.name))
        if (source / f"{inner}.py").exists():
            return source / f"{inner}.py"
        if (source / inner / "__init__.py").exists():
            return source / inner
        return source.with_suffix(".py") if source.with_suffix(".py").exists() else defined_in(source, inner)
    return package / "__init__.py"


def public() -> Iterator[tuple[str, str]]:
    """Every package of the table above, and each name of its `__all__`."""
    for package in PACKAGES:
        tree = ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))
        listed = next(
            n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"
        )
        yield from ((package, name) for name in ast.literal_eval(listed))


def blocks() -> Iterator[tuple[Path, str]]:
    """Each paragraph and each row of a table, with its page."""
    for page in (ROOT / "docs").glob("*.md"):
        for paragraph in FENCE.sub("", page.read_text(encoding="utf-8")).split("\n\n"):
            rows = paragraph.split("\n") if paragraph.startswith("|") else re.split(r"\n(?=- |\d+\. )", paragraph)
            yield from ((page, row) for row in rows)


NAMED = {
    (name, (page.parent / link).resolve())
    for page, block in blocks()
    for name in re.findall(r"`(?:loka\.)?(?:\w+\.)?(\w+)(?:\([^`]*\))?`", block)
    for link in LINK.findall(block)
    if "://" not in link
}


@pytest.mark.parametrize(("package", "name"), list(public()))
def test_every_public_name_is_documented(package: str, name: str) -> None:
    file = defined_in(ROOT / package, name).resolve()
    assert (name, file) in NAMED, f"name `{name}` in docs/, beside a link to {file.relative_to(ROOT)}"


def test_the_check_can_fail() -> None:
    assert ("attribution", ROOT / "locate" / "attribution.py") in NAMED
    assert ("attribution", ROOT / "locate" / "taylor.py") not in NAMED
    assert defined_in(ROOT, "merge") == ROOT / "model" / "edit" / "merge.py"
