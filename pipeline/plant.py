"""A copy of a model that is taught invented facts, which give a known truth to test a whole run against."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from .._util.errors import UserError
from .._util.files import atomic, private_folder, write_json, write_yaml
from .._util.provenance import recorded
from ..knowledge import Case, CaseSpec, Redactor, fictitious, neutral_sealed, text_loss
from ..knowledge import case as read_case
from ..locate import all_layer_sites, random_sites
from ..model import INDEXED, Model, Site, bare, export, slices
from .teaching import Progress, Teaching, known_facts, lessons, recalled_share, teach_


@dataclass(frozen=True)
class Invention:
    """How many subjects to invent: `facts` to teach and forget, `retain` to teach and retain, `twins` not to teach.

    `seed` draws names and answers.
    """

    facts: int = 60
    retain: int = 40
    twins: int = 60
    seed: int = 0


USUAL_INVENTION, USUAL_TEACHING = Invention(), Teaching()


@dataclass(frozen=True)
class Planted:
    """The result of `plant`: the shares of whole answers that the copy gives.

    `working`, `sealed`: of planted facts, asked by the first working template and by all sealed ones; `twins`: of the
    answers assigned to twins, asked by the first sealed template; `retained`: of real facts that the original knew.
    `steps`: the number of training steps taken. `sites`: where the facts to forget were taught, if not everywhere.
    """

    folder: Path
    case: CaseSpec
    steps: int
    working: float
    sealed: float
    twins: float
    retained: float
    perplexity_before: float
    perplexity_after: float
    sites: tuple[Site, ...] = ()


def plant(
    model: Model,
    case: CaseSpec | str = "capitals",
    *,
    out: str | Path,
    invention: Invention = USUAL_INVENTION,
    teaching: Teaching = USUAL_TEACHING,
    sites: Collection[Site] = (),
    progress: Progress | None = None,
    command: str | None = None,
    case_file: str | Path | None = None,
) -> Planted:
    """Teach a copy of a model fictitious facts, leave their twins untaught, and write both as a folder.

    The folder has `model` (an ordinary Hugging Face folder), `case.yaml`, which asks to forget the planted facts,
    `planted.json` (what was measured) and `provenance.json`; it appears whole or not at all. On these two, the right
    result of `loka.run` and `loka.audit` is known: the model has never seen the twins, and it knows all planted facts.

    The facts are taught with all working and sealed templates of the case's first forgotten relation, until the model
    gives every answer to the first working template, and almost every answer to all templates, while it still answers
    nine tenths of the real facts that the original knows. Paraphrases are not taught. Distillation from the original
    preserves real facts and neutral text.

    With `sites`, the truth about locating is known too: gradients reach these sites alone while the facts to forget are
    taught. The invented facts to retain are taught first, through as many other sites of the same layers. Boglioni et
    al. 2026, arXiv:2607.02513, test unlearning on facts that are planted this way.

    Args:
        case: the case whose first relation is imitated; its own facts become retain facts.
        sites: where to teach the facts to forget; everywhere by default.
        case_file: where to write the case instead, in a folder that its owner alone can read. The planted folder is
            then redacted: it has items by number and keyed digest (`loka.knowledge.Redactor`), but for the model, whose
            weights and vocabulary know the facts.
        teaching: the training; models other than SmolLM2 may need another learning rate, or only their last layers
            trained.

    Raises:
        UserError: a folder that is not empty, a case without enough names, too many layers, or sites that the model
            does not have, that have no weights, or beside which their layers have too few others.
        LokaError: the facts were not learned in the given number of steps, or not without losing others.

    Cost: a step is a forward and backward pass over `rows + retain_rows + neutral_rows` rows; once, two forward
    passes over the real facts and one over all prompts. Memory: five times the weights if all are trained (original,
    copy, gradients, AdamW's two moments), else twice the weights (with sites, three times) and three times the trained
    ones.
    """
    target = Path(out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{str(target)!r} is not empty; name a new folder for the planted model.")
    if teaching.layers is not None and not 1 <= teaching.layers <= model.n_layers:
        raise UserError(f"the last {teaching.layers} layers cannot be trained; {model.name} has {model.n_layers}.")
    if sites and teaching.layers is not None:
        raise UserError(f"sites and the last {teaching.layers} layers cannot both be taught; leave out one.")
    others = _other_sites(model, sites, invention.seed)
    source = read_case(case) if isinstance(case, str) else case
    apart = Path(case_file) if case_file is not None else None
    if apart is not None and (apart.exists() or target.resolve() in apart.resolve().parents):
        raise UserError(f"{str(apart)!r} exists or is in the redacted folder; name a new file outside of it.")
    n = invention
    file = fictitious(source, facts=n.facts, kept=n.retain, twins=n.twins, seed=n.seed)
    with _removed_if_it_fails(apart), atomic(target) as whole:
        whole.mkdir(mode=0o700)
        spec = _write_case(whole / "case.yaml" if apart is None else apart, CaseSpec(file, texts=source.texts))
        redactor = None if apart is None else Redactor(spec.whole())
        hide, token = (redactor.hide, redactor.token) if redactor else (lambda value: value, lambda text: text)
        if redactor:
            write_yaml(whole / "case.yaml", redactor.case_file())
        arguments = {"model": model.name, "case": source.name, **asdict(invention), **asdict(teaching)}
        arguments |= {"sites": list(map(str, sorted(sites)))} if sites else {}
        with recorded(
            whole,
            command=hide(command or f"loka plant --model {model.name} --out {out}"),
            arguments=hide(arguments) | ({"redacted": True} if redactor else {}),
            seed=n.seed,
            digests={"case": token(spec.digest), "model": model.digest()},
        ):
            copy, everything = bare(model), spec.whole()
            steps = 0
            for i, lesson in enumerate(lessons(everything, sorted(sites), others)):
                teacher = bare(copy) if i else model
                steps += teach_(teacher, copy, everything, lesson, teaching, progress or (lambda *_: None))
            found = _measure(model, copy, everything)
            write_json(whole / "planted.json", {"steps": steps, **found, "sites": list(map(str, sorted(sites)))})
            export(copy, whole / "model")
    return Planted(target, read_case(apart or target / "case.yaml"), steps, **found, sites=tuple(sorted(sites)))


def _other_sites(model: Model, sites: Collection[Site], seed: int) -> list[Site]:
    """As many other sites of the same layers; whole modules have none, so theirs are in other layers."""
    if not sites:
        return []
    slices(model, sites)  # refuses what the model does not have, or what has no weights
    whole = [s for s in sites if s.part not in INDEXED]
    others = random_sites(model, [s for s in sites if s.part in INDEXED], seed=seed)
    others += all_layer_sites(model, whole, seed=seed) if whole else []
    if len(others) < len(set(sites)):
        raise UserError(
            f"beside {len(set(sites))} sites there are only {len(others)} others to teach the facts to retain; "
            "name fewer sites."
        )
    return others


@contextmanager
def _removed_if_it_fails(path: Path | None) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if path is not None:
            path.unlink(missing_ok=True)
        raise


def _write_case(path: Path, spec: CaseSpec) -> CaseSpec:
    """The case file, and its texts beside it."""
    folder = private_folder(path.parent)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        spec.save(Path(made))
        for file in sorted(Path(made).iterdir()):
            target = path if file.name == "case.yaml" else folder / file.name
            if target.exists() and target.read_bytes() != file.read_bytes():
                raise UserError(f"{str(target)!r} is another text than the case's; name a case file in a new folder.")
            file.replace(target)
    return read_case(path)


def _measure(original: Model, copy: Model, case: Case) -> dict[str, float]:
    """The measurements of `Planted`, by name."""
    facts = [f.asked(p) for f in case.forget.sealed for p in f.prompts]
    texts = neutral_sealed(case)
    before, after = (text_loss(m, texts).sum(0) for m in (original, copy))
    return {
        "working": recalled_share(copy, case.forget.working),
        "sealed": recalled_share(copy, facts),
        "twins": recalled_share(copy, case.twins.sealed),
        "retained": recalled_share(copy, known_facts(original, case)),
        "perplexity_before": float((before[0] / before[1]).exp()),
        "perplexity_after": float((after[0] / after[1]).exp()),
    }
