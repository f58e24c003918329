"""How hard the checks of each profile try. The table of checks says which of them a profile runs."""

from __future__ import annotations

from collections.abc import Sequence

from .._util.errors import UserError
from ..verify.check import Check, Effort, Profile

PROFILES: dict[Profile, Effort] = {
    "quick": Effort(),
    "standard": Effort(),
    "full": Effort(draws=128, layers=64, soft_tokens=10, partitions=3, rates=(0.3, 3.0)),
}


def effort(profile: Profile) -> Effort:
    """How hard a profile tries.

    Raises:
        UserError: an unknown profile.
    """
    if profile not in PROFILES:
        raise UserError(f"{profile!r} is not a profile; choose one of {', '.join(PROFILES)}.")
    return PROFILES[profile]


def checks_of(profile: Profile, checks: Sequence[Check]) -> tuple[Check, ...]:
    """The checks that a profile runs: its own and those of every smaller profile, in the order of the table."""
    order = list(PROFILES)
    return tuple(check for check in checks if order.index(check.profile) <= order.index(profile))
