"""Exact interventions on many sites, with all variants of a prompt in one pass over the layers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import psutil
import torch
from torch import Tensor

from ..._util.errors import UserError
from ..batch import Batch, chunks
from ..site import Site
from .block_runner import use_attention
from .checkpoint import SweepCheckpoint
from .interventions import Intervention, PromptDifferences, prompt
from .onednn import onednn_linear
from .patched_runs import PatchedRuns
from .single_precision import single_precision
from .trace import trace

if TYPE_CHECKING:
    from ..load import Model

Metric = Callable[[int, Tensor], Tensor]
Positions = Sequence[int] | Literal["all"]
TOKENS = {"cpu": 1536}  # larger batches are not faster on a CPU
LOGITS = 2**22


@dataclass(frozen=True)
class Swept:
    """The metric of every prompt, unchanged and with each site changed.

    `base`: `[prompt]`, unchanged. `values`: `[prompt, site]`, or `[prompt, site, position]` if `positions` were given,
    NaN where a prompt is too short to have one. Positions count back from the end of the prompt: -1 is its last token.
    """

    base: np.ndarray
    values: np.ndarray
    positions: tuple[int, ...] | None = None

    @property
    def falls(self) -> np.ndarray:
        """How far the metric falls, in the shape of `values`."""
        return self.base.reshape(-1, *[1] * (self.values.ndim - 1)) - self.values


@dataclass(frozen=True)
class SweepBudget:
    """The size of a sweep's batches, and the file for its finished cells.

    `rows`: the largest number of sites in one batch, by default as many as are useful and fit into `memory`; `memory`:
    the bytes that a batch may take, by default half of the free memory; `checkpoint`: a file. A second call with the
    same file resumes the sweep in the same batches.
    """

    rows: int | None = None
    memory: float | None = None
    checkpoint: str | Path | None = None


@torch.no_grad()
def sweep(
    model: Model,
    clean: Batch,
    sites: Sequence[Site],
    intervention: Intervention,
    *,
    metric: Metric,
    positions: Positions | None = None,
    prompts: Sequence[int] | None = None,
    budget: SweepBudget = SweepBudget(),
    progress: Callable[[int, int], None] | None = None,
) -> Swept:
    """Change each site separately in each prompt, and measure what the model then predicts.

    Args:
        clean: prompts with their answers. The last token of a row is not run, since nothing is predicted after it.
        sites: of any part. `resid` is the residual stream after the layer's block; `attn` and `mlp` are the outputs of
            these modules, before any norm that follows them; `q` and `k` are taken before norms and rotation.
        intervention: what replaces an activation.
        metric: maps a prompt's number and its logits `[row, label, vocabulary]` at its own labels to one number per
            row.
        positions: change a site at one position at a time, at these or at `"all"`, counted back from the end of the
            prompt: -1 is its last token. By default, at all positions at once, including those of the answer.
        prompts: the rows of `clean` to sweep, by default all; the others stay NaN.
        progress: called with the number of finished cells and of all cells; a cell is a site (at a position) in a
            prompt.

    Raises:
        UserError: a site that the model does not have, a pair of prompts of unequal length where positions are asked
            for, a budget too small for one row, or the checkpoint of another sweep.

    In half precision, rounding would hide the effects of most sites, so the weights are in float32 while this runs.

    Cost: for each site and prompt, the blocks after the site from the first changed position on. For each prompt, its
    own run and that of its counterfactual; for `mean` and `noise`, one more run.
    """
    _check(model, sites, budget.rows)
    differences = PromptDifferences(model, clean, intervention)
    source = differences.source
    where = _positions(model, clean, source if intervention.kind == "patch" else None, positions)
    order = site_order(sites)
    ordered = [sites[i] for i in order]
    cells = _cells(model, clean, ordered, intervention, where, budget)
    with single_precision(model), use_attention(model), onednn_linear(model):
        for row in range(len(clean.ids)) if prompts is None else prompts:
            run = trace(model, prompt(clean, row), {(site.part, site.layer) for site in sites})
            asked = int((clean.labels[row] >= 0).sum())
            cells.put_base(row, float(metric(row, run.runner.logits(run.leaving[-1][:, -asked:]))))
            if cells.done[row].all():
                continue
            patched = PatchedRuns(model, run, differences.compute(row, run), asked)
            for group, values in _values(
                patched, ordered, where, partial(metric, row), cells.settings, cells.done[row]
            ):
                cells.put(row, group, cells.base[row] if values is None else values)
                if progress:
                    progress(int(cells.done.sum()), cells.done.size)
    values = cells.values.reshape(len(clean.ids), len(where), len(sites))[:, :, np.argsort(order)].transpose(0, 2, 1)
    asked_for = tuple(at for at in where if at is not None)
    return Swept(cells.base, values, asked_for) if asked_for else Swept(cells.base, values[..., 0])


def site_order(sites: Sequence[Site]) -> list[int]:
    """The places of the sites in the order of a sweep's cells: layer by layer."""
    return sorted(range(len(sites)), key=lambda i: (sites[i].layer, sites[i].part))


def sweep_cells(
    model: Model, clean: Batch, sites: Sequence[Site], intervention: Intervention, budget: SweepBudget
) -> SweepCheckpoint:
    """The cells of a sweep over all positions at once, as the checkpoint has them; sites are in `site_order`."""
    _check(model, sites, budget.rows)
    return _cells(model, clean, [sites[i] for i in site_order(sites)], intervention, [None], budget)


