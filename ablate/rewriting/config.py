"""The configuration of ROME and MEMIT: the search for new values, and what must not change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from pydantic import JsonValue

from ..._util.errors import UserError
from ..._util.records import check_types, read_record
from .value import ValueSearch


@dataclass(frozen=True)
class RewriteConfig:
    """The configuration of `rome` and `memit`.

    Args:
        contexts: the number of prompts that follow a beginning of neutral text, in addition to the plain prompt.
        steps, lr, weight_decay, clamp, kl_weight, target_loss: settings of the search for a value, see `ValueSearch`.
        retain_weight: weight of the retained facts' subjects in the second moment, relative to the text; 0 is the
            published method.
        ridge: this share of the second moment's mean diagonal is added to its diagonal.
        largest_change: the largest norm of a matrix's change that is accepted, as a multiple of the matrix's own norm.

    Raises:
        UserError: a negative number.
    """

    contexts: int = 8
    steps: int = 25
    lr: float = 0.5
    weight_decay: float = 0.5
    clamp: float = 4.0
    kl_weight: float = 0.0625
    target_loss: float = 0.3
    retain_weight: float = 1.0
    ridge: float = 0.01
    largest_change: float = 4.0

    def __post_init__(self) -> None:
        check_types(self, "a rewrite config")
        for name, value in asdict(self).items():
            if not 0 <= value < math.inf:
                raise UserError(f"{name}={value} is not allowed; give 0 or more.")
        if self.steps < 1:
            raise UserError(f"steps={self.steps} is not allowed; give 1 or more steps of the search.")

    @property
    def search(self) -> ValueSearch:
        """The settings of the search for a single value."""
        return ValueSearch(self.steps, self.lr, self.weight_decay, self.clamp, self.kl_weight, self.target_loss)

    def to_json(self) -> dict[str, JsonValue]:
        """All fields, as `from_json` reads them."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: object, default: RewriteConfig | None = None) -> RewriteConfig:
        """A configuration from JSON values; fields that are left out are those of `default`.

        Raises:
            UserError: an unknown field, or a value of another type.
        """
        base = default.to_json() if default else {}
        return read_record(cls, {**base, **values} if isinstance(values, Mapping) else values, "a rewrite config")
