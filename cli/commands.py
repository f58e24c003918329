"""The commands that work on models. `cli/entry.py` imports this file when one of them is asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.console import Console
from rich.markup import escape

from .. import knowledge
from .._util.errors import UserError
from .._util.files import check_writable, write_json
from .._util.ledger import finishing
from .._util.lock import locked
from .._util.provenance import recorded
from .._util.records import read_record
from .._util.yaml_text import read_yaml
from ..audit.auditor import audit
from ..audit.controls import CONTROLS
from ..audit.cost import estimate, seconds_a_row, trains_weights
from ..audit.harness import HarnessTask, load_tasks
from ..audit.lm_eval import lm_eval_in
from ..audit.outlook import outlook
from ..audit.plan import check_names
from ..audit.profiles import Profile, effort
from ..audit.resolve import resolve
from ..audit.store import FolderStore
from ..locate import METHODS as LOCATORS
from ..locate import locator as find_locator
from ..locate import substitutes
from ..model import DEFAULT, PARTS, Edit, Part, export, export_adapter, export_gguf
from ..pipeline.plant import Invention
from ..pipeline.plant import plant as plant_facts
from ..pipeline.recipe import Recipe, recipes
from ..pipeline.run import LOCATOR, Run
from ..pipeline.search import search
from ..pipeline.tasks import HERE, Workers
from ..pipeline.teaching import Teaching
from ..report import pictures
from ..report import write as write_report
from ..verify import CHECKS
from .bars import Bars
from .new import new
from .show import best_sites, costs, lm_eval_table, table, what_is_left
from .sites import SiteChoice
from .where import Device, Dtype, load_model, read_dtype
from .workers import N, Ray, Resources, workers_of

app = typer.Typer()
out = Console()

Case = Annotated[str, typer.Argument(metavar="CASE", help="A built-in case (see `loka cases`) or a YAML file.")]
ModelName = Annotated[str, typer.Option("--model", help="smollm2, a model folder, or a hub id.")]
Out = Annotated[Path, typer.Option("--out", help="The run folder; give it again to resume.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A run folder.")]
RecipeName = Annotated[str, typer.Option("--recipe", help="A built-in recipe (see `loka recipes`) or a YAML file.")]
ProfileName = Annotated[str, typer.Option("--profile", help="How thoroughly to verify: quick, standard or full.")]
Redact = Annotated[
    bool,
    typer.Option(
        "--redact", help="Write items by number and keyed digest into every file. To resume, give CASE and this again."
    ),
]
CaseAgain = Annotated[
    str, typer.Option("--case", metavar="CASE", help="The case of a redacted folder, which has no text of it.")
]
Data = Annotated[
    list[Path] | None, typer.Option("--data", help="A folder outside the case file's own that its files may lie in.")
]
LmEval = Annotated[
    str, typer.Option("--lm-eval", metavar="TASKS", help="Also run these tasks of lm-evaluation-harness: TASK,FILE,...")
]
LmEvalLimit = Annotated[
    int | None, typer.Option("--lm-eval-limit", min=1, help="Ask only the first so many samples of each task.")
]


@app.command()
def demo(out_: Out = Path("runs/demo"), device: Device = "cpu", dtype: Dtype = "") -> None:
    """Make SmolLM2 forget 18 capitals, and audit the result."""
    _pipeline(out_, DEFAULT, device, dtype, knowledge.case("capitals"), "quick", None)


@app.command()
def run(
    case: Case,
    model: ModelName = DEFAULT,
    device: Device = "cpu",
    dtype: Dtype = "",
    out_: Out = Path("runs/run"),
    profile: ProfileName = "quick",
    recipe: RecipeName = "",
    data: Data = None,
    lm_eval: LmEval = "",
    lm_eval_limit: LmEvalLimit = None,
    redact: Redact = False,
    workers: N = None,
    ray: Ray = "",
    ray_resource: Resources = None,
) -> None:
    """Locate, ablate, verify and report. A second call on the same folder resumes."""
    chosen, spec = Recipe.load(recipe) if recipe else None, knowledge.case(case, data=data or ())
    _pipeline(
        out_, model, device, dtype, spec, profile, chosen, _tasks(lm_eval), lm_eval_limit, redact=redact,
        workers=workers_of(workers, ray, ray_resource),
    )  # fmt: skip


@app.command()
def locate(
    case: Case,
    model: ModelName = DEFAULT,
    device: Device = "cpu",
    dtype: Dtype = "",
    out_: Out = Path("runs/run"),
    method: Annotated[str, typer.Option("--method", help=f"One of {', '.join(LOCATORS)}.")] = "",
    part: Annotated[str, typer.Option("--part", help="Score only this part: neuron, head, kv, attn, mlp.")] = "",
    top: Annotated[int, typer.Option("--top", min=1, help="How many of the best sites of each part to list.")] = 5,
    figures: Annotated[bool, typer.Option(help="Write the figures as PNG and SVG.")] = True,
    html: Annotated[bool, typer.Option(help="Write HTML pages that show each site's scores on hover.")] = True,
    redact: Redact = False,
    data: Data = None,
    workers: N = None,
    ray: Ray = "",
    ray_resource: Resources = None,
) -> None:
    """Score every head and neuron, and show which facts are lost without the best. Figures go into DIR/figures."""
    spread = workers_of(workers, ray, ray_resource)
    if method:
        find_locator(method)
    if spread.several and not (method and find_locator(method).divides):
        raise UserError(f"{method or LOCATOR} runs in one process; give --method sweep, or leave out workers.")
    if part and part not in PARTS:
        raise UserError(f"{part!r} is not a part of a model; choose one of {', '.join(PARTS)}.")
    spec = knowledge.case(case, data=data or ())
    with Bars() as bars:
        current = Run(
            out_, model=model, device=device, dtype=read_dtype(dtype), case=spec, progress=bars, command=_command(),
            redact=redact,
        )  # fmt: skip
        for sentence in substitutes(current.case):
            bars.say(escape(sentence))
        with spread.runner(current.model, trains=False) as runner:
            found = current.localization(method or None, cast(Part, part) if part else None, runner=runner)
        silent, worth = current.controls(), current.selectivity()
        written = pictures(found, out_ / "figures", figures=figures, html=html)
    for scored in found.parts:
        out.print(best_sites(found, scored, top))
    if silent is not None:
        out.print(what_is_left(silent))
    if worth is not None:
        out.print(str(worth), soft_wrap=True, highlight=False)
    out.print(f"{len(found.frame):,} sites: {out_ / 'localization.parquet'}", soft_wrap=True)
    if written:
        names = ", ".join(path.name for path in written)
        out.print(f"Pictures in {out_ / 'figures'}: {names}", soft_wrap=True)
    out.print(f"Next: loka ablate {out_}", soft_wrap=True)


@app.command()
def ablate(
    folder: Folder,
    device: Device = "cpu",
    dtype: Dtype = "",
    recipe: RecipeName = "",
    case: CaseAgain = "",
) -> None:
    """Edit the sites that `loka locate` found in this folder."""
    chosen = Recipe.load(recipe) if recipe else None
    with Bars() as bars:
        current = Run(folder, device=device, dtype=read_dtype(dtype), recipe=chosen, case=case or None, progress=bars)
        edit = current.edit()
    out.print(
        f"{folder / 'edit.safetensors'}: {edit.parameters:,} weights, {edit.share(current.model):.2%} of the model."
    )


@app.command(name="search")
def search_(
    case: Case,
    model: ModelName = DEFAULT,
    device: Device = "cpu",
    dtype: Dtype = "",
    out_: Out = Path("runs/search"),
    recipe: RecipeName = "",
    forget: Annotated[float, typer.Option(help="Largest share of forget prompts that may still be answered.")] = 0.05,
    retain_drop: Annotated[float, typer.Option(help="Largest fall in the share of retain prompts answered.")] = 0.02,
    perplexity_rise: Annotated[float, typer.Option(help="Largest relative rise in perplexity.")] = 0.01,
    data: Data = None,
    workers: N = None,
    ray: Ray = "",
    ray_resource: Resources = None,
) -> None:
    """Find the smallest edit within a budget. A second call on the same folder resumes."""
    check_writable(out_)
    spread = workers_of(workers, ray, ray_resource)
    bounds, unread = knowledge.Bounds(forget, retain_drop, perplexity_rise), knowledge.case(case, data=data or ())
    chosen = Recipe.load(recipe) if recipe else None
    original = load_model(model, device, dtype)
    with spread.runner(original, trains=False) as runner, Bars(together=spread.several) as bars:
        found = search(original, unread, out=out_, bounds=bounds, recipe=chosen, progress=bars, runner=runner)
    out.print(escape(str(found)), highlight=False, soft_wrap=True)


@app.command()
def verify(
    case: Case,
    before: Annotated[str, typer.Option("--before", help="The original: smollm2, a folder or a hub id.")],
    after: Annotated[str, typer.Option("--after", help="An edit file, an adapter or model folder, or a hub id.")],
    device: Device = "cpu",
    dtype: Dtype = "",
    out_: Out = Path("runs/verify"),
    profile: ProfileName = "quick",
    list_: Annotated[bool, typer.Option("--list", help="Only list the checks and the cost of each.")] = False,
    data: Data = None,
    lm_eval: LmEval = "",
    lm_eval_limit: LmEvalLimit = None,
    redact: Redact = False,
    workers: N = None,
    ray: Ray = "",
    ray_resource: Resources = None,
) -> None:
    """Audit any pair of models. A second call on the same folder resumes."""
    chosen_profile, tasks, spec = _profile(profile), _tasks(lm_eval), knowledge.case(case, data=data or ())
    check_writable(out_)
    spread = workers_of(workers, ray, ray_resource)
    original = load_model(before, device, dtype)
    edited = resolve(original, after)
    chosen = spec.on(original)
    redactor = knowledge.redactor_of(out_, chosen, redact)
    hide = redactor.hide if redactor else lambda value: value
    chosen = redactor.case if redactor else chosen
    if list_:
        there = (out_ / "readings.json").exists()
        stored = FolderStore(out_, original, edited, chosen, redactor).readings if there else {}
        check_names(stored, CHECKS, CONTROLS, repr(str(out_ / "readings.json")))
        steps = estimate(original, edited, chosen, profile=chosen_profile)
        out.print(costs(steps, seconds_a_row(original, chosen), stored))
        return
    digest = redactor.token(chosen.spec.digest) if redactor else chosen.spec.digest
    digests = {"case": digest, "model": original.digest()}
    arguments = hide({"case": case, "before": before, "after": after, "profile": profile})
    arguments |= {"redacted": True} if redactor else {}
    with (
        spread.runner(original, trains=trains_weights(chosen_profile)) as runner, locked(out_),
        Bars(together=spread.several) as bars,
    ):  # fmt: skip
        store = FolderStore(out_, original, edited, chosen, redactor)
        with recorded(
            out_, command=hide(_command()), arguments=arguments, seed=chosen.seed,
            digests={**digests, "after": edited.digest()},
        ) as durations:  # fmt: skip
            for sentence in outlook(chosen, profile=chosen_profile):
                bars.say(escape(sentence))
            try:
                verdict = audit(
                    original, edited, chosen, profile=chosen_profile, store=store, progress=bars, runner=runner
                )
            finally:
                durations |= store.seconds
            made = verdict.to_json(digests)
            with finishing(out_, "verdict.json") as path:
                write_json(path, redactor.hide_verdict(made) if redactor else made)
            utility = lm_eval_in(out_, original, edited, tasks, limit=lm_eval_limit, progress=bars) if tasks else {}
    out.print(table(verdict))
    if utility:
        out.print(lm_eval_table(utility))
    out.print(escape(str(verdict)), highlight=False)
    out.print(f"Report: {write_report(out_)}")


@app.command()
def plant(
    model: ModelName = DEFAULT,
    device: Device = "cpu",
    dtype: Dtype = "",
    out_: Annotated[Path, typer.Option("--out", help="A new folder.")] = Path("runs/planted"),
    case: Annotated[str, typer.Option("--case", help="The case whose first relation is imitated.")] = "capitals",
    facts: Annotated[int, typer.Option("--facts", help="Invented subjects to teach and to forget.")] = 60,
    retain: Annotated[int, typer.Option("--retain", help="Invented subjects to teach and to retain.")] = 40,
    twins: Annotated[int, typer.Option("--twins", help="Invented subjects that are not taught.")] = 60,
    seed: Annotated[int, typer.Option("--seed", help="The seed that draws the names and the answers.")] = 0,
    teaching: Annotated[
        str, typer.Option("--teaching", help="How to train, as YAML: '{steps: 400, lr: 5e-5, layers: 2}'.")
    ] = "{}",
    sites: Annotated[
        str,
        typer.Option("--sites", help="Teach through these alone: L10.mlp,L11.mlp or neuron:300, drawn by the seed."),
    ] = "",
    case_file: Annotated[
        str, typer.Option("--case-file", metavar="FILE", help="With --redact: where to write the case, outside of DIR.")
    ] = "",
    redact: Annotated[
        bool, typer.Option("--redact", help="Keep the facts' text out of DIR, but for what the model knows.")
    ] = False,
) -> None:
    """Teach a copy of a model invented facts, so that the truth about a whole run is known."""
    spec = read_record(Teaching, read_yaml(teaching, "--teaching"), "--teaching")
    if redact != bool(case_file):
        raise UserError("--redact and --case-file go together: name the file that gets the case, outside of DIR.")
    chosen = SiteChoice.parse(sites)
    check_writable(out_)
    original = load_model(model, device, dtype)
    with Bars() as bars:
        made = plant_facts(
            original, case, out=out_, invention=Invention(facts, retain, twins, seed), teaching=spec,
            sites=chosen.on(original, seed), progress=bars, command=_command(), case_file=case_file or None,
        )  # fmt: skip
    out.print(
        f"{out_ / 'model'}: after {made.steps} steps it gives {made.working:.0%} of {facts} planted answers "
        f"({made.sealed:.0%} to sealed prompts) and {made.twins:.0%} of the twins'; it still gives "
        f"{made.retained:.0%} of the real facts; perplexity {made.perplexity_before:.1f} before, "
        f"{made.perplexity_after:.1f} after.\n"
        f"Next: loka run {case_file or out_ / 'case.yaml'} --model {out_ / 'model'} --out DIR",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


@app.command()
def report(
    folder: Folder,
    redact: Annotated[
        bool, typer.Option("--redact", help="Leave the items' text out of the report; the other files stay.")
    ] = False,
) -> None:
    """Write the HTML report and the figures of a run folder."""
    with locked(folder) if folder.is_dir() else nullcontext():
        out.print(f"{write_report(folder, redact=redact)}")


@app.command(name="export")
def export_(
    folder: Folder,
    to: Annotated[Path, typer.Option("--to", help="A new folder, or a new .gguf file.")],
    adapter: Annotated[
        bool, typer.Option("--adapter", help="Write only the edit, as a LoRA adapter for peft.")
    ] = False,
    case: CaseAgain = "",
) -> None:
    """Write the edited model as an ordinary Hugging Face folder or as GGUF, or the edit as an adapter."""
    if not (folder / "edit.safetensors").exists():
        raise UserError(f"there is no edit file in {str(folder)!r}; `loka ablate {folder}` writes one.")
    check_writable(to.parent)
    current = Run(folder, case=case or None)
    edit = Edit.load(folder / "edit.safetensors")
    if adapter:
        out.print(f"{export_adapter(current.model, edit, to)}: load it with peft's PeftModel.from_pretrained.")
        return
    if to.suffix == ".gguf":
        out.print(f"{export_gguf(current.model, to, edit=edit)}: load it with llama.cpp or transformers' gguf_file=.")
        return
    export(current.model, to, edit=edit)
    out.print(f"{to}: load it with transformers' AutoModelForCausalLM.from_pretrained({str(to)!r}).")


@app.command()
def cases() -> None:
    """List the built-in cases."""
    for name in knowledge.cases():
        found = knowledge.case(name)
        facts = [f"{len(r.facts)} {n} facts" for n, r in found.relations.items()]
        items = [f"{len(of)} {found.file.sets[n].kind}s" for n, of in found.records.items()]
        twins = len(found.whole().twins.sealed)
        never = [f"{twins} twins"] if twins else []
        out.print(f"[bold]{name}[/]  {found.purpose}; {', '.join([*facts, *items, *never])}", soft_wrap=True)


@app.command(name="recipes")
def recipes_(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Print this recipe as YAML.")] = "",
) -> None:
    """List the built-in recipes, or print one as a file to start from."""
    if name:
        out.print(escape(Recipe.load(name).to_yaml().rstrip()), highlight=False, soft_wrap=True)
        return
    for each in recipes():
        recipe = Recipe.load(each)
        sites = f"{recipe.sites:,} {recipe.part}s" if recipe.sites else "sites of its own choice"
        out.print(f"[bold]{each}[/]  {recipe.method} on {sites}", highlight=False)


app.command()(new)


@app.command()
def models() -> None:
    """List what --model takes."""
    out.print(f"[bold]{DEFAULT}[/]  SmolLM2-135M-Instruct, 30 layers, 9 heads, 46,080 neurons; fetched once (98 MB)")
    out.print("a folder with config.json and *.safetensors or *.gguf, or a hub id that transformers can load")


def _pipeline(
    folder: Path,
    model: str,
    device: str,
    dtype: str,
    case: knowledge.CaseSpec,
    profile: str,
    recipe: Recipe | None,
    tasks: Sequence[HarnessTask] = (),
    limit: int | None = None,
    *,
    redact: bool = False,
    workers: Workers = HERE,
) -> None:
    with Bars(together=workers.several) as bars:
        current = Run(
            folder, model=model, device=device, dtype=read_dtype(dtype), case=case, profile=_profile(profile),
            recipe=recipe, progress=bars, command=_command(), redact=redact,
        )  # fmt: skip
        known = f"{current.case.facts_known} of {current.case.facts_total}"
        bars.say(f"{current.model.name} knows {known} facts of the case {current.case.name}; the others are set aside.")
        for sentence in current.limits():
            bars.say(escape(sentence))
        with workers.runner(current.model, trains=trains_weights(current.profile)) as runner:
            current.localization(runner=runner)
            current.edit()
            verdict = current.verdict(runner)
        utility = lm_eval_in(folder, current.model, current.edit(), tasks, limit=limit, progress=bars) if tasks else {}
        path = current.report()
    out.print(table(verdict))
    if utility:
        out.print(lm_eval_table(utility))
    out.print(escape(str(verdict)), highlight=False, soft_wrap=True)
    out.print(f"\nReport: {path}")


def _tasks(names: str) -> Sequence[HarnessTask]:
    """The tasks, loaded before anything expensive starts."""
    return load_tasks([name.strip() for name in names.split(",")]) if names else ()


def _profile(name: str) -> Profile:
    effort(cast(Profile, name))
    return cast(Profile, name)


def _command() -> str:
    return " ".join(["loka", *sys.argv[1:]])
