"""SISA: sharded, isolated, sliced, aggregated training, which makes exact removal cheap.

Machine Unlearning, Bourtoule et al. 2021, arXiv:1912.03817.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from .._util.errors import UserError
from .._util.files import write_atomic, write_json
from ..model import Batch, logits, scratch
from .common import Progress
from .retrain import Training, remaining, train_on_texts_

if TYPE_CHECKING:
    from ..model import Model

FORMAT = "loka-sisa-1"


@dataclass(frozen=True)
class Deletion:
    """The cost of a deletion in training steps: it took `steps`; retraining everything would take `whole`."""

    items: tuple[int, ...]
    steps: int
    whole: int

    @property
    def saved(self) -> float:
        """The share of a full retraining that the deletion saved."""
        return 1 - self.steps / self.whole

    def __str__(self) -> str:
        return f"{len(self.items)} text(s) removed in {self.steps:,} of {self.whole:,} steps; {self.saved:.0%} saved."


class Sisa:
    """An ensemble with one model per shard of the training data, stored as a folder of checkpoints.

    Texts are dealt evenly to `shards` and, within each, to `slices`. A shard's model starts from `model`, learns its
    first slice, then the first two, and so on. Its weights after each of these stages are stored as safetensors. To
    delete a text, its shard is retrained from the last checkpoint without it. The folder stores each text's number and
    SHA-256, and nothing of a deleted text.

    Args:
        model: the checkpoint from before all data. A member's weights replace its own only inside `member`.
        texts: the data. A deleted text keeps its place in the list, but is not read.
        folder: the folder of checkpoints, new or existing. `train` makes the missing ones, also after a kill.
        shards, slices: the number of shards, and of slices in each.
        training: how each checkpoint is trained.
        without: the numbers of texts that are never learned. Omit it for an existing folder.

    Raises:
        UserError: a folder that was made from other data, from another model or with other settings; too few texts for
            the slices.

    Example:
        sisa = loka.ablate.Sisa(base, texts, "runs/sisa", shards=4, slices=3)
        sisa.train()
        print(sisa.delete([17]))
    """

    def __init__(
        self,
        model: Model,
        texts: Sequence[str],
        folder: str | Path,
        *,
        shards: int = 4,
        slices: int = 3,
        training: Training | None = None,
        without: Collection[int] = (),
    ) -> None:
        self.model, self.texts, self.folder = model, list(texts), Path(folder)
        self.shards, self.slices, self.training = shards, slices, training or Training()
        if min(shards, slices) < 1 or shards * slices > len(self.texts):
            raise UserError(
                f"{len(self.texts)} texts cannot fill {shards} shards of {slices} slices; "
                f"use at least one of each, and no more than {len(self.texts)} slices in all."
            )
        self.base = model.digest()
        order = random.Random(f"{self.training.seed}/sisa").sample(range(len(self.texts)), len(self.texts))
        self.place = {item: (at % shards, at // shards % slices) for at, item in enumerate(order)}
        rest = remaining(self.texts, without)
        self.items = {i: hashlib.sha256(text.encode()).hexdigest() for i, text in rest.items()}
        self._open()

    def train(self, *, progress: Progress | None = None) -> int:
        """Make every checkpoint that is missing or out of date, and return the number of steps."""
        wanted = [(s, r) for s in range(self.shards) for r in range(self.slices) if not self._is_current(s, r)]
        for shard, part in wanted:
            self._path(shard, part).unlink(missing_ok=True)
        total, done = sum(self._steps(s, r) for s, r in wanted), 0

        def step(at: int, _: int) -> None:
            if progress:
                progress(done + at, total)

        for shard, part in wanted:
            with scratch(self.model):
                if part:
                    self._load_(shard, part - 1)
                texts = {i: self.texts[i] for i in self._texts_up_to(shard, part)}
                if texts:
                    train_on_texts_(self.model, texts, self.training, stage=f"{shard}/{part}", progress=step)
                self._save(shard, part)
            done += self._steps(shard, part)
        return done

    def delete(self, items: Collection[int], *, progress: Progress | None = None) -> Deletion:
        """Remove texts: retrain every checkpoint that has learned them. After a kill, `train` finishes the job.

        Raises:
            UserError: a text that was not learned, or no texts left.
        """
        if unknown := sorted(set(items) - set(self.items)):
            raise UserError(f"text {unknown[0]} is not among the {len(self.items)} that were learned; name others.")
        remaining(self.texts, (set(range(len(self.texts))) - set(self.items)) | set(items))
        self.items = {i: sha for i, sha in self.items.items() if i not in set(items)}
        self._write()
        steps = self.train(progress=progress)
        whole = sum(self._steps(s, r) for s in range(self.shards) for r in range(self.slices))
        return Deletion(tuple(sorted(set(items))), steps, whole)

    @contextmanager
    def member(self, shard: int) -> Iterator[Model]:
        """The model of a shard, as a context.

        Raises:
            UserError: no such shard, or one that has not been trained.
        """
        if not 0 <= shard < self.shards or not self._is_current(shard, self.slices - 1):
            raise UserError(f"shard {shard} of {self.shards} has not been trained; call `train` first.")
        with scratch(self.model):
            self._load_(shard, self.slices - 1)
            yield self.model

    @torch.no_grad()
    def probabilities(self, batch: Batch, *, by: str = "probability") -> Tensor:
        """The ensemble's next-token distribution at a batch's labels, `[row, keep, vocabulary]`.

        Args:
            by: `probability`, the mean over shards, or `majority`, the share of shards that rank the token first.

        Raises:
            UserError: another `by`.
        """
        if by not in ("probability", "majority"):
            raise UserError(f"{by!r} is not a way to aggregate; choose 'probability' or 'majority'.")
        total: Tensor | float = 0.0
        for shard in range(self.shards):
            with self.member(shard) as member:
                scores = logits(member, batch)
                won = torch.zeros_like(scores).scatter(-1, scores.argmax(-1, keepdim=True), 1.0)
                total = total + (scores.softmax(-1) if by == "probability" else won)
        assert isinstance(total, Tensor)
        return total / self.shards

    def _texts_up_to(self, shard: int, part: int) -> list[int]:
        """The texts of a shard's slices, up to and including slice `part`."""
        return [i for i in self.items if self.place[i][0] == shard and self.place[i][1] <= part]

    def _steps(self, shard: int, part: int) -> int:
        return self.training.steps(len(self._texts_up_to(shard, part)))

    def _path(self, shard: int, part: int) -> Path:
        return self.folder / f"shard-{shard}" / f"slice-{part}.safetensors"

    def _fingerprint(self, shard: int, part: int) -> str:
        """A digest of everything that goes into a checkpoint."""
        made_from = [self.base, asdict(self.training), [{i: self.items[i] for i in self._texts_up_to(shard, part)}]]
        made_from += [self._fingerprint(shard, part - 1)] if part else []
        return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()

    def _is_current(self, shard: int, part: int) -> bool:
        """Whether a checkpoint exists and was made from the right texts."""
        path = self._path(shard, part)
        if not path.exists():
            return False
        try:
            with safe_open(path, framework="pt") as file:
                return (file.metadata() or {}).get("made_from") == self._fingerprint(shard, part)
        except (SafetensorError, OSError):
            return False

    def _load_(self, shard: int, part: int) -> None:
        with safe_open(self._path(shard, part), framework="pt") as file, torch.no_grad():
            for name, parameter in self.model.parameters.items():
                parameter.copy_(file.get_tensor(name))

    def _save(self, shard: int, part: int) -> None:
        weights = {name: p.detach().cpu().contiguous() for name, p in self.model.parameters.items()}
        write_atomic(
            self._path(shard, part), serialize(weights, metadata={"made_from": self._fingerprint(shard, part)})
        )

    def _open(self) -> None:
        """Create the folder, or read it; texts that were deleted there stay deleted."""
        path = self.folder / "sisa.json"
        if not path.exists():
            self._write()
            return
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            items = {int(i): sha for i, sha in stored["items"].items()}
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise UserError(f"{str(path)!r} cannot be read ({error}); name another folder.") from error
        if any(stored.get(key) != value for key, value in self._settings().items()):
            raise UserError(f"{str(path)!r} belongs to another model or has other settings; name another folder.")
        if any(self.items.get(i) != sha for i, sha in items.items()):
            raise UserError(f"{str(path)!r} was made from other texts; give the same texts, or name another folder.")
        self.items = items

    def _write(self) -> None:
        write_json(self.folder / "sisa.json", self._settings() | {"items": {str(i): s for i, s in self.items.items()}})

    def _settings(self) -> dict[str, object]:
        settings = {"format": FORMAT, "base": self.base, "shards": self.shards, "slices": self.slices}
        return settings | {"training": asdict(self.training), "texts": len(self.texts)}
