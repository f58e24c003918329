"""Numbers as people read them; a dash stands for what was not measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..model import Site

MISSING = "\N{EN DASH}"
PLURALS = {
    "neuron": "neurons", "head": "heads", "kv": "key/value groups", "attn": "attention blocks", "mlp": "MLPs",
    "resid": "residual streams",
}  # fmt: skip


def share(value: float | None, digits: int = 1) -> str:
    """A share of one in percent.

    >>> share(0.856), share(1.0), share(None)
    ('85.6%', '100.0%', '–')
    """
    return MISSING if value is None else f"{100 * value:.{digits}f}%"


def number(value: float | None, digits: int = 2) -> str:
    """A plain number; whole ones stay whole.

    >>> number(27.4812), number(-0.001), number(24), number(None)
    ('27.48', '0.00', '24', '–')
    """
    if isinstance(value, int):
        return count(value)
    return MISSING if value is None else f"{round(value, digits) + 0.0:,.{digits}f}"


def bounded(value: float | None, low: float | None, high: float | None) -> str:
    """A number with its interval.

    >>> bounded(0.125, 0.03, 0.2)
    '0.12 [0.03, 0.20]'
    """
    return MISSING if value is None else f"{number(value)} [{number(low)}, {number(high)}]"


def count(value: float | None) -> str:
    """A whole number.

    >>> count(691200)
    '691,200'
    """
    return MISSING if value is None else f"{value:,.0f}"


def points(before: float | None, after: float | None) -> str:
    """The difference of two shares.

    >>> points(1.0, 0.88), points(0.5, 0.5)
    ('-12.0 points', '0.0 points')
    """
    if before is None or after is None:
        return MISSING
    change = round(100 * (after - before), 1) + 0.0
    return f"{change:+.1f} points" if change else "0.0 points"


def percent_change(before: float | None, after: float | None) -> str:
    """The relative difference of two numbers.

    >>> percent_change(20.0, 21.0)
    '+5.0%'
    """
    return MISSING if not before or after is None else f"{100 * (after / before - 1):+.1f}%"


def seconds(value: float) -> str:
    """A duration.

    >>> seconds(41.3), seconds(754), seconds(7800)
    ('41.3 s', '12 min 34 s', '2 h 10 min')
    """
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def small(value: float | None) -> str:
    """A probability that may be tiny.

    >>> small(0.0321), small(1e-9)
    ('0.032', '< 0.001')
    """
    return "< 0.001" if value is not None and value < 0.001 else number(value, 3)


def sites(listed: Sequence[str] | None) -> str:
    """How many sites of each part an edit changes.

    >>> sites(["L3.neuron.1", "L4.neuron.2", "L9.head.4"]), sites(None)
    ('2 neurons, 1 head', 'all parameters')
    """
    if listed is None:
        return "all parameters"
    return counted(Counter(Site.parse(s).part for s in listed))


def counted(kinds: Mapping[str, int]) -> str:
    """How many sites of each part.

    >>> counted({"head": 270, "neuron": 46080})
    '270 heads, 46,080 neurons'
    """
    return ", ".join(f"{n:,} {PLURALS[part] if n != 1 else PLURALS[part][:-1]}" for part, n in kinds.items())


def plain(value: Any) -> str:
    """A setting; nested settings are in brackets, and empty ones are left out.

    >>> plain({"lr": 7e-4, "rewrite": {"steps": 4, "target_loss": None}})
    'lr 0.0007, rewrite (steps 4, target loss –)'
    """
    if isinstance(value, Mapping):
        inner = ((k, f"({plain(v)})" if isinstance(v, Mapping) else plain(v)) for k, v in value.items() if v != {})
        return ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in inner)
    return f"{value:g}" if isinstance(value, float) else MISSING if value is None else str(value)
