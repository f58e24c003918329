"""The pipeline of locate, ablate, verify and report on a run folder. It can be killed and resumed at any moment."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch

from .. import locate, report
from .._util.errors import UserError
from .._util.files import check_writable, digest, private_folder, read_json, write_json, write_yaml
from .._util.ledger import check_files, finishing, list_case
from .._util.lock import hold
from .._util.provenance import NAME as PROVENANCE
from .._util.provenance import Provenance, read_provenance
from .._util.records import read_record
from ..ablate.methods import perform
from ..audit.auditor import Progress, audit
from ..audit.cost import trains_weights
from ..audit.outlook import outlook
from ..audit.profiles import Profile, effort
from ..audit.store import FolderStore
from ..knowledge import Case, CaseSpec, redactor_of, resolved
from ..knowledge import case as read_case
from ..locate import Localization
from ..model import Edit, Model, Part, Runner, Site, in_turn, load
from ..model.precision import dtype_of
from ..verify import Verdict
from .knockout import groups_of, knockout
from .recipe import Recipe, default_recipe
from .selectivity import Overlap, Selectivity
from .tasks import HERE, Workers

LOCATOR = "integrated_gradients"
CELLS = "sweep.safetensors"  # the finished cells of an exact sweep that was stopped
PATCHED = 12  # how many of each part's best sites are compared with the exact effects
TEMPLATES = 2  # ways to ask for an item that are compared
KNOCKED_OUT: dict[Part, int] = {"neuron": 50, "head": 5, "kv": 5}


@dataclasses.dataclass(frozen=True)
class Located:
    """How a localization was made: the locator, and the single part that it scored, or `None` for its default parts."""

    method: str = LOCATOR
    part: Part | None = None

    def __str__(self) -> str:
        return f"{self.method} of {self.part}s" if self.part else self.method


def run(
    model: Model | str,
    case: Case | CaseSpec | str,
    *,
    out: str | Path,
    profile: Profile = "quick",
    recipe: Recipe | None = None,
    progress: Progress | None = None,
    command: str | None = None,
    redact: bool = False,
    workers: Workers = HERE,
) -> Verdict:
    """Locate, ablate, verify and report into a folder. A second call on the same folder resumes.

    Before the first stage, warnings say what the case is too small to show (`Run.limits`).

    Args:
        redact: write items by number and keyed digest into every file (`loka.knowledge.Redactor`); the folder gets no
            text of the case, so a second call must give the case again.
        workers: how many processes do the jobs of exact sweeps and of the audit, here or on Ray. A script that gives
            more than one needs `if __name__ == "__main__":` around what it does.

    Raises:
        UserError: the folder holds the run of another case, model or recipe, or a file that has changed since it was
            finished, or another process works on it; or as `Workers.runner`.
    """
    pipeline = Run(
        out, model=model, case=case, profile=profile, recipe=recipe, progress=progress, command=command, redact=redact
    )
    if not (pipeline.folder / "localization.parquet").exists():
        for sentence in pipeline.limits():
            warnings.warn(sentence, stacklevel=2)
    with workers.runner(pipeline.model, trains=trains_weights(profile)) as runner:
        pipeline.localization(runner=runner)
        pipeline.edit()
        verdict = pipeline.verdict(runner)
    pipeline.report()
    return verdict


class Run:
    """One run folder. Each stage reads what the folder has and makes what is missing.

    A killed stage starts again with the same seed, threads and batches, so its result is the same bit for bit. An
    audit writes each reading and each control edit as soon as it is finished. As long as this object lives, no other
    process may work on the folder. `dtype`: the number type of the weights, by default that of the folder, or float32.
    """

    def __init__(
        self,
        out: str | Path,
        *,
        model: Model | str | None = None,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        case: Case | CaseSpec | str | None = None,
        profile: Profile | None = None,
        recipe: Recipe | None = None,
        progress: Progress | None = None,
        command: str | None = None,
        redact: bool = False,
    ) -> None:
        self.folder = Path(out)
        self.progress = progress or (lambda what, done, total: None)
        check_writable(self.folder)
        if not (self.folder / PROVENANCE).exists() and (model is None or case is None):
            raise UserError(
                f"{str(out)!r} is not a run folder; start one with `loka locate CASE --model M --out {out}`."
            )
        if (self.folder / PROVENANCE).exists():
            hold(self.folder, self)
            check_files(self.folder)
        stored = read_provenance(self.folder)
        arguments = stored.arguments if stored else {}
        if stored and (stored.recipe is None or "model" not in arguments):
            raise UserError(f"{str(out)!r} holds something other than a run; name another --out.")
        self.profile: Profile = profile or cast(Profile, str(arguments.get("profile", "quick")))
        effort(self.profile)  # refuses an unknown one
        if case is None and arguments.get("redacted"):
            raise UserError(f"{str(out)!r} is redacted and has no text of its case; give the case file by --case.")
        given = case if case is not None else str(self.folder / "case.yaml")
        spec = read_case(given) if isinstance(given, str) else given
        dtype = dtype or dtype_of(str(arguments.get("dtype", "float32")))
        name = model or str(arguments["model"])
        self.model = name if isinstance(name, Model) else load(name, dtype=dtype, device=device)
        self.case = resolved(self.model, spec)
        self.redactor = redactor_of(self.folder, self.case, redact)
        self.case = self.redactor.case if self.redactor else self.case
        recipe = recipe and recipe.on(self.case)
        stored_recipe = self._shown(stored.recipe) if stored else None
        self.recipe = recipe or (Recipe.from_json(stored_recipe) if stored_recipe else default_recipe(self.case))
        self._check_sites()
        if stored:
            self._check_same(stored, recipe)
            torch.set_num_threads(stored.threads)
        self.provenance = stored or self._begin(command)

    def limits(self) -> list[str]:
        """What the case is too small to show: what locating compares with instead, and what an audit cannot judge."""
        return [*locate.substitutes(self.case), *outlook(self.case, profile=self.profile)]

    def localization(
        self, method: str | None = None, part: Part | None = None, *, runner: Runner = in_turn
    ) -> Localization:
        """The localization: read from the folder, or made and saved.

        Args:
            method: a locator of `loka.locate.METHODS`, by default `integrated_gradients`.
            part: the single part to score; by default the locator's default parts.
            runner: who does the jobs of an exact sweep; see `loka.audit`.

        Raises:
            UserError: the folder holds a localization by another method or of another part, or the recipe's locator
                does not score the part that the recipe edits.
        """
        path = self.folder / "localization.parquet"
        wanted = Located(method or self.recipe.locator or LOCATOR, part)
        if path.exists():
            if (method or part) and wanted != self._located:
                raise UserError(f"{str(self.folder)!r} holds a localization by {self._located}; name another --out.")
            return Localization.load(path)
        if method is None and part is None:
            self._check_scored(wanted.method)
        with self._timed("locate"):
            step = self._step(wanted.method)
            cells = self.folder / CELLS
            found = locate.perform(
                wanted.method, self.model, self.case, part=part, progress=step, runner=runner, checkpoint=cells
            )
            found = locate.mark_general(self.model, self.case, found)
            best = [s for p in found.parts for s in found.top(min(PATCHED, found.grid(p).size), part=p)]
            estimate = wanted.method if wanted.method in locate.estimates() else "attribution"
            checked = self._step("exact effects")
            check = locate.agreement(self.model, self.case, best, method=estimate, progress=checked)
            with finishing(self.folder, "localization_check.json") as place:
                write_json(place, check.to_json())
            self.provenance = dataclasses.replace(self.provenance, located=dataclasses.asdict(wanted))
            self.provenance.write(self.folder)
            with finishing(self.folder, path.name):
                found.save(path)
            cells.unlink(missing_ok=True)
        return found

    @property
    def _located(self) -> Located:
        """How the localization in the folder was made."""
        return read_record(Located, self.provenance.located or {}, f"the localization of {str(self.folder)!r}")

    def controls(self) -> pd.DataFrame | None:
        """The facts that the model still answers without the best sites, and without as many control sites.

        Read from the folder, or made and saved. The columns are those of `knockout`. 50 neurons are zeroed, or else 5
        heads or key/value groups; the result is `None` if none of these parts was scored.
        """
        found, part = self.localization(), self._knocked_out
        if part is None:
            return None
        path = self.folder / "localization_controls.json"
        if not path.exists():
            self.progress("controls", 0, 2)
            sites = found.top(min(KNOCKED_OUT[part], found.grid(part).size // 4), part=part)
            locator = partial(locate.perform, self._located.method, part=part)
            others = locate.control_sites(self.model, self.case, sites, locator=locator, seed=self.case.seed)
            self.progress("controls", 1, 2)
            rows = knockout(self.model, self.case, {f"best {part}s": sites, **others}).reset_index()
            with finishing(self.folder, path.name):
                write_json(path, rows.to_dict("records"))
            self.progress("controls", 2, 2)
        return pd.DataFrame(read_json(path, "delete it and run `loka locate` again")).set_index("name")

    @property
    def _knocked_out(self) -> Part | None:
        """The part whose best sites are zeroed, if one of the parts that can be was scored."""
        return next((p for p in KNOCKED_OUT if p in self.localization().parts), None)

    def selectivity(self) -> Selectivity | None:
        """What the localization is worth, in a sentence: from `controls`, and from paraphrases if the case has them.

        Cost: two forward passes and one backward pass over two working templates, unless the folder has the result.
        """
        silent, part = self.controls(), self._knocked_out
        if silent is None or part is None:
            return None
        counts = {group: len(items) for group, items in groups_of(self.case).items()}
        return Selectivity.of(silent, self._located.method, part, counts, self._paraphrases(part))

    def _paraphrases(self, part: Part) -> Overlap | None:
        """How far two templates find the same sites of an item; `None` for a case or part that cannot show it."""
        forget, scored = self.case.forget.working, locate.METHODS["attribution"].parts
        if part not in scored or len(forget) < 2 or min(len(f.prompts) for f in forget) < TEMPLATES:
            return None
        path = self.folder / "localization_paraphrases.json"
        if not path.exists():
            k = min(KNOCKED_OUT[part], self.model.n_layers * self.model.units(part) // 4)
            step = self._step("paraphrases")
            found = locate.stability(self.model, self.case, k=k, part=part, templates=TEMPLATES, progress=step)
            overlap = Overlap(k, float(found.same.mean()), float(found.others.mean()))
            with finishing(self.folder, path.name):
                write_json(path, dataclasses.asdict(overlap))
        return read_record(Overlap, read_json(path, "delete it and run `loka locate` again"), repr(str(path)))

    def edit(self, recipe: Recipe | None = None) -> Edit:
        """The edit: read from the folder, or made by the recipe and saved."""
        path = self.folder / "edit.safetensors"
        if path.exists():
            stored = Edit.load(path)
            return self.redactor.show_edit(stored) if self.redactor else stored
        recipe = recipe.on(self.case) if recipe else self.recipe
        sites = self._sites(recipe)
        self._note(recipe)
        step = self._step("editing")
        with self._timed("ablate"):
            arguments: dict[str, object] = dict(recipe.arguments)
            if recipe.config:
                arguments["config"] = recipe.config
            if recipe.method == "rounds":
                arguments |= {"locator": self._relocator(recipe.part), "folder": self.folder / "rounds"}
            made = perform(recipe.method, self.model, self.case, sites, arguments, progress=step)
            with finishing(self.folder, path.name):
                (self.redactor.hide_edit(made) if self.redactor else made).save(path)
        return made

    def _note(self, recipe: Recipe) -> None:
        """Say by which recipe the edit is made, before it is made, so that the same command can be given again."""
        said = self._hidden(recipe.to_json())
        if said != self.provenance.recipe:
            arguments = {**self.provenance.arguments, "recipe": said}
            self.provenance = dataclasses.replace(self.provenance, recipe=said, arguments=arguments)
            self.provenance.write(self.folder)

    def _sites(self, recipe: Recipe) -> list[Site] | None:
        return self.localization().top(recipe.sites, part=recipe.part) if recipe.sites else None

    def _relocator(self, part: Part) -> Callable[[Model, Case], list[Site]]:
        """The locator between rounds, which leaves out sites that general text needs."""

        def locator(model: Model, case: Case) -> list[Site]:
            found = locate.mark_general(self.model, self.case, locate.attribution(model, case, parts=(part,)))
            return found.top(len(found.frame), part=part)

        return locator

    def verdict(self, runner: Runner = in_turn) -> Verdict:
        """The verdict of an audit of the edit. Readings in the folder are not made again.

        Args:
            runner: who does the jobs; see `loka.audit`.
        """
        edit = self.edit()
        store = FolderStore(self.folder, self.model, edit, self.case, self.redactor)
        with self._timed("verify"):
            verdict = audit(
                self.model, edit, self.case, profile=self.profile, store=store, progress=self.progress, runner=runner
            )
            found = verdict.to_json(self.digests())
            with finishing(self.folder, "verdict.json") as path:
                write_json(path, self.redactor.hide_verdict(found) if self.redactor else found)
        return verdict

    def report(self) -> Path:
        """Write the HTML report and its figures, and return the path of the page."""
        return report.write(self.folder)

    def digests(self) -> dict[str, str]:
        """SHA-256 of what was audited: the case file, the original weights and the edit's file."""
        edit = self.folder / "edit.safetensors"
        return {
            "case": self._case_digest,
            "model": self.model.digest(),
            **({"edit": digest(edit)} if edit.exists() else {}),
        }

    def _check_sites(self) -> None:
        """Refuse a recipe that asks for more sites than the model has."""
        n, part = self.recipe.sites, self.recipe.part
        if n > (most := self.model.n_layers * self.model.units(part)):
            raise UserError(f"the recipe edits {n} sites of part {part}, but {self.model.name} has {most}; give fewer.")

    def _check_scored(self, method: str) -> None:
        """Refuse a recipe that edits a part which the locator does not score by itself."""
        scored, part = locate.locator(method).default_parts, self.recipe.part
        if self.recipe.sites and part not in scored:
            raise UserError(
                f"the recipe edits sites of part {part}, but {method} scores {', '.join(scored)}; "
                f"run `loka locate CASE --part {part}` first, or choose another locator."
            )

    def _check_same(self, stored: Provenance, recipe: Recipe | None) -> None:
        digests = stored.digests
        current = {"case": self._case_digest, "model": self.model.digest()}
        for what, value in current.items():
            if (found := digests.get(what, "unknown")) != value:
                raise UserError(
                    f"{str(self.folder)!r} is a run of another {what} ({found[:12]}, not {value[:12]}); "
                    f"name another --out, or give the same {what}."
                )
        stored_recipe = self._shown(stored.recipe)
        if recipe is not None and recipe.to_json() != stored_recipe and (self.folder / "edit.safetensors").exists():
            raise UserError(
                f"{str(self.folder)!r} holds an edit by another recipe ({stored_recipe}); name another --out."
            )

    def _begin(self, command: str | None) -> Provenance:
        """Record what this run is, before anything is computed."""
        private_folder(self.folder)
        hold(self.folder, self)
        if (self.folder / PROVENANCE).exists():
            raise UserError(f"another process has begun a run in {str(self.folder)!r}; name another --out.")
        if self.redactor:
            write_yaml(self.folder / "case.yaml", self.redactor.case_file())
        else:
            self.case.spec.save(self.folder)
        recipe = self._hidden(self.recipe.to_json())
        arguments = {
            "case": self.case.name, "model": self.model.name, "profile": self.profile, "recipe": recipe,
            "dtype": str(self.model.dtype).removeprefix("torch."),
        }  # fmt: skip
        made = Provenance.of_call(
            self._hidden(command or f"loka run {self.case.name} --model {self.model.name} --out {self.folder}"),
            arguments | ({"redacted": True} if self.redactor else {}),
            seed=self.case.seed, digests=self.digests(), recipe=recipe,
        )  # fmt: skip
        made.write(self.folder)
        list_case(self.folder)
        check_files(self.folder)  # refuses what another tool left here
        return made

    @property
    def _case_digest(self) -> str:
        digest = self.case.spec.digest
        return self.redactor.token(digest) if self.redactor else digest

    def _hidden(self, value: Any) -> Any:
        """A JSON value as the folder's files have it."""
        return self.redactor.hide(value) if self.redactor else value

    def _shown(self, value: Any) -> Any:
        """A JSON value of the folder's files as it was before."""
        return self.redactor.show(value) if self.redactor else value

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.provenance = self.provenance.after({stage: time.perf_counter() - start})
        self.provenance.write(self.folder)

    def _step(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self.progress(what, done, total)
