"""The record of how a localization or a circuit was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from pydantic import JsonValue, TypeAdapter, ValidationError

from .._util.errors import UserError
from ..knowledge import Case
from ..model import Model

SHARE = "share of a fact's effect"


@dataclass(frozen=True)
class LocalizationRecord:
    """What was located, where, and how.

    Attributes:
        method: the locator's name.
        model: the model's name.
        case: the case's name.
        digest: SHA-256 of the model's weights.
        n_forget: number of forget facts that the scores rest on.
        n_retain: number of retain facts that the scores rest on.
        seed: seed of the bootstrap.
        settings: the locator's own options.
        n_experts: how many experts the neurons of a layer belong to, in equal parts.
        unit: what the scores are measured in.
    """

    method: str
    model: str = ""
    case: str = ""
    digest: str = ""
    n_forget: int = 0
    n_retain: int = 0
    seed: int = 0
    settings: Mapping[str, JsonValue] = field(default_factory=dict)
    n_experts: int = 1
    unit: str = SHARE

    @classmethod
    def of(
        cls, method: str, model: Model, case: Case, settings: Mapping[str, JsonValue] | None = None
    ) -> LocalizationRecord:
        """The record of a locator's run; `contrast` fills in the numbers of facts."""
        settings = settings or {}
        return cls(method, model.name, case.name, model.digest(), 0, 0, case.seed, settings, model.n_experts)

    def to_json(self) -> dict[str, JsonValue]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: JsonValue) -> LocalizationRecord:
        """Read what `to_json` wrote.

        Raises:
            UserError: a field is missing or has the wrong type.
        """
        try:
            return TypeAdapter(cls).validate_python(value)
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            what = f"has a faulty field {where!r}" if where else "is missing"
            raise UserError(f"the record of how this was located {what}; locate it again.") from error
