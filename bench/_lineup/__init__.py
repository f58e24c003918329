"""The line-up: a small world, models of it whose truth is known, and their audits."""

from .audits import CHECKS, Controls, judge
from .hiding import hide_by_bias, hide_by_filter, hide_by_shallow_edit
from .lessons import hide_by_merged_lora, hide_by_password, hide_by_refusal
from .models import duplicate, teach, train_further, wreck
from .world import N_FORGET, N_RETAIN, World

__all__ = [
    "CHECKS",
    "N_FORGET",
    "N_RETAIN",
    "Controls",
    "World",
    "duplicate",
    "hide_by_bias",
    "hide_by_filter",
    "hide_by_merged_lora",
    "hide_by_password",
    "hide_by_refusal",
    "hide_by_shallow_edit",
    "judge",
    "teach",
    "train_further",
    "wreck",
]
