"""One job of an audit, and how a process does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import verify
from .._util.errors import NotFiniteError, UserError
from .._util.malloc import release
from ..knowledge import Case
from ..model import Edit, EditRecord, Model, bare
from ..verify import Reading
from ..verify.check import Check, Setting
from ..verify.checks import CHECKS, place
from .controls import CONTROLS, Audited, Control
from .cost import MAKING
from .resolve import resolve

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Job:
    """The making of a control edit (`check` is `MAKING`), or a check, or a part of one, on one model.

    `model`: `before`, `after` or a control. `part`: one of the check's parts; empty for a whole check. `setting`: what
    the check is given, but for the original and what is computed from it. `recall`: the share of facts that the audited
    model answers, for the making of a control.
    """

    model: str
    check: str
    part: str = ""
    setting: Setting = field(default=Setting(), compare=False, repr=False)
    recall: float = field(default=0.0, compare=False)

    def __str__(self) -> str:
        return f"{self.check} on {self.model}" + (f", part {self.part}" if self.part else "")


@dataclass(frozen=True)
class Failed:
    """Why a part of a check gave nothing: the model's numbers are not finite."""

    reason: str


@dataclass(frozen=True)
class Desk:
    """All that one process needs for the jobs of an audit.

    `change` gives the audited edit or model (`after`), or a control edit, by name.
    """

    before: Model
    case: Case
    change: Callable[[str], Edit | Model]
    checks: Sequence[Check] = CHECKS
    controls: Sequence[Control] = CONTROLS

    def do(self, job: Job, progress: Progress | None = None) -> Any:
        """A control edit (`None` if the audited edit allows none), a check's reading, or what a part found."""
        release()
        if job.check == MAKING:
            control = next(c for c in self.controls if c.name == job.model)
            audited = Audited(self.before, self.change("after"), self.case, job.recall)
            return control.make(audited, progress or (lambda done, total: None))
        check = self.checks[place(job.check, self.checks)]
        if obstacle := check.obstacle(self.case):
            return verify.refusal(check.name, obstacle)
        try:
            return self._measure(check, job, progress)
        except NotFiniteError as error:
            return Failed(str(error)) if job.part else not_finite(check.name, str(error))

    def _measure(self, check: Check, job: Job, progress: Progress | None) -> Any:
        setting = self._setting(check, job, progress)
        with self._model(job.model, copy="original" in check.needs) as model:
            if not job.part:
                return check.run(model, self.case, setting)
            assert check.parts, "a job for a part belongs to a check that has parts"
            return check.parts(self.case, setting).run(model, job.part)

    def _setting(self, check: Check, job: Job, progress: Progress | None) -> Setting:
        """The setting, with what the check needs from the original, computed before any edit is applied."""
        needs = check.needs if job.model != "before" else frozenset()
        outputs = "neutral_outputs" in needs and job.model == "after"
        return replace(
            job.setting,
            original=self.before if "original" in needs else None,
            neutral_outputs=verify.neutral_outputs(self.before, self.case) if outputs else None,
            progress=progress,
        )

    @contextmanager
    def _model(self, name: str, *, copy: bool) -> Iterator[Model]:
        """The model of that name while the context lasts. With `copy`, an edit leaves the original untouched."""
        if name == "before":
            yield self.before
            return
        change = self.change(name)
        if isinstance(change, Model):
            yield change
            return
        with change.applied(self.before) as edited:
            if not copy:
                yield edited
                return
            edited = bare(edited)
        yield edited


def not_finite(check: str, reason: str) -> Reading:
    """The reading of a check on a model whose numbers are not finite."""
    return verify.refusal(check, reason, not_finite=("what it reads off the model",))


@dataclass(frozen=True)
class ChangeFile:
    """Where another process finds an edit or a model.

    `path`: the edit's file, the model's folder or its hub id; `digest`: of the edit's content, or of the model;
    `record`: the edit's own, since the file of a redacted folder has labels in it.
    """

    path: str
    digest: str
    record: EditRecord | None = None

    def on(self, before: Model) -> Edit | Model:
        """Read it once in each process.

        Raises:
            UserError: no such file here, or one with another content.
        """
        return before.cache.get("change", (self.path, self.digest), lambda: self._read(before))

    def _read(self, before: Model) -> Edit | Model:
        if self.record and not Path(self.path).is_file():
            raise UserError(f"a worker does not see {self.path!r}; name an --out on a disk that all workers share.")
        found = resolve(before, self.path)
        if (digest := found.digest()) != self.digest:
            raise UserError(
                f"a worker finds another content in {self.path!r} ({digest[:12]}, not {self.digest[:12]}); "
                "give all workers the same file."
            )
        return replace(found, record=self.record) if isinstance(found, Edit) and self.record else found


@dataclass(frozen=True)
class AuditTask:
    """A job of an audit for another process; `change` is where it finds the job's edit or model."""

    job: Job
    case: Case
    change: ChangeFile | None

    def run(self, model: Model) -> Any:
        """Do the job, given the original model."""

        def find(name: str) -> Edit | Model:
            assert self.change, f"{self.job} needs {name}"
            return self.change.on(model)

        return Desk(model, self.case, find).do(self.job)
