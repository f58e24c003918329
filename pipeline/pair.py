"""An audit of two models in a folder: readings, control edits, verdict and report. It can be killed and resumed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from .. import report
from .._util.errors import UserError
from .._util.files import check_writable, write_json
from .._util.ledger import finishing
from .._util.lock import locked
from .._util.provenance import read_provenance, recorded
from ..audit.auditor import Progress, audit, resolve
from ..audit.profiles import Profile
from ..audit.store import FolderStore
from ..knowledge import Case, redactor_of
from ..model import Edit, Model
from ..verify import Verdict


def audit_pair(
    before: Model,
    after: Edit | Model,
    case: Case,
    *,
    out: Path,
    profile: Profile = "quick",
    flags: Sequence[str] = (),
    command: str = "",
    progress: Progress | None = None,
) -> Verdict:
    """Audit a changed model against the one before, in a redacted folder. Readings that are there are not made again.

    Args:
        case: the part of a case that `before` knows.
        out: a new folder, that of an earlier call, or the run folder of the edit.
        flags: what the verdict shall say besides.

    Raises:
        UserError: the folder holds the audit of other models or of another case, or a file that was changed; and as
            `loka.audit`.
    """
    check_writable(out)
    after = resolve(before, after)
    redactor = redactor_of(out, case, True)
    assert redactor
    digests = {"case": redactor.token(case.spec.digest), "model": before.digest()}
    _check_same(out, digests)
    with locked(out):
        store = FolderStore(out, before, after, redactor.case, redactor)
        with recorded(
            out, command=redactor.hide(command), arguments={"redacted": True, "profile": profile}, seed=case.seed,
            digests={**digests, "after": after.digest()},
        ) as durations:  # fmt: skip
            try:
                found = audit(before, after, redactor.case, profile=profile, store=store, progress=progress)
            finally:
                durations |= store.seconds
            verdict = dataclasses.replace(found, flags=[*found.flags, *flags])
            with finishing(out, "verdict.json") as path:
                write_json(path, redactor.hide_verdict(verdict.to_json({**digests, "after": after.digest()})))
        report.write(out)
    return verdict


def _check_same(out: Path, digests: Mapping[str, str]) -> None:
    """Refuse the folder of another case or model; use the threads that its numbers were made with."""
    stored = read_provenance(out)
    if stored is None:
        return
    for what, value in digests.items():
        if stored.digests.get(what, value) != value:
            raise UserError(
                f"{str(out)!r} is a run of another {what} ({stored.digests[what][:12]}, not {value[:12]}); name "
                f"another --out, or give the same {what}."
            )
    torch.set_num_threads(stored.threads)
