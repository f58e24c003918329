"""The pipeline locate, ablate, verify, report over a run folder that can be killed and resumed at any moment."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch

from .. import ablate, locate, report
from .._util.errors import UserError
from .._util.files import digest, write_atomic, write_json
from .._util.provenance import Provenance, read_provenance
from ..ablate.methods import perform
from ..audit.auditor import Progress, audit, controls
from ..audit.profiles import Profile
from ..audit.store import FolderStore
from ..knowledge import Case, CaseSpec, resolved
from ..knowledge import case as read_case
from ..locate import Localization
from ..model import Edit, Model, Part, Site, load
from ..verify import Verdict
from .knockout import knockout
from .recipe import DEFAULT, Recipe

CHECKED = 24
USUAL = "integrated_gradients"
SILENCED: dict[Part, int] = {"neuron": 50, "head": 5, "kv": 5}
SPARED: tuple[Part, ...] = ("neuron", "head")


def run(
    model: Model | str,
    case: Case | CaseSpec | str,
    *,
    out: str | Path,
    profile: Profile = "quick",
    recipe: Recipe | None = None,
    progress: Progress | None = None,
    command: str | None = None,
) -> Verdict:
    """Locate, ablate, verify and report into a folder. Called again on the same folder, it resumes.

    Raises:
        UserError: the folder is the run of another case, model or recipe.
    """
    pipeline = Run(out, model=model, case=case, profile=profile, recipe=recipe, progress=progress, command=command)
    pipeline.localization()
    pipeline.edit()
    verdict = pipeline.verdict()
    pipeline.report()
    return verdict


class Run:
    """One run folder. Each stage reads what is there and makes what is missing.

    A stage that was killed is done again from its start, with the same seed, threads and batches, so that
    its result is the same bit for bit; finished readings and control edits of an audit are kept one by one.
    """

    def __init__(
        self,
        out: str | Path,
        *,
        model: Model | str | None = None,
        device: str = "cpu",
        case: Case | CaseSpec | str | None = None,
        profile: Profile | None = None,
        recipe: Recipe | None = None,
        progress: Progress | None = None,
        command: str | None = None,
    ) -> None:
        self.folder = Path(out)
        self.progress = progress or (lambda what, done, total: None)
        stored = read_provenance(self.folder)
        arguments = stored.arguments if stored else {}
        if stored is None and (model is None or case is None):
            raise UserError(f"{str(out)!r} is no run folder; start one with `loka locate CASE --model M --out {out}`.")
        if stored and stored.recipe is None:
            raise UserError(f"{str(out)!r} holds something else than a run; name another --out.")
        unread = case if case is not None else str(self.folder / "case.yaml")
        unread = read_case(unread) if isinstance(unread, str) else unread
        self.model = model if isinstance(model, Model) else load(model or str(arguments["model"]), device=device)
        self.case = resolved(self.model, unread)
        recipe = recipe and recipe.on(self.case)
        before = stored.recipe if stored else None
        self.recipe = recipe or (Recipe.from_json(before) if before else Recipe.load(DEFAULT).on(self.case))
        self.profile: Profile = profile or cast(Profile, arguments.get("profile", "quick"))
        if stored:
            self._check_same(stored, recipe)
            torch.set_num_threads(stored.threads)
        self.provenance = stored or self._begin(command)

    def localization(self, method: str | None = None, part: Part | None = None) -> Localization:
        """Where the knowledge sits: read, or made and saved.

        Args:
            method: a locator of `loka.locate.METHODS`, by default `integrated_gradients`.
            part: the one that is scored; by default those that the locator scores by itself.

        Raises:
            UserError: the folder holds a localization by another method or of another part.
        """
        path = self.folder / "localization.parquet"
        wanted = {"method": method or self.recipe.locator or USUAL, "part": part}
        held = self.provenance.located or {"method": USUAL, "part": None}
        if path.exists():
            if (method or part) and wanted != held:
                of = f" of {held['part']}s" if held["part"] else ""
                raise UserError(
                    f"{str(self.folder)!r} holds a localization by {held['method']}{of}; name another --out."
                )
            return Localization.load(path)
        with self._timed("locate"):
            step = self._step(wanted["method"])
            found = locate.perform(wanted["method"], self.model, self.case, part=part, progress=step)
            each = CHECKED // 2
            best = [s for p in found.parts for s in found.top(min(each, len(found.grid(p).ravel())), part=p)]
            estimate = wanted["method"] if wanted["method"] in locate.estimates() else "attribution"
            patched = self._step("exact patching")
            check = locate.agreement(self.model, self.case, best, method=estimate, progress=patched)
            write_json(self.folder / "localization_check.json", check.to_json())
            self.provenance = dataclasses.replace(self.provenance, located=wanted)
            found.save(path)
        return found

    def controls(self) -> pd.DataFrame | None:
        """What is still answered with the best sites zeroed, and with as many of each control; read, or made and saved.

        The columns are those of `knockout`. Of neurons 50, of heads and key/value groups 5 are zeroed; None where
        none of these was scored.
        """
        found = self.localization()
        part: Part | None = next((p for p in SILENCED if p in found.parts), None)
        if part is None:
            return None
        path = self.folder / "localization_controls.json"
        if not path.exists():
            self.progress("controls", 0, 2)
            sites = found.top(min(SILENCED[part], found.grid(part).size // 4), part=part)
            method = (self.provenance.located or {}).get("method") or USUAL
            locator = partial(locate.perform, method, part=part)
            others = locate.control_sites(self.model, self.case, sites, locator=locator, seed=self.case.seed)
            self.progress("controls", 1, 2)
            rows = knockout(self.model, self.case, {f"best {part}s": sites, **others}).reset_index()
            write_json(path, rows.to_dict("records"))
            self.progress("controls", 2, 2)
        return pd.DataFrame(json.loads(path.read_text(encoding="utf-8"))).set_index("name")

    def edit(self, recipe: Recipe | None = None) -> Edit:
        """The edit: read, or made by the recipe and saved."""
        path = self.folder / "edit.safetensors"
        if path.exists():
            return Edit.load(path)
        recipe = recipe.on(self.case) if recipe else self.recipe
        sites = self._sites(recipe)
        step = self._step("editing")
        with self._timed("ablate"):
            arguments = dict(recipe.arguments) | ({"config": recipe.config} if recipe.config else {})
            arguments |= self._again(recipe.part) if recipe.method == "rounds" else {}
            made = perform(recipe.method, self.model, self.case, sites, arguments, progress=step)
            made.save(path)
        return made

    def _sites(self, recipe: Recipe) -> list[Site] | None:
        """The best sites; what is wiped out is chosen among those that any text can do without."""
        found = self.localization()
        if not recipe.sites:
            return None
        if not ablate.METHODS[recipe.method].resets or recipe.part not in SPARED:
            return found.top(recipe.sites, part=recipe.part)
        every = found.top(found.grid(recipe.part).size, part=recipe.part)
        return locate.exclude_general(self.model, self.case, every)[: recipe.sites]

    def _again(self, part: Part) -> dict[str, Any]:
        """What rounds need beside their arguments: a locator, and a folder for the finished ones."""
        every = self.model.sites(part)
        free = set(locate.exclude_general(self.model, self.case, every) if part in SPARED else every)

        def locator(model: Model, case: Case) -> list[Site]:
            found = locate.attribution(model, case, parts=(part,))
            return [s for s in found.top(len(found.frame), part=part) if s in free]

        return {"locator": locator, "folder": self.folder / "rounds"}

    def verdict(self) -> Verdict:
        """The audit of the edit. Readings that the folder holds are not made again."""
        edit = self.edit()
        store = FolderStore(self.folder, self.model, edit, self.case)
        with self._timed("controls"):
            controls(self.model, edit, self.case, store, progress=self.progress)
        with self._timed("verify"):
            verdict = audit(self.model, edit, self.case, profile=self.profile, store=store, progress=self.progress)
            write_json(self.folder / "verdict.json", verdict.to_json(self.digests()))
        return verdict

    def report(self) -> Path:
        """The HTML report and its figures."""
        return report.write(self.folder)

    def digests(self) -> dict[str, str]:
        """What was audited: SHA-256 of the case file, of the original weights and of the edit's file."""
        edit = self.folder / "edit.safetensors"
        return {
            "case": self.case.spec.digest,
            "model": self.model.digest(),
            **({"edit": digest(edit)} if edit.exists() else {}),
        }

    def _check_same(self, stored: Provenance, recipe: Recipe | None) -> None:
        digests = stored.digests
        mine = {"case": self.case.spec.digest, "model": self.model.digest()}
        for what, value in mine.items():
            if digests[what] != value:
                raise UserError(
                    f"{str(self.folder)!r} is a run of another {what} ({digests[what][:12]}, not {value[:12]}); "
                    "name another --out, or give what it was started with."
                )
        held = stored.recipe
        if recipe is not None and recipe.to_json() != held and (self.folder / "edit.safetensors").exists():
            raise UserError(f"{str(self.folder)!r} holds an edit by another recipe ({held}); name another --out.")

    def _begin(self, command: str | None) -> Provenance:
        """Write down what this run is before anything is computed."""
        source = self.case.spec.path
        self.folder.mkdir(parents=True, exist_ok=True)
        if source is not None:
            write_atomic(self.folder / "case.yaml", source.read_text(encoding="utf-8"))
            for name in (self.case.neutral.working, self.case.neutral.sealed):
                if isinstance(name, str) and (prose := source.parent / name).is_file():
                    shutil.copyfile(prose, self.folder / prose.name)
        recipe = self.recipe.to_json()
        made = Provenance.of_call(
            command or f"loka run {self.case.name} --model {self.model.name} --out {self.folder}",
            {"case": self.case.name, "model": self.model.name, "profile": self.profile, "recipe": recipe},
            seed=self.case.seed, digests=self.digests(), recipe=recipe,
        )  # fmt: skip
        made.write(self.folder)
        return made

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.provenance = self.provenance.after({stage: time.perf_counter() - start})
        self.provenance.write(self.folder)

    def _step(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self.progress(what, done, total)
