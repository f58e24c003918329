"""Read a case file from YAML. Every error names its line and field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from .._util.errors import UserError
from .._util.yaml_text import compose
from .read_text import read_text
from .schema import CaseFile, Inconsistent

MOST_BYTES = 2**24


def read(path: Path) -> CaseFile:
    """A validated case file.

    Raises:
        UserError: no such file, too large, not YAML, or not a case. The message lists all errors, each with line and
            field.
    """
    what = f"the case file {str(path)!r}"
    if path.stat().st_size > MOST_BYTES:
        raise UserError(f"{what} has more than {MOST_BYTES:,} bytes; put its facts into a data file, as a set.")
    node = compose(read_text(path), what)
    if not isinstance(node, yaml.MappingNode):
        raise UserError(f"{what} holds no mapping; it needs name, purpose, relations, forget ...")
    lines: dict[tuple[str | int, ...], int] = {}
    repeats: list[str] = []
    data = _plain(node, (), lines, repeats)
    try:
        spec, problems = CaseFile.model_validate(data), repeats
    except ValidationError as error:
        spec, problems = None, repeats + [line for e in error.errors() for line in _described(e, lines)]
    if spec is None or problems:
        listed = "\n".join(f"  - {p}" for p in dict.fromkeys(problems))
        raise UserError(f"{what} has {len(dict.fromkeys(problems))} error(s):\n{listed}")
    return spec


def _plain(node: yaml.Node, at: tuple[str | int, ...], lines: dict[tuple[str | int, ...], int], repeats: list[str]):
    """A node as nested dicts, lists and strings. Scalars stay text, so that the element `No` is not `False`."""
    lines[at] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        out = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                repeats.append(f"line {key.start_mark.line + 1}, {_dotted(at) or 'the file'}: a name must be text")
                continue
            here = (*at, key.value)
            if key.value in out:
                repeats.append(f"line {key.start_mark.line + 1}, {_dotted(here)}: given twice")
            out[key.value] = _plain(value, here, lines, repeats)
        return out
    if isinstance(node, yaml.SequenceNode):
        return [_plain(value, (*at, i), lines, repeats) for i, value in enumerate(node.value)]
    return node.value


def _described(error: Any, lines: dict[tuple[str | int, ...], int]) -> list[str]:
    """An error as lines that name its line and field; parts that do not fit together are several."""
    inner = error.get("ctx", {}).get("error")
    if isinstance(inner, Inconsistent):
        return [_line(at, message, lines) for at, message in inner.problems]
    missing = error["type"] == "missing"
    return [_line(error["loc"], error["msg"].removeprefix("Value error, "), lines, missing=missing)]


def _line(
    loc: tuple[str | int, ...], message: str, lines: dict[tuple[str | int, ...], int], *, missing: bool = False
) -> str:
    at = loc
    while at not in lines:
        at = at[:-1]
    return f"line {lines[at]}, {_dotted(loc if missing else at) or 'the file'}: {message}"


def _dotted(at: tuple[str | int, ...]) -> str:
    return ".".join(map(str, at))
