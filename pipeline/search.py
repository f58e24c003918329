"""The smallest edit within bounds, and the trade-off curve on the way to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import JsonValue

from .. import locate, report
from .._util.errors import UserError
from .._util.files import atomic, check_writable, inside, private_folder, read_json, write_json
from .._util.ledger import check_files, finishing
from .._util.lock import locked
from .._util.provenance import recorded
from .._util.records import read_record
from ..ablate.methods import perform
from ..knowledge import Bounds, Case, HeldOut, Metrics, accepts_spec, hold_out
from ..model import Edit, Model, Runner, in_turn
from .recipe import DEFAULT, Recipe

SIZES = (25, 50, 100, 200, 400, 800)
STRENGTHS = (0.25, 0.5, 0.75, 1.0)
FIELDS: dict[str, type] = {"about": dict, "points": list}
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Point:
    """One edit: its number of `sites`, its `strength` (1 is the edit as made), and the model's results with it.

    `retain_drop` and `perplexity_rise` are against the original; `met` says whether all bounds hold.
    """

    sites: int
    strength: float
    parameters: int
    forget: float
    retain: float
    perplexity: float
    retain_drop: float
    perplexity_rise: float
    met: bool


@dataclass(frozen=True)
class Search:
    """The trade-off curve, and the smallest edit within the bounds, if there is one.

    `best` has the fewest sites of the points that meet the bounds, and of these the least strength; `edit` is the edit
    of that point.
    """

    points: tuple[Point, ...]
    before: Metrics
    bounds: Bounds
    best: Point | None
    edit: Edit | None

    def __str__(self) -> str:
        b, n = self.bounds, len(self.points)
        asked = (
            f"forget at most {b.forget:.1%}, held-out retain at most {100 * b.retain_drop:.1f} points down, "
            f"perplexity at most {b.perplexity_rise:+.1%}"
        )
        if self.best:
            return f"Of {n} edits tried, the smallest within the budget ({asked}): {_describe(self.best)}."
        near = min(self.points, key=lambda p: _excess(p, b))
        return f"No edit is within the budget ({asked}). Of {n} tried, the nearest is {_describe(near)}."


@accepts_spec
def search(
    model: Model,
    case: Case,
    *,
    out: str | Path | None = None,
    bounds: Bounds | None = None,
    sizes: Sequence[int] | None = None,
    strengths: Sequence[float] = STRENGTHS,
    recipe: Recipe | None = None,
    progress: Progress | None = None,
    runner: Runner = in_turn,
) -> Search:
    """Locate, edit the best sites at several sizes and strengths, and measure each edit.

    A quarter of the working retain facts and of the neutral working text is held out of locating and training, and is
    measured. The sealed part stays sealed, so that the result can be audited. Forgetting is measured with the working
    prompts.

    Args:
        out: a folder for `search.json`, `figures/search.svg`, each edit under `edits/`, and `edit.safetensors` if one
            was found. A second call on it resumes with the missing points.
        sizes: numbers of sites, by default 25 to 800, as far as the model has that many.
        strengths: shares of the way from the original weights to those of the edit.
        recipe: the recipe for the edits, by default the quick one; its number of sites is ignored.
        runner: who does the jobs: one for each edit, and one for each measurement; see `loka.audit`.

    Cost: attribution, one edit per size, and for every size and strength one row per forget prompt, held-out prompt and
    held-out passage.

    Raises:
        UserError: impossible sizes or strengths, a folder of another search, or too few facts.
    """
    if out is not None:
        check_writable(out)
    bounds = bounds or Bounds()
    recipe = (recipe or Recipe.load(DEFAULT)).on(case)
    units = model.n_layers * model.units(recipe.part)
    sizes = sorted(set(sizes or [n for n in SIZES if n <= units]))
    if not sizes or not 0 < sizes[0] <= sizes[-1] <= units or not strengths or min(strengths) <= 0:
        raise UserError(
            f"sizes {sizes} and strengths {list(strengths)}: give sizes from 1 to {units} and strengths above 0."
        )
    held = hold_out(model, case)
    about = {
        "model": model.digest(), "case": held.case.digest, "recipe": recipe.to_json(),
        "sizes": sizes, "strengths": sorted(strengths), "bounds": asdict(bounds),
    }  # fmt: skip
    record = _Record(Path(out) if out is not None else None, json.loads(json.dumps(about)))
    grid = [(size, strength) for size in sizes for strength in sorted(strengths)]
    with record.open(case) as points, TemporaryDirectory(prefix="loka-") as place:
        found = {(p.sites, p.strength): p for p in points}
        work = _Searcher(model, held, recipe, record, Path(place), progress, grid, bounds, held.measure(model), found)
        runner(work)
        return work.result()


@dataclass(frozen=True)
class _Job:
    """The making of the edit of a size, or its measurement at a strength."""

    size: int
    strength: float | None = None

    def __str__(self) -> str:
        return f"editing {self.size} sites" + ("" if self.strength is None else f", at strength {self.strength:g}")


@dataclass(frozen=True)
class _Searcher:
    """The work of a search: the edit of each size, once, measured at every strength.

    `place`: a folder for edits while a search without a folder lasts; `grid`: all sizes and strengths; `found`: the
    points so far.
    """

    model: Model
    held: HeldOut
    recipe: Recipe
    record: _Record
    place: Path
    progress: Progress | None
    grid: Sequence[tuple[int, float]]
    bounds: Bounds
    before: Metrics
    found: dict[tuple[int, float], Point]

    def ready(self) -> list[_Job]:
        missing = [at for at in self.grid if at not in self.found]
        there = {size: self._path(size).exists() for size, _ in missing}
        return list(dict.fromkeys(_Job(*at) if there[at[0]] else _Job(at[0]) for at in missing))

    def run(self, job: _Job) -> Edit | Metrics:
        say = self.progress
        return self.task(job).run(self.model, (lambda done, n: say(str(job), done, n)) if say else None)

    def task(self, job: _Job) -> SearchTask:
        made = job.strength is not None
        file, digest = (str(self._path(job.size).resolve()), self._edit(job.size).digest()) if made else ("", "")
        return SearchTask(self.held, self.recipe, job.size, job.strength, file, digest)

    def done(self, job: _Job, result: Edit | Metrics, seconds: float) -> None:
        if isinstance(result, Edit):
            if self.record.folder is None:
                result.save(self._path(job.size))
            else:
                with finishing(self.record.folder, f"edits/{job.size}.safetensors") as path:
                    result.save(path)
            return
        assert job.strength is not None, "an edit is made before it is measured"
        edit = self._edit(job.size).scaled(self.model, job.strength)
        point = _point(job.size, job.strength, edit, result, self.before, self.bounds)
        self.found[job.size, job.strength] = point
        self.record.write(self._points(), self.before)
        if self.progress:
            self.progress("points", len(self.found), len(self.grid))

    def result(self) -> Search:
        """The best of the points, and its edit."""
        points = self._points()
        met = [p for p in points if p.met]
        best = met[0] if met else None
        edit = self._edit(best.sites).scaled(self.model, best.strength) if best else None
        search = Search(points, self.before, self.bounds, best, edit)
        self.record.finish(search)
        return search

    def _points(self) -> tuple[Point, ...]:
        return tuple(self.found[at] for at in self.grid if at in self.found)

    def _edit(self, size: int) -> Edit:
        return Edit.load(self._path(size))

    def _path(self, size: int) -> Path:
        return (self.record.folder or self.place) / "edits" / f"{size}.safetensors"


@dataclass(frozen=True)
class SearchTask:
    """The edit of the best sites of a size; with a strength, what a model shows with the edit in `file` at it.

    `digest`: of the edit's content.
    """

    held: HeldOut
    recipe: Recipe
    size: int
    strength: float | None = None
    file: str = ""
    digest: str = ""

    def run(self, model: Model, progress: Callable[[int, int], None] | None = None) -> Edit | Metrics:
        """Make the edit, or measure it."""
        if self.strength is None:
            return self._make(model, progress)
        edit = model.cache.get("edit", (self.file, self.digest), lambda: Edit.load(self.file))
        with edit.scaled(model, self.strength).applied(model) as edited:
            return self.held.measure(edited)

    def _make(self, model: Model, progress: Callable[[int, int], None] | None) -> Edit:
        recipe, case = self.recipe, self.held.case
        located = model.cache.get(
            "located",
            (case.digest, recipe.part),
            lambda: locate.mark_general(model, case, locate.attribution(model, case, parts=(recipe.part,))),
        )
        sites = located.top(self.size, part=recipe.part)
        arguments = dict(recipe.arguments) | ({"config": recipe.config} if recipe.config else {})
        return perform(recipe.method, model, case, sites, arguments, progress=progress)


@dataclass(frozen=True)
class _Record:
    """The search in a folder; `about` identifies the search."""

    folder: Path | None
    about: Mapping[str, JsonValue]

    @contextmanager
    def open(self, case: Case) -> Iterator[list[Point]]:
        """Lock the folder, and give the points that are finished there. Its provenance is written at once."""
        if self.folder is None:
            yield []
            return
        command, digests = f"loka search {case.name} --out {self.folder}", {"case": case.spec.digest}
        with locked(self.folder):
            check_files(self.folder)
            points = self._points(self.folder / "search.json")
            with recorded(self.folder, command=command, arguments=self.about, seed=case.seed, digests=digests):
                yield points

    def _points(self, path: Path) -> list[Point]:
        if not path.exists():
            return []
        advice = "name another --out"
        stored = read_json(path, advice)
        if not isinstance(stored, dict) or not all(isinstance(stored.get(k), t) for k, t in FIELDS.items()):
            raise UserError(f"{str(path)!r} is not the file of a search; {advice}.")
        if stored["about"] == self.about:
            return [read_record(Point, point, f"a point of {str(path)!r}") for point in stored["points"]]
        other = [k for k, v in self.about.items() if stored["about"].get(k) != v]
        raise UserError(f"{str(path)!r} holds another search ({', '.join(other)} differ); name another --out.")

    def write(self, points: Sequence[Point], before: Metrics, found: Search | None = None) -> None:
        """Write the points and, at the end, the result."""
        if not self.folder:
            return
        end = {"best": found.best and asdict(found.best), "claim": str(found)} if found else {}
        values = {"about": self.about, "before": asdict(before), "points": [asdict(p) for p in points], **end}
        private_folder(self.folder)
        with finishing(self.folder, "search.json") as path:
            write_json(path, values)

    def finish(self, found: Search) -> None:
        """Write the result, its figure, and the edit if there is one."""
        if not self.folder:
            return
        self.write(found.points, found.before, found)
        figure = report.tradeoff([asdict(p) for p in found.points], asdict(found.bounds))
        with atomic(inside(self.folder, "figures/search.svg")) as path:
            figure.savefig(path)
        if found.edit:
            with finishing(self.folder, "edit.safetensors") as path:
                found.edit.save(path)


def _point(size: int, strength: float, edit: Edit, now: Metrics, before: Metrics, bounds: Bounds) -> Point:
    return Point(
        size, strength, edit.parameters, **asdict(now), retain_drop=before.retain - now.retain,
        perplexity_rise=now.perplexity / before.perplexity - 1, met=bounds.met(now, before),
    )  # fmt: skip


def _describe(p: Point) -> str:
    return (
        f"{p.sites} sites at strength {p.strength:g} ({p.parameters:,} numbers): forget {p.forget:.1%}, "
        f"retain {-100 * p.retain_drop:+.1f} points, perplexity {p.perplexity_rise:+.1%}"
    )


def _excess(p: Point, bounds: Bounds) -> float:
    """How far a point is outside the bounds, in shares."""
    over = (p.forget - bounds.forget, p.retain_drop - bounds.retain_drop, p.perplexity_rise - bounds.perplexity_rise)
    return sum(max(0.0, o) for o in over)
