"""WMDP and MMLU: Li et al. 2024, arXiv:2403.03218; Hendrycks et al. 2021, arXiv:2009.03300."""

from __future__ import annotations

from pathlib import Path

from ..._util.errors import UserError
from ..item import Choice
from ..rows import field, rows


def wmdp(source: str | Path, **hub: str) -> list[Choice]:
    """Multiple choice: `question`, `choices`, and in `answer` the index of the right one, from 0, or its letter.

    Raises:
        UserError: as `rows`, or an answer that is not a place among the choices.
    """
    out = []
    for i, row in enumerate(rows(source, **hub)):
        options = tuple(str(o) for o in field(source, i, row, "choices", "options"))
        given = field(source, i, row, "answer")
        right = ord(given.strip().upper()) - ord("A") if isinstance(given, str) and len(given.strip()) == 1 else given
        if isinstance(right, str) or not 0 <= int(right) < len(options):
            raise UserError(
                f"row {i + 1} of {str(source)!r} has the answer {given!r}; "
                f"it must be 0 to {len(options) - 1}, or a letter."
            )
        out.append(Choice(str(field(source, i, row, "question")), options, int(right)))
    return out
