"""The record of how an edit was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from pydantic import JsonValue

from ..._util.records import read_record


@dataclass(frozen=True)
class TrainingRecord:
    """The outcome of a training that measured a held-out part.

    `steps`: the number of steps taken; `best_step`: the step whose state the edit holds; `ended`: why the training
    ended. `forget` and `retain`: the shares of prompts that this state answers in full; `perplexity`: its perplexity on
    held-out text. `retain_before`: the original's share; `perplexity_rise`: relative to the original. `met`: whether
    the state is within the bounds; `far`: whether its collateral is far outside them.
    """

    steps: int
    best_step: int
    ended: str
    forget: float
    retain: float
    perplexity: float
    retain_before: float
    perplexity_rise: float
    met: bool
    far: bool


@dataclass(frozen=True)
class RoundRecord(TrainingRecord):
    """The outcome of one of several rounds; `sites`: the number of sites it reset."""

    sites: int


@dataclass(frozen=True)
class RewriteRecord:
    """The outcome of writing new answers in closed form.

    `asked`: the number of new answers; `written`: how many of them the edited model gives in full to the plain prompt;
    `norms`: by matrix, the Euclidean norm of its change and of the matrix itself.
    """

    asked: int
    written: int
    norms: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class EditRecord:
    """The record of how an edit was made.

    Args:
        method: its name in `loka.ablate.METHODS`, or another tool's word for it.
        model, case: their names; no case if the edit came from elsewhere.
        sites: the names of the sites that it changes. `None`: all weights of the blocks. Empty: the edit has no list of
            sites that could be replaced by others, such as a merged edit.
        arguments: the method's arguments as JSON; the configuration of a training is under `config`.
        strength: the share of the full change; 1 is the edit as it was made.
        training: the outcome of a training that measured a held-out part.
        rounds: the outcome of each round, if there were several.
        first_sites: the sites given to the first of several rounds.
        ended: why there are fewer rounds than requested.
        edits: the records of the edits that this one merges.
        texts: the number of texts that the model was retrained on.
        adapter: the folder of the low-rank adapter that it was read from.
        rewrite: the outcome of writing new answers in closed form.
    """

    method: str = ""
    model: str = ""
    case: str | None = None
    sites: tuple[str, ...] | None = None
    arguments: Mapping[str, JsonValue] = field(default_factory=dict)
    strength: float = 1.0
    training: TrainingRecord | None = None
    rounds: tuple[RoundRecord, ...] = ()
    first_sites: tuple[str, ...] = ()
    ended: str | None = None
    edits: tuple[EditRecord, ...] = ()
    texts: int | None = None
    adapter: str | None = None
    rewrite: RewriteRecord | None = None

    @property
    def config(self) -> Mapping[str, JsonValue]:
        """The method's configuration as JSON; empty where it has none."""
        config = self.arguments.get("config")
        return config if isinstance(config, Mapping) else {}

    def to_json(self) -> dict[str, JsonValue]:
        """All fields, as `from_json` reads them."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: object) -> EditRecord:
        """Read what `to_json` wrote.

        Raises:
            UserError: an unknown key, or a value of another type.
        """
        return read_record(cls, values, "an edit's record")
