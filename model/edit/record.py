"""How an edit was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from pydantic import JsonValue

from ..._util.records import read_record


@dataclass(frozen=True)
class TrainingRecord:
    """How a training went that measured a held-out part on its way.

    `steps`: how many it took; `best_step`: the step whose state the edit holds; `ended`: why it ended. Of that state,
    `forget` and `retain`: the shares of prompts answered in full, and `perplexity`, of held-out text. Against the
    original: `retain_before`, and `perplexity_rise` as a share. `met`: whether it is inside the bounds; `far`: whether
    its collateral is far outside of them.
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
    """One of several rounds; `sites`: how many it reset."""

    sites: int


@dataclass(frozen=True)
class EditRecord:
    """What an edit says about how it was made.

    Args:
        method: its name in `loka.ablate.METHODS`, or another tool's word for it.
        model, case: the names of both; no case where the edit came from elsewhere.
        sites: the names of the sites that it changes. `None`: all weights of the blocks. Empty: there is no list of
            sites that others could replace, as in a merged edit.
        arguments: the method's own, as JSON; a training's configuration is under `config`.
        strength: how far it goes; 1 is the edit as it was made.
        training: of a training that measured a held-out part.
        rounds: of each round, where there were several.
        first_sites: the sites that the first of several rounds was given.
        ended: why there are fewer rounds than were asked for.
        edits: the records of the edits that this one merges.
        texts: on how many texts the model was trained again.
        adapter: the folder of the low-rank adapter that it was read from.
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
        """What `to_json` gave.

        Raises:
            UserError: an unknown key, or a value of another type.
        """
        return read_record(cls, values, "an edit's record")