def _cells(
    model: Model,
    clean: Batch,
    ordered: Sequence[Site],
    intervention: Intervention,
    where: Sequence[int | None],
    budget: SweepBudget,
) -> SweepCheckpoint:
    source = clean if intervention.other is None else intervention.other
    scale = intervention.scale if intervention.kind == "noise" else None
    about = (list(ordered), list(where), intervention.kind, intervention.seed, scale)
    fingerprint = _fingerprint(model, about, clean, source) if budget.checkpoint else ""
    cells = SweepCheckpoint(budget.checkpoint, fingerprint, (len(clean.ids), len(where) * len(ordered)))
    cells.settings = {"memory": budget.memory or _free_memory(model), "rows": budget.rows} | cells.settings
    return cells


def _values(
    patched: PatchedRuns,
    sites: Sequence[Site],
    where: Sequence[int | None],
    metric: Callable[[Tensor], Tensor],
    settings: dict[str, Any],
    done: np.ndarray,
) -> Iterator[tuple[slice, np.ndarray | float | None]]:
    """The metric of a prompt's cells, batch by batch, and `None` for cells that change nothing."""
    runner = patched.run.runner
    for n, back in enumerate(where):
        # all tokens of the prompt run, and all of the answer but one
        at = None if back is None else runner.length + 1 - patched.keep + back
        cells = slice(n * len(sites), (n + 1) * len(sites))
        if done[cells].all():
            continue
        if at is not None and at < 0:
            yield cells, np.nan
        elif (patched.first if at is None else at) >= runner.length or (at is not None and at < patched.first):
            yield cells, None
        else:
            for part in chunks(len(sites), _rows(patched, at, **settings)):
                cells = slice(n * len(sites) + part.start, n * len(sites) + part.stop)
                if not done[cells].all():
                    ends = patched.ends(sites[part], at)
                    few = max(1, LOGITS // (patched.keep * patched.model.hf.config.vocab_size))
                    odds = torch.cat([metric(runner.logits(ends[part])) for part in chunks(len(ends), few)])
                    yield cells, odds.double().cpu().numpy()


def _rows(patched: PatchedRuns, at: int | None, *, memory: float, rows: int | None) -> int:
    """The rows of a batch: as many as the memory holds, but no more than are useful."""
    model, length = patched.model, patched.run.runner.length
    tokens = length - patched.start(at)
    attended = 2 * length * model.d_head * (model.n_heads + model.n_kv_heads) + 2 * model.n_heads * tokens * length
    within = tokens * (8 * model.d_model + 4 * model.n_neurons + 6 * model.n_heads * model.d_head)
    each = (attended + within + 4 * patched.keep * model.hf.config.vocab_size) * model.dtype.itemsize
    if memory < each:
        raise UserError(
            f"a row of this sweep takes about {each / 2**20:.3g} MiB, and the memory given or free is "
            f"{memory / 2**20:.3g} MiB; give more by memory=, or shorter prompts."
        )
    most = rows or max(1, TOKENS.get(model.device.type, 16 * TOKENS["cpu"]) // tokens)
    return min(most, int(memory // each))


def _check(model: Model, sites: Sequence[Site], rows: int | None) -> None:
    if not sites:
        raise UserError("a sweep needs at least one site.")
    if rows is not None and rows < 1:
        raise UserError(f"rows={rows} is not a batch size; give 1 or more, or leave it out.")
    for site in sites:
        model.check_site(site)


def _positions(model: Model, clean: Batch, other: Batch | None, positions: Positions | None) -> list[int | None]:
    """Positions counted from the end of the prompts, or one `None` for all together."""
    if positions is None:
        return [None]
    lengths = clean.mask.sum(-1)
    apart = [] if other is None else (lengths != other.mask.sum(-1)).nonzero()[:, 0].tolist()
    for row in apart[:1]:
        assert other is not None, "there is something to differ from"
        texts = [model.tokenizer.decode(b.ids[row][b.mask[row].bool()]) for b in (clean, other)]
        raise UserError(
            f"{texts[0]!r} has {int(lengths[row])} tokens and its counterfactual {texts[1]!r} "
            f"{int(other.mask[row].sum())}, so their positions do not match; sweep without positions, or give pairs "
            "of equal length."
        )
    longest = int((lengths - (clean.labels >= 0).sum(-1)).max())
    asked = range(-longest, 0) if positions == "all" else positions
    if wrong := [p for p in asked if not -longest <= p < 0]:
        raise UserError(
            f"position {wrong[0]} is not in any prompt: positions count from the end, -{longest} to -1 here."
        )
    return list(asked)


def _free_memory(model: Model) -> float:
    if model.device.type == "cuda":
        return torch.cuda.mem_get_info(model.device)[0] / 2
    return psutil.virtual_memory().available / 2


def _fingerprint(model: Model, about: object, *batches: Batch) -> str:
    total = hashlib.sha256(f"{model.digest()} {about}".encode())
    for tensor in (t for b in batches for t in (b.ids, b.mask, b.labels)):
        total.update(tensor.cpu().numpy().tobytes())
    return total.hexdigest()
